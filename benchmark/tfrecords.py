"""``python -m benchmark tfrecords``: a folder of pictures as TFRecords in ImageNet's layout.

A file appears under its name when it is whole. So a conversion that was cut off goes on where it stopped: what is there
is not made again.
"""

import hashlib
import io
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image, ImageOps, UnidentifiedImageError

from benchmark import labelled_pictures
from benchmark.imagenet_records import Entry, encoded
from benchmark.labelled_pictures import LabelledPicture
from cortex.errors import UserError
from cortex.tfrecord import CorruptedRecord, encode, read_records
from export.progress import Step
from export.staging import locked
from predictor import eight_bit

_SEED = 12345
_PICTURES_A_FILE = 1000
_QUALITY = 95


@dataclass(frozen=True)
class Order:
    """One conversion: from a folder into files ``NAME-00000-of-00008`` of a directory."""

    pictures: Path
    output: Path
    name: str
    labels: Path | None = None
    files: int | None = None
    skip_broken: bool = False


@dataclass(frozen=True)
class Converted:
    """How many pictures this conversion wrote, found there already, and left out, now or before."""

    written: int
    present: int
    skipped: int


def convert(order: Order, step: Step) -> Converted:
    """Write what is missing, and say so file by file. Raises UserError for pictures and places that cannot be used.

    Pictures are shuffled, always in the same way, so that any of the files holds a bit of every class.
    """
    if "/" in order.name:
        raise UserError(f"--name {order.name}: expected the name of files, not a path")
    pictures = labelled_pictures.find(order.pictures, order.labels)
    random.Random(_SEED).shuffle(pictures)  # noqa: S311 - not a secret
    count = order.files or -(-len(pictures) // _PICTURES_A_FILE)
    if count > len(pictures):
        raise UserError(f"--files {count}: there are only {len(pictures)} pictures")
    try:
        with locked(order.output, "conversion"):
            _claim(order, pictures, count)
            return _write(order, pictures, count, step)
    except OSError as error:
        raise UserError(f"{error.filename or order.output}: {error.strerror}") from error


def _claim(order: Order, pictures: Sequence[LabelledPicture], count: int) -> None:
    """Note what the files are made of. Raises UserError where they are made of something else already."""
    members = [
        (str(each.path.relative_to(order.pictures)), each.path.stat().st_size, each.label, each.synset)
        for each in pictures
    ]
    made_of = {"files": count, "sha256": hashlib.sha256(json.dumps(members).encode()).hexdigest()}
    path = order.output / f"{order.name}.json"
    if not path.exists():
        classes = sorted({(each.label, each.synset, each.text) for each in pictures})
        lines = (encoded(f"{label}\t{synset}\t{text}\n") for label, synset, text in classes)
        _put(order.output / f"{order.name}-labels.txt", lines)
        _put(path, [json.dumps(made_of).encode()])  # the last: with it the labels are there, too
    elif path.read_bytes() != json.dumps(made_of).encode():
        problem = "the files here were begun from other pictures, labels or --files"
        raise UserError(f"{path}: {problem}; choose another directory or --name, or delete {order.name}*")


def _write(order: Order, pictures: Sequence[LabelledPicture], count: int, step: Step) -> Converted:
    written = present = skipped = before = 0
    begin = time.monotonic()
    for number in range(count):
        part = pictures[len(pictures) * number // count : len(pictures) * (number + 1) // count]
        path = order.output / f"{order.name}-{number:05}-of-{count:05}"
        if path.exists():
            there = _count(path)
            present, skipped, before = present + there, skipped + len(part) - there, before + len(part)
            continue
        left_out: list[str] = []
        _put(path, _records(part, order, left_out))
        for reason in left_out:
            step(f"skipped {reason}")
        written, skipped = written + len(part) - len(left_out), skipped + len(left_out)
        done = written + present + skipped
        rate = (done - before) / (time.monotonic() - begin)
        left = (len(pictures) - done) / rate
        step(f"{path.name}: {done} of {len(pictures)} pictures, {rate:.0f} a second, {left:.0f} s left")
    return Converted(written, present, skipped)


def _count(path: Path) -> int:
    """Return how many pictures an earlier conversion wrote into a file: it may have left some out."""
    try:
        return sum(1 for _ in read_records(path))
    except CorruptedRecord as error:
        raise UserError(f"{error}: damaged; delete it, and it is made again") from error


def _put(path: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    """Write a file that appears under its name when all of it is on disk; what is not whole goes away again."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        try:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            partial.unlink()
            raise
    partial.rename(path)


def _records(pictures: Sequence[LabelledPicture], order: Order, left_out: list[str]) -> Iterator[bytes]:
    for picture in pictures:
        try:
            yield encode(_entry(picture).serialized())
        except UserError as error:
            if not order.skip_broken:
                raise UserError(f"{error}; --skip-broken leaves it out") from error
            left_out.append(str(error))


def _entry(picture: LabelledPicture) -> Entry:
    """Return what is written of one picture. A JPEG in RGB is kept byte for byte, all else becomes one."""
    data = picture.path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size = image.size
            if image.format != "JPEG" or image.mode != "RGB":
                data, size = _jpeg(image)
    except Exception as error:  # a decoder meets a stranger's bytes here, and fails in its own many ways
        why = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{picture.path}: not a picture that can be read ({why})") from error
    return Entry(data, size[1], size[0], picture.label, picture.synset, picture.text, picture.path.name)


def _jpeg(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    """Return the first frame as JPEG, upright and with transparent parts white, and its width and height."""
    upright, buffer = eight_bit(ImageOps.exif_transpose(image)), io.BytesIO()
    if upright.mode == "RGBA":
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    upright.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue(), upright.size


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Classes by picture.  [default: a folder for each class]",
)
@click.option("--name", default="validation", show_default=True, help="Of the files: NAME-00000-of-00008.")
@click.option("--files", type=click.IntRange(1, 99999), help="How many.  [default: one for each 1,000 pictures]")
@click.option("--skip-broken", is_flag=True, help="Leave out what is no picture, rather than stop at it.")
def tfrecords(
    pictures: Path, output: Path, labels: Path | None, name: str, files: int | None, skip_broken: bool
) -> None:
    """Turn a folder of PICTURES into TFRecords in OUTPUT, in ImageNet's layout.

    A conversion that was interrupted goes on when it is started again. Labels count from 1. A file of --labels has
    "FILE CLASS" on each line, or only classes, in the order of the pictures' names; a class is a number from 0 or a
    name.

    \b
    Examples:
      python -m benchmark tfrecords photos/ records/
      python -m benchmark tfrecords ILSVRC2012_val/ records/ --labels val.txt --files 128
    """
    order = Order(pictures, output, name, labels, files, skip_broken)
    done = convert(order, lambda text: click.echo(text, err=True))
    place = click.format_filename(output)
    click.echo(f"{place}: {done.written} pictures written, {done.present} already there, {done.skipped} skipped")
    click.echo(f"next: python -m benchmark launch --in-graph MODEL --accuracy-only --data-location {place}")
