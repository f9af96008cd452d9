"""What a model is fed: its type, layout and values, and which pictures."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmark import batches
from cortex.errors import UserError
from export.signature import MEANS_BGR

PICTURE = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("raw", lambda rgb: rgb),
        ("caffe", lambda rgb: rgb[..., ::-1] - np.array(MEANS_BGR)),
        ("vgg", lambda rgb: rgb - np.array(MEANS_BGR)[::-1]),
        ("tf", lambda rgb: rgb / 127.5 - 1),
        ("torch", lambda rgb: (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ],
)
def test_pixels(pixels: str, expected: object) -> None:
    """Each kind of pixels is what the framework of that name trains on, in either layout."""
    last = batches.format_of((-1, 4, 6, 3), FLOAT, pixels, 2)
    first = batches.format_of((2, 3, 4, 6), FLOAT, pixels, 2)
    assert (first.height, first.width) == (last.height, last.width) == (4, 6)
    values = last.batch(PICTURE)
    assert values.dtype == FLOAT
    np.testing.assert_allclose(values, expected(PICTURE.astype(float)), rtol=1e-5, atol=1e-5)  # type: ignore[operator]
    np.testing.assert_array_equal(first.batch(PICTURE), values.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("shape", "dtype", "pixels", "message"),
    [
        ((-1, 10), "float32", None, r"float32 \[-1, 10\], not pictures"),
        ((-1, 28, 28, 1), "float32", None, "not pictures"),
        ((-1,), "object", None, "not pictures"),
        ((1, 224, 224, 3), "uint8", None, "--batch-size 2: the model only takes batches of 1"),
        ((-1, 224, 224, 3), "uint8", "caffe", "--pixels caffe: the model takes uint8, which is raw"),
    ],
)
def test_refusals(shape: tuple[int, ...], dtype: str, pixels: str | None, message: str) -> None:
    """A model that takes no such pictures is refused by flag."""
    with pytest.raises(UserError, match=message):
        batches.format_of(shape, np.dtype(dtype), pixels, 2)


def test_unknown_sides_are_those_of_resnet() -> None:
    """Where the model does not say its size, it is 224 x 224."""
    for shape in (None, (-1, -1, -1, 3)):
        assert next(batches.synthetic(batches.format_of(shape, FLOAT, None, 2), 2)).shape == (2, 224, 224, 3)


def test_real_pictures_come_again(records: Path) -> None:
    """Batches are full and come for ever, each picture in turn; the last pictures that fill no batch are left out."""
    fmt = batches.format_of((-1, 224, 224, 3), np.dtype(np.uint8), None, 5)
    feed = list(islice(batches.real(fmt, 5, records, batches.decoder(fmt)), 7))
    assert {batch.shape for batch in feed} == {(5, 224, 224, 3)}
    assert feed[6] is feed[0]
    colors = np.concatenate(feed[:6])[:, 0, 0].astype(int)
    labels = [record.label - 1 for _, record in zip(range(30), batches.imagenet_records.read(records), strict=False)]
    expected = [[220 if label >> bit & 1 else 40 for bit in (2, 1, 0)] for label in labels]
    assert np.abs(colors - expected).max() < 5


def test_another_size_is_refused(records: Path) -> None:
    """Pictures are decoded as the API decodes them, to 224 x 224 and nothing else."""
    with pytest.raises(UserError, match="decoded to 224 x 224, not 32 x 32"):
        batches.decoder(batches.format_of((-1, 32, 32, 3), FLOAT, None, 1))
