"""A model at ``s3://``, ``gs://``, ``http://`` or ``https://``, through fsspec."""

import contextlib
import importlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.environments.tree import inner_name
from cortex.errors import UserError

_WHEELS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_FILES = (".zip", ".onnx")
_CONTENT = ("ETag", "etag", "md5Hash", "Content-MD5")
"""What a store says about a file's content, by the names that fsspec's file systems pass on."""
_STALLED_SECONDS = 60


def is_remote(path: str) -> bool:
    """Tell whether a model path is a URL."""
    return "://" in path


@dataclass(frozen=True)
class Remote:
    """One place in a store: ``path`` of the fsspec file system ``filesystem``, and the URL it is known by."""

    url: str
    filesystem: Any
    path: str

    @classmethod
    def open(cls, url: str) -> "Remote":
        """Find the file system of a URL. UserError when there is none for it, or when its package is not installed."""
        import fsspec  # imported when a model is remote, and so are its file systems

        scheme = url.partition("://")[0]
        wheel = _WHEELS.get(scheme)
        if wheel is None or "::" in url:
            raise UserError("must be a path on this machine, or a URL with s3://, gs://, http:// or https://")
        logging.getLogger(wheel).addHandler(logging.NullHandler())  # gcsfs would print a traceback for each retry
        try:
            filesystem, path = fsspec.core.url_to_fs(url, **_options(scheme))
        except ImportError:
            raise UserError(f"{scheme}:// needs the package {wheel}: pip install {wheel}") from None
        return cls(url, filesystem, path)

    @property
    def shown(self) -> str:
        """The URL without its query, where signatures are."""
        return self.url.partition("?")[0]

    def fingerprint(self) -> str | None:
        """Return a text that changes whenever the content does; None when the store does not say enough for that."""
        with self._plainly():
            files = self._files()
        rows = [(name, info.get("size"), *(str(info.get(key)) for key in _CONTENT)) for name, info in files.items()]
        known = all(any(info.get(key) for key in _CONTENT) for info in files.values())
        return json.dumps([self.url, sorted(rows)]) if known else None

    def directories(self) -> list[str]:
        """Return the names of the directories directly inside."""
        with self._plainly():
            rows = self.filesystem.ls(self.path, detail=True)
        return sorted(row["name"].rstrip("/").rpartition("/")[2] for row in rows if row["type"] == "directory")

    def download(self, directory: Path) -> Path:
        """Copy what is there into ``directory`` and return where it is, under its own name."""
        top = directory / inner_name(self.shown.rstrip("/").rpartition("/")[2])
        with self._plainly():
            for name, info in self._files().items():
                target = top / name if name else top
                target.parent.mkdir(parents=True, exist_ok=True)
                self.filesystem.get_file(info["name"], str(target))
                _check_whole(target, info)
        return top

    def _files(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the store says of each file, by its name below the path: "" when the path is itself a file."""
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
            raise UserError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Say in one line why a store did not give what was asked for."""
    cause = error.__cause__
    shown = error
    if isinstance(error, FileNotFoundError | PermissionError):
        # fsspec's http says so too when the server is not there, or has a fault
        unreachable = isinstance(cause, OSError) or getattr(cause, "status", 0) >= 500
        if not (unreachable and isinstance(cause, Exception)):
            return "not found or insufficient permissions"
        shown = cause
    return f"cannot be downloaded: {type(shown).__name__}: {' '.join(str(shown).split())}"


def _check_whole(target: Path, info: Mapping[str, Any]) -> None:
    expected, size = info.get("size"), target.stat().st_size
    if isinstance(expected, int) and size != expected:
        raise UserError(f"{target.name} was cut short: {size} of {expected} bytes; try again")


def _options(scheme: str) -> dict[str, Any]:
    """Return what to open a file system with: no credentials where there are none, no time limit on a download."""
    if scheme == "s3":
        return {"anon": not _aws_credentials(), "use_listings_cache": False}
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
