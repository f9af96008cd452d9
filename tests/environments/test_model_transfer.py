"""Downloads that break off, by a server on loopback that does so."""

import hashlib
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cortex.environments import model_transfer
from cortex.environments.fields import FieldError
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import resolve
from cortex.spec import APISpec

pytest.importorskip("aiohttp", reason="http:// models need aiohttp, which is optional")

Make = Callable[..., Path]
MakeSpec = Callable[..., APISpec]
PIECE = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Store:
    """One file on a server, and how the server behaves."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.breaks = 0
        """Answers that are still to be broken off in their middle."""
        self.ranges = True
        self.etag = True
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    store: Store

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.store.asked.append(self.headers.get("Range", ""))
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if self.store.ranges else None
        data = self.store.content
        if asked:
            data = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data)))
        if asked:
            self.send_header(
                "Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(data) - 1}/{len(self.store.content)}"
            )
        if self.store.etag:
            self.send_header("ETag", hashlib.sha256(self.store.content).hexdigest())
        self.end_headers()
        if body and self.store.breaks:
            self.store.breaks -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path, write_saved_model: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Store]]:
    """Serve a model of five pieces as a zip, and do not wait between tries."""
    monkeypatch.setattr(model_transfer, "PIECE", PIECE)
    monkeypatch.setattr(model_transfer, "FIRST_DELAY", 0)
    export = write_saved_model(tmp_path / "export/1", payload=os.urandom(5 * PIECE - 9000)).parent
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for file in sorted(export.rglob("*")):
            archive.write(file, file.relative_to(export))
    held = Store((tmp_path / "m.zip").read_bytes())
    handler = type("Handler", (_Handler,), {"store": held})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/m.zip", held
        finally:
            server.shutdown()
            thread.join()


def _deploy(spec: APISpec, tmp_path: Path) -> tuple[tuple[int, ...], list[str]]:
    lines: list[str] = []
    (model,) = resolve(spec, tmp_path, ModelCache(tmp_path / "cache"), lines.append)
    return model.versions, lines


def test_what_breaks_off_is_taken_up_again(store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec) -> None:
    """Only the piece that broke is asked for once more; the answer is the model, whole."""
    url, held = store
    held.breaks = 2
    assert _deploy(make_spec(url), tmp_path)[0] == (1,)
    pieces = [asked for asked in held.asked if asked]
    assert len(pieces) == 5 + 2
    assert len(set(pieces)) == 5


def test_the_next_command_goes_on_where_the_last_one_broke_off(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, held = store
    spec = make_spec(url)
    read = model_transfer.Transfer._piece

    def dies(self: model_transfer.Transfer, source: object, start: int, size: int) -> bytes:
        if start >= 3 * PIECE:
            raise KeyboardInterrupt
        return read(self, source, start, size)

    with monkeypatch.context() as patched:
        patched.setattr(model_transfer.Transfer, "_piece", dies)
        with pytest.raises(KeyboardInterrupt):
            _deploy(spec, tmp_path)
    held.asked.clear()
    assert _deploy(spec, tmp_path)[0] == (1,)
    assert next(asked for asked in held.asked if asked).startswith(f"bytes={3 * PIECE}-")
    assert list((tmp_path / "cache/.partial").glob("*/*")) == []


def test_another_content_is_not_added_to_the_part_of_the_first(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, held = store
    with monkeypatch.context() as patched:
        patched.setattr(model_transfer, "_TRIES", 1)
        held.breaks = 9
        with pytest.raises(FieldError, match="cannot be downloaded"):
            _deploy(make_spec(url), tmp_path)
    held.breaks, held.content = 0, held.content + b"\n"  # a zip may end with anything
    assert _deploy(make_spec(url), tmp_path)[0] == (1,)


def test_a_store_that_never_gives_more_is_an_error(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec
) -> None:
    url, held = store
    held.breaks = 10**6
    with pytest.raises(FieldError, match="cannot be downloaded"):
        _deploy(make_spec(url), tmp_path)
    assert len([asked for asked in held.asked if asked]) == model_transfer._TRIES


def test_a_server_without_ranges_is_read_from_the_beginning(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec
) -> None:
    url, held = store
    held.ranges = False
    assert _deploy(make_spec(url), tmp_path)[0] == (1,)


def test_a_file_that_changes_meanwhile_is_refused(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of two files must not become one model."""
    url, held = store
    read = model_transfer.Transfer._piece

    def publish(self: model_transfer.Transfer, source: object, start: int, size: int) -> bytes:
        if start == 2 * PIECE:
            held.content = os.urandom(len(held.content))
        return read(self, source, start, size)

    monkeypatch.setattr(model_transfer.Transfer, "_piece", publish)
    with pytest.raises(FieldError, match=r"m\.zip: changed while it was being downloaded; try again$"):
        _deploy(make_spec(url), tmp_path)


def test_a_digest_decides_what_is_the_model(store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec) -> None:
    url, held = store
    found = hashlib.sha256(held.content).hexdigest()
    assert _deploy(make_spec(f"{url}#sha256={found.upper()}"), tmp_path)[0] == (1,)
    with pytest.raises(FieldError, match=f"is not the model that it should be: its SHA-256 is {found}"):
        _deploy(make_spec(f"{url}#sha256={'0' * 64}"), tmp_path)
    with pytest.raises(FieldError, match="64 hexadecimal digits"):
        _deploy(make_spec(f"{url}#sha256=abc"), tmp_path)


def test_a_model_that_was_cached_without_a_digest_is_checked_when_there_is_one(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec
) -> None:
    url, _ = store
    _deploy(make_spec(url), tmp_path)
    with pytest.raises(FieldError, match="is not the model that it should be"):
        _deploy(make_spec(f"{url}#sha256={'0' * 64}"), tmp_path)


def test_every_tenth_of_a_large_download_is_told(
    store: tuple[str, Store], tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = store
    monkeypatch.setattr(model_transfer, "_LARGE", 1000)
    told = [line for line in _deploy(make_spec(url), tmp_path)[1] if "%" in line]
    assert [line.split(" ... ")[1].split(" of ")[0] for line in told] == ["20%", "40%", "60%", "80%", "100%"]


def test_a_part_is_kept_for_a_week(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache")
    for name in ("new", "old"):
        with cache.partial(name) as directory:
            (directory / "m.zip.part").write_bytes(b"half")
    weeks = time.time() - 8 * 24 * 3600
    os.utime(directory, (weeks, weeks))
    cache.prune(set)
    assert len(list((tmp_path / "cache/.partial").glob("*/m.zip.part"))) == 1
