"""Read and write TFRecord files without TensorFlow.

A record is its length (uint64, little-endian), the masked CRC-32C of those 8 bytes, the data, and the data's masked
CRC-32C. The format is that of ``tensorflow/core/lib/io/record_writer.h``.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

_MASK = 0xA282EAD8


class CorruptedRecord(ValueError):
    """Say at which byte of which file a record is cut short or fails its checksum."""


def read_records(path: Path) -> Iterator[bytes]:
    """Yield each record. Raises OSError, and CorruptedRecord at the first that is cut short or fails its checksum."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(12):
            offset = file.tell() - len(header)
            if len(header) < 12 or _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise _corrupted(path, offset)
            (length,) = struct.unpack("<Q", header[:8])
            if length > size - file.tell() - 4:
                raise _corrupted(path, offset)
            data, crc = file.read(length), file.read(4)
            if _masked_crc(data) != struct.unpack("<I", crc)[0]:
                raise _corrupted(path, offset)
            yield data


def encode(data: bytes) -> bytes:
    """Return the data as one record."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data))))


def _corrupted(path: Path, offset: int) -> CorruptedRecord:
    return CorruptedRecord(f"corrupted record at {offset} of {path}")


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF
