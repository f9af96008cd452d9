"""Directories of one user outside of an environment's home, for what cannot be inside."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from cortex.errors import UserError


def directory(purpose: str, home: Path, base: str = "") -> Path:
    """Return where this user has something of a home, below ``base`` or TMPDIR, which differs from shell to shell."""
    return Path(base or tempfile.gettempdir()) / f"cortex-{purpose}-{os.getuid()}-{digest(home)}"


def digest(name: Path | str) -> str:
    """Return eight characters that stand for a name of any length."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def make(path: Path, *, mode: int) -> None:
    """Make a directory where anybody may have made one of its name before. UserError when somebody else has.

    It has ``mode`` whatever the umask is.
    """
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UserError(f"{path} belongs to another user: remove it, or set TMPDIR to a directory of your own")
    path.chmod(mode)
