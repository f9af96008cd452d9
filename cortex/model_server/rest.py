"""The REST door: TF Serving's ``/v1/models/...``, and ``/healthz`` and ``/readyz`` for whoever watches the process.

A plain ASGI application on uvicorn, in a thread of its own. The paths are two regular expressions, so a web framework
would add memory and nothing else. A request waits on the event loop and runs on a thread pool.
"""

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from cortex.executor import PatientExecutor
from cortex.http_protocol import HttpProtocol
from cortex.model_server import http_body, json_writer, routes
from cortex.model_server.api_key import ApiKeys
from cortex.model_server.engines.base import timed_out
from cortex.model_server.handlers import Handlers
from cortex.model_server.http_body import Receive
from cortex.model_server.request import Recorder
from cortex.model_server.routes import Answer, Request
from cortex.model_server.status import Code, StatusError, guarded

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Page = Callable[[], Answer]
Act = Callable[[float | None], Answer]
"""Answers a request by a deadline on `time.monotonic`'s clock."""

_GRACE = 0.05
"""Seconds after its deadline until a request is given up that has not said itself that it is late."""
_KEEP_ALIVE = 75
"""Seconds for the next request of a connection; proxies keep theirs for 60, and must be the first to give one up."""
_HEALTH = ("/healthz", "/readyz")
_UNREAD = (408, 413)
"""Statuses after which nobody reads the rest of a body."""
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
_NOT_FOUND = (
    "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"  # libevent's
)


@dataclass(frozen=True)
class RestOptions:
    """Where to listen and how much to accept. ``timeout`` is in seconds or None, ``max_body`` in bytes.

    ``keys`` are asked of every request but those for the health pages.
    """

    port: int
    threads: int = 8
    timeout: float | None = 30.0
    cors: bool = False
    max_body: int = 256 * 2**20
    keys: ApiKeys = field(default_factory=ApiKeys)


class RestServer:
    """Own the REST port of a process. ``pages`` are more GET pages by path, such as metrics."""

    def __init__(
        self,
        handlers: Handlers,
        options: RestOptions,
        recorder: Recorder | None = None,
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        self._options = options
        self._pool = PatientExecutor(options.threads, thread_name_prefix="rest")
        self._app = RestApp(handlers, options, self._pool, recorder or Recorder(), pages or {})
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, grace: float) -> None:
        """Open the port; `stop` will wait up to ``grace`` seconds. Raises StatusError when it cannot be opened."""
        listener = _listen(self._options.port)
        config = uvicorn.Config(
            self._app,
            http=HttpProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(grace),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="rest", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._server.started:
            raise StatusError(Code.UNAVAILABLE, f"Failed to start HTTP Server at localhost:{self._options.port}")
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

    def __init__(
        self,
        handlers: Handlers,
        options: RestOptions,
        pool: ThreadPoolExecutor,
        recorder: Recorder,
        pages: Mapping[str, Page],
    ) -> None:
        self._handlers = handlers
        self._options = options
        self._pool = pool
        self._recorder = recorder
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the REST door does not speak {scope['type']}")
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            answer = await self._answer(scope["method"], scope["raw_path"].decode("latin-1"), headers, receive)
        except http_body.BodyTooLarge:
            answer = _failure(413, f"The request body is larger than {self._options.max_body} bytes")
        except http_body.BodyTooSlow:
            answer = _failure(408, f"No more of the request body came for {http_body.STALL_S:g} seconds")
        except StatusError as error:
            answer = _failure(_HTTP_CODES.get(error.code, 500), error.message)
        await self._send(answer, send)

    async def _answer(self, method: str, path: str, headers: Mapping[str, str], receive: Receive) -> Answer:
        if path in _HEALTH:
            return self._health(path)
        if method == "OPTIONS":  # a browser's preflight carries no key
            return Answer(b"", status=200 if _ORIGIN.match(headers.get("origin", "")) else 400)
        self._options.keys.check(headers)
        if path in self._pages and method == "GET":
            return await self._in_pool(lambda deadline: self._pages[path]())
        if not path.lower().startswith("/v1/"):
            return routes.text(_NOT_FOUND, "text/html", 404)
        if int(headers.get("content-length", 0)) > self._options.max_body:
            raise http_body.BodyTooLarge
        gzipped = headers.get("content-encoding", "").strip().lower() == "gzip"
        body = await http_body.read(receive, gzipped=gzipped, limit=self._options.max_body)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        request = Request(method, path, body, kind, self._options.max_body)
        gone: Future[None] = Future()
        leaving = asyncio.create_task(_hear_of_end(receive, gone))
        try:
            return await self._in_pool(
                lambda deadline: routes.dispatch(self._handlers, request, deadline, self._recorder, gone)
            )
        finally:
            leaving.cancel()

    def _health(self, path: str) -> Answer:
        if path == "/healthz":
            return routes.text("ok\n", "text/plain")
        ready = self._handlers.is_ready()
        return routes.text("ready\n" if ready else "not ready\n", "text/plain", 200 if ready else 503)

    async def _in_pool(self, act: Act) -> Answer:
        """Run the request on a thread; one that outlives the timeout, and does not say so, is answered without it."""
        timeout = self._options.timeout
        deadline = time.monotonic() + timeout if timeout is not None else None
        running = asyncio.get_running_loop().run_in_executor(self._pool, _guarded, act, deadline)
        try:
            return await asyncio.wait_for(running, timeout and timeout + _GRACE)
        except TimeoutError:
            raise timed_out() from None

    async def _send(self, answer: Answer, send: Send) -> None:
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            *(((b"www-authenticate", b"Bearer"),) if answer.status == 401 else ()),
            *(((b"connection", b"close"),) if answer.status in _UNREAD else ()),
            *(_CORS if self._options.cors else ()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def _hear_of_end(receive: Receive, gone: Future[None]) -> None:
    """Wait for the end of a connection whose request was read, and tell of it."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set_result(None)


def _guarded(act: Act, deadline: float | None) -> Answer:
    with guarded():
        return act(deadline)


def _failure(status: int, text: str) -> Answer:
    return routes.text(json_writer.error(text), status=status)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 - TF Serving's contract: all interfaces
    except OSError as error:
        listener.close()
        raise StatusError(Code.UNAVAILABLE, f"Failed to start HTTP Server at localhost:{port}: {error}") from error
    return listener
