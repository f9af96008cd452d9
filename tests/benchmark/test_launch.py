"""The launcher, through its door: what is measured, printed, kept, and refused."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from benchmark import imagenet_records
from benchmark.commands import commands
from cortex.errors import UserError
from cortex.pid import lives
from tests.waiting import DEADLINE, until

ROOT = Path(__file__).parents[2]

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


def _value(output: str, pattern: str) -> float:
    found = re.search(rf"^{pattern}$", output, re.MULTILINE)
    assert found, f"no {pattern} in\n{output}"
    return float(found[1])


def test_throughput_of_a_saved_model(launch: Launch, classifiers: Path, tmp_path: Path) -> None:
    """The report is that of the tutorial: warm-up, a line every ten steps, batch size, throughput, and the log."""
    arguments = ("--model-name", "resnet50", "--framework", "openvino", "--precision", "fp32", "--mode", "inference")
    more = ("--batch-size", "4", "--benchmark-only", "--steps", "20", "--warmup-steps", "10")
    done = launch("--in-graph", classifiers / "saved", *arguments, *more)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    steps = [line.split(",")[0] for line in lines if line.startswith(("steps", "["))]
    assert steps == [
        *("[Running warmup steps...]", "steps = 10"),
        *("[Running benchmark steps...]", "steps = 10", "steps = 20"),
    ]
    assert "Batch size = 4" in lines
    assert _value(done.stdout, r"Throughput: ([\d.]+) images/sec") > 0
    assert "Latency" not in done.stdout
    assert "Running engine=openvino precision=fp32" in done.stdout
    log = Path(lines[-1].removeprefix("Log location: "))
    assert log.parent == tmp_path / "out"
    assert re.fullmatch(r"benchmark_resnet50_inference_fp32_\d{8}_\d{6}_\d{6}\.log", log.name)
    assert {line for line in lines if not line.startswith("Log")} <= set(log.read_text().splitlines())


def test_latency_of_a_frozen_graph(launch: Launch, classifiers: Path, records: Path, tmp_path: Path) -> None:
    """At batch 1 the latency is there, its product with the throughput is 1; the figures are also kept as JSON."""
    graph, data = ("--in-graph", classifiers / "frozen.pb"), ("--data-location", records)
    done = launch(*graph, *data, "--batch-size", "1", "--steps", "10", "--warmup-steps", "1")
    assert done.returncode == 0, done.stderr
    assert "Running engine=tensorflow precision=fp32" in done.stdout
    latency = _value(done.stdout, r"Latency: ([\d.]+) ms")
    assert latency * _value(done.stdout, r"Throughput: ([\d.]+) images/sec") == pytest.approx(1000, rel=0.01)
    (kept,) = (tmp_path / "out").glob("benchmark_*.json")
    facts = json.loads(kept.read_text())
    assert facts["figures"]["step_mean_ms"] == pytest.approx(latency, abs=0.001)
    assert facts["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert {"name": "BATCH_SIZE", "value": "1", "source": "--batch-size"} in facts["settings"]


@pytest.mark.parametrize(
    ("graph", "framework"), [("saved", "openvino"), ("int8.pb", "openvino"), ("model.onnx", "onnxruntime")]
)
def test_accuracy(launch: Launch, classifiers: Path, records: Path, graph: str, framework: str, tmp_path: Path) -> None:
    """A classifier that knows its eight colors is right every time, whatever form and engine it comes in.

    Batches of 5 of 32 pictures: the last is short.
    """
    path = _write_onnx(classifiers, tmp_path / graph) if graph.endswith(".onnx") else classifiers / graph
    precision = "int8" if graph == "int8.pb" else "fp32"
    known = ("--in-graph", path, "--framework", framework, "--precision", precision, "--data-location", records)
    done = launch(*known, "--accuracy-only", "--batch-size", "5")
    assert done.returncode == 0, done.stderr
    assert _value(done.stdout, r"Images: (\d+)") == 32
    assert _value(done.stdout, r"Top-1 accuracy: ([\d.]+)") == 1
    assert _value(done.stdout, r"Top-5 accuracy: ([\d.]+)") == 1


def test_accuracy_counts_what_is_wrong(
    launch: Launch, classifiers: Path, colors: Path, records: Path, tmp_path: Path
) -> None:
    """With three of eight classes labelled as their neighbor, top-1 is 5/8; top-5 is what the ranking really holds."""
    swapped = tmp_path / "labels.txt"
    shown = {path: int(path.parent.name[-1]) for path in colors.rglob("*.*")}
    said = {0: 1, 1: 0, 2: 3}
    lines = [f"{path.relative_to(colors)} {said.get(number, number)}" for path, number in shown.items()]
    swapped.write_text("\n".join(lines))
    _convert(colors, tmp_path / "records", "--labels", swapped)
    arguments = ("--framework", "openvino", "--accuracy-only", "--in-graph", classifiers / "saved")
    done = launch(*arguments, "--data-location", tmp_path / "records", "--batch-size", "32")
    assert done.returncode == 0, done.stderr
    assert _value(done.stdout, r"Top-1 accuracy: ([\d.]+)") == 0.625
    assert 0.625 <= _value(done.stdout, r"Top-5 accuracy: ([\d.]+)") == _top_5(classifiers, shown.values(), said)
    offset = launch(*arguments, "--data-location", records, "--label-offset", "0")
    assert offset.returncode == 1
    assert re.search(r"validation-\d+-of-00003, record \d+ \(\d\.(jpg|png)\): label 8 is none of the 8", offset.stderr)


def _top_5(classifiers: Path, numbers: Any, said: dict[int, int]) -> float:
    """Return what top-5 has to be, from the weights alone."""
    file = np.load(classifiers / "weights.npz")
    colors = np.array([[40 if not number >> bit & 1 else 220 for bit in (2, 1, 0)] for number in numbers])
    ranked = np.argsort(-((colors / 255 - 0.5) @ file["weights"] + file["bias"]), axis=1)[:, :5]
    wanted = np.array([said.get(number, number) for number in numbers])
    return float((ranked == wanted[:, None]).any(1).mean())


def _with_python(script: str, directory: Path, *flags: str | Path, **environment: str) -> Any:
    """Run the launcher with a stand-in for the interpreter of the measured process."""
    program = directory / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    code = f"import sys; sys.executable = {str(program)!r}; from benchmark.__main__ import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", code, "launch", "--output-dir", directory, *flags]
    return subprocess.run(argv, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def test_a_measured_process_that_dies(classifiers: Path, tmp_path: Path) -> None:
    """Where the process says nothing itself, how it ended is said, and where its log lies."""
    done = _with_python("echo out of memory >&2\nkill -9 $$", tmp_path, "--in-graph", classifiers / "saved")
    assert done.returncode == 1
    (log,) = tmp_path.glob("*.log")
    assert done.stderr == f"Error: the measured process ended by signal 9; see {log}\n"
    assert log.read_text().endswith("out of memory\n")


def test_recommended_settings_reach_the_process(launch: Launch, classifiers: Path, tmp_path: Path) -> None:
    """Flags, environment and recommendations are told apart, and the measured process runs in what was shown."""
    script = f'env > {tmp_path}/environment; echo "error: enough"; exit 1'
    flags = ("--in-graph", classifiers / "saved", "--num-intra-threads", "1")
    done = _with_python(script, tmp_path, *flags, KMP_BLOCKTIME="30")
    assert done.returncode == 1
    assert done.stderr == "Error: enough\n"
    shown = done.stdout.splitlines()
    assert "NUM_INTRA_THREADS: 1  (--num-intra-threads)" in shown
    assert "OMP_NUM_THREADS: 1  (recommended)" in shown
    assert "KMP_BLOCKTIME: 30  (environment)" in shown
    assert "BATCH_SIZE: 128  (recommended for throughput; 1 is for latency)" in shown
    got = (tmp_path / "environment").read_text().splitlines()
    assert {"OMP_NUM_THREADS=1", "KMP_BLOCKTIME=30", "KMP_AFFINITY=granularity=fine,compact,1,0"} <= set(got)
    assert "TF_ENABLE_ONEDNN_OPTS=1" in got


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--in-graph", "nowhere"], "--in-graph {cwd}/nowhere: No such file or directory"),
        (["--in-graph", "~nobody-here"], "--in-graph {cwd}/~nobody-here: No such file or directory"),
        (["--in-graph", "x" * 256], "x: File name too long"),
        (
            ["--in-graph", "{models}/saved", "--accuracy-only"],
            "--accuracy-only needs labelled pictures: --data-location",
        ),
        (["--in-graph", "{models}/saved", "--data-location", "no"], "--data-location {cwd}/no: No such file"),
        (["--in-graph", "{models}", "--framework", "openvino"], "--in-graph {models}: Could not find SavedModel"),
        (
            ["--in-graph", "{models}/weights.npz"],
            "weights.npz: expected a SavedModel directory, or a .pb, .onnx or .xml",
        ),
        (["--in-graph", "{models}/frozen.pb", "--framework", "onnxruntime"], "--framework onnxruntime: does not read"),
        (
            ["--in-graph", "{models}/two_ends.pb"],
            "several could be the last node (first, second); choose with --output",
        ),
        (["--in-graph", "{models}/unsigned"], "--in-graph {models}/unsigned: the model has no signature"),
        (["--in-graph", "{models}/unfrozen.pb"], "unfrozen.pb: not frozen: 'left' is a variable"),
        (
            ["--in-graph", "{models}/frozen.pb", "--input-node", "x"],
            "--input-node x: {models}/frozen.pb has no such node",
        ),
        (["--in-graph", "{models}/saved", "--precision", "int8"], "--precision int8: {models}/saved is not quantised"),
        (["--in-graph", "{models}/int8.pb"], "--precision fp32: {models}/int8.pb is quantised; say --precision int8"),
        (
            ["--in-graph", "{models}/saved", "--framework", "openvino", "--pixels", "tf"],
            "--pixels tf: the model takes uint8",
        ),
        (["--in-graph", "{models}/\udcff.pb"], ".pb: the path has to be UTF-8"),
        (["--in-graph", "{models}/saved", "--output-dir", "out\udcff"], ": the path has to be UTF-8"),
        (["--in-graph", ""], "--in-graph: expected a path, not an empty text"),
        (["--in-graph", "{models}/saved", "--output-dir", ""], "--output-dir: expected a path"),
        (["--in-graph", "{models}/saved", "--model-name", "a/b"], "--model-name a/b: expected letters"),
        (["--in-graph", "{models}/saved", "--docker-image", "x"], "--docker-image: docker is not on PATH"),
        (["--configuration", "{models}/none.json"], "{models}/none.json: there is no configuration yet"),
        (["--configuration", "{models}/weights.npz"], "{models}/weights.npz: not a configuration"),
    ],
)
def test_refusals(
    classifiers: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be measured is refused in one line that names the flag or the file."""
    monkeypatch.setenv("PATH", "/nowhere")
    places = {"models": classifiers, "cwd": Path.cwd()}
    flags = ["--output-dir", str(tmp_path), *(argument.format(**places) for argument in arguments)]
    done = CliRunner().invoke(commands, ["launch", *flags])  # in this process, which has imported all that it needs
    assert done.exit_code == 1, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message.format(**places) in line


@pytest.mark.parametrize("name", ["graph.pb", "graph.onnx"])
def test_a_graph_that_cannot_be_read(launch: Launch, tmp_path: Path, name: str) -> None:
    """It is refused by name, whatever form it has."""
    graph = tmp_path / name
    graph.symlink_to("/proc/self/mem")  # which root cannot read either, where nothing is mapped
    done = launch("--in-graph", graph, "--framework", "openvino")
    assert (done.returncode, done.stderr) == (1, f"Error: --in-graph {graph}: Input/output error\n")


def test_records_that_are_not_whole(launch: Launch, classifiers: Path, tmp_path: Path, records: Path) -> None:
    """A place without records is refused, and so is a file that is cut off, by name."""
    arguments = ("--in-graph", classifiers / "saved", "--framework", "openvino", "--accuracy-only")
    with pytest.raises(UserError, match="no TFRecords in it"):
        imagenet_records.files(tmp_path)
    broken = tmp_path / "broken.tfrecord"
    broken.write_bytes((records / "validation-00000-of-00003").read_bytes()[:-1])
    assert f"of {broken}\n" in launch(*arguments, "--data-location", broken).stderr


def test_no_room_for_the_log(classifiers: Path, tmp_path: Path) -> None:
    """Where the output directory takes no more, that is said in one line."""
    command = f'ulimit -f 1; exec "{sys.executable}" -m benchmark launch --framework openvino --steps 100 "$@"'
    arguments = ["--batch-size", "1", "--in-graph", classifiers / "saved", "--output-dir", tmp_path]
    argv = ["bash", "-c", command, "bash", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (1, f"Error: --output-dir {tmp_path}: File too large\n")


def test_nobody_reads_the_report(classifiers: Path, tmp_path: Path) -> None:
    """As in ``launch ... | head -1``: it ends without a word, and its output directory is not to blame."""
    arguments = ["--framework", "openvino", "--in-graph", classifiers / "saved", "--output-dir", tmp_path]
    argv = [sys.executable, "-m", "benchmark", "launch", *map(str, arguments)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert (process.stderr.read(), process.wait(DEADLINE)) == ("", 1)


# An interpreter whose pip lists one package, and notes what it is to install, and under which constraints.
PYTHON = """#!/bin/bash
case "$*" in
  *"pip "*" list --format=freeze") echo numpy==1.26.4 ;;
  *"pip "*" install "*" -c "*) echo "${{@: -4:2}}" >{installed}; cat "${{@: -1}}" >>{installed} ;;
  *) exec {python} "$@" ;;
esac
"""


def test_start_again(launch: Launch, classifiers: Path, tmp_path: Path) -> None:
    """start.sh repeats the last configuration that ran, with another batch size and other flags, and leaves it so.

    Unless NOINSTALL says so, it installs first, with the interpreter that measures, and changes nothing that is there:
    an engine that was made for other versions would not run any more.
    """
    arguments = ("--framework", "openvino", "--steps", "10", "--warmup-steps", "0", "--batch-size", "2")
    assert launch("--in-graph", classifiers / "saved", *arguments).returncode == 0
    last = (tmp_path / "out" / "last.json").read_bytes()
    assert launch("--in-graph", classifiers / "saved", *arguments, "--output-node", "nope").returncode == 1
    assert launch("--in-graph", classifiers / "saved", *arguments, "--num-cores", "4096").returncode == 1
    installed, python = tmp_path / "installed", tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable, installed=installed))
    python.chmod(0o755)
    environment = os.environ | {"OUTPUT_DIR": str(tmp_path / "out"), "PYTHON": str(python)}

    def start(*more: str, **variables: str) -> str:
        argv = [str(ROOT / "benchmark" / "start.sh"), *more]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment | variables, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    again = start("--steps", "20", NOINSTALL="True", BATCH_SIZE="3")
    assert "BATCH_SIZE: 3  (--batch-size)" in again
    assert "FRAMEWORK: openvino  (earlier launch)" in again
    assert "steps = 20," in again
    assert not installed.exists()
    assert "Batch size = 2" in start()
    assert installed.read_text() == f"-r {ROOT}/benchmark/requirements.txt\nnumpy==1.26.4\n"
    assert (tmp_path / "out" / "last.json").read_bytes() == last


def test_a_shell_instead(launch: Launch, classifiers: Path, tmp_path: Path) -> None:
    """--debug gives a shell in the environment of the measured process, and measures nothing."""
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho threads=$OMP_NUM_THREADS configuration=$CONFIGURATION\nexit 7\n")
    shell.chmod(0o755)
    done = launch("--in-graph", classifiers / "saved", "--debug", "--num-cores", "1", SHELL=str(shell))
    assert done.returncode == 7
    assert f"threads=1 configuration={tmp_path / 'out/last.json'}" in done.stdout
    assert not list((tmp_path / "out").glob("*.log"))


def test_the_measured_process_ends_with_the_launcher(classifiers: Path, tmp_path: Path) -> None:
    """SIGTERM to the launcher leaves nothing running."""
    flags = [
        "--in-graph",
        classifiers / "saved",
        "--framework",
        "openvino",
        "--steps",
        "1000000",
        "--output-dir",
        tmp_path,
    ]
    argv = [sys.executable, ROOT / "benchmark" / "launch_benchmark.py", *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            while not process.stdout.readline().startswith("steps"):
                assert process.poll() is None
            (measured,) = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 143
            until(lambda: not lives(measured))
        finally:
            process.kill()


@pytest.mark.parametrize("door", [["-m", "benchmark", "launch"], [ROOT / "benchmark" / "launch_benchmark.py"]])
def test_ctrl_c_while_the_command_is_loaded(door: list[str | Path], tmp_path: Path) -> None:
    """It ends without a traceback, as later on."""
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, *door], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def _convert(*arguments: str | Path) -> None:
    argv = [sys.executable, "-m", "benchmark", "tfrecords", *map(str, arguments)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=ROOT)


def _write_onnx(classifiers: Path, path: Path) -> Path:
    """Write the classifier as ONNX, channels first, as ResNets from elsewhere are."""
    file = np.load(classifiers / "weights.npz")
    constants = {"scale": np.float32(1 / 255), "half": np.float32(0.5), **file}
    nodes = [
        helper.make_node("ReduceMean", ["pictures", "sides"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "half"], ["centered"]),
        helper.make_node("Gemm", ["centered", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array([2, 3], np.int64), "sides")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path
