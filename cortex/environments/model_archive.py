"""Unpack a model's zip file, whoever made it."""

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from cortex.environments.tree import human_size, inner_name, plainly
from cortex.errors import UserError

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, ValueError)
_MOST_FILES = 100_000
_MOST_GROWTH = 50
"""A zip of weights shrinks by a tenth; one that shrinks fiftyfold was made to fill a disk."""
_SMALL = 1_000_000_000
"""Bytes that may always come out, however small the file."""


def unpack(archive: Path, directory: Path) -> None:
    """Write the files of a zip into a new directory.

    UserError when it is no zip, is damaged or encrypted, has links, names that lead out of the directory or the same
    name twice, more than 100,000 files, or far more bytes than its own size or than the disk has left.
    """
    try:
        with plainly("cannot unpack"), zipfile.ZipFile(archive) as opened:
            members = _members(opened)
            _check_size(archive, sum(member.file_size for member in members.values()), directory.parent)
            directory.mkdir()
            for name, member in members.items():
                _write(opened, member, directory / name)
    except _DAMAGED as error:
        raise UserError(f"is not a zip file that can be read: {error}") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files by their checked names."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.is_dir() or member.filename.startswith("__MACOSX/"):
            continue
        name = inner_name(member.filename)
        if name in members:
            raise UserError(f"{name} is in the zip file twice")
        if member.flag_bits & 1:
            raise UserError("the zip file is encrypted; make one without a password")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise UserError(f"{name} is a link or a device, which a model's zip file may not have")
        members[name] = member
    if len(members) > _MOST_FILES:
        raise UserError(f"the zip file has more than {_MOST_FILES:,} files")
    return members


def _check_size(archive: Path, size: int, directory: Path) -> None:
    if size > max(_SMALL, _MOST_GROWTH * archive.stat().st_size):
        raise UserError(f"the zip file would unpack to {human_size(size)}, more than {_MOST_GROWTH} times its own size")
    free = shutil.disk_usage(directory).free
    if size > free:
        raise UserError(f"the zip file unpacks to {human_size(size)}, and {directory} has {human_size(free)} left")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one file. No more than ``member.file_size`` bytes come out: zipfile stops there, and compares the CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
