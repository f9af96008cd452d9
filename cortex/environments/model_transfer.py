"""Bytes from a store to the disk, in pieces: what breaks off is taken up again, now or by the next command."""

import base64
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortex.environments.base import Progress
from cortex.environments.tree import human_size
from cortex.errors import UserError

PIECE = 16 * 1024 * 1024
_TRIES = 5
FIRST_DELAY = 0.5
_LARGE = 50_000_000
"""Bytes from which a download says how far it is."""


class Transfer:
    """Copy files of one fsspec file system, and say how much of ``total`` bytes is there."""

    def __init__(self, filesystem: Any, total: int, progress: Progress) -> None:
        self._filesystem = filesystem
        self._total = total
        self._progress = progress
        self._complete = 0
        self._tenths = 0
        self._unbroken: set[str] = set()
        """Files of servers that give them only from the beginning."""

    def fetch(self, info: Mapping[str, Any], target: Path) -> None:
        """Copy the file that the store describes by ``info``, unless the target is there already.

        What there is of it waits beside the target under a name of its own. UserError when the file is not what the
        store said; otherwise what the store's library raises.
        """
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            self._try(info, part)
            _check(part, target.name, info)
            part.replace(target)
        self._complete += target.stat().st_size
        self._tell(self._complete)

    def _try(self, info: Mapping[str, Any], part: Path) -> None:
        """Bring a part to its end. After a try that gained something there are as many as at the beginning."""
        left = _TRIES
        while True:
            before = _size(part)
            try:
                return self._append(info, part)
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:  # each store's library raises errors of its own
                if isinstance(error, ValueError) and "range" in str(error):
                    self._unbroken.add(info["name"])
                left = _TRIES if _size(part) > before else left - 1
                if not left:
                    raise
            time.sleep(FIRST_DELAY * 2 ** (_TRIES - left))

    def _append(self, info: Mapping[str, Any], part: Path) -> None:
        name, size = info["name"], info.get("size")
        if size is None or info.get("partial") is False or name in self._unbroken:
            self._filesystem.get_file(name, str(part))
            return
        with part.open("ab") as target:
            if target.tell() > size:
                target.truncate(0)
            if target.tell() == size:
                return
            with self._filesystem.open(name, "rb", block_size=PIECE, cache_type="none") as source:
                while target.tell() < size:
                    target.write(self._piece(source, target.tell(), size))
                    target.flush()
                    self._tell(self._complete + target.tell())

    def _piece(self, source: Any, start: int, size: int) -> bytes:
        """Return the next bytes; none at all is an error, because the store said that there are more."""
        source.seek(start)
        piece: bytes = source.read(min(PIECE, size - start))
        if not piece:
            raise EOFError(f"the store sent nothing after {start} of {size} bytes")
        return piece

    def _tell(self, done: int) -> None:
        tenths = 10 * done // self._total if self._total >= _LARGE else 0
        if tenths > self._tenths:
            self._tenths = tenths
            self._progress(f"{10 * tenths}% of {human_size(self._total)}")


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(part: Path, name: str, info: Mapping[str, Any]) -> None:
    """Compare what came with what the store said of it: the size, and on gs:// the MD5."""
    expected, size = info.get("size"), part.stat().st_size
    if isinstance(expected, int) and size != expected:
        part.unlink()
        raise UserError(f"{name} was cut short: {size} of {expected} bytes; try again")
    if said := info.get("md5Hash"):
        with part.open("rb") as stream:
            found = base64.b64encode(hashlib.file_digest(stream, "md5").digest()).decode()
        if found != said:
            part.unlink()
            raise UserError(f"{name} was damaged on its way: its MD5 is not what the store says; try again")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
