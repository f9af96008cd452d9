"""Names of files as keys of a ConfigMap or a Secret, which know no directories, and back.

Letters, digits, dots and dashes stay; of everything else each byte becomes ``_`` and two hexadecimal digits. The files
lie in the pod as their keys are; the replica gives them their names again.
"""

import os
import re
import shutil
from pathlib import Path

from cortex.errors import UserError

_LONGEST = 253
_OTHERS = re.compile(rb"[^A-Za-z0-9.-]|^\.(?=\.)")
_ESCAPED = re.compile(rb"_([0-9a-f]{2})")


def key_of(name: str) -> str:
    """Return the key for a file's name. UserError for one that is too long."""
    key = _OTHERS.sub(lambda match: f"_{match[0][0]:02x}".encode(), os.fsencode(name)).decode()
    if len(key) > _LONGEST:
        raise UserError(
            f"{name}: the path is too long for Kubernetes, which takes keys of {_LONGEST} bytes, and each / or other "
            "sign counts three times; shorten it, or name it in .cortexignore"
        )
    return key


def name_of(key: str) -> str:
    """Return the name that `key_of` made a key of."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), key.encode()))


def lay_out(files: Path, directory: Path) -> None:
    """Copy what lies in a mounted ConfigMap or Secret into a directory, under its names, with its modes."""
    for file in files.iterdir():
        if not file.name.startswith(".."):  # the cluster's own links beside the keys
            target = directory / name_of(file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
