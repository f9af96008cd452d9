"""The pictures that are sent: a small one that people send, and a large one as cameras make it."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.cells import JSON, LARGE, MULTIPART, RAW
from cortex.loadtest import Payload
from cortex.loadtest.payloads import Form, as_form, as_json, as_raw

_CAT = Path(__file__).parents[1] / "export" / "cat.jpg"
_LARGE_SIZE = (4000, 3000)
_GRAIN = 4.0  # of 255: a sensor's, without which an enlarged picture is far smaller as a file than a photograph
_FORMS: dict[str, Form] = {JSON: as_json, MULTIPART: as_form, RAW: as_raw}


@cache
def payload(form: str, picture: str) -> Payload:
    """Return a request with one picture."""
    return _FORMS[form]([_large() if picture == LARGE else _CAT.read_bytes()])


@cache
def _large() -> bytes:
    """Return a JPEG of 12 megapixels, the same each time."""
    with Image.open(_CAT) as cat:
        pixels = np.asarray(cat.convert("RGB").resize(_LARGE_SIZE, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(0).normal(0, _GRAIN, pixels.shape[:2]).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain[..., None], 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
