"""Which port an API is given, beside other APIs and other programs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.environments.fields import FieldError
from cortex.environments.local import ports
from cortex.environments.state import Home
from cortex.status import Status
from tests.ports import free_port

HOST = "127.0.0.1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose first port is free."""
    monkeypatch.setattr(ports, "FIRST", free_port())
    return Home(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.create_server((HOST, free_port())) as listener:
        yield listener.getsockname()[1]


def assigned(home: Home, name: str, wanted: int | None = None, held: int = 0) -> int:
    """Return the port that a deployment is given, which then has run."""
    port = ports.assign(home, name, wanted, host=HOST, held=held)
    Status("live", "r1", HOST, port).save(home.api(name).path / "status.json")
    return port


def test_an_api_keeps_its_port(home: Home) -> None:
    """Deployed again, it is where it was, although an earlier port is free by now; what was deleted is given anew."""
    assert assigned(home, "a") == ports.FIRST
    kept = assigned(home, "b")
    assert kept > ports.FIRST
    home.api("a").remove()
    assert assigned(home, "b") == kept
    assert assigned(home, "c") == ports.FIRST


def test_a_port_that_is_taken_is_passed_over(home: Home, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is assigned, unless it is the API itself that listens there."""
    monkeypatch.setattr(ports, "FIRST", taken)
    assert assigned(home, "a", held=taken) == taken
    assert assigned(home, "a") > taken


def test_a_wanted_port_that_cannot_be_had(home: Home, taken: int) -> None:
    """It is refused with who has it, and what was recorded stays."""
    assert assigned(home, "a") == ports.FIRST
    with pytest.raises(FieldError, match=f"port {ports.FIRST} has already been assigned to api a, please delete"):
        assigned(home, "b", ports.FIRST)
    with pytest.raises(FieldError, match=f"port {taken} is being used by a non-cortex process"):
        assigned(home, "a", taken)
    assert home.ports() == {"a": ports.FIRST}
