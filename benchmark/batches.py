"""What a classifier is fed: batches of made-up pictures, or of real ones from TFRecords."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark import imagenet_records
from cortex.errors import UserError
from export.signature import IMAGE_SIZE, MEANS_BGR

Array = NDArray[Any]
Decode = Callable[[imagenet_records.Record], Array]

_PICTURES_AHEAD = 512
_MEANS_RGB = np.array(MEANS_BGR[::-1], np.float32)
_UNIT_MEANS = np.array((0.485, 0.456, 0.406), np.float32)  # of ImageNet in RGB, of values up to 1
_UNIT_DEVIATIONS = np.array((0.229, 0.224, 0.225), np.float32)

PIXELS: dict[str, Callable[[Array], Array]] = {
    "raw": lambda rgb: rgb,
    "caffe": lambda rgb: rgb[..., ::-1] - _MEANS_RGB[::-1],
    "vgg": lambda rgb: rgb - _MEANS_RGB,
    "tf": lambda rgb: rgb / np.float32(127.5) - np.float32(1),
    "torch": lambda rgb: (rgb / np.float32(255) - _UNIT_MEANS) / _UNIT_DEVIATIONS,
}
"""What a model was trained on, from RGB of 0 to 255, channels last."""


@dataclass(frozen=True)
class Format:
    """The input of a model: pictures ``[n, side, side, 3]``, or ``[n, 3, side, side]`` with channels first."""

    dtype: np.dtype[Any]
    height: int
    width: int
    channels_first: bool
    pixels: str

    def batch(self, pictures: Array) -> Array:
        """Return uint8 RGB pictures ``[n, height, width, 3]`` as the model takes them."""
        values = pictures if self.pixels == "raw" else PIXELS[self.pixels](pictures.astype(np.float32))
        values = values.transpose(0, 3, 1, 2) if self.channels_first else values
        return np.ascontiguousarray(values, self.dtype)


def format_of(shape: tuple[int, ...] | None, dtype: np.dtype[Any], pixels: str | None, batch_size: int) -> Format:
    """Return the format of an input of this shape, -1 for what is free. Raises UserError where no picture fits in."""
    count, *sides = shape or (-1, -1, -1, 3)
    if len(sides) != 3 or 3 not in (sides[0], sides[2]) or dtype.kind not in "uif":
        raise UserError(f"--in-graph: its input is {dtype} {list(shape or ())}, not pictures; choose with --input-node")
    if count not in (-1, batch_size):
        raise UserError(f"--batch-size {batch_size}: the model only takes batches of {count}")
    if pixels not in (None, "raw") and dtype.kind != "f":
        raise UserError(f"--pixels {pixels}: the model takes {dtype}, which is raw")
    channels_first = sides[2] != 3
    height, width = sides[1:] if channels_first else sides[:2]
    height, width = (IMAGE_SIZE if side == -1 else side for side in (height, width))
    return Format(dtype, height, width, channels_first, pixels or "raw")


def synthetic(fmt: Format, batch_size: int) -> Iterator[Array]:
    """Yield one batch of noise over and over."""
    shape = (batch_size, fmt.height, fmt.width, 3)
    return cycle([fmt.batch(np.random.default_rng(0).integers(0, 256, shape, np.uint8))])


def real(fmt: Format, batch_size: int, location: Path, decode: Decode) -> Iterator[Array]:
    """Yield batches of real pictures over and over, decoded before the first comes, so that it costs no measured time.

    Of many pictures it is the first 512 (a batch at least), of few the batch is filled by repeating them.
    """
    records = islice(imagenet_records.read(location), max(_PICTURES_AHEAD, batch_size))
    pictures = [decode(record) for record in records]
    if not pictures:
        raise UserError(f"--data-location {location}: no picture in it")
    count = max(1, len(pictures) // batch_size)
    endless = cycle(pictures)
    return cycle([fmt.batch(np.stack(list(islice(endless, batch_size)))) for _ in range(count)])


def labelled(
    fmt: Format, batch_size: int, location: Path, decode: Decode
) -> Iterator[tuple[Array, tuple[imagenet_records.Record, ...]]]:
    """Yield every picture once: a batch, and the records that its rows are of. The last batch may be short."""
    records = imagenet_records.read(location)
    while together := tuple(islice(records, batch_size)):
        yield fmt.batch(np.stack([decode(record) for record in together])), together


def decoder(fmt: Format) -> Decode:
    """Return what makes pixels of a record: the very function that the API decodes with.

    Raises UserError where the model looks at another size than that one makes.
    """
    from starlette.exceptions import HTTPException

    import predictor

    if (fmt.height, fmt.width) != (predictor.SIDE, predictor.SIDE):
        wanted = f"{fmt.height} x {fmt.width}"
        raise UserError(f"--data-location: pictures are decoded to {predictor.SIDE} x {predictor.SIDE}, not {wanted}")

    def decode(record: imagenet_records.Record) -> Array:
        try:
            return predictor.pixels(record.where, record.encoded)
        except HTTPException as error:
            raise UserError(error.detail) from error

    return decode
