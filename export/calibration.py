"""What a model is shown before it is made smaller: samples of its use, divided into those to calibrate on and the rest.

A sample is one request: an array for each input of the signature, with one row where the batch is free. The rest is
held out: on it is measured how well the artifact agrees with fp32, since on samples that chose its scales every
artifact looks better than it is.

Pictures are taken in a random order that is the same every time; folders that hold one class each are mixed by it.
Records are taken from up to 64 files in turn, since the files of a data set are often sorted, and the records in them
less so.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import UserError
from cortex.protos import meta_graph_pb2
from cortex.tensors import to_proto
from export import calibration_records, noise, pictures
from export.calibration_records import Sample
from export.pictures import BrokenPicture
from export.progress import Step

RANDOM = "random"
FEWEST = 10  # samples in all: 8 calibrate, 2 are held out
_HELD_OUT = 5  # one in so many, at least
_NAMES = "*.tfrecord, *.tfrecords, NAME-00000-of-00001"


@dataclass(frozen=True)
class Calibration:
    """``kind`` is pictures, records or random; ``skipped`` counts the pictures that could not be decoded."""

    kind: str
    path: str
    samples: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    skipped: int

    @property
    def measured_over(self) -> str:
        """What a card says that the agreement was measured over."""
        return "held-out samples of noise" if self.kind == RANDOM else "held-out samples"

    def document(self) -> dict[str, Any]:
        """Return, for a model card, what the model was shown: samples to choose its scales, others to measure it."""
        facts = {
            "kind": self.kind,
            "path": self.path,
            "calibrated_on": len(self.samples),
            "held_out": len(self.held_out),
            "skipped": self.skipped,
        }
        note = {"note": "noise: what was chosen and measured by it means nothing"}
        return facts | (note if self.kind == RANDOM else {})


@dataclass
class _Skipped:
    """What could not be decoded."""

    count: int = 0
    first: str = ""

    def add(self, error: BrokenPicture) -> None:
        self.count += 1
        self.first = self.first or str(error)


def gather(text: str, signature: meta_graph_pb2.SignatureDef, subset_size: int, step: Step) -> Calibration:
    """Read up to ``2 * subset_size`` samples, and divide them at random, by a seed that is always the same.

    ``subset_size`` of them calibrate, four fifths when there are too few. Raises UserError for samples that are not
    there, not readable, fewer than 10, or do not fit the signature.
    """
    skipped = _Skipped()
    if text == RANDOM:
        step("noise stands for samples, as asked for: what is chosen and measured by it means nothing")
    else:
        step(f"reading samples from {text}")
    kind, found = _found(text, signature, skipped)
    samples = list(itertools.islice(found if kind == RANDOM else _distinct(found), 2 * subset_size))
    if skipped.count:
        step(f"skipped {skipped.count} broken pictures, the first: {skipped.first}")
    if len(samples) < FEWEST:
        broken = f" that are not broken ({skipped.first})" if skipped.count else ""
        raise UserError(
            f"--calibration {text}: holds {len(samples)} different samples{broken}, at least {FEWEST} are needed"
        )
    order = np.random.default_rng(0).permutation(len(samples))
    mixed = [samples[index] for index in order]
    count = min(subset_size, len(samples) - len(samples) // _HELD_OUT)
    return Calibration(kind, text, tuple(mixed[:count]), tuple(mixed[count:]), skipped.count)


def _distinct(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Leave out what came before: on both sides of the division, it would be measured on what chose its scales."""
    seen = set()
    for sample in samples:
        values = (to_proto(sample[alias]).SerializeToString() for alias in sorted(sample))
        key = tuple(hashlib.sha256(value).digest() for value in values)
        if key not in seen:
            seen.add(key)
            yield sample


def _found(text: str, signature: meta_graph_pb2.SignatureDef, skipped: _Skipped) -> tuple[str, Iterator[Sample]]:
    if text == RANDOM:
        return RANDOM, noise.samples(signature)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path's raises for no such user
    try:
        if path.is_file():
            return "records", _records([path], signature, skipped)
        if not path.is_dir():
            raise UserError(f"--calibration {text}: there is no such file or directory")
        files = sorted(pictures.files_below(path))
    except OSError as error:
        raise UserError(f"--calibration {text}: cannot be read ({error.strerror or error})") from error
    if images := [file for file in files if file.suffix.lower() in pictures.SUFFIXES]:
        return "pictures", _pictures(images, signature, skipped)
    if records := [file for file in files if calibration_records.has_its_name(file)]:
        return "records", _records(records, signature, skipped)
    endings = ", ".join(sorted(pictures.SUFFIXES))
    raise UserError(f"--calibration {text}: holds no pictures ({endings}) and no TFRecords ({_NAMES})")


def _pictures(files: list[Path], signature: meta_graph_pb2.SignatureDef, skipped: _Skipped) -> Iterator[Sample]:
    read = pictures.reader(signature)
    for index in np.random.default_rng(0).permutation(len(files)):
        file = files[index]
        try:
            yield read(str(file), file.read_bytes())
        except BrokenPicture as error:
            skipped.add(error)
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def _records(files: list[Path], signature: meta_graph_pb2.SignatureDef, skipped: _Skipped) -> Iterator[Sample]:
    for sample in calibration_records.samples(files, signature):
        if isinstance(sample, BrokenPicture):
            skipped.add(sample)
        else:
            yield sample
