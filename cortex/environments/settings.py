"""One setting of an environment, a string, checked. UserError says what it must be."""

import re
from collections.abc import Mapping

from cortex.errors import UserError


def matching(settings: Mapping[str, str], name: str, default: str, pattern: re.Pattern[str], what: str) -> str:
    """Return a setting that is ``what`` the pattern describes, or empty."""
    text = settings.get(name, default)
    if text and not pattern.fullmatch(text):
        raise UserError(f"{name}: {text!r} is not {what}")
    return text


def port(settings: Mapping[str, str], name: str, default: int) -> int:
    """Return a setting that is a TCP port."""
    text = settings.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 65535:
        raise UserError(f"{name}: {text!r} is not a port")
    return int(text)
