"""The settings for TLS and a rate limit, and the files that they name."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from cortex.environments.certificate import Certificate, forget_others
from cortex.environments.docker.front import FrontSettings
from cortex.environments.local.environment import LocalEnvironment
from cortex.environments.protection import Protection
from cortex.errors import UserError
from tests.certificates import Files, issue


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return issue(tmp_path)


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths may begin with a home directory; each environment has its own port when none is given."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = {"certificate": "~/a.crt", "certificate_key": "/a.key", "rate_limit": "300r/m"}
    found = Protection.of(settings, tls_port=8443)
    assert found == Protection(8443, "/home/somebody/a.crt", "/a.key", "300r/m")
    assert Protection.of({"tls_port": "9443"}, tls_port=8443) == Protection(9443)
    assert FrontSettings.of({}).protection == Protection(443)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"certificate": "/a"}, "certificate and certificate_key are given together, or not at all"),
        ({"certificate_key": "/a"}, "certificate and certificate_key are given together, or not at all"),
        ({"certificate": "a.crt"}, "certificate: 'a.crt' depends on where a command is run; give the whole path: /"),
        ({"tls_port": "0"}, "tls_port: '0' is not a port"),
        ({"tls_port": "٨"}, "tls_port: '٨' is not a port"),
        ({"rate_limit": "10"}, "rate_limit: '10' is not a rate like 10r/s or 300r/m"),
        ({"rate_limit": "1r/s; } evil {"}, "is not a rate like"),
    ],
)
def test_both_environments_refuse_alike(settings: dict[str, str], told: str, tmp_path: Path) -> None:
    """One line, before anything is done."""
    for read in (FrontSettings.of, lambda given: LocalEnvironment(tmp_path, given)):
        with pytest.raises(UserError) as caught:
            read(settings)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_port_for_both_is_refused() -> None:
    """Only with a certificate is there a second port."""
    FrontSettings.of({"port": "443"})
    with pytest.raises(UserError, match="tls_port: 443 is the front's port for plain HTTP, too"):
        FrontSettings.of({"port": "443", "certificate": "/a", "certificate_key": "/b"})


def test_a_file_that_cannot_be_read(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^certificate: cannot read {tmp_path}/no: No such file or directory$"):
        Certificate.read(str(tmp_path / "no"), str(files.key))
    with pytest.raises(UserError, match=f"^certificate_key: cannot read {tmp_path}: Is a directory$"):
        Certificate.read(str(files.certificate), str(tmp_path))


def test_a_key_of_another_certificate(files: Files, tmp_path: Path) -> None:
    other = issue(tmp_path, "other")
    with pytest.raises(UserError, match=f"^certificate_key: {other.key} is not the key of the certificate {tmp_path}"):
        Certificate.read(str(files.certificate), str(other.key))


def test_a_key_with_a_password(files: Files) -> None:
    """nginx would wait for somebody to type it."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(UserError, match="in PEM, without a password"):
        Certificate.read(str(files.certificate), str(files.key))


def test_files_that_are_something_else(files: Files) -> None:
    files.certificate.write_text("hello")
    with pytest.raises(UserError, match="are no certificate in PEM with its key in PEM"):
        Certificate.read(str(files.certificate), str(files.key))


def test_copies_are_named_for_their_content(files: Files, tmp_path: Path) -> None:
    """Another certificate has other names; the key is closed to others; what is not used any more goes."""
    directory = tmp_path / "front"
    directory.mkdir()
    old = Certificate.read(str(files.certificate), str(files.key))
    old.place(directory)
    issue(tmp_path)
    new = Certificate.read(str(files.certificate), str(files.key))
    new.place(directory)
    assert len(set(directory.iterdir())) == 4
    forget_others(directory, new)
    chain, key = new.paths(directory)
    assert set(directory.iterdir()) == {chain, key}
    assert (chain.read_bytes(), key.read_bytes()) == (files.certificate.read_bytes(), files.key.read_bytes())
    assert key.stat().st_mode & 0o777 == 0o600
    forget_others(directory, None)
    assert not list(directory.iterdir())
