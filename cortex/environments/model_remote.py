"""A model at ``s3://``, ``gs://``, ``http://`` or ``https://``, through fsspec.

``URL#sha256=DIGEST`` says what must come of it: for a file its own SHA-256 (what ``sha256sum`` prints), for a directory
the digest that `cortex deploy` prints when it has downloaded it.

Credentials are those that the store's own tools find: environment, profile, instance, service account, ``.netrc``.
Where there are none, s3:// and gs:// are read as anybody. ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``) leads s3://
to another store that speaks S3, ``STORAGE_EMULATOR_HOST`` gs:// likewise.
"""

import contextlib
import importlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.environments.base import Progress
from cortex.environments.model_transfer import Transfer
from cortex.environments.tree import inner_name
from cortex.errors import UserError

_WHEELS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_FILES = (".zip", ".onnx")
_CONTENT = ("ETag", "etag", "md5Hash", "Content-MD5")
"""What a store says about a file's content, by the names that fsspec's file systems pass on."""
_REFUSED = "not found or insufficient permissions"
_ANONYMOUS = "; no AWS credentials were found (variables, a profile, a role), so that it was asked for as anybody"
_STALLED_SECONDS = 60
_PIN = re.compile(r"(?P<url>.*)#sha256=(?P<digest>[^#]*)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_remote(path: str) -> bool:
    """Tell whether a model path is a URL."""
    return "://" in path


@dataclass(frozen=True)
class Remote:
    """One place in a store: ``path`` of the fsspec file system ``filesystem``, and the URL it is known by."""

    url: str
    filesystem: Any
    path: str
    sha256: str | None = None
    """What the user says that is there."""

    @classmethod
    def open(cls, written: str) -> "Remote":
        """Find the file system of a URL. UserError when there is none for it, or when its package is not installed."""
        import fsspec  # imported when a model is remote, and so are its file systems

        url, digest = _pinned(written)
        scheme = url.partition("://")[0]
        wheel = _WHEELS.get(scheme)
        if wheel is None or "::" in url:
            raise UserError("must be a path on this machine, or a URL with s3://, gs://, http:// or https://")
        logging.getLogger(wheel).addHandler(logging.NullHandler())  # gcsfs would print a traceback for each retry
        try:
            filesystem, path = fsspec.core.url_to_fs(url, **_options(scheme))
        except ImportError:
            raise UserError(f"{scheme}:// needs the package {wheel}: pip install {wheel}") from None
        return cls(url, filesystem, path, digest)

    @property
    def shown(self) -> str:
        """The URL without its query, where signatures are."""
        return self.url.partition("?")[0]

    def fingerprint(self) -> str | None:
        """Return a text that changes whenever the content does; None when the store does not say enough for that."""
        with self._plainly():
            files = self._files()
        known = all(any(info.get(key) for key in _CONTENT) for info in files.values())
        return json.dumps([self.url, _rows(files)]) if known else None

    def directories(self) -> list[str]:
        """Return the names of the directories directly inside."""
        with self._plainly():
            rows = self.filesystem.ls(self.path, detail=True)
        return sorted(row["name"].rstrip("/").rpartition("/")[2] for row in rows if row["type"] == "directory")

    def download(self, directory: Path, progress: Progress = lambda line: None) -> Path:
        """Copy what is there into ``directory`` and return where it is, under its own name.

        Goes on with what an earlier call left in the directory; ``progress`` is told of every tenth of it. UserError
        when it cannot be had, or changes meanwhile.
        """
        top = directory / inner_name(self.shown.rstrip("/").rpartition("/")[2])
        with self._plainly():
            files = self._files()
            total = sum(info.get("size") or 0 for info in files.values())
            told = f"downloading model {self.shown} ..."
            transfer = Transfer(self.filesystem, total, lambda line: progress(f"{told} {line}"))
            for name, info in files.items():
                transfer.fetch(info, top / name if name else top)
            if _rows(self._files()) != _rows(files):
                raise UserError("changed while it was being downloaded; try again")
        return top

    def _files(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the store says of each file, by its name below the path: "" when the path is itself a file."""
        self.filesystem.invalidate_cache()  # what it said before may have changed since
        info = self.filesystem.info(self.path)
        if info["type"] == "file":
            if not self.shown.endswith(_FILES):
                raise UserError(f"must be a directory, or a file ending in {' or '.join(_FILES)}")
            return {"": info}
        found = self.filesystem.find(self.path, detail=True)
        top = info["name"].rstrip("/") + "/"
        files = {name.removeprefix(top): row for name, row in found.items() if not name.endswith("/")}
        if not files:
            raise FileNotFoundError(self.url)
        return {inner_name(name): row for name, row in files.items()}

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # each store's library raises errors of its own
            reason = _reason(error)
            anonymous = reason == _REFUSED and getattr(self.filesystem, "anon", False) is True
            raise UserError(f"{reason}{_ANONYMOUS if anonymous else ''}") from error


def _reason(error: Exception) -> str:
    """Say in one line why a store did not give what was asked for."""
    cause = error.__cause__
    shown = error
    if isinstance(error, FileNotFoundError | PermissionError):
        # fsspec's http says so too when the server is not there, or has a fault
        unreachable = isinstance(cause, OSError) or getattr(cause, "status", 0) >= 500
        if not (unreachable and isinstance(cause, Exception)):
            return _REFUSED
        shown = cause
    return f"cannot be downloaded: {type(shown).__name__}: {' '.join(str(shown).split())}"


def _rows(files: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what a store says of the content of files."""
    return sorted((name, info.get("size"), *(str(info.get(key)) for key in _CONTENT)) for name, info in files.items())


def _pinned(written: str) -> tuple[str, str | None]:
    """Split the digest off a URL."""
    match = _PIN.fullmatch(written)
    if match is None:
        return written, None
    if not _DIGEST.fullmatch(match["digest"].lower()):
        raise UserError("after #sha256= there must be a SHA-256: 64 hexadecimal digits")
    return match["url"], match["digest"].lower()


def _options(scheme: str) -> dict[str, Any]:
    """Return what to open a file system with: no credentials where there are none, no time limit on a download."""
    if scheme == "s3":
        return {"anon": not _aws_credentials(), "use_listings_cache": False, "skip_instance_cache": True}
    if scheme in ("http", "https"):
        with contextlib.suppress(ImportError):
            aiohttp = importlib.import_module("aiohttp")
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_STALLED_SECONDS, sock_read=_STALLED_SECONDS)
            return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {}


def _aws_credentials() -> bool:
    with contextlib.suppress(ImportError):
        session = importlib.import_module("botocore.session")
        return session.get_session().get_credentials() is not None
    return False
