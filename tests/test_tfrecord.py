"""TFRecord files, as TensorFlow writes them."""

import struct
from pathlib import Path

import google_crc32c
import pytest

from cortex.tfrecord import CorruptedRecord, encode, read_records

WRITTEN_BY_TENSORFLOW = bytes.fromhex("0300000000000000b099490e6f6e6501405508")


def test_it_is_tensorflows_format() -> None:
    """`tf.io.TFRecordWriter` wrote these bytes for the record `one`."""
    assert encode(b"one") == WRITTEN_BY_TENSORFLOW


def test_records_are_read_back(tmp_path: Path) -> None:
    """A file yields its records in order, empty ones too."""
    records = [b"one", b"", b"three" * 1000]
    path = tmp_path / "records"
    path.write_bytes(b"".join(map(encode, records)))
    assert list(read_records(path)) == records


@pytest.mark.parametrize("position", [0, 8, 12, 20, -1])
def test_a_damaged_record_is_found(tmp_path: Path, position: int) -> None:
    """A flipped byte anywhere, or a cut file, is an error that names the file."""
    path = tmp_path / "records"
    whole = bytearray(encode(b"0123456789"))
    damaged = bytes(whole[:position])
    whole[position] ^= 0x40
    for content in filter(None, (bytes(whole), damaged)):
        path.write_bytes(content)
        with pytest.raises(CorruptedRecord, match=f"corrupted record at 0 of {path}"):
            list(read_records(path))


def test_a_record_that_announces_too_much_takes_no_memory(tmp_path: Path) -> None:
    """A length beyond the end of the file is refused before it is read."""
    length = struct.pack("<Q", 2**62)
    crc = google_crc32c.value(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    path = tmp_path / "records"
    path.write_bytes(length + struct.pack("<I", masked) + b"x" * 100)
    with pytest.raises(CorruptedRecord, match="corrupted record at 0"):
        list(read_records(path))
