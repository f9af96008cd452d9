"""One row per rule of a single value: the key as written, and the exact line that it leads to."""

import textwrap

import pytest

NULL = "cannot be null (specify a value, or remove the key to use the default value)"
NAME = "must contain only lower case letters, numbers, and dashes, start with a letter, and cannot end with a dash"
QUANTITY = "invalid kubernetes quantity, some valid examples are 1, 200m, 500Mi, 2G"
DURATION = "invalid duration, some valid examples are 100ms, 60s, 5m, 1h30m"
ENDPOINT = "must consist of lower case alphanumeric characters, '/', '-', '_', or '.'"
SHARE = "must be an integer, or a percentage from 0% to 100%"
IMAGE = "is not a valid docker image path"
LONG = "a" * 43
LONG_ENDPOINT = "/" + "a" * 1000
BATCHING = "server_side_batching: {max_batch_size: 2, batch_interval: 5ms}"


def _api(predictor: str = "", rest: str = "") -> str:
    """Return a good API of 5 lines, with the lines of ``predictor`` from line 6 on, and then those of ``rest``."""
    good = "- name: a\n  predictor:\n    type: tensorflow\n    path: predictor.py\n    model_path: model\n"
    return good + textwrap.indent(f"{predictor}\n", "    ") + textwrap.indent(f"{rest}\n", "  ")


IN_PREDICTOR = [
    ("foo: 1", 'predictor: key "foo" is not supported'),
    ("model: x", 'predictor: key "model" is not supported (since Cortex 0.18 it is "model_path")'),
    (
        "models: {path: x}",
        'predictor.models: key "path" is not supported (of Cortex 0.25 and later; here it is "predictor.model_path")',
    ),
    (
        "multi_model_reloading: {path: x}",
        'predictor: key "multi_model_reloading" is not supported (of Cortex 0.25 and later; here it is "models")',
    ),
    (
        "thread_per_process: 1",
        'predictor: key "thread_per_process" is not supported (did you mean "threads_per_process"?)',
    ),
    ("signature_key: 1", "predictor.signature_key: 1: invalid type (expected string)"),
    ("signature_key: null", f"predictor.signature_key: {NULL}"),
    ('signature_key: ""', "predictor.signature_key: cannot be empty"),
    ('signature_key: "@a"', 'predictor.signature_key: "@a": text cannot start with "@"'),
    ("python_path: null", f"predictor.python_path: {NULL}"),
    ('python_path: ""', "predictor.python_path: cannot be empty"),
    ("python_path: .", 'predictor.python_path: "." is not allowed (remove the key to import from the project)'),
    ("python_path: ./", 'predictor.python_path: "./" is not allowed (remove the key to import from the project)'),
    ("python_path: /src", 'predictor.python_path: "/src" must be a relative path'),
    ("python_path: lib", "predictor.python_path: lib/: directory does not exist"),
    ("python_path: predictor.py", "predictor.python_path: predictor.py/: directory does not exist"),
    (
        "python_path: src/../..",
        "predictor.python_path: src/../../: must be inside the project directory (the directory of the yaml), "
        "and relative to it",
    ),
    ("image: A B", f'predictor.image: "A B" {IMAGE}'),
    ("image: null", f"predictor.image: {NULL}"),
    ("tensorflow_serving_image: 'a:'", f'predictor.tensorflow_serving_image: "a:" {IMAGE}'),
    ('tensorflow_serving_image: ""', "predictor.tensorflow_serving_image: cannot be empty"),
    ("processes_per_replica: 200", "predictor.processes_per_replica: 200 must be less than or equal to 100"),
    ("processes_per_replica: 0", "predictor.processes_per_replica: 0 must be greater than or equal to 1"),
    ('processes_per_replica: "1"', 'predictor.processes_per_replica: "1": invalid type (expected integer)'),
    ("processes_per_replica: 1.0", "predictor.processes_per_replica: 1.0: invalid type (expected integer)"),
    ("processes_per_replica: true", "predictor.processes_per_replica: true: invalid type (expected integer)"),
    ("processes_per_replica: [1, 2]", "predictor.processes_per_replica: [1, 2]: invalid type (expected integer)"),
    ("processes_per_replica: null", f"predictor.processes_per_replica: {NULL}"),
    ("threads_per_process: -1", "predictor.threads_per_process: -1 must be greater than or equal to 1"),
    ("threads_per_process: .nan", "predictor.threads_per_process: .nan: invalid type (expected integer)"),
    ("config: [1]", "predictor.config: [1]: invalid type (expected map)"),
    ("config: {1: 2}", "predictor.config: the key 1 must be text (put it in quotes)"),
    ('config: {"": "@a"}', 'predictor.config[""]: "@a": text cannot start with "@"'),
    ("env: {A: 1}", "predictor.env.A: 1: invalid type (expected string)"),
    ("env: {A: null}", f"predictor.env.A: {NULL}"),
    ("env: {CORTEX_A: a}", "predictor.env.CORTEX_A: environment variables starting with CORTEX_ are reserved"),
    ("env: {A=B: a}", 'predictor.env["A=B"]: "A=B" is not a valid name for an environment variable'),
    ("env: [a]", 'predictor.env: ["a"]: invalid type (expected map of strings to strings)'),
    ("env: null", f"predictor.env: {NULL}"),
    ("server_side_batching: 1", "predictor.server_side_batching: 1: invalid type (expected map)"),
    ("server_side_batching: {batch_interval: 1s}", "predictor.server_side_batching.max_batch_size: must be defined"),
    ("server_side_batching: {max_batch_size: 2}", "predictor.server_side_batching.batch_interval: must be defined"),
    (
        "server_side_batching: {max_batch_size: 1, batch_interval: 1s}",
        "predictor.server_side_batching.max_batch_size: 1 must be greater than or equal to 2",
    ),
    (
        "server_side_batching: {max_batch_size: 1025, batch_interval: 1s}",
        "predictor.server_side_batching.max_batch_size: 1025 must be less than or equal to 1024",
    ),
    (
        "server_side_batching: {max_batch_size: 2, batch_interval: 0s}",
        'predictor.server_side_batching.batch_interval: "0s" must be greater than "0s"',
    ),
    (
        "server_side_batching: {max_batch_size: 2, batch_interval: 5}",
        "predictor.server_side_batching.batch_interval: 5: invalid type (expected string)",
    ),
    (
        'server_side_batching: {max_batch_size: 2, batch_interval: "5"}',
        f"predictor.server_side_batching.batch_interval: 5: {DURATION}",
    ),
    (
        "server_side_batching: {max_batch_size: 2, batch_interval: null}",
        f"predictor.server_side_batching.batch_interval: {NULL}",
    ),
    (
        "engine: torch",
        'predictor.engine: invalid value (got "torch", must be "auto", "openvino", "tensorflow", "onnxruntime", '
        'or "tflite")',
    ),
    ("precision: int8", 'predictor.precision: invalid value (got "int8", must be "auto", "fp32", or "bf16")'),
    ("precision: 16", "predictor.precision: 16: invalid type (expected string)"),
    (
        "model_server: triton",
        'predictor.model_server: invalid value (got "triton", must be "cortex" or "tensorflow_model_server")',
    ),
]

POD = 'key "pod" is not supported (of Cortex 0.36 and later, whose APIs are containers; here one is a "predictor")'

IN_API = [
    ("foo: 1", 'key "foo" is not supported'),
    ("tracker: {}", 'key "tracker" is not supported (since Cortex 0.18 it is "monitoring")'),
    ("local_port: 1", 'key "local_port" is not supported (since Cortex 0.18 it is "networking.local_port")'),
    ("endpoint: /a", 'key "endpoint" is not supported (since Cortex 0.18 it is "networking.endpoint")'),
    (
        "handler: {type: python}",
        'key "handler" is not supported (of Cortex 0.34 and later; here it is "predictor", with the class of its type)',
    ),
    ("pod: {port: 9000}", POD),
    ("monitoring: {}", 'monitoring.model_type: must be defined, and set to "classification" or "regression"'),
    (
        "monitoring: {model_type: a}",
        'monitoring.model_type: invalid value (got "a", must be "classification" or "regression")',
    ),
    ('monitoring: {model_type: regression, key: ""}', "monitoring.key: cannot be empty"),
    ("monitoring: {model_type: regression, key: null}", f"monitoring.key: {NULL}"),
    ("networking: null", f"networking: {NULL}"),
    ("networking: []", "networking: []: invalid type (expected map)"),
    ("networking: {endpoint: /a b}", f'networking.endpoint: "/a b" {ENDPOINT}'),
    ("networking: {endpoint: /}", 'networking.endpoint: "/" is not allowed (a path must be specified)'),
    ("networking: {endpoint: a//b}", 'networking.endpoint: "a//b" cannot contain adjacent slashes'),
    ('networking: {endpoint: ""}', "networking.endpoint: cannot be empty"),
    ("networking: {endpoint: null}", f"networking.endpoint: {NULL}"),
    (
        f"networking: {{endpoint: {LONG_ENDPOINT}}}",
        f'networking.endpoint: "/{"a" * 94}..." must be no more than 1000 characters',
    ),
    ("networking: {local_port: 0}", "networking.local_port: 0 must be greater than or equal to 1"),
    ("networking: {local_port: 65536}", "networking.local_port: 65536 must be less than or equal to 65535"),
    ("networking: {local_port: null}", f"networking.local_port: {NULL}"),
    (
        "networking: {api_gateway: private}",
        'networking.api_gateway: invalid value (got "private", must be "public" or "none")',
    ),
    ("networking: {max_body_size: 32MB}", f"networking.max_body_size: 32MB: {QUANTITY}"),
    ("networking: {max_body_size: 0}", 'networking.max_body_size: "0" must be greater than or equal to "1"'),
    ("networking: {max_body_size: null}", f"networking.max_body_size: {NULL}"),
    ("compute: {cpu: abc}", f"compute.cpu: abc: {QUANTITY}"),
    ("compute: {cpu: 10m}", 'compute.cpu: "10m" must be greater than or equal to "20m"'),
    ("compute: {cpu: -1}", 'compute.cpu: "-1" must be greater than or equal to "20m"'),
    ("compute: {cpu: 1K}", f"compute.cpu: 1K: {QUANTITY}"),
    ("compute: {cpu: .inf}", f"compute.cpu: inf: {QUANTITY}"),
    ("compute: {cpu: true}", "compute.cpu: true: invalid type (expected string, integer, or float)"),
    ("compute: {mem: 4}", "compute.mem: 4: invalid type (expected string)"),
    ("compute: {mem: 10Mi}", 'compute.mem: "10Mi" must be greater than or equal to "20Mi"'),
    ("compute: {gpu: 1.5}", "compute.gpu: 1.5: invalid type (expected integer)"),
    ("compute: {gpu: -1}", "compute.gpu: -1 must be greater than or equal to 0"),
    ("compute: {inf: '1'}", 'compute.inf: "1": invalid type (expected integer)'),
    ("compute: {accelerator: -1}", "compute.accelerator: -1 must be greater than or equal to 0"),
    (
        "compute: {accelerator: 1, inf: 1}",
        'compute: key "accelerator" is not supported together with "inf", which is the same key',
    ),
    (
        "autoscaling: {workers_per_replica: 1}",
        'autoscaling: key "workers_per_replica" is not supported'
        ' (since Cortex 0.18 it is "predictor.processes_per_replica")',
    ),
    (
        "autoscaling: {threads_per_worker: 1}",
        'autoscaling: key "threads_per_worker" is not supported'
        ' (since Cortex 0.18 it is "predictor.threads_per_process")',
    ),
    ("autoscaling: {min_replicas: 0}", "autoscaling.min_replicas: 0 must be greater than or equal to 1"),
    ("autoscaling: {max_replicas: 0}", "autoscaling.max_replicas: 0 must be greater than or equal to 1"),
    ("autoscaling: {init_replicas: 0}", "autoscaling.init_replicas: 0 must be greater than or equal to 1"),
    ("autoscaling: {init_replicas: null}", f"autoscaling.init_replicas: {NULL}"),
    (
        "autoscaling: {target_replica_concurrency: 0}",
        "autoscaling.target_replica_concurrency: 0 must be greater than 0",
    ),
    (
        "autoscaling: {target_replica_concurrency: .nan}",
        "autoscaling.target_replica_concurrency: .nan must be a finite number",
    ),
    (
        "autoscaling: {target_replica_concurrency: a}",
        'autoscaling.target_replica_concurrency: "a": invalid type (expected float)',
    ),
    (
        "autoscaling: {max_replica_concurrency: 65536}",
        "autoscaling.max_replica_concurrency: 65536 must be less than or equal to 65535",
    ),
    (
        "autoscaling: {max_replica_concurrency: 0}",
        "autoscaling.max_replica_concurrency: 0 must be greater than or equal to 1",
    ),
    ("autoscaling: {window: 15s}", 'autoscaling.window: "15s" is not a multiple of "10s"'),
    ("autoscaling: {window: 5s}", 'autoscaling.window: "5s" must be greater than or equal to "10s"'),
    ("autoscaling: {window: 60}", "autoscaling.window: 60: invalid type (expected string)"),
    (
        "autoscaling: {downscale_stabilization_period: -1s}",
        'autoscaling.downscale_stabilization_period: "-1s" must be greater than or equal to "0s"',
    ),
    (
        "autoscaling: {upscale_stabilization_period: 1 minute}",
        f"autoscaling.upscale_stabilization_period: 1 minute: {DURATION}",
    ),
    ("autoscaling: {max_downscale_factor: 1}", "autoscaling.max_downscale_factor: 1 must be less than 1"),
    (
        "autoscaling: {max_downscale_factor: -0.5}",
        "autoscaling.max_downscale_factor: -0.5 must be greater than or equal to 0",
    ),
    ("autoscaling: {max_upscale_factor: 1.0}", "autoscaling.max_upscale_factor: 1.0 must be greater than 1"),
    ("autoscaling: {max_upscale_factor: .inf}", "autoscaling.max_upscale_factor: .inf must be a finite number"),
    ("autoscaling: {downscale_tolerance: 1.5}", "autoscaling.downscale_tolerance: 1.5 must be less than 1"),
    (
        "autoscaling: {upscale_tolerance: -1}",
        "autoscaling.upscale_tolerance: -1 must be greater than or equal to 0",
    ),
    ("update_strategy: {max_surge: -1}", "update_strategy.max_surge: -1 must be greater than or equal to 0"),
    ("update_strategy: {max_surge: 101%}", f'update_strategy.max_surge: "101%" {SHARE}'),
    ("update_strategy: {max_surge: 00%}", f'update_strategy.max_surge: "00%" {SHARE}'),
    ("update_strategy: {max_surge: '1'}", f'update_strategy.max_surge: "1" {SHARE}'),
    (
        "update_strategy: {max_unavailable: 0.5}",
        "update_strategy.max_unavailable: 0.5: invalid type (expected string or integer)",
    ),
    ("update_strategy: {max_unavailable: null}", f"update_strategy.max_unavailable: {NULL}"),
]

KINDS = [
    ("SyncAPI", 'invalid value (got "SyncAPI", must be "RealtimeAPI")'),
    ("null", NULL),
    *(
        (kind, f"{kind} is not supported: every API here is a RealtimeAPI, which answers requests at once; remove it")
        for kind in ("BatchAPI", "TaskAPI", "AsyncAPI", "TrafficSplitter")
    ),
]

NAMES = [
    ("Foo_1", f'"Foo_1" {NAME}'),
    ("1a", f'"1a" {NAME}'),
    ("a-", f'"a-" {NAME}'),
    (LONG, f'"{LONG}" must be no more than 42 characters'),
]


@pytest.mark.parametrize(("line", "expected"), IN_PREDICTOR)
def test_a_value_of_the_predictor(complaints, line: str, expected: str) -> None:
    """Each bad value leads to one line, with the line of its key."""
    assert complaints(_api(predictor=line)) == [f"cortex.yaml:6: a: {expected}"]


@pytest.mark.parametrize(("line", "expected"), IN_API)
def test_a_value_of_the_api(complaints, line: str, expected: str) -> None:
    """Each bad value leads to one line, with the line of its key."""
    assert complaints(_api(rest=line)) == [f"cortex.yaml:7: a: {expected}"]


@pytest.mark.parametrize(("kind", "expected"), KINDS)
def test_a_kind_of_api(complaints, kind: str, expected: str) -> None:
    """Only realtime APIs run here; of another kind nothing else is said, because its keys differ too."""
    foreign = "" if "not supported" not in expected else "apis: []"
    assert complaints(_api(rest=f"kind: {kind}\n{foreign}")) == [f"cortex.yaml:7: a: kind: {expected}"]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_name(complaints, name: str, expected: str) -> None:
    """A name is a DNS label of at most 42 characters."""
    assert complaints(_api().replace("name: a", f"name: {name}")) == [f"cortex.yaml:1: {name}: name: {expected}"]


LEAST = """\
- name: a
  predictor: {type: tensorflow, path: predictor.py, model_path: model, server_side_batching: {max_batch_size: 2,
    batch_interval: 1ns}, processes_per_replica: 2, threads_per_process: 1}
  networking: {endpoint: a, local_port: 1, max_body_size: 1}
  compute: {cpu: 20m, mem: 20Mi, gpu: 0, inf: 0}
  autoscaling: {min_replicas: 1, max_replicas: 1, init_replicas: 1, window: 10s, max_replica_concurrency: 1,
    target_replica_concurrency: 0.01, downscale_stabilization_period: 0s, upscale_stabilization_period: 0s,
    max_downscale_factor: 0, max_upscale_factor: 1.01, downscale_tolerance: 0, upscale_tolerance: 0}
  update_strategy: {max_surge: 1, max_unavailable: 0}
"""
MOST = f"""\
- name: {LONG[1:]}
  predictor: {{type: tensorflow, path: predictor.py, model_path: model, server_side_batching: {{max_batch_size: 1024,
    batch_interval: 1h}}, processes_per_replica: 100, threads_per_process: 1024}}
  networking: {{endpoint: {LONG_ENDPOINT[:-1]}, local_port: 65535}}
  autoscaling: {{target_replica_concurrency: 65535, max_replica_concurrency: 65535, max_downscale_factor: 0.99,
    downscale_tolerance: 0.99}}
  update_strategy: {{max_surge: 100%, max_unavailable: 100%}}
"""


@pytest.mark.parametrize("text", [LEAST, MOST])
def test_the_values_at_a_bound_are_good(complaints, text: str) -> None:
    """What is as small or as large as it may be is refused by no rule."""
    assert complaints(text) == []


UNNAMED = [
    ("- predictor: {type: python, path: predictor.py}", "name: must be defined"),
    ("- {name: '', predictor: {type: python, path: predictor.py}}", "name: cannot be empty"),
    ("- {name: null, predictor: {type: python, path: predictor.py}}", f"name: {NULL}"),
    ("- {name: [], predictor: {type: python, path: predictor.py}}", "name: []: invalid type (expected string)"),
    ("- foo", '"foo": invalid type (expected map)'),
    ("- null", NULL),
    ("- [1]", "[1]: invalid type (expected map)"),
]


@pytest.mark.parametrize(("text", "expected"), UNNAMED)
def test_an_api_without_a_name(complaints, text: str, expected: str) -> None:
    """What has no name is called by its place in the list."""
    assert complaints(text) == [f"cortex.yaml:1: api at index 0: {expected}"]


REQUIRED = [
    ("- name: a", ["1: a: predictor: must be defined"]),
    ("- name: a\n  predictor: null", [f"2: a: predictor: {NULL}"]),
    (
        "- name: a\n  predictor: {}",
        [
            '2: a: predictor.type: must be defined, and set to "python", "tensorflow", or "onnx"',
            "2: a: predictor.path: must be defined",
        ],
    ),
    (
        "- name: a\n  predictor:\n    type: keras\n    path: predictor.py",
        ['3: a: predictor.type: invalid value (got "keras", must be "python", "tensorflow", or "onnx")'],
    ),
    ("- name: a\n  predictor:\n    type: python\n    path: ''", ["4: a: predictor.path: cannot be empty"]),
    (
        "- name: a\n  predictor:\n    type: python\n    path: 1",
        ["4: a: predictor.path: 1: invalid type (expected string)"],
    ),
    ("- name: a\n  pod: {}", [f"2: a: {POD}"]),
    (
        "- name: a\n  predictr: {type: python, path: predictor.py}",
        ['2: a: key "predictr" is not supported (did you mean "predictor"?)'],
    ),
    (
        "- name: a\n  predictor:\n    typ: tensorflow\n    path: predictor.py\n    model_pth: model",
        [
            '3: a: predictor: key "typ" is not supported (did you mean "type"?)',
            '5: a: predictor: key "model_pth" is not supported (did you mean "model_path"?)',
        ],
    ),
    ("- name: a\n  pod: {}\n  predictor: 1", [f"2: a: {POD}", "3: a: predictor: 1: invalid type (expected map)"]),
]


@pytest.mark.parametrize(("text", "expected"), REQUIRED)
def test_what_is_required(complaints, text: str, expected: list[str]) -> None:
    """A missing key is shown at the map that lacks it; one that is there under another name, at that one alone."""
    assert complaints(text) == [f"cortex.yaml:{line}" for line in expected]
