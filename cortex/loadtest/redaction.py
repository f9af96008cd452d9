"""Credentials, kept out of whatever others may see: reports, messages, and the command to repeat."""

import re
import shlex
from collections.abc import Iterable

HIDDEN = "..."
_SECRET = ("--api-key", "--header")
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_PARAMETER = re.compile(r"([?&#;][^=&#;\s]+=)[^&#;\s'\")]+")


def redacted(text: str) -> str:
    """Return text with URLs that give nothing away: without user and password, and without values in their query.

    Which parameter of a query is a token cannot be told from its name, so all values are left out.
    """
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub("", text))


def command(arguments: Iterable[str]) -> str:
    """Return a command line as one would type it, without keys, headers and what `redacted` leaves out."""
    shown, hide = [], False
    for each in arguments:
        name, equals, _ = each.partition("=")
        secret = name in _SECRET
        shown.append(HIDDEN if hide else f"{name}={HIDDEN}" if secret and equals else redacted(each))
        hide = secret and not equals
    return shlex.join(shown)
