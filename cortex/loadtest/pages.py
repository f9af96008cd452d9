"""Pages that are read beside a load: a model's metadata, a server's metrics."""

import time
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from cortex.errors import UserError
from cortex.loadtest.doors import TLS
from cortex.loadtest.http import HTTP

_CHUNK = 65_536
_LONGEST = 16_000_000  # bytes


class _Stay(HTTPRedirectHandler):
    """Go nowhere else: the request may hold credentials."""

    def redirect_request(self, *_: object) -> None:
        return None


def read(url: str, door: HTTP | None, seconds: float) -> bytes:
    """GET a page in so many seconds: with the headers and the trust of ``door`` where that leads to the same server.

    Raises OSError, and ValueError for a URL that is none. Proxies of the environment are not used, and redirections not
    followed.
    """
    end = time.monotonic() + seconds
    try:
        page = HTTP(url)
        if door and door.origin == page.origin:
            page = HTTP(url, headers=door.headers, tls=door.tls)
        request = Request(page.origin + page.target, headers=page.fields)  # noqa: S310  # HTTP knows http and https only
        with _opener(page.tls).open(request, timeout=seconds) as response:
            return _body(response, end)
    except UserError as error:
        raise ValueError(str(error)) from error
    except HTTPError as error:
        error.close()  # it is an answer, too, and holds its connection
        raise OSError(f"HTTP {error.code}") from error
    except HTTPException as error:
        raise OSError(f"not an HTTP answer: {type(error).__name__}") from error


def _opener(tls: TLS) -> OpenerDirector:
    return build_opener(ProxyHandler({}), HTTPSHandler(context=tls.context()), _Stay())


def _body(response: HTTPResponse, end: float) -> bytes:
    parts, size = [], 0
    while part := response.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _LONGEST or time.monotonic() > end:
            raise OSError("the page does not end")
    return b"".join(parts)
