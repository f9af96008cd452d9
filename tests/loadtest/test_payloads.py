"""What is sent."""

import base64
import email
import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from cortex.errors import UserError
from cortex.loadtest.payloads import as_form, as_json, picture


def test_json() -> None:
    """A batch counts as so many inferences."""
    payload = as_json([b"jpeg", b"png"])
    assert (payload.content_type, payload.inferences) == ("application/json", 2)
    assert json.loads(payload.body) == {"imgs": [base64.b64encode(each).decode() for each in (b"jpeg", b"png")]}


def test_form() -> None:
    """A form holds each picture as a file in the field image."""
    images = [b"\xff\xd8 jpeg \r\n", b"another"]
    payload = as_form(images)
    message = email.message_from_bytes(b"Content-Type: " + payload.content_type.encode() + b"\r\n\r\n" + payload.body)
    parts = message.get_payload()
    assert payload.inferences == 2
    assert [part.get_param("name", header="Content-Disposition") for part in parts] == ["image"] * 2
    assert [part.get_filename() for part in parts] == ["image.jpg"] * 2
    assert [part.get_payload(decode=True) for part in parts] == images


def test_a_jpeg_stays_as_it_is(picture_file: Path) -> None:
    """A JPEG is sent to the byte as it was found."""
    assert picture(str(picture_file)) == picture_file.read_bytes()


def test_other_formats_become_jpeg(tmp_path: Path) -> None:
    """A picture of another format is sent as JPEG."""
    Image.new("RGBA", (30, 20), (1, 2, 3, 4)).save(tmp_path / "picture.png")
    with Image.open(io.BytesIO(picture(str(tmp_path / "picture.png")))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (30, 20), "RGB")


def test_a_url(endpoint: str, picture_file: Path) -> None:
    """A picture can be behind a URL."""
    assert picture(endpoint + "/picture.jpg") == picture_file.read_bytes()


def test_bad_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed_endpoint: str) -> None:
    """No file, no server and no picture are one clear line each."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's own, which a predictor in this process lifts
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "text.ppm").write_text("P5 hello")
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "huge.png").write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    for source, why in [
        (str(tmp_path / "none.jpg"), "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "text.jpg"), "not a picture of a format that is known"),
        (str(tmp_path / "text.ppm"), "not a picture"),
        (str(tmp_path / "huge.png"), "not a picture .Image size .* exceeds limit"),
        (closed_endpoint, "could not be fetched"),
    ]:
        with pytest.raises(UserError, match=why):
            picture(source)
