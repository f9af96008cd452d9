"""What is sent: one request body, made once and sent again and again."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import requests
from PIL import Image, UnidentifiedImageError

from cortex.errors import UserError

_FETCH_SECONDS = 30
_BOUNDARY = "cortex-loadtest-7f3a9c51"


@dataclass(frozen=True)
class Payload:
    """A request body, and how many inferences a successful answer to it stands for."""

    body: bytes
    content_type: str
    inferences: int = 1


def images_json(image: bytes, count: int = 1) -> Payload:
    """Return ``{"imgs": [base64, ...]}`` with one image ``count`` times: what predictor.py takes."""
    text = base64.b64encode(image).decode()
    return Payload(json.dumps({"imgs": [text] * count}).encode(), "application/json", count)


def image_form(image: bytes) -> Payload:
    """Return a form with one file in the field ``image``, as a browser or ``curl -F image=@file`` sends it."""
    head = 'Content-Disposition: form-data; name="image"; filename="image.jpg"\r\nContent-Type: image/jpeg'
    body = f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Payload(body, f"multipart/form-data; boundary={_BOUNDARY}")


def picture(source: str) -> bytes:
    """Return the picture behind a URL or a path as JPEG; one that is JPEG already stays as it is, to the byte.

    Raises UserError when there is none, or when it is no picture.
    """
    data = _fetched(source) if source.startswith(("http://", "https://")) else _read(source)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG":
                return data
            file = io.BytesIO()
            image.convert("RGB").save(file, "JPEG", quality=95)
            return file.getvalue()
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{source}: not a picture ({error})") from error


def _read(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}; give the URL or the path of a picture") from error


def _fetched(source: str) -> bytes:
    try:
        response = requests.get(source, timeout=_FETCH_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        raise UserError(f"{source}: could not be fetched ({error}); the path of a picture does as well") from error
    return response.content
