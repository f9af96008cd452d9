"""The environment of a worker: that of its supervisor, and what the project's ``.env`` makes of it.

Cortex sourced that file before all else. So a shell does it here: the file may use variables and run commands. And the
process then begins anew, because some variables count at its start alone: ``PYTHONPATH``, ``LD_LIBRARY_PATH``.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cortex.errors import UserError

_FILE = ".env"
_DONE = "CORTEX_ENV_SOURCED"
_TELL = 'import os, sys; sys.stdout.buffer.write(b"\\0".join(b"=".join(row) for row in os.environb.items()))'
_SCRIPT = f"""
command trap 'echo "line $LINENO: exit status $?" >&2' ERR 2>/dev/null || :  # bash knows where, sh does not
set -ea
. ./{_FILE} >&2
exec {shlex.quote(sys.executable)} -I -S -c '{_TELL}'
"""
_LAST_WORDS = 2


def source() -> None:
    """Begin this process anew in the environment that ``.env`` makes, if the working directory has one.

    Its number, its arguments and the descriptors that it has inherited stay. Call this before anything that takes long:
    it is called again then, and does nothing. UserError says why the file, which ends at the first command that fails
    as in Cortex, could not be sourced.
    """
    if os.environ.pop(_DONE, None) is None and Path(_FILE).is_file():
        environment = {**_sourced(), _DONE.encode(): b"1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606  # itself


def _sourced() -> dict[bytes, bytes]:
    """Return the environment after ``.env``; what the file prints goes to stderr."""
    shell = shutil.which("bash") or "sh"
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as printed:
        # no pipes: whatever the file leaves running would hold them open
        done = subprocess.run([shell, "-c", _SCRIPT], stdout=told, stderr=printed, check=False)
        told.seek(0)
        printed.seek(0)
        found, text = told.read(), printed.read().decode(errors="replace")
    print(text, end="", file=sys.stderr, flush=True)
    if done.returncode or not found:  # it may have said `exit 0`
        words = [line.removeprefix(f"./{_FILE}: ") for line in text.splitlines()[-_LAST_WORDS:]]
        raise UserError(f"{_FILE}: {'; '.join(words) or f'exit status {done.returncode}'}")
    rows = (row.partition(b"=") for row in found.split(b"\0"))
    return {name: value for name, _, value in rows}
