"""throughput_test.py as a person runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "throughput_test.py"


def throughput_test(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | env, check=False)


def test_table(endpoint: str, seen: Any, picture_file: Path) -> None:
    """The closing table has throughput, latency and errors; progress does not get in between."""
    done = throughput_test("-w", 2, "-t", 2, "-s", 3, "-b", 5, picture_file, endpoint)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    table = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(.*?) *$", done.stdout, re.MULTILINE))
    assert (table["requests answered"], table["errors"], len(seen.requests)) == ("12", "0", 12)
    assert set(table) >= {"throughput", "latency mean", "latency p50", "latency p90", "latency p99"}
    assert re.search(r"inferences/s", done.stdout)


def test_arguments_from_the_environment(endpoint: str, seen: Any, picture_file: Path) -> None:
    """IMG_URL and ENDPOINT may come from the environment; the defaults are one worker, one thread, ten requests."""
    done = throughput_test(IMG_URL=str(picture_file), ENDPOINT=endpoint)
    assert done.returncode == 0
    assert len(seen.requests) == 10


def test_nothing_succeeded(endpoint: str, picture_file: Path) -> None:
    """Without one success the exit code is 1, and the table says why."""
    done = throughput_test("-s", 2, picture_file, endpoint + "/503")
    assert done.returncode == 1
    assert re.search(r"HTTP 503 Service Unavailable +2", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.jpg", "http://127.0.0.1:1"), 1, "Error: none.jpg: No such file"),
        (("PICTURE", "localhost:1"), 1, "Error: localhost:1: not an endpoint"),
        (("-w", "0", "PICTURE", "http://127.0.0.1:1"), 2, "'-w'"),
        (("-i", "0", "PICTURE", "http://127.0.0.1:1"), 2, "'-i'"),
        ((), 2, "Missing argument 'IMG_URL'"),
    ],
)
def test_usage(picture_file: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    """A bad argument is one clear line, and no traceback."""
    done = throughput_test(*(str(picture_file) if each == "PICTURE" else each for each in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c(endpoint: str, seen: Any, picture_file: Path) -> None:
    """Ctrl-C, which reaches the whole process group, ends the test early and still reports."""
    command = [sys.executable, SCRIPT, "-i", "60", "-w", "2", picture_file, endpoint + "/slow"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 30
        while len(seen.requests) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert "(interrupted)" in out
    assert "Traceback" not in err
