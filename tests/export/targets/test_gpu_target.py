"""``scripts/test-gpu``: it says where there is no GPU, and its own logic runs on the CPU provider."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cortex.pid import lives
from tests.processes import children
from tests.waiting import DEADLINE, until

ROOT = Path(__file__).parents[3]


def _run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(ROOT / "scripts/test-gpu"), *map(str, arguments)]
    kept = os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, env=kept, cwd=ROOT)


def test_without_a_gpu_it_says_so(tiny: Path) -> None:
    """One line says why nothing was measured, with exit code 3: a run that did not happen is not a run that passed."""
    done = _run(tiny, CUDA_VISIBLE_DEVICES="-1")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        "Error: the GPU target cannot run here: CUDA_VISIBLE_DEVICES=-1 hides every GPU. Nothing was measured"
    )


@pytest.mark.parametrize("option", [("--precision", "fp64"), ("--seconds", "0"), ("--batch", "0")])
def test_options_that_no_run_has(tiny: Path, option: tuple[str, str]) -> None:
    """They are refused before anything is exported."""
    done = _run(tiny, "--provider", "cpu", *option)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for '{option[0]}'" in done.stderr


def test_a_file_that_cannot_be_written(tiny: Path) -> None:
    """It is told before anything is exported."""
    done = _run(tiny, "--provider", "cpu", "--json", "/dev/null/rows.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: /dev/null/rows.json: Not a directory; name a file that can be written\n"


def test_it_ends_with_what_it_started(tiny: Path) -> None:
    """SIGTERM in the middle of a measurement leaves no model server behind."""
    argv = [ROOT / "scripts/test-gpu", tiny, "--provider", "cpu", "--precision", "fp32", "--seconds", "600"]
    environment = os.environ | {"PYTHON": sys.executable}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(list(map(str, argv)), env=environment, process_group=0, **quiet) as process:
        try:
            servers = until(lambda: children("cortex.model_server", process.pid))
            process.terminate()
            assert process.wait(DEADLINE) == 143
            assert not any(map(lives, servers))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_its_rows_are_measured(tiny: Path, tmp_path: Path) -> None:
    """Every batch over gRPC and one over HTTP, with the agreement; on the CPU the first line says it is a trial."""
    done = _run(
        *(tiny, "--provider", "cpu", "--precision", "fp32", "--batch", "1", "--batch", "3", "--clients", "2"),
        *("--seconds", "0.3", "--json", tmp_path / "rows.json"),
    )
    assert done.returncode == 0, done.stderr
    first, _, header, _, *rows = done.stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d, no GPU \(--provider cpu: these rows try the script", first)
    assert header.startswith("| precision | door | batch |")
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| fp32", "gRPC", "1", "2"],
        ["| fp32", "gRPC", "3", "2"],
        ["| fp32", "HTTP", "1", "2"],
    ]
    written = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(row["rate"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in written)
    assert {(row["same_first_class"], row["max_difference"], row["device"]) for row in written} == {
        ("24 of 24", 0.0, "cpu")
    }
