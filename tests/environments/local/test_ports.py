"""Which port an API is given, beside other APIs and other programs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.environments.fields import FieldError
from cortex.environments.local import ports
from cortex.environments.state import Home
from cortex.errors import UserError
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


def assigned(home: Home, name: str, wanted: int | None = None, held: int = 0, host: str = HOST) -> int:
    """Return the port that a deployment is given, which then has run."""
    port = ports.assign(home, name, wanted, host=host, held=held)
    Status("live", "r1", host, port).save(home.api(name).path / "status.json")
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


def test_the_port_of_the_front_is_left_to_it(home: Home) -> None:
    """Although nobody listens there yet: nginx comes when the first API is live."""
    assert ports.assign(home, "a", None, host=HOST, held=0, front={ports.FIRST}) > ports.FIRST


def test_a_wanted_port_that_cannot_be_had(home: Home, taken: int) -> None:
    """It is refused with who has it, and what was recorded stays."""
    assert assigned(home, "a") == ports.FIRST
    with pytest.raises(FieldError, match=f"port {ports.FIRST} has already been assigned to api a, please delete"):
        assigned(home, "b", ports.FIRST)
    with pytest.raises(FieldError, match=f"port {taken} is being used by a non-cortex process"):
        assigned(home, "a", taken)
    assert home.ports() == {"a": ports.FIRST}


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "nope.invalid"])
def test_an_address_that_this_machine_does_not_have(home: Home, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as that, at the first port: nobody else is blamed, and none of the others is tried."""
    monkeypatch.setattr(ports, "LAST", ports.FIRST)
    for wanted in (None, ports.FIRST):
        with pytest.raises(UserError, match=f"^cannot listen on {host} port {ports.FIRST}: ") as error:
            assigned(home, "a", wanted, host=host)
        assert "non-cortex" not in str(error.value)
    assert home.ports() == {}


def test_a_name_is_looked_up_once(home: Home, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ports are taken: a server of names may take seconds."""
    looked_up = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: int) -> object:
        looked_up.append(host)
        return real(HOST, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(ports, "FIRST", taken)
    monkeypatch.setattr(ports, "LAST", taken + 50)
    assert assigned(home, "a", host="here.invalid") > taken
    assert looked_up == ["here.invalid"]
