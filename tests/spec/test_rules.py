"""One row per rule that ties several keys together, or a key to the project."""

import pytest

PYTHON = "type: python, path: predictor.py"
ONNX = "type: onnx, path: predictor.py"
TENSORFLOW = "type: tensorflow, path: predictor.py"
BATCHING = "server_side_batching: {max_batch_size: %d, batch_interval: 1s}"


def _unsupported(key: str, kind: str, at: str = "predictor") -> str:
    return f"{at}: {key} is not a supported field for the {kind} predictor type"


def _no_model(kind: str) -> str:
    return (
        f"predictor: at least one model must be specified for {kind} predictor type; "
        "use fields predictor:model_path or predictor:models to add model(s)"
    )


def _renamed(at: str, key: str, when: str) -> str:
    return f'{at}: key "{key}" is not supported ({when} it is "model_path")'


def _cores(processes: int) -> str:
    return (
        "predictor: cannot evenly distribute 1 Inferentia ASIC (4 NeuronCores total) over "
        f"{processes} processes - acceptable numbers of processes are 1, 2, or 4"
    )


OUTSIDE = "must be inside the project directory (the directory of the yaml), and relative to it"
HIDDEN = "a name that starts with a dot is hidden, and what is hidden is not part of a project"
BOTH = "predictor: please specify either the model_path or models field (both cannot be specified at the same time)"
PATHS_AND_DIR = "please specify either the paths or dir field (both cannot be specified at the same time)"
ISSUE_110 = "currently only 1 Inf can be used per API replica, due to AWS's bug: https://github.com/aws/aws-neuron-sdk/issues/110"

ROWS = [
    # the file of the predictor
    ("{type: python, path: foo.py}", "", ["predictor.path: foo.py: file does not exist"]),
    ("{type: python, path: src}", "", ["predictor.path: src: file does not exist"]),
    ("{type: python, path: ./src/predictor.py}", "", []),
    ("{type: python, path: src/../predictor.py}", "", []),
    ("{type: python, path: ../predictor.py}", "", [f"predictor.path: ../predictor.py: {OUTSIDE}"]),
    ("{type: python, path: /etc/passwd}", "", [f"predictor.path: /etc/passwd: {OUTSIDE}"]),
    ("{type: python, path: .hidden/predictor.py}", "", [f"predictor.path: .hidden/predictor.py: {HIDDEN}"]),
    ('{type: python, path: "a\\nb"}', "", ["predictor.path: a\\nb: file does not exist"]),
    (f"{{type: python, path: {'a' * 5000}}}", "", [f"predictor.path: {'a' * 95}...: file does not exist"]),
    (f"{{{PYTHON}, python_path: src}}", "", []),
    # keys of other versions of Cortex: what they are here is not missed, too
    (f"{{{TENSORFLOW}, model: m}}", "", [_renamed("predictor", "model", "since Cortex 0.18")]),
    (
        f"{{{TENSORFLOW}, models: [{{name: a, model: m}}]}}",
        "",
        [_renamed("predictor.models[0]", "model", "since Cortex 0.18")],
    ),
    (
        f"{{{TENSORFLOW}, models: {{paths: [{{name: a, path: m}}]}}}}",
        "",
        [_renamed("predictor.models.paths[0]", "path", "of Cortex 0.25 and later; here")],
    ),
    # keys that mean nothing for the type
    (f"{{{PYTHON}, model_path: m}}", "", []),
    (f"{{{PYTHON}, models: {{dir: m}}}}", "", []),
    (f"{{{PYTHON}, models: {{dir: m}}, model_path: m}}", "", [BOTH]),
    (
        f"{{{PYTHON}, models: [{{name: a, model_path: m, signature_key: b}}]}}",
        "",
        [_unsupported("signature_key", "python", "predictor.models[0]")],
    ),
    (f"{{{PYTHON}, models: null}}", "", []),
    (f"{{{PYTHON}, signature_key: a}}", "", [_unsupported("signature_key", "python")]),
    (f"{{{PYTHON}, tensorflow_serving_image: a}}", "", [_unsupported("tensorflow_serving_image", "python")]),
    (
        f"{{{PYTHON}, threads_per_process: 2, {BATCHING % 2}}}",
        "",
        [_unsupported("server_side_batching", "python")],
    ),
    (f"{{{PYTHON}, engine: auto}}", "", [_unsupported("engine", "python")]),
    (f"{{{PYTHON}, precision: fp32}}", "", [_unsupported("precision", "python")]),
    (f"{{{PYTHON}, model_server: cortex}}", "", [_unsupported("model_server", "python")]),
    (f"{{{ONNX}, model_path: m, signature_key: a}}", "", [_unsupported("signature_key", "onnx")]),
    (f"{{{ONNX}, model_path: m, engine: auto}}", "", [_unsupported("engine", "onnx")]),
    (
        f"{{{ONNX}, models: [{{name: a, model_path: m, signature_key: b}}]}}",
        "",
        [_unsupported("signature_key", "onnx", "predictor.models[0]")],
    ),
    (
        f"{{{ONNX}, models: {{dir: m, signature_key: b}}}}",
        "",
        [_unsupported("signature_key", "onnx", "predictor.models")],
    ),
    # models
    (f"{{{PYTHON}}}", "", []),
    (f"{{{TENSORFLOW}}}", "", [_no_model("tensorflow")]),
    (f"{{{TENSORFLOW}, models: null}}", "", [_no_model("tensorflow")]),
    (f"{{{ONNX}, models: []}}", "", [_no_model("onnx")]),
    (f"{{{TENSORFLOW}, model_path: m, models: {{dir: m}}}}", "", [BOTH]),
    (f"{{{TENSORFLOW}, models: m}}", "", ['predictor.models: "m": invalid type (expected list or map)']),
    (f"{{{TENSORFLOW}, models: [m]}}", "", ['predictor.models[0]: "m": invalid type (expected map)']),
    (f"{{{TENSORFLOW}, models: [{{model_path: m}}]}}", "", ["predictor.models[0].name: must be defined"]),
    (f"{{{TENSORFLOW}, models: [{{name: a}}]}}", "", ["predictor.models[0].model_path: must be defined"]),
    (
        f"{{{TENSORFLOW}, models: {{paths: [{{name: a b, model_path: m}}]}}}}",
        "",
        [
            'predictor.models.paths[0].name: "a b" must contain only letters, numbers, underscores, and dashes',
        ],
    ),
    (
        f"{{{TENSORFLOW}, models: [{{name: _cortex_default, model_path: m}}]}}",
        "",
        ['predictor.models[0].name: "_cortex_default" is a reserved name'],
    ),
    (
        f"{{{TENSORFLOW}, models: [{', '.join(['{name: a, model_path: m}'] * 3)}]}}",
        "",
        ["predictor.models[1]: cannot have multiple models with the same name (a)"],
    ),
    (
        f"{{{TENSORFLOW}, models: {{paths: [{{name: a, model_path: m}}], dir: m}}}}",
        "",
        [f"predictor.models: {PATHS_AND_DIR}"],
    ),
    (f"{{{TENSORFLOW}, models: {{}}}}", "", ["predictor.models: either the paths or the dir field must be specified"]),
    (
        f"{{{TENSORFLOW}, models: {{dir: m, cache_size: 0, disk_cache_size: 1}}}}",
        "",
        ["predictor.models.cache_size: 0 must be greater than or equal to 1"],
    ),
    (
        f"{{{TENSORFLOW}, models: {{dir: m, cache_size: 1}}}}",
        "",
        ["predictor.models: cache_size and disk_cache_size must be specified together, or not at all"],
    ),
    (
        f"{{{TENSORFLOW}, models: {{dir: m, cache_size: 3, disk_cache_size: 2}}}}",
        "",
        ["predictor.models: cache_size (3) must be less than or equal to disk_cache_size (2)"],
    ),
    (
        f"{{{TENSORFLOW}, processes_per_replica: 2, models: {{dir: m, cache_size: 1, disk_cache_size: 2}}}}",
        "",
        ["predictor.processes_per_replica: 2 must be 1 when models are cached (predictor.models.cache_size)"],
    ),
    # the model server
    (
        f"{{{TENSORFLOW}, model_path: m, model_server: tensorflow_model_server, engine: openvino}}",
        "",
        [
            'predictor.engine: "openvino" is not supported by the model server tensorflow_model_server '
            '(only "auto" and "tensorflow")'
        ],
    ),
    (
        f"{{{TENSORFLOW}, model_path: m, model_server: tensorflow_model_server, precision: bf16}}",
        "",
        [
            'predictor.precision: "bf16" is not supported by the model server tensorflow_model_server '
            '(only "auto" and "fp32")'
        ],
    ),
    (f"{{{TENSORFLOW}, model_path: m, engine: tensorflow, precision: fp32}}", "compute: {inf: 1}", []),
    (
        f"{{{TENSORFLOW}, model_path: m, engine: openvino}}",
        "compute: {inf: 1}",
        [
            'predictor.engine: "openvino" is not supported by the model server tensorflow_model_server_neuron '
            '(only "auto" and "tensorflow")'
        ],
    ),
    (
        f"{{{PYTHON}, model_server: tensorflow_model_server, engine: openvino}}",
        "",
        [_unsupported("engine", "python"), _unsupported("model_server", "python")],
    ),
    # devices
    (f"{{{TENSORFLOW}, model_path: m, engine: onnxruntime}}", "compute: {gpu: 1}", []),
    (
        f"{{{TENSORFLOW}, model_path: m, engine: openvino}}",
        "compute: {gpu: 1}",
        ['predictor.engine: "openvino" computes on CPUs, and compute.gpu asks for a GPU (auto takes what can)'],
    ),
    (
        f"{{{TENSORFLOW}, model_path: m}}",
        "compute: {gpu: 1, inf: 1}",
        ["compute: gpu and inf resources cannot be used together"],
    ),
    (
        f"{{{ONNX}, model_path: m}}",
        "compute: {inf: 1}",
        ["compute: inf is not a supported field for the onnx predictor type"],
    ),
    (f"{{{TENSORFLOW}, model_path: m}}", "compute: {inf: 2}", [f"compute: cannot request 2 Infs ({ISSUE_110})"]),
    (f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 4}}", "compute: {accelerator: 1}", []),
    (f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 3}}", "compute: {accelerator: 1}", [_cores(3)]),
    (f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 3}}", "", []),
    (f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 8}}", "compute: {inf: 1}", [_cores(8)]),
    # batching
    (
        f"{{{TENSORFLOW}, model_path: m, {BATCHING % 32}}}",
        "",
        [
            "predictor.server_side_batching: max_batch_size (32) must be less than or equal to "
            "processes_per_replica * threads_per_process (1 * 1 = 1)"
        ],
    ),
    (
        f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 2, threads_per_process: 16, {BATCHING % 32}}}",
        "",
        [],
    ),
    (
        f"{{{TENSORFLOW}, model_path: m, processes_per_replica: 2, threads_per_process: 16, {BATCHING % 32}}}",
        "compute: {inf: 1}",
        ["predictor.server_side_batching: max_batch_size (32) must be less than or equal to threads_per_process (16)"],
    ),
    # autoscaling and updates
    (
        f"{{{PYTHON}}}",
        "autoscaling: {min_replicas: 5, max_replicas: 2}",
        ["autoscaling: min_replicas (5) cannot be greater than max_replicas (2)"],
    ),
    (
        f"{{{PYTHON}}}",
        "autoscaling: {min_replicas: 2, init_replicas: 1}",
        ["autoscaling: min_replicas (2) cannot be greater than init_replicas (1)"],
    ),
    (
        f"{{{PYTHON}}}",
        "autoscaling: {init_replicas: 101}",
        ["autoscaling: init_replicas (101) cannot be greater than max_replicas (100)"],
    ),
    (
        f"{{{PYTHON}}}",
        "autoscaling: {target_replica_concurrency: 2000000}",
        ["autoscaling: target_replica_concurrency (2000000) cannot be greater than max_replica_concurrency (1024)"],
    ),
    (
        f"{{{PYTHON}, threads_per_process: 11}}",
        "autoscaling: {max_replica_concurrency: 10}",
        ["autoscaling: target_replica_concurrency (11) cannot be greater than max_replica_concurrency (10)"],
    ),
    (f"{{{PYTHON}, threads_per_process: 2000}}", "", []),
    (
        f"{{{PYTHON}}}",
        "update_strategy: {max_surge: 0, max_unavailable: 0%}",
        ["update_strategy: max_surge and max_unavailable cannot both be zero"],
    ),
    (f"{{{PYTHON}}}", "update_strategy: {max_surge: 0}", []),
]


@pytest.mark.parametrize(("predictor", "rest", "expected"), ROWS)
def test_a_rule(complaints, predictor: str, rest: str, expected: list[str]) -> None:
    """Each broken rule leads to one line, with the line of the key that breaks it."""
    lines = complaints(f"- name: a\n  predictor: {predictor}\n  {rest}")
    number = {"compute": 3, "autoscaling": 3, "update_strategy": 3}
    assert lines == [f"cortex.yaml:{number.get(line.split(':')[0], 2)}: a: {line}" for line in expected]


def test_the_line_is_that_of_the_key(complaints) -> None:
    """Where a message is about the map around a key, its line is still that of the key."""
    text = "- name: a\n  predictor:\n    type: python\n    path: predictor.py\n    signature_key: b\n"
    assert complaints(text) == [f"cortex.yaml:5: a: {_unsupported('signature_key', 'python')}"]


def _two(first: str, second: str, networking: str = "", other: str = "") -> str:
    return "".join(
        f"- name: {name}\n  predictor: {{{PYTHON}}}\n  networking: {{{keys}}}\n"
        for name, keys in ((first, networking), (second, other))
    )


def _taken(at: str, value: str, line: int) -> str:
    return f"{at}{value} must be unique across apis (defined in cortex.yaml:{line})"


SHARED = [
    (_two("a", "b"), []),
    (_two("a", "a"), [_taken("4: a: ", 'name "a"', 1)]),
    (_two("a", "b", "endpoint: /x", "endpoint: x/"), [_taken("6: b: networking: ", 'endpoint "/x"', 3)]),
    (_two("a", "b", "endpoint: /b"), [_taken("6: b: networking: ", 'endpoint "/b"', 3)]),
    (_two("a", "b", "local_port: 8888", "local_port: 8888"), [_taken("6: b: networking: ", "local_port 8888", 3)]),
    (
        _two("a", "a", "endpoint: /x", "endpoint: /x"),
        [_taken("4: a: ", 'name "a"', 1), _taken("6: a: networking: ", 'endpoint "/x"', 3)],
    ),
    (
        _two("a", "a", "local_port: 8888", "local_port: 8888"),
        [_taken("4: a: ", 'name "a"', 1), _taken("6: a: networking: ", "local_port 8888", 3)],
    ),
]


@pytest.mark.parametrize(("text", "expected"), SHARED)
def test_what_two_apis_may_not_share(complaints, text: str, expected: list[str]) -> None:
    """Names, endpoints and ports differ within a file; the later API is told where the earlier one is."""
    assert complaints(text) == [f"cortex.yaml:{line}" for line in expected]


def test_everything_at_once(complaints) -> None:
    """One error has all that is wrong with a file, in the order of its lines, and no consequence of another line."""
    text = f"""\
- name: A
  predictor:
    type: tensorflow
    path: foo.py
    processes_per_replica: 200
    {BATCHING % 1000}
    models: {{cache_size: 1}}
- predictor: {{type: x}}
  compute: {{gpu: 1, inf: 1}}
- name: b
  kind: BatchAPI
- name: b
  predictor: {{{PYTHON}}}
  networking: {{local_port: 80, foo: 1}}
- name: b
  predictor: {{{PYTHON}}}
  networking: {{local_port: 80}}
"""
    assert [line.split(" ", 1)[0] for line in complaints(text)] == [
        f"cortex.yaml:{line}:" for line in (1, 4, 5, 7, 7, 8, 8, 8, 9, 11, 14, 15, 17)
    ]
