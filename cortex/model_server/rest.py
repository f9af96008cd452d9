"""The REST door: TF Serving's ``/v1/models/...``, and ``/healthz`` and ``/readyz`` for whoever watches the process.

A plain ASGI application on uvicorn, in a thread of its own. The paths are three regular expressions, so a web framework
would add memory and nothing else. A request waits on the event loop and runs on a thread pool.
"""

import asyncio
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import uvicorn

from cortex.model_server import codec, json_writer
from cortex.model_server.engines.base import timed_out
from cortex.model_server.handlers import Handlers
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import get_model_metadata_pb2, get_model_status_pb2, model_pb2

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_WHERE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_WHERE}:(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_MODEL = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHERE}(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(r"https?://.*", re.ASCII)

_HTTP_CODES = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}  # the rest (UNKNOWN, INTERNAL, DATA_LOSS) are 500

_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
_JSON = "application/json"
_NOT_FOUND = (
    "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"  # libevent's
)
_CHUNK = 2**20


@dataclass(frozen=True)
class RestOptions:
    """Where to listen and how much to accept. ``timeout`` is in seconds, ``max_body`` in bytes once inflated."""

    port: int
    threads: int = 8
    timeout: float = 30.0
    cors: bool = False
    max_body: int = 256 * 2**20


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class _Response:
    status: int
    body: str
    content_type: str = _JSON


class _BodyTooLarge(Exception):
    """Say that a body is larger than the limit."""


class RestServer:
    """Own the REST port of a process."""

    def __init__(self, handlers: Handlers, options: RestOptions) -> None:
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="rest")
        self._app = RestApp(handlers, options, self._pool)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, grace: float) -> None:
        """Open the port; `stop` will wait up to ``grace`` seconds. Raises StatusError when it cannot be opened."""
        listener = _listen(self._options.port)
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="rest", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        _log.info("Exporting HTTP/REST API at:localhost:%d ...", listener.getsockname()[1])

    def stop(self) -> None:
        """Refuse new connections, and wait for the requests that run."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)


class RestApp:
    """Answer HTTP requests in ASGI."""

    def __init__(self, handlers: Handlers, options: RestOptions, pool: ThreadPoolExecutor) -> None:
        self._handlers = handlers
        self._options = options
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the REST door does not speak {scope['type']}")
        headers = dict(scope["headers"])
        try:
            body = await self._body(headers, receive)
            request = _Request(scope["method"], scope["raw_path"].decode("latin-1"), body)
            response = await self._respond(request, headers)
        except _BodyTooLarge:
            response = _failure(413, f"The request body is larger than {self._options.max_body} bytes")
        except StatusError as error:
            response = _failure(_HTTP_CODES.get(error.code, 500), error.message)
        await self._send(response, send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        inflate = _inflater(headers.get(b"content-encoding", b"").strip().lower() == b"gzip", self._options.max_body)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise StatusError(Code.CANCELLED, "the client went away")
            chunks.append(inflate(message.get("body", b"")))
            size += len(chunks[-1])
            if size > self._options.max_body:
                raise _BodyTooLarge
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def _respond(self, request: _Request, headers: dict[bytes, bytes]) -> _Response:
        if request.path == "/healthz":
            return _Response(200, "ok\n", "text/plain")
        if request.path == "/readyz":
            ready = self._handlers.is_ready()
            return _Response(200 if ready else 503, "ready\n" if ready else "not ready\n", "text/plain")
        if request.method == "OPTIONS":
            return _Response(200 if _ORIGIN.match(headers.get(b"origin", b"").decode("latin-1")) else 400, "")
        if not request.path.lower().startswith("/v1/"):
            return _Response(404, _NOT_FOUND, "text/html")
        return await self._in_pool(request)

    async def _in_pool(self, request: _Request) -> _Response:
        """Run the request on a thread; one that outlives the timeout is answered without it."""
        deadline = time.monotonic() + self._options.timeout
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._handle, request, deadline)
        try:
            return _Response(200, await asyncio.wait_for(running, self._options.timeout))
        except TimeoutError:
            raise timed_out() from None

    def _handle(self, request: _Request, deadline: float) -> str:
        try:
            return _dispatch(self._handlers, request, deadline)
        except StatusError:
            raise
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.path)
            raise StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}") from error

    async def _send(self, response: _Response, send: Send) -> None:
        body = response.body.encode("utf-8", "replace")
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *(_CORS if self._options.cors else ()),
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _dispatch(handlers: Handlers, request: _Request, deadline: float) -> str:
    if request.method == "POST" and (match := _PREDICTION.fullmatch(request.path)):
        return _predict(handlers, match, request.body, deadline)
    if request.method == "GET" and (match := _MODEL.fullmatch(request.path)):
        return _describe(handlers, match)
    raise invalid(f"Malformed request: {request.method} {request.path}")


def _predict(handlers: Handlers, match: re.Match[str], body: bytes, deadline: float) -> str:
    method = match["method"].lower()
    if method != "predict":
        raise StatusError(Code.UNIMPLEMENTED, f"{method} is not supported by this server; use predict")
    request, form = codec.decode(body, _spec(match), handlers.inputs)
    answer = handlers.run(request, deadline)
    return (json_writer.predictions if form is codec.Format.ROW else json_writer.outputs)(answer.outputs)


def _describe(handlers: Handlers, match: re.Match[str]) -> str:
    if not match["name"]:
        raise invalid("Missing model name in request.")
    if not match["metadata"]:
        return json_writer.message(handlers.status(get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(match))))
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=_spec(match), metadata_field=["signature_def"])
    return json_writer.metadata(handlers.metadata(request))


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        if int(match["version"][:20]) >= 2**63 or len(match["version"]) > 19:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _failure(status: int, text: str) -> _Response:
    return _Response(status, json_writer.error(text))


def _inflater(gzipped: bool, limit: int) -> Callable[[bytes], bytes]:
    """Return what turns a piece of the body as sent into a piece of the body: gzip is inflated, to a limit."""
    if not gzipped:
        return lambda piece: piece
    stream = zlib.decompressobj(wbits=31)

    def inflate(piece: bytes) -> bytes:
        try:
            inflated = stream.decompress(piece, limit + 1)
        except zlib.error as error:
            raise invalid(f"The request body is not gzip: {error}") from error
        if stream.unconsumed_tail:
            raise _BodyTooLarge
        return inflated

    return inflate


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 - TF Serving's contract: all interfaces
    except OSError as error:
        listener.close()
        raise StatusError(Code.UNAVAILABLE, f"Failed to start HTTP Server at localhost:{port}: {error}") from error
    return listener
