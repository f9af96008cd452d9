"""Fetch a URL that a stranger chose, without being led to where strangers may not go.

A service that fetches any URL it is given can be used to read its own network: cloud credentials on 169.254.169.254,
an admin page on localhost. So a name is resolved once, every address it has must be public, and the connection goes
to the very address that was checked: a name server that changes its answer in between gains nothing. Redirects go
through the same checks, and proxies of the environment are not used, because they would resolve the name again.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_RESOLVERS = ThreadPoolExecutor(4, "resolve")  # getaddrinfo takes no time limit, but waiting for a thread does

_Address = tuple[socket.AddressFamily, Any]


class DownloadError(Exception):
    """Say in one line why a URL was not fetched. The text is fit for whoever sent the URL: it tells no address."""


@dataclass(frozen=True)
class _Rules:
    allow_private: bool
    max_bytes: int
    deadline: float
    """On the clock of `time.monotonic`."""

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def download(
    url: str, *, allow_private: bool = False, max_bytes: int = 16 * 2**20, seconds: float = 10.0, redirects: int = 3
) -> bytes:
    """Return the body behind an http or https URL.

    ``seconds`` bounds the whole of it, from the name to the last byte, redirects included. ``allow_private`` lifts the
    rule about addresses and no other. Raises `DownloadError`.
    """
    rules = _Rules(allow_private, max_bytes, time.monotonic() + seconds)
    try:
        for _ in range(redirects + 1):
            body, location = _get(_parse(url), rules)
            if not location:
                return body
            url = urljoin(url, location)
    except TimeoutError:
        raise DownloadError(f"no complete answer within {seconds:g} seconds") from None
    except ValueError as error:  # a host or a target that no request line can carry
        raise DownloadError(f"not a URL ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"no answer ({getattr(error, 'strerror', None) or type(error).__name__})") from error
    raise DownloadError(f"more than {redirects} redirects")


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise DownloadError(f"not a URL ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f"only http and https URLs are fetched, not {parts.scheme or 'one without a scheme'}")
    if not host:
        raise DownloadError("the URL names no host")
    return parts


def _get(parts: SplitResult, rules: _Rules) -> tuple[bytes, str]:
    """Make one request. Return the body and, for a redirect, where it points."""
    host, is_secure = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    with _connect(_resolve(host, port, rules), rules) as plain:
        if not is_secure:
            return _ask(http.client.HTTPConnection(host, port), plain, parts, rules)
        with _tls().wrap_socket(plain, server_hostname=host) as secure:
            return _ask(http.client.HTTPSConnection(host, port, context=_tls()), secure, parts, rules)


def _ask(
    connection: http.client.HTTPConnection, sock: socket.socket, parts: SplitResult, rules: _Rules
) -> tuple[bytes, str]:
    connection.sock = _TimedSocket(sock, rules)
    connection.request("GET", _target(parts), headers={"User-Agent": "cortex-predictor", "Connection": "close"})
    response = connection.getresponse()
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        return b"", location
    if response.status != 200:
        raise DownloadError(f"the server answered {response.status} {response.reason}")
    body = response.read(rules.max_bytes + 1)
    if len(body) > rules.max_bytes:
        raise DownloadError(f"larger than {rules.max_bytes / 2**20:g} MB")
    return body, ""


def _target(parts: SplitResult) -> str:
    """Return path and query for the request line: escaped where they have to be, and what is escaped stays so."""
    query = f"?{parts.query}" if parts.query else ""
    return quote((parts.path or "/") + query, safe="/?%:@!$&'()*+,;=~")


class _TimedSocket:
    """What `http.client` needs of a socket, with every read and write ending by one deadline.

    A time limit per read is not enough: a server that sends a byte a second would never reach it.
    """

    def __init__(self, sock: socket.socket, rules: _Rules) -> None:
        self._sock = sock
        self._rules = rules

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._rules.seconds_left())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._rules))

    def close(self) -> None:
        pass  # whoever opened the socket closes it: the connection lets go of it before the body is read


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, rules: _Rules) -> None:
        self._sock = sock
        self._rules = rules

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._rules.seconds_left())
        return self._sock.recv_into(buffer)


def _resolve(host: str, port: int, rules: _Rules) -> list[_Address]:
    """Return every address of a host, once each of them is known to be allowed."""
    lookup = _RESOLVERS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = lookup.result(rules.seconds_left())
    except TimeoutError:
        lookup.cancel()  # one that has not begun would only keep others waiting
        raise
    except (socket.gaierror, UnicodeError):
        raise DownloadError(f"no host is named {host!r}") from None
    if not rules.allow_private and not all(_is_public(str(address[0])) for *_, address in found):
        raise DownloadError(
            f"{host!r} is not on the public internet (predictor.config.allow_private_urls permits that)"
        )
    return [(family, address) for family, *_, address in found]


def _connect(addresses: list[_Address], rules: _Rules) -> socket.socket:
    """Return a socket that is connected to the first address that answers."""
    failure = OSError("the host has no address")
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(rules.seconds_left())
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet, and with it the IPv4 addresses wrapped in it."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = [each for each in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if each]
        if ip in _NAT64:
            wrapped.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if wrapped:
            return all(_is_public(str(each)) for each in wrapped)
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the certificates of the system: once is enough
