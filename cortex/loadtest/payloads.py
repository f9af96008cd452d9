"""What is sent: request bodies, made once and sent again and again."""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import requests
from PIL import Image, UnidentifiedImageError

from cortex.errors import UserError

_FETCH_SECONDS = 30
_BOUNDARY = "cortex-loadtest-7f3a9c51"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class Expectation(Protocol):
    """What a right answer is. A value that can be pickled."""

    def accepts(self, answer: bytes) -> bool:
        """Tell whether the body of an answer is right. Never raises for one that is malformed."""


@dataclass(frozen=True)
class Payload:
    """A request body, and how many inferences a successful answer to it stands for."""

    body: bytes
    content_type: str
    inferences: int = 1
    name: str = ""
    """What it was made of: the name of a file."""
    expected: Expectation | None = None


@dataclass(frozen=True)
class Picture:
    """A JPEG, and the name of its file."""

    name: str
    data: bytes


Form = Callable[[Sequence[bytes]], Payload]
"""Makes one request of some pictures."""


def as_json(images: Sequence[bytes]) -> Payload:
    """Return ``{"imgs": [base64, ...]}``: what predictor.py takes."""
    texts = [base64.b64encode(image).decode() for image in images]
    return Payload(json.dumps({"imgs": texts}).encode(), "application/json", len(images))


def as_form(images: Sequence[bytes]) -> Payload:
    """Return a form with each image as a file in the field ``image``, as ``curl -F image=@file`` sends it."""
    head = 'Content-Disposition: form-data; name="image"; filename="image.jpg"\r\nContent-Type: image/jpeg'
    parts = [f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + b"\r\n" for image in images]
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    return Payload(body, f"multipart/form-data; boundary={_BOUNDARY}", len(images))


def as_raw(images: Sequence[bytes]) -> Payload:
    """Return the bytes of one image. Raises UserError for several: a raw body holds one."""
    if len(images) != 1:
        raise UserError("a raw body holds one picture; leave --batch-size at 1, or choose another --format")
    return Payload(images[0], "image/jpeg")


def ready(path: Path) -> Payload:
    """Return a JSON file as it is. It counts as many inferences as its ``imgs``, ``instances`` or ``inputs`` has items.

    Raises UserError for a file that cannot be read or is not JSON.
    """
    body = _read(path, "the path of a JSON file")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    known = [document.get(key) for key in ("imgs", "instances", "inputs")] if isinstance(document, dict) else []
    counts = [len(each) for each in known if isinstance(each, list) and each]
    return Payload(body, "application/json", counts[0] if counts else 1, path.name)


def pictures(source: str) -> list[Picture]:
    """Return the pictures behind a URL, the path of a file, or the path of a folder, by name in the last case.

    Raises UserError when there are none.
    """
    try:
        files = sorted(path for path in Path(source).iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError:  # no folder, or none that may be looked into, of which `picture` tells the reason
        return [Picture(source.rpartition("/")[2], picture(source))]
    if not files:
        raise UserError(f"{source}: no pictures in this folder ({', '.join(sorted(_SUFFIXES))})")
    return [Picture(path.name, picture(str(path))) for path in files]


def batches(images: Sequence[Picture], size: int, form: Form) -> list[Payload]:
    """Return requests of ``size`` pictures each, that together hold every picture, the first ones again at the end.

    Raises UserError for a picture that a form has to decode and cannot.
    """
    payloads = []
    for number in range(math.ceil(len(images) / size)):
        chosen = [images[(number * size + i) % len(images)] for i in range(size)]
        try:
            made = form([each.data for each in chosen])
        except OSError as error:
            raise UserError(f"{', '.join(each.name for each in chosen)}: not a whole picture ({error})") from error
        payloads.append(replace(made, name=chosen[0].name))
    return payloads


def picture(source: str) -> bytes:
    """Return the picture behind a URL or a path as JPEG; one that is JPEG already stays as it is, to the byte.

    Raises UserError when there is none, or when it is no picture.
    """
    remote = source.startswith(("http://", "https://"))
    data = _fetched(source) if remote else _read(Path(source), "the URL or the path of a picture")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG":
                return data
            file = io.BytesIO()
            image.convert("RGB").save(file, "JPEG", quality=95)
            return file.getvalue()
    except UnidentifiedImageError:
        raise UserError(f"{source}: not a picture of a format that is known") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{source}: not a picture ({error})") from error


def _read(path: Path, wanted: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give {wanted}") from error


def _fetched(source: str) -> bytes:
    try:
        response = requests.get(source, timeout=_FETCH_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        raise UserError(f"{source}: could not be fetched ({error}); the path of a picture does as well") from error
    return response.content
