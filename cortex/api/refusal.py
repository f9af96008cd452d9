"""Prediction requests for which there is no room, refused before anything is built for them.

Under too much load most requests are refused, on the processors that compute for the others. The app refuses what is
out of the ordinary; of everything else the protocol asks here, for half of the price.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from cortex.api.metrics import Metrics
from cortex.api.paths import PREDICT_PATHS
from cortex.api.trace import log_answer, request_id

STATUS = HTTPStatus.SERVICE_UNAVAILABLE
BODY = STATUS.phrase
HEADERS = {"retry-after": "1"}

_PATHS = {path.encode(): path for path in PREDICT_PATHS}
_OUT_OF_THE_ORDINARY = frozenset((b"origin", b"expect", b"transfer-encoding"))
"""Headers to which the answer would have to say more, or that leave the size of the body open."""

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Places:
    """How many prediction requests are under way in a worker, and how many there may be."""

    limit: int
    taken: int = 0

    @property
    def are_taken(self) -> bool:
        return self.taken >= self.limit


class Refusal:
    """Refuse prediction requests while all places are taken; the app answers those whose body is too large."""

    def __init__(self, places: Places, max_body: int, metrics: Metrics) -> None:
        self._places = places
        self._max_body = max_body
        self._metrics = metrics

    def answer(self, method: bytes, url: bytes, headers: Headers, more: Headers) -> bytes | None:
        """Return the answer to a request of which the head has come, with ``more`` headers; None leaves it to the app.

        It is the answer of `cortex.api.admission`, counted and logged as `cortex.api.trace` does.
        """
        if not self._places.are_taken or method != b"POST":
            return None
        path, given = _PATHS.get(url.partition(b"?")[0]), dict(headers)
        if path is None or not _OUT_OF_THE_ORDINARY.isdisjoint(given):
            return None
        if int(given.get(b"content-length", 0)) > self._max_body:
            return None
        who = request_id(given.get(b"x-request-id", b"").decode("latin-1"))
        self._metrics.observe(STATUS, 0.0)
        log_answer(STATUS, "POST", path, who)
        lines = [b"HTTP/1.1 %d %s" % (STATUS, STATUS.phrase.encode()), *(b"%s: %s" % header for header in more)]
        own = {**HEADERS, "content-length": len(BODY), "x-request-id": who}
        lines += [f"{name}: {value}".encode() for name, value in own.items()]
        return b"\r\n".join([*lines, b"", BODY.encode()])
