"""What a connection makes of each way a server can answer."""

import contextlib
from typing import Any

import pytest

from cortex.errors import UserError
from cortex.loadtest import HTTP, Failed, Payload

PAYLOAD = Payload(b"{}", "application/json")


def failure(url: str, timeout: float = 5) -> Failed:
    connection = HTTP(url, timeout).connect()
    with pytest.raises(Failed) as failed:
        connection.call(PAYLOAD)
    connection.close()
    return failed.value


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/302", "HTTP 302 Found"),
        ("/400", "HTTP 400 Bad Request"),
        ("/500", "HTTP 500 Internal Server Error"),
        ("/503", "HTTP 503 Service Unavailable"),
        ("/reset", "connection reset"),
        ("/hang_up", "connection closed without an answer"),
        ("/cut_short", "connection closed within an answer"),
        ("/nonsense", "not an HTTP answer"),
        ("/long_number", "not an HTTP answer"),
    ],
)
def test_kinds_of_failure(endpoint: str, path: str, kind: str) -> None:
    """Each way to fail has its name, and nothing but 2xx is success."""
    failed = failure(endpoint + path)
    assert (failed.kind, failed.unreachable) == (kind, False)


def test_timeout(endpoint: str) -> None:
    """A server that does not answer in time is a timeout."""
    assert failure(endpoint + "/hang", timeout=0.1).kind == "timeout"


def test_nobody_listens(closed_endpoint: str) -> None:
    """A closed port is told apart, so that the caller can slow down."""
    failed = failure(closed_endpoint)
    assert (failed.kind, failed.unreachable) == ("connection refused", True)


@pytest.mark.parametrize("path", ["", "/", "/201", "/200?x=1"])
def test_success(endpoint: str, seen: Any, path: str) -> None:
    """A 2xx is success, and the body arrives as it is."""
    connection = HTTP(endpoint + path).connect()
    connection.call(Payload(b"\x00body\xff", "application/x-test"))
    connection.close()
    [(asked, headers, body)] = seen.requests
    assert (asked, headers["Content-Type"], body) == (path or "/", "application/x-test", b"\x00body\xff")


@pytest.mark.parametrize("path", ["/", "/500"])
def test_keep_alive(endpoint: str, seen: Any, path: str) -> None:
    """All requests share one connection, whatever their answers."""
    connection = HTTP(endpoint + path).connect()
    for _ in range(3):
        with contextlib.suppress(Failed):
            connection.call(PAYLOAD)
    connection.close()
    assert (len(seen.requests), seen.connections) == (3, 1)


def test_closed_while_idle(endpoint: str, seen: Any) -> None:
    """A connection that the server closed between two requests is opened again: no request was lost."""
    connection = HTTP(endpoint + "/close_silently").connect()
    for _ in range(3):
        connection.call(PAYLOAD)
        assert seen.closed.acquire(timeout=5)
    connection.close()
    assert (len(seen.requests), seen.connections) == (3, 3)


def test_https(secure_endpoint: str, seen: Any) -> None:
    """https works, with certificates checked."""
    connection = HTTP(secure_endpoint).connect()
    connection.call(PAYLOAD)
    connection.close()
    assert len(seen.requests) == 1
    assert failure(secure_endpoint.replace("localhost", "127.0.0.1")).kind == "certificate not trusted"


@pytest.mark.parametrize(
    "url", ["", "localhost:8888", "ftp://localhost", "http://", "http://host:port", "http://h:0", "http://h/\udcff"]
)
def test_bad_endpoints(url: str) -> None:
    """An endpoint that is no URL is told at once, with an example."""
    with pytest.raises(UserError, match="not an endpoint; it looks like http://localhost:8888"):
        HTTP(url)


def test_recovers(endpoint: str, seen: Any) -> None:
    """After a failure the same connection goes on."""
    connection = HTTP(endpoint + "/hang_up").connect()
    for _ in range(2):
        with pytest.raises(Failed, match="closed without an answer"):
            connection.call(PAYLOAD)
    connection.close()
    assert len(seen.requests) == 2
