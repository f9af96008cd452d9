"""One request from its first byte to its answer's last: its id, its log line, its metrics, and the last resort.

Every response carries ``x-request-id``; every failure's log line carries the same id.
"""

import logging
import re
import secrets
import time
from http import HTTPStatus
from http.client import responses

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE

from cortex.api.metrics import Metrics
from cortex.api.paths import PREDICT_PATHS, PROBE_PATHS
from cortex.api.responses import failed

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PATH_IN_LOG = 200
_STATUS_END = 600
_CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; it is no failure of ours

_log = logging.getLogger("cortex")


class Trace:
    """Follow every request that passes through; the outermost layer of the app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. What escapes the app is logged, and answered with 500 if nothing was sent yet."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        following = _Following(scope, send)
        try:
            await self._app(scope, receive, following.send)
        except ClientDisconnect:
            following.status = _CLIENT_CLOSED_REQUEST  # nobody is there to read an answer
        except Exception:  # noqa: BLE001  # the last resort: a fault of ours must not lose its request id
            _log.exception("request %s was not answered as it should", following.request_id)
            if following.status is None:
                await failed()(scope, receive, following.send)
            elif not following.is_answered:
                following.status = HTTPStatus.INTERNAL_SERVER_ERROR  # whatever its head promised
        finally:
            self._record(scope, following)

    def _record(self, scope: Scope, following: "_Following") -> None:
        status = following.status or HTTPStatus.INTERNAL_SERVER_ERROR
        if scope["path"] in PREDICT_PATHS and scope["method"] == "POST":
            self._metrics.observe(status, following.seconds)
        if scope["path"] in PROBE_PATHS and status < HTTPStatus.BAD_REQUEST:
            return
        log_answer(status, scope["method"], _path(scope), following.request_id)


class _Following:
    """What is known of one request so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = request_id(Headers(scope=scope).get("x-request-id", ""))
        self.status: int | None = None
        self._send = send
        self._started = time.perf_counter()
        self._ended: float | None = None
        scope.setdefault("state", {})["request_id"] = self.request_id

    @property
    def is_answered(self) -> bool:
        return self._ended is not None

    @property
    def seconds(self) -> float:
        return (self._ended or time.perf_counter()) - self._started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not HTTPStatus.OK <= message["status"] < _STATUS_END:
                raise ValueError(f"{message['status']} is no status that an answer can have")
            for name, value in message.get("headers", []):
                if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                    raise ValueError(f"{name!r}: {value!r} is no header that an answer can have")
            self.status = message["status"]
            # a copy: the headers may belong to a response that user code returns again
            message = {**message, "headers": list(message.get("headers", []))}
            MutableHeaders(scope=message)["x-request-id"] = self.request_id
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = time.perf_counter()


def request_id(given: str) -> str:
    """Return the id that a client gave to a request, or a new one where it is none that a log could hold."""
    return given if _SANE_ID.fullmatch(given) else secrets.token_hex(16)


def log_answer(status: int, method: str, path: str, request_id: str) -> None:
    """Log one answer; a failure's line carries the id that its client knows."""
    suffix = f" [{request_id}]" if status >= HTTPStatus.BAD_REQUEST else ""
    _log.info("%d %s %s %s%s", status, responses.get(status, ""), method, path, suffix)


def _path(scope: Scope) -> str:
    # still percent-encoded, so that no path can write a line of its own into the log
    path: str = scope.get("raw_path", scope["path"].encode()).decode("ascii", "backslashreplace")
    return path[:_PATH_IN_LOG]
