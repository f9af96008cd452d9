"""The optional API key of both doors.

Keys come from a file or from the environment, never from the command line, which every user of the machine can read.
Several keys may hold at once, so that one can be replaced without an interruption.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex.model_server.status import Code, StatusError, invalid

VARIABLE = "CORTEX_MODEL_SERVER_API_KEY"


@dataclass
class ApiKeys:
    """The digests of the keys that open the doors, and the file that they are from; without any, all is open."""

    digests: tuple[bytes, ...] = ()
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.digests)

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise UNAUTHENTICATED unless the lower-case ``headers``, whose bytes are read as Latin-1, carry a key.

        It stands in ``x-api-key: KEY`` or ``authorization: Bearer KEY``. Every key is compared, in constant time.
        """
        if not self.digests:
            return
        offered = _digest(_offered(headers).encode("latin-1", "replace"))
        if sum(hmac.compare_digest(offered, digest) for digest in self.digests) == 0:
            raise StatusError(
                Code.UNAUTHENTICATED, 'An API key is needed: send "Authorization: Bearer KEY" or "x-api-key: KEY"'
            )

    def reload(self) -> None:
        """Read the file again. Raises StatusError, and then the keys are what they were."""
        if self.path:
            self.digests = read(self.path).digests


def read(path: str) -> ApiKeys:
    """Return the keys of a file, one a line, or of the environment when there is no path.

    Blank lines and lines that start with ``#`` are skipped. A key may be any text; a client sends it as UTF-8. Raises
    StatusError (INVALID_ARGUMENT) for a file that cannot be read or holds no key.
    """
    if not path:
        key = os.environ.get(VARIABLE, "").strip()
        return ApiKeys((_digest(os.fsencode(key)),)) if key else ApiKeys()
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"--api_key_file: cannot read {path}: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise invalid(f"--api_key_file: {path} holds no key; write one key a line")
    return ApiKeys(tuple(_digest(key.encode()) for key in keys), path)


def _offered(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return (token if scheme.lower() == "bearer" else headers.get("x-api-key", "")).strip(" \t")


def _digest(key: bytes) -> bytes:
    """Return a digest of fixed length, so that a comparison tells nothing about the length of the key."""
    return hashlib.sha256(key).digest()
