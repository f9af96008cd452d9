"""``python -m export accelerator``, with stand-ins for AWS's tool chain that check what they are given.

The stand-in for Inf1 is a package ``tensorflow`` of its own, with a ``neuron`` in it, as tensorflow-neuron's is; that
for Inf2 stands beside the real TensorFlow. The interpreter that ``--python`` names sees them, and nothing else does.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex.errors import CortexError, UserError
from cortex.model_server import saved_model
from cortex.protos import saved_model_pb2
from export import accelerator, accelerator_graph

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Program = Callable[[str, str], Path]

_INF1 = """
import json, os, shutil, subprocess

class saved_model:
    @staticmethod
    def compile(model_dir, new_model_dir, **told):
        compiler = shutil.which("neuron-cc")
        subprocess.run([compiler, "compile", *told["compiler_args"]], check=True, cwd=os.path.dirname(new_model_dir))
        assert not os.path.exists(new_model_dir), "the real one refuses a directory that exists"
        shutil.copytree(model_dir, new_model_dir)
        kept = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
        with open(os.environ["TOLD"], "w") as file:
            json.dump({**told, "environment": kept, "files": sorted(os.listdir(model_dir))}, file)
        print("chatter of the compiler")
        return {"OnNeuronRatio": float(os.environ.get("RATIO", "0.99"))}
"""

_INF2 = """
import json, os

class Traced:
    def __init__(self, function, example):
        self.function, self.on_neuron_ratio, self.dynamic_batch_size = function, 1.0, False
        told = {"shape": example.shape.as_list(), "dtype": example.dtype.name, "flags": os.environ["NEURON_CC_FLAGS"]}
        with open(os.environ["TOLD"], "w") as file:
            json.dump(told, file)

    def __call__(self, value):
        assert self.dynamic_batch_size
        return self.function(value)

def trace(function, example_inputs):
    function(example_inputs)
    return Traced(function, example_inputs)
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """What the stand-in for the tool chain was told."""
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    return lambda: json.loads((tmp_path / "told.json").read_text())


@pytest.fixture
def inf1_python(tmp_path: Path, program: Program) -> Path:
    """An interpreter with a stand-in for tensorflow-neuron, and neuron-cc beside it."""
    package = tmp_path / "site" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "neuron.py").write_text(_INF1)
    (tmp_path / "site" / "pkg_resources.py").write_text(
        "class DistributionNotFound(Exception): pass\n"
        "def get_distribution(name):\n"
        "    if name == 'neuron-cc': raise DistributionNotFound(name)\n"
        "    return type('Distribution', (), {'version': '1.15.0.1.0.1333.0'})\n"
    )
    program("neuron-cc", '#!/bin/sh\n[ "$1" = compile ] && [ "$#" -ge 5 ]\n')
    return program("python", f'#!/bin/sh\nexec env PYTHONPATH={tmp_path}/site {sys.executable} "$@"\n')


@pytest.fixture
def inf2_python(tmp_path: Path, program: Program) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorflow_neuronx.py").write_text(_INF2)
    return program("python", f'#!/bin/sh\nexec env PYTHONPATH={tmp_path}/site {sys.executable} "$@"\n')


def test_inf1_is_compiled_as_ordered(
    export_run: Run, tiny: Path, inf1_python: Path, tmp_path: Path, told: Callable[[], dict[str, Any]]
) -> None:
    """The compiler gets a frozen graph of TensorFlow 1, its arguments and the batch; proof and placement go along."""
    output = tmp_path / "tiny_neuron"
    arguments = ("--num-neuroncores", "2", "--batch-size", "5", "--output", output)
    done = export_run("accelerator", tiny, "--python", inf1_python, *arguments, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr

    given = told()
    assert given["compiler_args"] == ["--fp32-cast", "all", "--num-neuroncores", "2", "--static-weights"]
    assert (given["batch_size"], given["dynamic_batch_size"]) == (5, True)
    assert given["environment"]["CUDA_VISIBLE_DEVICES"] is None
    assert given["environment"]["PYTHONPATH"] == str(tmp_path / "site")

    made = output / "3"
    for name in ("tf_serving_warmup_requests", "imagenet_class_index.json"):
        assert (made / "assets.extra" / name).read_bytes() == (tiny / "3/assets.extra" / name).read_bytes()
    card = json.loads((made / "assets.extra/model_card.json").read_text())
    assert (card["target"], card["precision"]) == ("accelerator", "bf16")
    assert card["placement"] == {"chip": "inf1", "share_on_device": 0.99}
    assert card["compiler"] == {"arguments": given["compiler_args"], "batch_size": 5, "neuroncores": 2}
    assert card["tools"]["tensorflow-neuron"] == "1.15.0.1.0.1333.0"
    assert card["agreement"].startswith("not measured")
    first, following = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(made))}  \d+ MB  99\.0% of the operations on the device", first)
    change = f"set model_path to {output} in cortex_accelerator.yaml"  # which has the usual place
    assert following == f"next: {change}, then cortex deploy cortex_accelerator.yaml"


def test_the_frozen_graph_is_one_of_tensorflow_1(tiny: Path, tmp_path: Path) -> None:
    """No functions, no variables, and the signature as it was: tensorflow-neuron refuses graphs of TensorFlow 2."""
    accelerator_graph.freeze(tiny / "3", tmp_path / "frozen")
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "frozen" / "saved_model.pb").read_bytes()).meta_graphs[0]
    kinds = {node.op for node in graph.graph_def.node}
    assert not graph.graph_def.library.function
    assert not {kind for kind in kinds if "PartitionedCall" in kind or "Var" in kind}
    assert not any("grad_a" in node.attr for node in graph.graph_def.node)
    read = saved_model.read(tmp_path / "frozen", frozenset({"serve"})).signatures["serving_default"]
    assert [dim.size for dim in read.inputs["input"].tensor_shape.dim] == [-1, 224, 224, 3]
    assert list(read.outputs) == ["output"]


def test_the_frozen_graph_answers_as_before(tiny: Path, tmp_path: Path) -> None:
    """Freezing changes no answer."""
    from cortex.model_server import servable
    from cortex.model_server.servable import LoadOptions

    target = tmp_path / "3"
    accelerator_graph.freeze(tiny / "3", target)
    extra = target / "assets.extra"
    extra.mkdir()
    (extra / "tf_serving_warmup_requests").write_bytes(
        (tiny / "3/assets.extra/tf_serving_warmup_requests").read_bytes()
    )
    (extra / "model_card.json").write_text('{"tolerance": {"rtol": 0.0001, "atol": 0.00001}}')
    servable.load("m", 3, target, LoadOptions(engine="openvino", precision="fp32")).close()


def test_a_broken_source_is_one_line(tiny: Path, tmp_path: Path) -> None:
    """Variables that cannot be read are said in TensorFlow's words, with the directory."""
    shutil.copytree(tiny / "3", tmp_path / "3")
    (variables,) = (tmp_path / "3" / "variables").glob("*.data-*")
    variables.write_bytes(variables.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{tmp_path}/3: TensorFlow cannot load it: ") as refused:
        accelerator_graph.freeze(tmp_path / "3", tmp_path / "frozen")
    assert "\n" not in str(refused.value)


def test_no_room_for_the_frozen_graph_is_one_line(tiny: Path, tmp_path: Path) -> None:
    """It says where, and why in TensorFlow's words."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"^cannot write {tmp_path}/file/frozen: .* is not a directory$"):
        accelerator_graph.freeze(tiny / "3", tmp_path / "file" / "frozen")


def test_inf2_is_traced_as_ordered(
    export_run: Run, tiny: Path, inf2_python: Path, tmp_path: Path, told: Callable[[], dict[str, Any]]
) -> None:
    """The trace sees the batch and the flags, and is saved under the names of the signature, its batch free."""
    output = tmp_path / "tiny_neuron"
    done = export_run(
        *("accelerator", tiny, "--chip", "inf2", "--python", inf2_python, "--batch-size", "4"), *("--output", output)
    )
    assert done.returncode == 0, done.stderr
    assert told() == {
        "shape": [4, 224, 224, 3],
        "dtype": "uint8",
        "flags": "--auto-cast matmult --auto-cast-type bf16",
    }
    signature = saved_model.read(output / "3", frozenset({"serve"})).signatures["serving_default"]
    assert [dim.size for dim in signature.inputs["input"].tensor_shape.dim] == [-1, 224, 224, 3]
    assert list(signature.outputs) == ["output"]
    card = json.loads((output / "3/assets.extra/model_card.json").read_text())
    assert card["placement"] == {"chip": "inf2", "share_on_device": 1.0}


def test_the_interpreter_may_be_near_by(
    tiny: Path, inf1_python: Path, tmp_path: Path, told: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be named by a path from here, as in the examples; the compiler runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    order = accelerator.Order(tiny, tmp_path / "out", python=str(inf1_python.relative_to(tmp_path)))
    accelerator.export(order, lambda step: None)
    assert told()["batch_size"] == 1


@pytest.mark.parametrize("chip", ["inf1", "inf2"])
def test_ctrl_c_while_it_compiles_shows_no_traceback(tmp_path: Path, chip: str) -> None:
    """It reaches the compiler too, whose words are shown."""
    for package in ("tensorflow", "tensorflow_neuronx"):
        (tmp_path / f"{package}.py").write_text("raise KeyboardInterrupt")
    script = Path(accelerator.__file__).with_name(f"accelerator_{chip}.py")
    argv = [sys.executable, script, '{"compiler_args": []}']
    done = subprocess.run(argv, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, b"")


def test_a_poor_placement_is_said(
    tiny: Path, inf1_python: Path, tmp_path: Path, told: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of the graph well below all of it is warned of; nothing at all on the device is an error."""
    steps: list[str] = []
    order = accelerator.Order(
        tiny, tmp_path / "out", python=str(inf1_python), static_weights=False, cast="none", force=True
    )
    monkeypatch.setenv("RATIO", "0.6")
    assert accelerator.export(order, steps.append)[1].share == 0.6
    assert any("60.0% of the graph's operations run on the device: the rest runs on the CPU" in step for step in steps)
    assert told()["compiler_args"] == ["--fp32-cast", "matmult-fp16", "--num-neuroncores", "1"]
    monkeypatch.setenv("RATIO", "0")
    with pytest.raises(CortexError, match="nothing of the graph was compiled for the device"):
        accelerator.export(order, steps.append)


@pytest.mark.parametrize(
    ("chip", "install"),
    [
        ("inf1", r"\(.*tensorflow.neuron.*\): pip install -r requirements-neuron\.txt \(Python 3\.6 or 3\.7\)"),
        (
            "inf2",
            r"\(.*tensorflow_neuronx.*\): pip install --extra-index-url https://pip\.repos\.neuron\.amazonaws\.com",
        ),
    ],
)
def test_a_missing_tool_chain_is_one_sentence(export_run: Run, tiny: Path, chip: str, install: str) -> None:
    """The sentence names the interpreter, what it lacks, and the line that installs it."""
    done = export_run("accelerator", tiny, "--chip", chip)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.match(rf"error: {re.escape(sys.executable)} cannot compile for {chip} {install}", line)
    assert line.endswith("and name its interpreter with --python")


def test_a_missing_compiler_is_one_sentence(export_run: Run, tiny: Path, inf1_python: Path) -> None:
    """tensorflow-neuron without neuron-cc is found out before anything is compiled."""
    inf1_python.with_name("neuron-cc").unlink()
    done = export_run("accelerator", tiny, "--python", inf1_python)
    assert done.returncode == 1
    assert "cannot compile for inf1 (there is no neuron-cc on the PATH): pip install" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--python", "/no/such/python"], "--python /no/such/python: is no program that can be run (No such file or"),
        (["--python", "/tmp"], "--python /tmp: is no program that can be run (Permission denied)"),
        (["--num-neuroncores", "3"], "--num-neuroncores must be 1, 2 or 4"),
        (["--num-neuroncores", "0"], "--num-neuroncores must be 1, 2 or 4"),
        (["--chip", "inf2", "--num-neuroncores", "2"], "--num-neuroncores is for inf1"),
        (["--chip", "inf2", "--no-static-weights"], "--static-weights has no effect with --chip inf2"),
    ],
)
def test_refusals_are_one_line(export_run: Run, tiny: Path, arguments: list[str], message: str) -> None:
    """What is wrong with an argument is said in one line, before TensorFlow is started."""
    done = export_run("accelerator", tiny, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_the_pins_are_those_of_the_recipe() -> None:
    """requirements-neuron.txt holds the versions that the model was published with, and AWS's index."""
    lines = (Path(__file__).parents[3] / "requirements-neuron.txt").read_text().splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert wanted == {
        "--extra-index-url https://pip.repos.neuron.amazonaws.com",
        "neuron-cc==1.0.9410.0+6008239556",
        "tensorflow-neuron==1.15.0.1.0.1333.0",
    }
