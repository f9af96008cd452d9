"""Labelled pictures as TFRecords in ImageNet's layout, that of ``build_imagenet_data.py`` in TensorFlow's models.

A record is a ``tf.train.Example`` with the picture as JPEG in ``image/encoded`` and its class in ``image/class/label``.
Classes count from 1: label 0 is kept for "none of them", which some models have as their first output.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from cortex.errors import UserError
from cortex.protos import example_pb2
from cortex.tfrecord import CorruptedRecord, read_records

_SHARD = "[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]"
_PATTERNS = (f"validation-{_SHARD}", f"*-{_SHARD}", "*.tfrecord", "*.tfrecords")
"""What the files may be called, the first pattern that fits any preferred: pictures nobody trained on."""


@dataclass(frozen=True)
class Record:
    """One labelled picture. ``where`` names it in messages: the file, the number in it, and the picture's own name."""

    where: str
    encoded: bytes
    label: int


@dataclass(frozen=True)
class Entry:
    """What is written of one picture, a JPEG in RGB. ``synset`` and ``text`` name its class."""

    encoded: bytes
    height: int
    width: int
    label: int
    synset: str
    text: str
    filename: str

    def serialized(self) -> bytes:
        """Return the Example."""
        example = example_pb2.Example()
        feature = example.features.feature
        numbers = {"height": self.height, "width": self.width, "channels": 3, "class/label": self.label}
        for name, number in numbers.items():
            feature[f"image/{name}"].int64_list.value.append(number)
        texts = {"colorspace": "RGB", "class/synset": self.synset, "class/text": self.text, "format": "JPEG"}
        for name, text in (texts | {"filename": self.filename}).items():
            feature[f"image/{name}"].bytes_list.value.append(encoded(text))
        feature["image/encoded"].bytes_list.value.append(self.encoded)
        return bytes(example.SerializeToString(deterministic=True))


def encoded(text: str) -> bytes:
    """Return text as UTF-8, and the names of files that are none as they lie on the disk."""
    return text.encode(errors="surrogateescape")


def files(location: Path) -> list[Path]:
    """Return the TFRecord files at a place: it may be one. Raises UserError where there are none."""
    if location.is_file():
        return [location]
    for pattern in _PATTERNS:
        if found := sorted(path for path in location.glob(pattern) if path.is_file()):
            return found
    raise UserError(
        f"--data-location {location}: no TFRecords in it (validation-00000-of-00128, *.tfrecord); "
        "python -m benchmark tfrecords makes them from a folder of pictures"
    )


def read(location: Path) -> Iterator[Record]:
    """Yield the labelled pictures of all files. Raises UserError that names the file and the record."""
    for path in files(location):
        try:
            for number, data in enumerate(read_records(path)):
                yield _record(f"{path}, record {number}", data)
        except CorruptedRecord as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error


def _record(where: str, data: bytes) -> Record:
    try:
        feature = example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
        raise UserError(f"{where}: not a tf.train.Example") from error
    encoded = list(feature["image/encoded"].bytes_list.value)
    labels = list(feature["image/class/label"].int64_list.value)
    if len(encoded) != 1 or len(labels) != 1:
        raise UserError(f"{where}: expected one value each in image/encoded and image/class/label")
    names = feature["image/filename"].bytes_list.value
    name = f" ({names[0].decode(errors='replace')})" if names else ""
    return Record(where + name, encoded[0], labels[0])
