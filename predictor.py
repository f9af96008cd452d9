"""Say what is in a picture: five labels of ImageNet's thousand, best first, from ResNet-50.

    curl $ENDPOINT -H "Content-Type: application/json" -d '{"imgs": ["<base64>", ...]}'
    curl $ENDPOINT -H "Content-Type: application/json" -d '{"url": "https://..."}'
    curl $ENDPOINT -H "Content-Type: image/jpeg" --data-binary @cat.jpg
    curl $ENDPOINT -F image=@cat.jpg

JSON and a raw body answer a list of five labels, or a list of such lists when several images came. A form answers
``{"predictions": [{"label", "probability"}, ...], "success": true}``, with a list of lists when it held several files.
A request with one bad image is refused as a whole, with a 400 that says which image and why.

Keys of ``predictor.config``, all optional:
    labels              the class index of the model, relative to this file
    allow_private_urls  true: ``url`` may lead to loopback and private addresses
"""

import io
import json
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pybase64
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from cortex.model_client import TensorFlowClient
from download import DownloadError, download

HERE = Path(__file__).parent
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_IMAGES = 64
MAX_PIXELS = 50_000_000  # of one image
MAX_DECODED = 25_000_000  # the same where it cannot be decoded at a smaller size, as JPEG can; up to 15 bytes each
LARGE = 4_000_000  # pixels to decode beyond which pictures wait for each other
ORIENTATION = (b"Exif", b"tiff:Orientation")  # what a JPEG has in it that may have to be turned
SHORT_SIDE, SIDE = 256, 224  # ResNet-50 looks at the middle 224 of a picture whose short side is 256
TOP = 5

ONE_LARGE_PICTURE = threading.Lock()  # at a time, so that a few small files cannot take all memory together
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns at first; MAX_PIXELS is checked for every image

Pictures = list[tuple[str, bytes]]
"""What the sender would call each image, for messages, and its encoded bytes."""


class TensorFlowPredictor:
    def __init__(self, tensorflow_client: TensorFlowClient, config: dict[str, Any]) -> None:
        self.client = tensorflow_client
        self.allow_private_urls = config.get("allow_private_urls") is True
        index = json.loads((HERE / config.get("labels", "export/imagenet_class_index.json")).read_text())
        self.labels = [name for _, name in (index[str(k)] for k in range(len(index)))]

    def predict(self, payload: Any) -> Any:
        pictures = self.pictures(payload)
        if not 1 <= len(pictures) <= MAX_IMAGES:
            raise refusal(f"expected 1 to {MAX_IMAGES} images, got {len(pictures)}")
        scores = self.client.predict_numpy({"input": np.stack([pixels(*picture) for picture in pictures])})["output"]
        ranked = [self.ranking(row) for row in scores]
        if isinstance(payload, FormData):
            return {"predictions": ranked if len(ranked) > 1 else ranked[0], "success": True}
        labels = [[entry["label"] for entry in ranking] for ranking in ranked]
        return labels if len(labels) > 1 else labels[0]

    def pictures(self, payload: Any) -> Pictures:
        """Return the encoded images of a request, whichever of the four shapes it has."""
        match payload:
            case bytes() if payload.startswith(b"{"):
                raise refusal("the request body: not a picture (JSON takes Content-Type: application/json)")
            case bytes():
                return [("the request body", payload)]
            case FormData() if "image" in payload:
                return [uploaded(file) for file in payload.getlist("image")]
            case FormData():
                raise refusal("expected files in the field image (or JSON, with Content-Type: application/json)")
            case {"imgs": list(images), **others} if not others:
                return [(f"imgs[{i}]", decoded(f"imgs[{i}]", image)) for i, image in enumerate(images)]
            case {"url": str(url), **others} if not others:
                return [("url", self.fetched(url))]
        raise refusal('expected {"imgs": ["<base64>", ...]} or {"url": "https://..."}')

    def fetched(self, url: str) -> bytes:
        try:
            return download(url, allow_private=self.allow_private_urls)
        except DownloadError as error:
            raise refusal(f"url: {error}") from error

    def ranking(self, scores: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Return the best labels of one image, best first."""
        best = np.argpartition(scores, -TOP)[-TOP:]
        best = best[np.argsort(-scores[best])]
        return [{"label": self.labels[k], "probability": float(scores[k])} for k in best]


def uploaded(file: UploadFile | str) -> tuple[str, bytes]:
    if isinstance(file, str):
        raise refusal("image: expected a file; with curl that is -F image=@cat.jpg")
    return f"image {file.filename!r}", file.file.read()


def decoded(name: str, image: Any) -> bytes:
    """Return the bytes of a base64 string; line breaks and a leading ``data:image/png;base64,`` are let pass."""
    if not isinstance(image, str):
        raise refusal(f"{name}: expected a base64 string, got {type(image).__name__}")
    data = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return pybase64.b64decode("".join(data.split()) if "\n" in data or " " in data else data, validate=True)
    except ValueError as error:  # binascii.Error is one, and so is a character beyond ASCII
        raise refusal(f"{name}: not base64 ({error})") from error


def pixels(name: str, data: bytes) -> npt.NDArray[np.uint8]:
    """Return what the model looks at: [224, 224, 3] uint8, RGB, upright, transparent parts white.

    The size is known before anything is decoded, so that a few bytes cannot unfold into gigabytes, and a large JPEG is
    decoded at the smallest size that is still large enough. Of an animation it is the first frame.
    """
    if size := small_jpeg(data):
        with suppress(ValueError):  # it is broken: Pillow says how, or knows how to mend it
            return cv2.resize(square_jpeg(data, *size), (SIDE, SIDE))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise refusal(f"{name}: {width} x {height} pixels, the limit is {MAX_PIXELS // 1_000_000} million")
            image.draft(None, (SHORT_SIDE, SHORT_SIDE))
            if image.width * image.height > MAX_DECODED:
                limit = MAX_DECODED // 1_000_000
                raise refusal(f"{name}: {width} x {height} pixels, the limit for {image.format} is {limit} million")
            with ONE_LARGE_PICTURE if image.width * image.height > LARGE else nullcontext():
                return cv2.resize(middle(image, data), (SIDE, SIDE))
    except UnidentifiedImageError as error:
        raise refusal(f"{name}: not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]} format") from error
    except HTTPException:
        raise
    except Exception as error:  # a decoder meets a stranger's bytes here, and fails in its own many ways
        raise refusal(f"{name}: broken picture ({error})") from error


def small_jpeg(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of a small upright JPEG, and None for any other picture.

    Most that are sent are such ones. Pillow reads a head in Python, which takes a quarter of a millisecond where an
    engine has just emptied the processor's caches.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    is_small = min(width, height) < 2 * SHORT_SIDE and width * height <= LARGE
    is_plain = is_small and colours in ("Gray", "YCbCr") and not any(mark in data for mark in ORIENTATION)
    return (width, height) if is_plain else None


def middle(image: Image.Image, data: bytes) -> npt.NDArray[np.uint8]:
    """Return the middle square of an upright image in RGB: what 224 of 256 are to its short side."""
    if is_plain_jpeg(image):
        with suppress(ValueError):  # it is broken: Pillow says how, or knows how to mend it
            return square_jpeg(data, image.width, image.height)
    image = smaller(image)
    ImageOps.exif_transpose(image, in_place=True)
    square = eight_bit(image.crop(box(*image.size)))
    if square.mode == "RGBA":
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    return np.asarray(square)


def is_plain_jpeg(image: Image.Image) -> bool:
    """Tell whether an image is a JPEG of which nothing but its pixels is wanted."""
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return image.format == "JPEG" and image.mode in ("L", "RGB") and upright and min(image.size) < 2 * SHORT_SIDE


def square_jpeg(data: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return the middle square of a JPEG that is decoded at this size: Pillow's very pixels, in two thirds of its time.

    Raises ValueError for one that is broken, or cannot have this size.
    """
    size = {"min_height": height, "min_width": width}
    if simplejpeg.decode_jpeg_header(data, **size)[:2] != (height, width):
        raise ValueError("its header says another size to this decoder than to Pillow")
    left, top, right, bottom = box(width, height)
    return simplejpeg.decode_jpeg(data, **size)[top:bottom, left:right]


def smaller(image: Image.Image) -> Image.Image:
    """Return an image at an integer fraction of its size, its short side at least 256: the average of whole blocks."""
    factor = min(image.size) // SHORT_SIDE
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "RGB", "RGBA", "CMYK") else image


def box(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the middle square of a picture: left, top, right, bottom."""
    side = max(1, round(min(width, height) * SIDE / SHORT_SIDE))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def eight_bit(image: Image.Image) -> Image.Image:
    """Return the image as RGB or, where parts of it are transparent, as RGBA."""
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits of grey to 8, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def refusal(why: str) -> HTTPException:
    return HTTPException(400, why)
