"""Models in S3, by moto's server in a process of its own: the real s3fs, over HTTP on loopback."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from cortex.environments.fields import FieldError
from cortex.environments.kubernetes.models import fetch
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import ResolvedModel, resolve
from cortex.spec import APISpec
from tests.ports import free_port
from tests.waiting import DEADLINE

pytest.importorskip("s3fs", reason="s3:// models need s3fs, which is optional")
_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request, Signature=x"}
"""moto believes it."""
Make = Callable[..., Path]
MakeSpec = Callable[..., APISpec]


def _moto() -> str | None:
    beside = Path(sys.executable).with_name("moto_server")
    return str(beside) if beside.exists() else shutil.which("moto_server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start S3's stand-in and return its URL."""
    program = _moto()
    if program is None:
        pytest.skip("moto_server is not installed (pip install moto[s3] flask-cors)")
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output, env=environment
        )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + DEADLINE
        while not _answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make a bucket of this test's own, and lead s3:// to the stand-in, as a user does who has a store of their own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    url = f"{server}/{tmp_path.name.replace('_', '-').lower()}"
    requests.put(url, timeout=10).raise_for_status()
    return url


def _upload(bucket: str, prefix: str, directory: Path) -> str:
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        key = f"{prefix}/{file.relative_to(directory).as_posix()}"
        requests.put(f"{bucket}/{key}", data=file.read_bytes(), headers=_SIGNED, timeout=10).raise_for_status()
    return f"s3://{bucket.rpartition('/')[2]}/{prefix}"


def _deploy(spec: APISpec, tmp_path: Path) -> tuple[ResolvedModel, list[str]]:
    lines: list[str] = []
    (model,) = resolve(spec, tmp_path, ModelCache(tmp_path / "cache"), lines.append)
    return model, lines


def test_a_directory_is_downloaded_once_until_it_changes(
    bucket: str, tmp_path: Path, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    """Also one that is pinned by the digest that the first deployment printed."""
    export = write_saved_model(tmp_path / "export/1", payload=b"first").parent
    url = _upload(bucket, "models/resnet50", export)
    model, lines = _deploy(make_spec(url), tmp_path)
    assert lines == [f"downloading model {url} ...", f"downloaded model {url}#sha256={model.digest}"]
    assert (model.path / "1/variables/variables.data-00000-of-00001").read_bytes() == b"first"
    assert _deploy(make_spec(url), tmp_path) == (model, [])
    assert _deploy(make_spec(f"{url}#sha256={model.digest}"), tmp_path)[0].digest == model.digest
    write_saved_model(export / "1", payload=b"other")
    _upload(bucket, "models/resnet50", export)
    assert _deploy(make_spec(url), tmp_path)[0].digest != model.digest
    with pytest.raises(FieldError, match="is not the model that it should be"):
        _deploy(make_spec(f"{url}#sha256={model.digest}"), tmp_path)


def test_every_directory_of_a_place_is_a_model(
    bucket: str, tmp_path: Path, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    for name in ("cats", "dogs"):
        _upload(bucket, f"models/{name}", write_saved_model(tmp_path / name / "1", payload=name.encode()).parent)
    spec = make_spec(models_dir=f"s3://{bucket.rpartition('/')[2]}/models")
    models = resolve(spec, tmp_path, ModelCache(tmp_path / "cache"), lambda line: None)
    assert [model.name for model in models] == ["cats", "dogs"]


def test_a_model_that_is_not_there_is_one_line(bucket: str, tmp_path: Path, make_spec: MakeSpec) -> None:
    url = f"s3://{bucket.rpartition('/')[2]}/nothing"
    with pytest.raises(FieldError) as raised:
        _deploy(make_spec(url), tmp_path)
    assert raised.value.message == f"{url}: not found or insufficient permissions"


def test_without_credentials_that_is_told(
    bucket: str, tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not to be had as anybody may be had by somebody: the line says that no credentials were found."""
    for name, value in (("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    url = f"s3://{bucket.rpartition('/')[2]}/nothing"
    with pytest.raises(FieldError) as raised:
        _deploy(make_spec(url), tmp_path)
    assert raised.value.message == (
        f"{url}: not found or insufficient permissions; no AWS credentials were found (variables, a profile, a role), "
        "so that it was asked for as anybody"
    )


def test_a_pod_has_the_model_under_its_name(
    bucket: str, tmp_path: Path, write_saved_model: Make, make_spec: MakeSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    """The init container leaves it where the model server's configuration says, also when it is run once more."""
    url = _upload(bucket, "m", write_saved_model(tmp_path / "export/1", payload=b"here").parent)
    models = tmp_path / "models"
    models.mkdir()
    spec = make_spec(url, "pvc://claim/m")
    for _ in range(2):
        fetch(spec, models)
        assert (models / "m0/1/variables/variables.data-00000-of-00001").read_bytes() == b"here"
    assert not (models / "m1").exists()
    assert f"downloading model {url} ..." in capfd.readouterr().out
