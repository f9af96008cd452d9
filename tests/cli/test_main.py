"""`main`, where errors become output, as the process that a shell sees."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex import __version__
from cortex.errors import CortexError, NotStarted, UserError
from tests.waiting import DEADLINE

Start = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("mend this"), 1, "error: mend this\n"),
        (UserError("a.yaml:1: x\na.yaml:2: y"), 1, "error: a.yaml:1: x\na.yaml:2: y\n"),
        (CortexError("our fault"), 1, "error: our fault\n"),
        (NotStarted("the supervisor gave up"), 3, "error: the supervisor gave up\n"),
        (KeyError("x"), 1, "error: KeyError: 'x' (set CORTEX_DEBUG=1 to see where)\n"),
        (
            PermissionError(13, "Permission denied", "/x"),
            1,
            "error: PermissionError: [Errno 13] Permission denied: '/x' ",
        ),
        (KeyboardInterrupt(), 1, ""),
    ],
)
def test_errors(error: BaseException, code: int, message: str, cortex: Callable[..., Any], world: Any) -> None:
    """Every error is a line on stderr and an exit code; Ctrl-C is silent."""
    world.error = error
    ran = cortex("delete", "iris")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(message)
    assert ran.err.strip() or not message


def test_debug_shows_the_traceback(cortex: Callable[..., Any], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_DEBUG", "1")
    world.error = KeyError("x")
    with pytest.raises(KeyError):
        cortex("delete", "iris")


def test_console_script(home: Path) -> None:
    """The installed command runs, and begins with a blank line."""
    command = [Path(sys.executable).parent / "cortex", "version"]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CORTEX_HOME": str(home)})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"\ncli version: {__version__}\n", "")


def test_ctrl_c_while_the_command_is_loaded(tmp_path: Path) -> None:
    """It is as silent as later on."""
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    command = [Path(sys.executable).parent / "cortex", "version"]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")


def test_a_blank_line_comes_first_in_every_case(start: Start) -> None:
    """Also before JSON, which a reader of JSON passes over, and before an error, which is on stderr."""
    with start("get", "-o", "json") as process:
        out, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out[:2]) == (0, "\n[")
    assert json.loads(out)[0]["env_name"] == "local"
    with start("get", "nope") as process:
        assert process.communicate(timeout=DEADLINE) == ("\n", "error: nope is not deployed\n")
    assert process.returncode == 1
    with start("get", "--nope") as process:
        assert process.communicate(timeout=DEADLINE)[0] == "\n"
    assert process.returncode == 2


def test_help_and_version_import_nothing_heavy() -> None:
    """Commands that ask no environment start without pydantic, yaml, requests, rich and numpy."""
    code = (
        "import sys; from cortex.cli import main; main(['version']); main(['--help']); "
        "print(sorted({'pydantic', 'yaml', 'requests', 'rich', 'numpy', 'tensorflow'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_logs_follow_until_ctrl_c(start: Start) -> None:
    """The first lines come at once; Ctrl-C ends it without a word."""
    with start("logs", "iris") as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(3)][1:] == [
            "loading the predictor from predictor.py\n",
            "200 OK POST /\n",
        ]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err.strip()) == (1, "")


def test_reader_that_leaves(start: Start) -> None:
    """`cortex logs iris | head -1` ends quietly."""
    with start("logs", "iris") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=DEADLINE) == 1


def test_reader_that_never_was(start: Start) -> None:
    """A pipe that is closed before the first line is no reason for a traceback either."""
    read, write = os.pipe()
    os.close(read)
    try:
        with start("get", stdout=write) as process:
            _, err = process.communicate(timeout=DEADLINE)
    finally:
        os.close(write)
    assert (process.returncode, err) == (1, "")


def test_output_to_a_full_disk(start: Start) -> None:
    """That is told, and not where in the code it came to light."""
    with Path("/dev/full").open("w") as full, start("get", stdout=full) as process:
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (1, "error: standard output, or CORTEX_HOME: No space left on device\n")


def _on_a_terminal(start: Start, *arguments: str, until: bytes | None = None, **env: str) -> str:
    """Run a command with a terminal for all its output, to its end, or to Ctrl-C once ``until`` has been seen."""
    ours, theirs = pty.openpty()
    try:
        process = start(*arguments, stdout=theirs, stderr=theirs, env={"TERM": "xterm", "NO_COLOR": "", **env})
    finally:
        os.close(theirs)
    seen = b""
    try:
        while chunk := _read(ours):
            seen += chunk
            if until and until in seen:
                process.send_signal(signal.SIGINT)
                until = None
        process.wait(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal says that nobody writes to it any more
        return b""


def test_headers_are_bold_on_a_terminal(start: Start) -> None:
    seen = _on_a_terminal(start, "get")
    assert seen.startswith(
        "\n\x1b[1menv     realtime api   status   last update   avg request   2XX\x1b[0m\nlocal   iris"
    )


def test_headline_of_an_error_is_bold_unless_it_is_long(start: Start) -> None:
    assert _on_a_terminal(start, "get", "nope") == "\n\x1b[1merror: nope is not deployed\x1b[0m\n"
    assert "\x1b" not in _on_a_terminal(start, "get", "x" * 200)


def test_no_color(start: Start) -> None:
    """NO_COLOR leaves plain text on a terminal."""
    assert "\x1b" not in _on_a_terminal(start, "get", NO_COLOR="1")
    assert _on_a_terminal(start, "get", "nope", NO_COLOR="1") == "\nerror: nope is not deployed\n"


def test_a_dumb_terminal_gets_plain_text(start: Start) -> None:
    assert "\x1b" not in _on_a_terminal(start, "get", TERM="dumb")


def test_watch_repaints_a_terminal(start: Start) -> None:
    """The second frame takes the place of the first."""
    seen = _on_a_terminal(start, "get", "--watch", until=b"\x1b[2J\x1b[1;1H\x1b[1menv")
    first, second = seen.split("\x1b[2J\x1b[1;1H")
    assert first.count("iris") == second.count("iris") == 1
    assert "Traceback" not in second


def test_steps_stay_in_view_on_a_terminal(start: Start) -> None:
    """A spinner turns beside the step that is awaited; brackets in it are not markup; it is gone in the end."""
    seen = _on_a_terminal(start, "refresh", "iris")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", seen)
    for step in ("starting [model server]", "waiting for worker 0"):
        assert f"{step}\n" in plain
    assert "⠋" in plain
    assert plain.endswith("updating iris\n")
    assert seen.rstrip().rpartition("\x1b[?25")[2].startswith("h")
