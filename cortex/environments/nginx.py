"""The configuration of the nginx in front of APIs. Pure: values in, the text of ``nginx.conf`` out.

Several APIs share one address, each at its ``networking.endpoint``. What follows an endpoint reaches the API as if the
endpoint were its root: ``/iris/docs`` is its ``/docs``. The first API also has every path that no other API has, so
that an API alone answers at ``/`` and ``/predict`` as without a front.

Sizes and times agree with `cortex.api`: a body is as large as ``networking.max_body_size`` and stalls for 60 s at most
(`cortex.api.admission`), a connection to a worker is closed here before it is there (75 s, `cortex.api.server`), and an
answer is awaited a little longer than a worker awaits its model server (300 s, `cortex.model_client.tensorflow`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cortex.environments.fields import FieldError
from cortex.spec import APISpec

KEEP_ALIVE_S = 360
BODY_STALL_S = 60
UPSTREAM_KEEP_ALIVE_S = 60
UPSTREAM_READ_S = 310
_RETRY_WITHIN_S = 10

_ERRORS = {
    429: "too many requests from this address; try again in a second",
    502: "no worker of the API answered: it went away, or is being started; try again in a second",
    503: "the API takes no requests now; try again in a second",
    504: f"the API did not answer within {UPSTREAM_READ_S} seconds",
}
_ID = "add_header X-Request-Id $request_id_of_api always;"
_LOG_FORMAT = (
    '$remote_addr [$time_iso8601] "$request" $status in=$request_length out=$body_bytes_sent seconds=$request_time '
    "upstream=$upstream_addr upstream_status=$upstream_status upstream_connect=$upstream_connect_time "
    "upstream_seconds=$upstream_response_time id=$request_id_of_api"
)


@dataclass(frozen=True)
class Route:
    """One API behind the front. ``upstreams`` are the places of its workers: ``HOST:PORT`` or ``unix:/path.sock``."""

    name: str
    endpoint: str
    upstreams: tuple[str, ...]
    max_body: int
    """Bytes of the largest request body."""

    @classmethod
    def of(cls, spec: APISpec, upstreams: Sequence[str]) -> "Route":
        """Return the route of an API to its workers."""
        return cls(spec.name, spec.endpoint, tuple(upstreams), spec.networking.max_body_bytes)


@dataclass(frozen=True)
class Front:
    """How the front itself is run.

    ``directory`` holds its pid and what it puts aside, ``listen`` is an ``ADDRESS:PORT``. With a certificate and its
    key it speaks TLS on ``listen_tls``, and sends whoever comes to ``listen`` there.
    """

    directory: str
    listen: str = "0.0.0.0:8080"
    listen_tls: str = "0.0.0.0:8443"
    public_tls_port: int = 443
    certificate: str = ""
    certificate_key: str = ""
    rate: str = ""
    """The most requests of one client address, as nginx writes it: ``10r/s``. Empty: no limit."""
    retry_posts: bool = False
    """Send a POST to another worker when the one that had it died. Only for predictors that may see it twice."""
    access_log: str = "/dev/stdout"
    error_log: str = "stderr"
    daemon: bool = False
    user: str = ""
    """Whom root's workers become; empty: nginx's own choice."""


_CONNECTIONS = 4096
"""Of one of nginx's workers, with clients and with APIs."""
NEWER = "newer"
"""The folder in a front's directory for files that the configuration includes: what only a newer nginx knows."""
KEEP_IDLE = "keepalive_min_timeout 10s;"
"""For `NEWER`: nginx 1.27.4 and later, when it reloads, leaves a connection open that was used in the last seconds.

An older one closes every connection that is idle, and what its client sends at that very moment is lost.
"""
CONFIGURATION = "/-/configuration"
"""The path at which a front tells which configuration it has."""


def configuration(routes: Sequence[Route], front: Front) -> str:
    """Return the text of ``nginx.conf`` for APIs in the order in which they were first deployed."""
    return "\n".join(_lines(routes, front, digest(routes, front))) + "\n"


def check(spec: APISpec, others: Iterable[APISpec]) -> None:
    """Refuse an API whose endpoint is another one's behind the same front, or cannot be. FieldError says whose."""
    if spec.endpoint == CONFIGURATION or {".", ".."} & {*spec.endpoint.split("/")}:
        raise FieldError("networking.endpoint", f"{spec.endpoint} cannot be reached behind nginx; choose another")
    for other in others:
        if other.endpoint == spec.endpoint:
            told = f"{spec.endpoint} is the endpoint of {other.name}, behind the same front; choose another"
            raise FieldError("networking.endpoint", told)


def digest(routes: Sequence[Route], front: Front) -> str:
    """Return what a front with this configuration answers at `CONFIGURATION`."""
    return hashlib.sha256("\n".join(_lines(routes, front, "")).encode()).hexdigest()[:16]


def _lines(routes: Sequence[Route], front: Front, digest: str) -> Iterator[str]:
    yield "# Written by cortex; changed by its next command."
    yield f"daemon {'on' if front.daemon else 'off'};"
    if front.user:
        yield f"user {front.user};"
    yield "worker_processes auto;"
    yield f"pid {_word(f'{front.directory}/nginx.pid')};"
    yield f"error_log {_word(front.error_log)} warn;"
    yield "worker_shutdown_timeout 330s;  # an old worker of nginx ends when its last request is answered"
    yield f"worker_rlimit_nofile {2 * _CONNECTIONS};  # a shell mostly allows 1,024; a large body is a file, too"
    yield f"events {{ worker_connections {_CONNECTIONS}; }}"
    yield "http {"
    yield from _indented(_http(routes, front, digest))
    yield "}"


def _http(routes: Sequence[Route], front: Front, digest: str) -> Iterator[str]:
    yield f"log_format timed '{_LOG_FORMAT}';"
    yield f"access_log {_word(front.access_log)} timed;"
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        yield f"{name}_temp_path {_word(f'{front.directory}/{name}')};"
    yield f"include {_word(f'{front.directory}/{NEWER}/*.conf')};"
    yield "server_tokens off;"
    yield "default_type application/octet-stream;"
    yield f"keepalive_timeout {KEEP_ALIVE_S}s;"
    yield "keepalive_requests 100000;"
    yield f"client_body_timeout {BODY_STALL_S}s;"
    yield "client_header_timeout 60s;"
    yield f"client_max_body_size {max((route.max_body for route in routes), default=1)};"
    yield "client_body_buffer_size 512k;"
    yield "gzip on;"
    yield "gzip_proxied any;"
    yield "gzip_min_length 1024;"
    yield "gzip_types application/json text/plain;"
    yield "map $http_x_request_id $request_id_of_api {"
    yield "  default $request_id;"
    yield '  "~^[A-Za-z0-9._:/+=-]{1,128}$" $http_x_request_id;'  # what the API takes for one, too
    yield "}"
    if front.rate:  # in capitals, as SESSIONS below: no API has such a name, and each has a zone of its own
        yield f"limit_req_zone $binary_remote_addr zone=ADDRESSES:10m rate={front.rate};"
    for route in routes:
        yield from _upstream(route)
    if front.certificate:
        yield from _redirect(front, digest)
    yield "server {"
    yield from _indented(_server(routes, front, digest))
    yield "}"


def _upstream(route: Route) -> Iterator[str]:
    yield f"upstream {route.name} {{"
    yield "  least_conn;"
    yield f"  zone {route.name} 256k;"
    for address in route.upstreams:
        yield f"  server {address} max_fails=1 fail_timeout=1s;"
    yield f"  keepalive {16 * len(route.upstreams)};"
    yield "  keepalive_requests 100000;"
    yield f"  keepalive_timeout {UPSTREAM_KEEP_ALIVE_S}s;"
    yield "}"


def _redirect(front: Front, digest: str) -> Iterator[str]:
    port = "" if front.public_tls_port == 443 else f":{front.public_tls_port}"
    yield "server {"
    yield f"  listen {front.listen};"
    yield from _indented(_told(digest))
    yield f"  location / {{ return 308 https://$host{port}$request_uri; }}"
    yield "}"


def _server(routes: Sequence[Route], front: Front, digest: str) -> Iterator[str]:
    if front.certificate:
        yield f"listen {front.listen_tls} ssl;"
        yield f"ssl_certificate {_word(front.certificate)};"
        yield f"ssl_certificate_key {_word(front.certificate_key)};"
        yield "ssl_protocols TLSv1.2 TLSv1.3;"
        yield "ssl_session_cache shared:SESSIONS:10m;"
    else:
        yield f"listen {front.listen};"
    if front.rate:
        yield "limit_req zone=ADDRESSES burst=20 nodelay;"
        yield "limit_req_status 429;"
    yield from _proxy(front)
    for code, message in _ERRORS.items():
        yield from _location(f"@error_{code}", _answer(code, {"error": message}))
    yield from _told(digest)
    yield from _location("~ /metrics$", _answer(404, {"error": "not found"}))  # each worker's own; not for the world
    yield from _locations(routes)


def _told(digest: str) -> Iterator[str]:
    return _location(f"= {CONFIGURATION}", ["access_log off;", f"return 200 '{digest}';"])


def _proxy(front: Front) -> Iterator[str]:
    yield "proxy_http_version 1.1;"
    yield 'proxy_set_header Connection "";'
    yield "proxy_set_header Host $http_host;"
    yield "proxy_set_header X-Real-IP $remote_addr;"
    yield "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    yield "proxy_set_header X-Forwarded-Proto $scheme;"
    yield "proxy_set_header X-Request-Id $request_id_of_api;"
    yield "proxy_connect_timeout 5s;"
    yield f"proxy_read_timeout {UPSTREAM_READ_S}s;"
    yield f"proxy_send_timeout {BODY_STALL_S}s;"
    yield "proxy_buffers 16 64k;"
    yield "proxy_buffer_size 64k;"
    yield "proxy_busy_buffers_size 128k;"
    # what never reached a worker goes to another one; a POST that did only when its owner says that it may
    yield f"proxy_next_upstream error invalid_header{' non_idempotent' if front.retry_posts else ''};"
    yield f"proxy_next_upstream_timeout {_RETRY_WITHIN_S}s;"


def _locations(routes: Sequence[Route]) -> Iterator[str]:
    for route in routes:
        yield from _location(f"= {route.endpoint}", _passed(route, "/"))
        yield from _location(f"{route.endpoint}/", _passed(route, "/"))
    yield from _too_large(routes)
    yield from _location("/", _passed(routes[0], "") if routes else _answer(404, {"error": "no API is deployed"}))


def _passed(route: Route, path: str) -> Iterator[str]:
    yield f"client_max_body_size {route.max_body};"
    yield f"error_page 413 @too_large_{route.name};"
    for code in _ERRORS:
        yield f"error_page {code} @error_{code};"
    yield f"proxy_pass http://{route.name}{path};"


def _too_large(routes: Sequence[Route]) -> Iterator[str]:
    for route in routes:
        text = f"the request body is larger than networking.max_body_size, which is {route.max_body} bytes"
        yield from _location(f"@too_large_{route.name}", ["default_type text/plain;", _ID, f"return 413 '{text}';"])


def _answer(code: int, body: dict[str, str]) -> Iterator[str]:
    yield "default_type application/json;"
    yield _ID
    if code != 404:
        yield "add_header Retry-After 1 always;"
    yield f"return {code} '{json.dumps(body)}';"


def _location(match: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    yield f"location {match} {{"
    yield from _indented(lines)
    yield "}"


def _word(path: str) -> str:
    """Return a path as nginx reads it: in quotes where it has what would end a word."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return path if re.fullmatch(r"[\w./*-]+", path) else f'"{escaped}"'


def _indented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
