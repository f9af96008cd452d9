"""What `cortex predict` posts and prints."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import issue
from tests.ports import free_port


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    file = tmp_path / "sample.json"
    file.write_text('{"x":  [1, 2]}')
    return file


@pytest.mark.parametrize(
    ("body", "output", "printed"),
    [
        ('{"label":"cat","p":[0.5]}', "pretty", '{\n  "label": "cat",\n  "p": [\n    0.5\n  ]\n}\n'),
        ('{"label": "cat"}', "json", '{"label":"cat"}\n'),
        ("setosa", "pretty", "setosa\n"),
        ("setosa", "json", '"setosa"\n'),
        ("", "pretty", "\n"),
    ],
)
def test_answer(
    body: str, output: str, printed: str, cortex: Callable[..., Any], world: Any, fakes: Any, serve: Any, sample: Path
) -> None:
    """JSON is indented, or put on one line for `-o json`; anything else is printed as it came."""
    world.apis = [fakes.api(endpoint=serve(body))]
    ran = cortex("predict", "iris", sample, "-o", output)
    assert (ran.code, ran.out, ran.err) == (0, printed, "")


def test_request(cortex: Callable[..., Any], world: Any, fakes: Any, serve: Any, sample: Path) -> None:
    """The file is posted as it is, as JSON, past any proxy."""
    world.apis = [fakes.api(endpoint=serve("{}"))]
    cortex("predict", "iris", sample)
    assert serve.requests == [("POST", "application/json", sample.read_bytes())]


def test_an_endpoint_of_this_machine_with_tls(
    cortex: Callable[..., Any], world: Any, fakes: Any, serve: Any, sample: Path, tmp_path: Path
) -> None:
    """Its certificate is for the name that others know it by, and need not be one that this machine trusts."""
    files = issue(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    world.apis = [fakes.api(endpoint=serve("setosa", tls=tls))]
    ran = cortex("predict", "iris", sample)
    assert (ran.code, ran.out, ran.err) == (0, "setosa\n", "")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, "imgs[0]: not an image\n", "imgs[0]: not an image"),
        (500, "internal server error", "internal server error"),
        (503, "", "empty response (status code 503)"),
        (302, "elsewhere", "elsewhere"),
    ],
)
def test_answer_other_than_200(
    status: int, body: str, message: str, cortex: Callable[..., Any], world: Any, fakes: Any, serve: Any, sample: Path
) -> None:
    world.apis = [fakes.api(endpoint=serve(body, status=status))]
    ran = cortex("predict", "iris", sample)
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ("updating", "", "iris is updating"),
        ("updating", "loading the model", "iris is updating: loading the model"),
        ("error", "worker 0 keeps crashing", "iris is not live: worker 0 keeps crashing"),
    ],
)
def test_api_that_is_not_live(
    status: str, reason: str, message: str, cortex: Callable[..., Any], world: Any, fakes: Any, sample: Path
) -> None:
    world.apis = [fakes.api(status=status, reason=reason)]
    ran = cortex("predict", "iris", sample)
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")


def test_endpoint_where_nobody_listens(cortex: Callable[..., Any], world: Any, fakes: Any, sample: Path) -> None:
    port = free_port()
    world.apis = [fakes.api(endpoint=f"http://localhost:{port}")]
    ran = cortex("predict", "iris", sample)
    assert ran.code == 1
    assert ran.err == (
        f"error: iris: no answer from http://localhost:{port} (ConnectionError); `cortex logs iris` may tell why\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b'{"x": ', "not valid JSON: Expecting value: line 1 column 7 (char 6)"),
        (b"\xff\xd8\xff", "not valid JSON: "),
        (b"[" * 100_000, "not valid JSON: "),
    ],
)
def test_file_that_is_not_json(content: bytes | None, message: str, cortex: Callable[..., Any], tmp_path: Path) -> None:
    """One line that names the file, before anything is asked."""
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_bytes(content)
    ran = cortex("predict", "iris", file)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {file}: {message}")
    assert ran.err.count("\n") == 1
