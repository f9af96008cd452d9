"""Ask a program about this machine: bounded in time, and told in one line when it does not answer."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from cortex.errors import Error

SECONDS = 5.0
_LONGEST_LINE = 200
_PIPES: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


class Refused(Error):
    """Say in one line why a program did not answer. ``failed``: it ran, and said itself that something is wrong."""

    def __init__(self, message: str, *, failed: bool = False) -> None:
        super().__init__(message)
        self.failed = failed


def ask(command: Sequence[str], seconds: float | None = None) -> str:
    """Return what a program prints.

    Raises Refused when it is missing, fails, or takes longer than ``seconds`` (SECONDS when not given): then it and
    what it started are killed, and not waited for, since a program that waits for a broken driver cannot be.
    """
    name, seconds = command[0].rpartition("/")[2], seconds or SECONDS
    path = shutil.which(command[0])
    if path is None:
        raise Refused(f"{name} is not on the PATH")
    try:
        process = subprocess.Popen([path, *command[1:]], start_new_session=True, **_PIPES)
    except OSError as error:
        raise Refused(f"{name} cannot be run: {error.strerror}") from None
    try:
        printed: tuple[bytes, bytes] = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise Refused(f"{name} did not answer within {seconds:g} s") from None
    output, errors = (each.decode(errors="replace") for each in printed)
    if process.returncode:
        said = last_line(errors) or last_line(output) or "it said nothing"
        raise Refused(f"{name} failed: {said} (exit code {process.returncode})", failed=True)
    return output


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None  # `_PIPES` has both
        pipe.close()


def last_line(text: str) -> str:
    """Return the last line of a text that says anything, made safe to print."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return (line if line.isprintable() else ascii(line))[:_LONGEST_LINE]
