"""Pages that are read beside a load: a model's metadata, a server's metrics."""

import time

from cortex.errors import UserError
from cortex.loadtest.http import HTTP, kind
from cortex.loadtest.http_answer import Answer, Malformed

_LONGEST = 16_000_000  # bytes


def read(url: str, door: HTTP | None, seconds: float) -> bytes:
    """GET a page in so many seconds: as ``door`` would, with its headers, credentials and trust, at the same server.

    Raises OSError, and ValueError for a URL that is none. Proxies of the environment are not used, and redirections not
    followed: the request may hold credentials.
    """
    end = time.monotonic() + seconds
    try:
        page = HTTP(url, seconds)
        fields = page.fields
        if door and door.origin == page.origin:
            page = HTTP(url, seconds, door.headers, tls=door.tls)
            fields = door.fields | page.fields
        with page.open() as link:
            link.sendall(page.head("GET", fields | {"connection": "close"}))
            answer = Answer(link, end)
            body = answer.read()
    except UserError as error:
        raise ValueError(str(error)) from error
    except (OSError, UnicodeError, Malformed) as error:
        raise OSError(kind(error)) from error
    if not 200 <= answer.status < 300:
        raise OSError(f"HTTP {answer.status}")
    if len(body) > _LONGEST:
        raise OSError("the page is too long")
    return body
