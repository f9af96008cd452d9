"""The request that a thread is answering: what it asks for, where its time goes, and whether its client still waits.

A door opens it with `watch`; whoever works on the request finds it with `current`, as tracing libraries do, so that no
signature between a door and an engine has to carry it. A thread that answers no request finds one that nobody reads.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

from cortex.model_server.status import Code, StatusError

_log = logging.getLogger(__name__)

DECODE, QUEUE, EXECUTE, ENCODE = "decode", "queue", "execute", "encode"
"""The stages of a request. ``queue`` is the wait for a batch; ``execute`` is the engine, alone or for a batch."""
WARM_UP = "warm_up"
"""The one stage of a load."""


class Request:
    """One request under way. All but `cancel` is for the thread that answers it."""

    def __init__(self, door: str, method: str) -> None:
        self.door = door
        self.method = method
        self.model = ""
        self.version = 0
        self.signature = ""
        self.examples = 0
        self.warmed = 0
        """Recorded requests that the warm-up of a load has read."""
        self.seconds = 0.0
        """How long it took; known when it has ended."""
        self.stages: dict[str, float] = {}
        """Seconds by stage."""
        self.code = Code.OK
        """The status that its door sends, unless an error that it raises says another."""
        self._staged = 0.0
        self._leave: Callable[[], None] | None = None
        self._cancelled = False
        self._lock = Lock()

    def answered_by(self, model: str, version: int, signature: str = "") -> None:
        """Note the model that answers; it exists, so its name is safe to count by, whatever a client made up."""
        self.model, self.version, self.signature = model, version, signature

    def spent(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        self._staged += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage, but for what the block itself gave to other stages."""
        started, before = time.monotonic(), self._staged
        try:
            yield
        finally:
            self.spent(name, max(0.0, time.monotonic() - started - (self._staged - before)))

    def cancel(self) -> None:
        """Say that the client is gone. May be called from any thread, at any time, more than once."""
        with self._lock:
            self._cancelled = True
            leave = self._leave
        if leave is not None:
            leave()

    @contextmanager
    def leaving(self, leave: Callable[[], None]) -> Iterator[None]:
        """Call ``leave`` when the client goes away during the block, or went before it."""
        with self._lock:
            self._leave = leave
            cancelled = self._cancelled
        try:
            if cancelled:
                leave()
            yield
        finally:
            with self._lock:
                self._leave = None


class Recorder:
    """Hear of everything worth counting, from any thread, and do nothing; `metrics` overrides it."""

    def began(self, request: Request) -> None:
        """Hear that a request has come in."""

    def ended(self, request: Request, code: Code) -> None:
        """Hear that a request was answered, and with which status."""

    def batched(self, model: str, pool: str, sizes: tuple[int, ...], padding: int, seconds: float) -> None:
        """Hear that a batch ran: the rows of its requests, the rows added to them, and the engine's time."""

    def queued(self, model: str, pool: str, seconds: float) -> None:
        """Hear how long a request, or a piece of a large one, waited for its batch."""

    def left_out(self, model: str, reason: str) -> None:
        """Hear that no batch answered a request: ``full``, ``timeout``, ``cancelled``, or ``alone`` when it ran so."""

    def ran(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], seconds: float) -> None:
        """Hear that an engine ran, for a client, for a batch or to warm up: the arrays, and the time it took."""

    def loaded(self, directory: str, request: Request, code: Code) -> None:
        """Hear that a version was loaded, or not; the request knows the times."""

    def logged(self, model: str, code: Code) -> None:
        """Hear that a request was written to its log, or why it was not."""

    def count(self, name: str) -> int:
        """Return what TF Serving's counter of this name (``/tensorflow/...``) stands at; 0 for what is not counted."""
        return 0


class Page(Recorder):
    """A recorder that shows what it has heard, as text."""

    content_type = "text/plain"

    def page(self) -> str:
        """Return the text of the page."""
        raise NotImplementedError


class Recorders(Recorder):
    """Pass on what is heard to several recorders; one that fails costs its count, never a request."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._all = tuple(recorders)
        self._has_failed = False

    def began(self, request: Request) -> None:
        """Pass on that a request has come in."""
        self._tell(lambda each: each.began(request))

    def ended(self, request: Request, code: Code) -> None:
        """Pass on that a request was answered."""
        self._tell(lambda each: each.ended(request, code))

    def batched(self, model: str, pool: str, sizes: tuple[int, ...], padding: int, seconds: float) -> None:
        """Pass on that a batch ran."""
        self._tell(lambda each: each.batched(model, pool, sizes, padding, seconds))

    def queued(self, model: str, pool: str, seconds: float) -> None:
        """Pass on how long a request waited."""
        self._tell(lambda each: each.queued(model, pool, seconds))

    def left_out(self, model: str, reason: str) -> None:
        """Pass on that no batch answered a request."""
        self._tell(lambda each: each.left_out(model, reason))

    def ran(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], seconds: float) -> None:
        """Pass on that an engine ran."""
        self._tell(lambda each: each.ran(inputs, outputs, seconds))

    def loaded(self, directory: str, request: Request, code: Code) -> None:
        """Pass on that a version was loaded, or not."""
        self._tell(lambda each: each.loaded(directory, request, code))

    def logged(self, model: str, code: Code) -> None:
        """Pass on that a request was logged."""
        self._tell(lambda each: each.logged(model, code))

    def count(self, name: str) -> int:
        """Return what the recorder that keeps the counter says."""
        return max((each.count(name) for each in self._all), default=0)

    def _tell(self, what: Callable[[Recorder], None]) -> None:
        for each in self._all:
            try:
                what(each)
            except Exception:  # noqa: BLE001  a library that writes files was called; what it cannot count is answered
                if not self._has_failed:
                    _log.exception("Some metrics cannot be counted from here on")
                self._has_failed = True


_current: ContextVar[Request] = ContextVar("request")


def current() -> Request:
    """Return the request that this thread is answering, or one that nobody reads."""
    return _current.get(None) or Request("", "")


@contextmanager
def watch(recorder: Recorder, door: str, method: str) -> Iterator[Request]:
    """Make a request the current one for the block, and tell the recorder how it ended."""
    request = Request(door, method)
    token = _current.set(request)
    recorder.began(request)
    started, code = time.monotonic(), Code.INTERNAL
    try:
        yield request
        code = request.code
    except StatusError as error:
        code = error.code
        raise
    finally:
        _current.reset(token)
        request.seconds = time.monotonic() - started
        recorder.ended(request, code)
