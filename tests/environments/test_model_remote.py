import hashlib
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from cortex.environments.fields import FieldError
from cortex.environments.model_cache import ModelCache
from cortex.environments.model_remote import Remote, is_remote
from cortex.environments.models import ResolvedModel, resolve
from cortex.errors import UserError
from cortex.spec import APISpec

Make = Callable[..., Path]
MakeSpec = Callable[..., APISpec]


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("s3://bucket/model", True),
        ("https://host/m.zip", True),
        ("models/resnet50", False),
        ("/abs", False),
        ("~/m", False),
    ],
)
def test_a_url_is_remote(path: str, remote: bool) -> None:
    assert is_remote(path) is remote


@pytest.mark.parametrize("url", ["ftp://host/m", "file:///etc", "memory://m", "s3://a::file://b", "://x"])
def test_a_scheme_that_is_not_for_models_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="must be a path on this machine, or a URL with s3://"):
        Remote.open(url)


_OPEN_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("s3fs", "gcsfs", "aiohttp")))  # None: an import finds nothing
from cortex.environments.model_remote import Remote
from cortex.errors import UserError
for scheme in ("s3", "gs", "http", "https"):
    try:
        Remote.open(f"{scheme}://bucket/model.zip")
    except UserError as error:
        print(error)
"""


def test_a_missing_package_is_one_sentence() -> None:
    printed = subprocess.run([sys.executable, "-c", _OPEN_WITHOUT], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [
        "s3:// needs the package s3fs: pip install s3fs",
        "gs:// needs the package gcsfs: pip install gcsfs",
        "http:// needs the package aiohttp: pip install aiohttp",
        "https:// needs the package aiohttp: pip install aiohttp",
    ]


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """A store that behaves as s3:// and gs:// do, through the same library."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


def _remote(store: fsspec.AbstractFileSystem, path: str) -> Remote:
    return Remote(f"s3:/{path}", store, path)


def test_a_directory_is_downloaded_under_its_own_name(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe({"/b/resnet50/1/saved_model.pb": b"1", "/b/resnet50/1/variables/v": b"2", "/b/resnet500/x": b"no"})
    top = _remote(store, "/b/resnet50").download(tmp_path)
    assert top == tmp_path / "resnet50"
    files = {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert files == {"1/saved_model.pb": b"1", "1/variables/v": b"2"}


def test_a_file_must_be_one_that_can_be_a_model(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe({"/b/m.zip": b"zip", "/b/m.h5": b"h5"})
    assert _remote(store, "/b/m.zip").download(tmp_path).read_bytes() == b"zip"
    with pytest.raises(UserError, match=r"must be a directory, or a file ending in \.zip or \.onnx"):
        _remote(store, "/b/m.h5").download(tmp_path)


def test_what_is_not_there_says_so(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^not found or insufficient permissions$"):
        _remote(store, "/b/nothing").download(tmp_path)


def test_a_key_that_leads_out_is_refused(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    """A store's keys are any text: `..` in one must not write outside of the download."""
    store.pipe({"/b/m/fine": b"1", "/b/x": b"evil"})
    store.store["/b/m/../../evil"] = store.store.pop("/b/x")
    with pytest.raises(UserError, match="is not a name that a file of a model can have"):
        _remote(store, "/b/m").download(tmp_path)
    assert list(tmp_path.rglob("evil")) == []


def test_the_directories_of_a_place_are_its_models(store: fsspec.AbstractFileSystem) -> None:
    store.pipe({"/b/models/a/1/x": b"", "/b/models/c/1/x": b"", "/b/models/README": b""})
    assert _remote(store, "/b/models").directories() == ["a", "c"]


def test_a_store_that_tells_nothing_of_content_has_no_fingerprint(store: fsspec.AbstractFileSystem) -> None:
    store.pipe("/b/m/1/x", b"1")
    assert _remote(store, "/b/m").fingerprint() is None


def test_a_fault_of_the_store_is_one_line(tmp_path: Path) -> None:
    class Broken:
        def invalidate_cache(self) -> None:
            pass

        def info(self, path: str) -> None:
            raise RuntimeError("connection\nreset")

    with pytest.raises(UserError, match=r"^cannot be downloaded: RuntimeError: connection reset$"):
        Remote("s3://b/m", Broken(), "b/m").download(tmp_path)


class _Handler(SimpleHTTPRequestHandler):
    """Serve files with an ETag, as object stores do, and keep count of what was fetched."""

    def __init__(self, *args: object, fetched: list[str], **options: object) -> None:
        self.fetched = fetched
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.fetched.append(self.path)
        super().do_GET()

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Serve a directory on loopback: its URL, the directory, and the paths fetched from it."""
    pytest.importorskip("aiohttp", reason="http:// models need aiohttp, which is optional")
    directory, fetched = tmp_path / "served", list[str]()
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory), fetched=fetched)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", directory, fetched
        finally:
            server.shutdown()
            thread.join()


def _deploy(spec: APISpec, tmp_path: Path) -> tuple[ResolvedModel, list[str]]:
    lines: list[str] = []
    (model,) = resolve(spec, tmp_path, ModelCache(tmp_path / "cache"), lines.append)
    return model, lines


def test_a_zip_is_downloaded_once_until_it_changes(
    http: tuple[str, Path, list[str]], tmp_path: Path, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    url, served, fetched = http

    def publish(payload: bytes) -> None:
        export = write_saved_model(tmp_path / "export/1", payload=payload).parent
        with zipfile.ZipFile(served / "m.zip", "w") as archive:
            for file in sorted(export.rglob("*")):
                archive.write(file, file.relative_to(export))

    spec = make_spec(f"{url}/m.zip?signature=secret")
    publish(b"first")
    model, lines = _deploy(spec, tmp_path)
    digest = hashlib.sha256((served / "m.zip").read_bytes()).hexdigest()
    assert lines == [
        f"downloading model {url}/m.zip ...",
        "unzipping model m.zip ...",
        f"downloaded model {url}/m.zip#sha256={digest}",
    ]
    assert model.versions == (1,)
    assert (_deploy(spec, tmp_path), len(fetched)) == ((model, []), 1)
    publish(b"second")
    assert _deploy(spec, tmp_path)[0].digest != model.digest
    assert sorted(path.name for path in (tmp_path / "cache").glob(".tmp-*")) == []


def test_a_model_that_is_not_on_the_server_is_one_line(
    http: tuple[str, Path, list[str]], tmp_path: Path, make_spec: MakeSpec
) -> None:
    url, _, _ = http
    with pytest.raises(FieldError) as raised:
        _deploy(make_spec(f"{url}/missing.zip"), tmp_path)
    assert raised.value.message == f"{url}/missing.zip: not found or insufficient permissions"


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, make_spec: MakeSpec) -> None:
    pytest.importorskip("aiohttp", reason="http:// models need aiohttp, which is optional")
    with pytest.raises(FieldError, match=r"cannot be downloaded: .*Connect") as raised:
        _deploy(make_spec("http://127.0.0.1:1/m.zip"), tmp_path)
    assert "\n" not in str(raised.value)
