"""Which prediction requests are let in: not too many at once, and none with too large a body."""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex.api.metrics import Metrics
from cortex.api.paths import PREDICT_PATHS
from cortex.api.refusal import BODY, HEADERS, STATUS, Places

_LINGER_S = 5.0


class Admission:
    """Refuse what the app has no room for, before it costs anything."""

    def __init__(self, app: ASGIApp, places: Places, max_body: int, metrics: Metrics, stall: float = 60.0) -> None:
        self._app = app
        self._metrics = metrics
        self._places = places
        self._max_body = max_body
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer 503 where all ``places`` are taken and 413 above ``max_body`` bytes.

        A body of which nothing comes for ``stall`` seconds is answered with 408: it holds a place that others need.
        """
        if scope["type"] != "http" or scope["path"] not in PREDICT_PATHS or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._max_body, self._stall)
        exchange = _Exchange(body, send)
        if refusal := self._refusal(Headers(scope=scope)):
            await refusal(scope, body.receive, exchange.send)
            return
        self._places.taken += 1
        try:
            with self._metrics.in_flight():
                await self._app(scope, body.receive, exchange.send)
        finally:
            self._places.taken -= 1

    def _refusal(self, headers: Headers) -> Response | None:
        if int(headers.get("content-length", "0")) > self._max_body:
            return Response(_too_large(self._max_body), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self._places.are_taken:
            return Response(BODY, STATUS, HEADERS)
        return None


class _Body:
    """The body of one request, counted as it arrives."""

    def __init__(self, receive: Receive, limit: int, stall: float) -> None:
        self.complete = False
        self._receive = receive
        self._limit = limit
        self._stall = stall
        self._size = 0

    async def receive(self) -> Message:
        message = await self._arriving()
        self.complete = self.complete or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._limit))
        return message

    async def _arriving(self) -> Message:
        if self.complete:
            return await self._receive()  # this waits for the client to go away, as long as that takes
        try:
            async with asyncio.timeout(self._stall):
                return await self._receive()
        except TimeoutError:
            self.complete = True
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"no more of the body came for {self._stall:g} s") from None

    async def discard(self) -> None:
        """Read what is still to come and drop it, for `_LINGER_S` at most."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.complete:
                    self.complete = not (await self._receive()).get("more_body", False)
        except TimeoutError:
            pass  # its answer went out long ago


class _Exchange:
    """One answer, which does not end before the request has been read: a connection that is closed with unread data in
    it is reset, and the client may lose the answer with it."""

    def __init__(self, body: _Body, send: Send) -> None:
        self._body = body
        self._send = send
        self._refused = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._refused = message["status"] >= HTTPStatus.BAD_REQUEST
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not ends or not self._refused or self._body.complete:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._body.discard()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _too_large(limit: int) -> str:
    return f"the request body is larger than networking.max_body_size, which is {limit} bytes"
