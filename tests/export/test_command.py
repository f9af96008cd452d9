"""``python -m export savedmodel``: what it prints, how it ends, and what is left when it does not end well."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_names_every_option_and_value(export_run: Run) -> None:
    """The help alone is enough to use the command."""
    shown = export_run("savedmodel", "--help")
    assert shown.returncode == 0
    for word in ("imagenet|random|PATH", ".keras", "--output", "models/resnet50", "--version", "--force", "--seed"):
        assert word in shown.stdout
    assert "python -m export savedmodel --weights random" in shown.stdout


def test_result_on_stdout_progress_on_stderr(exported: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Standard output holds the directory and the next command; the steps, with seconds, are on standard error."""
    directory, done = exported
    made, following = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(directory))}  \d+ MB", made)
    change = f"set model_path to {directory.parent} in cortex_cpu.yaml"  # which has the usual place
    assert following == f"next: {change}, then cortex deploy cortex_cpu.yaml"
    assert "labels will mean nothing" in done.stderr
    assert [line for line in done.stderr.splitlines() if not re.match(r" *\d+\.\d s  \S", line)] == []


def test_weights_are_stored_once(artifact: Path) -> None:
    """ResNet-50 has 25.6 million weights of four bytes; an artifact twice that size holds them twice."""
    assert sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file()) < 110e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--weights", "imagnet"],
            r"--weights imagnet: must be imagenet, random, or a file that ends in .h5 or .keras",
        ),
        (["--weights", "model.onnx"], r"--weights model.onnx: must be imagenet, random, or a file"),
        (["--seed", "0"], r"--seed has no effect without --weights random$"),
        (["--weights", "gone.h5"], r"--weights gone.h5: there is no such file"),
        (["--weights", "~nobody-here/a.h5"], r"--weights ~nobody-here/a.h5: there is no such file"),
        (
            ["--weights", "random", "--output", "{models}"],
            r"\S+/1 exists already: pass --force to replace it, or another --version$",
        ),
        (["--weights", "random", "--output", "{file}"], r"cannot write into \S+: File exists"),
    ],
)
def test_refusals_are_one_line_at_once(export_run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    """What is wrong with an argument is said in one line, with exit code 1, before TensorFlow is started."""
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "file").touch()
    done = export_run(
        "savedmodel", *(text.format(models=tmp_path / "models", file=tmp_path / "file") for text in arguments)
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: {message}", line)


def test_a_result_that_cannot_be_printed() -> None:
    """It is one line, as any failure."""
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "export", "--help"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


def test_ctrl_c_while_the_command_is_loaded(export_run: Run, tmp_path: Path) -> None:
    """It is one word, as later on."""
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = export_run("savedmodel", "--help", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")


@pytest.mark.parametrize("version", ["0", "-1", "one", str(2**63)])
def test_version_is_a_positive_number(export_run: Run, version: str) -> None:
    """A version that no model server would take for one is a usage error."""
    done = export_run("savedmodel", "--weights", "random", "--version", version)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for '--version'" in done.stderr


def test_ctrl_c_while_tensorflow_starts(export_run: Run, tmp_path: Path) -> None:
    """What TensorFlow has said until then is not shown: nothing has failed."""
    code = "import os, signal; os.write(2, b'noise'); os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "keras.py").write_text(code)
    arguments = ("--weights", "random", "--output", tmp_path / "out")
    done = export_run("savedmodel", *arguments, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r" *\d+\.\d s  starting TensorFlow\n\nAborted!\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_refused_download_names_the_other_ways(export_run: Run, tmp_path: Path) -> None:
    """Without a route to the ImageNet weights, one line says what failed and which values of --weights need none."""
    with socket.socket() as closed:  # bound and not listening: a proxy that refuses every connection
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = export_run(
            "savedmodel", "--output", tmp_path / "out", https_proxy=proxy, KERAS_HOME=str(tmp_path / "keras")
        )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert re.match(r"error: cannot get the ImageNet weights \(URL fetch failure on https://.*refused\)", last)
    assert "--weights PATH" in last
    assert "--weights random" in last
    assert not (tmp_path / "out").exists()
