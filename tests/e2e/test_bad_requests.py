"""Bad requests: one clear line, the right status, and the same processes go on serving."""

import base64
import struct
import zlib
from pathlib import Path

import pytest
import requests

from tests.e2e.deployment import Cortex, post, sample

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def endpoint(cortex: Cortex, project: Path) -> str:
    printed = cortex("deploy", project / "cortex_gpu.yaml")
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        assert printed.count("will run without gpu access") == 1
    return str(cortex.get()["endpoint"])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"url": "file:///etc/passwd"}, "http"),
        ({"url": "http://127.0.0.1:1/cat.jpg"}, "127.0.0.1"),
        ({"url": "http://localhost:1/cat.jpg"}, "localhost"),
        ({"url": "http://[::ffff:127.0.0.1]:1/cat.jpg"}, "127.0.0.1"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "169.254.169.254"),
        ({"imgs": ["bm90IGEgcGljdHVyZQ=="]}, "imgs[0]"),
        ({"imgs": []}, "got 0"),
        ({"imgs": [5]}, "imgs[0]"),
        ({}, "imgs"),
        ([], "imgs"),
        (None, "the request body"),
    ],
    ids=str,
)
def test_a_bad_request_is_a_400(endpoint: str, body: object, expected: str) -> None:
    """The answer says which picture, and why."""
    answer = post(endpoint, body)
    assert answer.status_code == 400, answer.text
    assert expected in answer.text
    assert len(answer.text.splitlines()) == 1


def test_half_a_jpeg(endpoint: str) -> None:
    """A picture that breaks off is refused, not guessed at."""
    whole = base64.b64decode(sample()["imgs"][0])
    body = {"imgs": [sample()["imgs"][0], base64.b64encode(whole[: len(whole) // 2]).decode()]}
    answer = post(endpoint, body)
    assert answer.status_code == 400
    assert "imgs[1]" in answer.text


def test_a_decompression_bomb(endpoint: str) -> None:
    """A small file that announces a huge picture is refused before it is decoded."""
    answer = requests.post(endpoint, data=_png(60_000, 60_000), headers={"content-type": "image/png"}, timeout=60)
    assert answer.status_code == 400
    assert "60000" in answer.text


def test_json_that_is_none(endpoint: str) -> None:
    """Cortex's body for it: an object with the parser's words."""
    answer = requests.post(endpoint, data=b"{oops", headers={"content-type": "application/json"}, timeout=60)
    assert answer.status_code == 400
    assert "error" in answer.json()


def test_fifty_megabytes(endpoint: str) -> None:
    """A body beyond the limit is refused at once."""
    answer = requests.post(endpoint, data=b"x" * 50_000_000, timeout=60)
    assert answer.status_code == 413
    assert "networking.max_body_size" in answer.text


def test_it_still_answers(cortex: Cortex, endpoint: str) -> None:
    """After all of the above, the same processes serve."""
    assert len(post(endpoint, sample()).json()) == 5
    status = cortex.status()
    assert status["status"] == "live"
    assert [row["restarts"] for row in status["processes"]] == [0] * len(status["processes"])


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
