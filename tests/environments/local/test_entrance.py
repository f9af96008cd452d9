"""Which front a home can have, and which APIs can be behind it. tests/e2e/test_front.py has nginx itself."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.environments.fields import FieldError
from cortex.environments.local import front
from cortex.environments.local.entrance import Entrance
from cortex.environments.local.environment import LocalEnvironment
from cortex.environments.protection import Protection
from cortex.environments.state import Home
from cortex.errors import UserError
from cortex.spec import APISpec, Networking, Predictor
from cortex.status import Status
from tests.certificates import issue
from tests.ports import free_port


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def entrance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Entrance:
    """The entrance of a machine that has nginx."""
    monkeypatch.setattr(front, "_binary", lambda: "/usr/sbin/nginx")
    return Entrance(home, "127.0.0.1", Protection(tls_port=8443))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def _spec(name: str, **networking: object) -> APISpec:
    row = Predictor(type="python", path="predictor.py")
    return APISpec(name=name, predictor=row, networking=Networking.model_validate(networking))


def _deployed(home: Home, spec: APISpec, port: int) -> None:
    """Leave what the supervisor of a live API leaves."""
    directory = home.api(spec.name)
    directory.assign_port(port)
    directory.revision("r1").mkdir(parents=True)
    (directory.revision("r1") / "spec.json").write_text(spec.model_dump_json())
    Status("live", "r1", "127.0.0.1", port).save(directory.path / "status.json")


@pytest.mark.parametrize(
    "choice", ["", "apache", "nginx:", "nginx:0", "nginx:65536", "nginx:http", "nginx:8080\n", "None"]
)
def test_a_choice_is_one_of_three(choice: str, entrance: Entrance, home: Home) -> None:
    with pytest.raises(UserError, match="must be nginx, nginx:PORT or none"):
        entrance.choose(choice)
    assert not (home.root / "front").exists()


def test_nginx_alone_keeps_the_port(entrance: Entrance, home: Home, port: int) -> None:
    entrance.choose(f"nginx:{port}")
    entrance.choose("nginx")
    assert (home.root / "front/listen").read_text() == f"127.0.0.1:{port}"
    entrance.choose("none")
    assert not (home.root / "front").exists()


def test_a_port_that_is_taken(entrance: Entrance, home: Home, taken: int, port: int) -> None:
    """It is told before anything is changed."""
    entrance.choose(f"nginx:{port}")
    with pytest.raises(UserError, match=f"nginx cannot listen on port {taken}: something else listens there: choose"):
        entrance.choose(f"nginx:{taken}")
    assert (home.root / "front/listen").read_text() == f"127.0.0.1:{port}"


def test_a_port_for_root_alone(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root learns why, and what to do."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UserError, match="port 80: only root may listen below port 1024: choose another port"):
        entrance.choose("nginx:80")


def test_a_port_for_tls(home: Home, entrance: Entrance, taken: int, port: int, tmp_path: Path) -> None:
    """It must be free, too, and another than the one for plain HTTP and those of APIs; without a certificate it is not
    used. What is refused changes nothing."""
    files = issue(tmp_path)

    def with_(tls_port: int) -> Entrance:
        return Entrance(home, "127.0.0.1", Protection(tls_port, str(files.certificate), str(files.key)))

    table = {taken: f"port {taken}: something else listens", port: f"tls_port: {port} is the front's port"}
    for tls_port, told in table.items():
        with pytest.raises(UserError, match=told):
            with_(tls_port).choose(f"nginx:{port}")
        assert not (home.root / "front").exists()
    Entrance(home, "127.0.0.1", Protection(taken)).choose(f"nginx:{port}")
    with pytest.raises(UserError, match=f"port {taken}: something else listens"):
        with_(taken).check(_spec("iris"))
    with pytest.raises(FieldError, match=r"networking\.local_port: is the port of the front"):
        with_(taken).check(_spec("iris", local_port=taken))


def test_a_certificate_that_cannot_be(home: Home, entrance: Entrance, port: int, tmp_path: Path) -> None:
    """Neither a choice nor a deployment goes further."""
    entrance.choose(f"nginx:{port}")
    missing = Entrance(home, "127.0.0.1", Protection(free_port(), str(tmp_path / "no.crt"), str(tmp_path / "no.key")))
    for refused in (lambda: missing.choose("nginx:1"), lambda: missing.check(_spec("iris"))):
        with pytest.raises(UserError, match="certificate: cannot read"):
            refused()
    assert (home.root / "front/listen").read_text() == f"127.0.0.1:{port}"


def test_without_nginx(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error with the line that installs it, and nothing has been done."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"not installed: install it \(sudo apt-get install nginx-light\)"):
        LocalEnvironment(home.root, {}).choose_front("nginx")
    assert not (home.root / "front").exists()


def test_who_can_be_behind_it(entrance: Entrance, home: Home, port: int) -> None:
    """No second API with the same endpoint, and none on the port of the front; without a front all can be."""
    _deployed(home, _spec("iris", endpoint="/flowers"), 9001)
    others = (_spec("wine", endpoint="/flowers"), _spec("rose", local_port=port))
    for other in others:
        entrance.check(other)
    entrance.choose(f"nginx:{port}")
    entrance.check(_spec("iris", endpoint="/flowers"))
    with pytest.raises(FieldError, match=r"networking\.endpoint: /flowers is the endpoint of iris"):
        entrance.check(others[0])
    with pytest.raises(FieldError, match=r"networking\.local_port: is the port of the front"):
        entrance.check(others[1])


def test_no_front_over_apis_that_share_an_endpoint(entrance: Entrance, home: Home, port: int) -> None:
    for number, name in enumerate(("iris", "wine")):
        _deployed(home, _spec(name, endpoint="/flowers"), 9001 + number)
    with pytest.raises(UserError, match="/flowers is the endpoint of iris"):
        entrance.choose(f"nginx:{port}")
    assert not (home.root / "front").exists()


def test_the_oldest_api_comes_first(home: Home) -> None:
    """By when it got its port, not by name; deploying it again changes nothing."""
    for number, name in enumerate(("wine", "iris")):
        _deployed(home, _spec(name), 9001 + number)
    home.api("wine").assign_port(9001)
    assert home.by_age() == ["wine", "iris"]
