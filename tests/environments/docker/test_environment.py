"""The docker environment against a stand-in for docker: which commands, in which order, and what is told."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex.environments import devices
from cortex.environments.base import Deployed
from cortex.environments.devices import Device, Found
from cortex.environments.docker import compose
from cortex.environments.docker.changeover import Changeover
from cortex.environments.docker.compose_file import ComposeFile
from cortex.environments.docker.engine import Engine
from cortex.environments.docker.environment import DockerEnvironment
from cortex.environments.docker.front import DockerFront
from cortex.errors import Error, UserError
from cortex.spec.config import Config, read
from tests.certificates import issue
from tests.ports import free_port
from tests.waiting import until

STAND_IN = Path(__file__).with_name("docker_stand_in.py")
REASON = "predictor.py: __init__: ValueError: no such label: runtime exception"
"""What a worker of the stand-in says last when it crashes, as a person reads it."""


class Docker:
    """The stand-in on the PATH, and one environment that uses it."""

    def __init__(self, root: Path) -> None:
        self.here = root / "docker"
        self.home = root / "home"
        self.project = root / "project"
        self.port = free_port()
        for path in (self.here, self.home, self.project):
            path.mkdir()
        for name, option in (("docker", " -S"), ("docker-compose", "")):
            (self.here / name).write_text(f"#!{sys.executable}{option}\n{STAND_IN.read_text()}")
            (self.here / name).chmod(0o755)
        (self.here / "images").write_text("nginx:stable")
        self.write()

    def write(self, version: int = 1, **autoscaling: int) -> Config:
        """Write the project of an API, and return its configuration."""
        (self.project / "predictor.py").write_text(f"class PythonPredictor: version = {version}\n")
        rows: list[dict[str, Any]] = [{"name": "iris", "predictor": {"type": "python", "path": "predictor.py"}}]
        if autoscaling:
            rows[0]["autoscaling"] = autoscaling
        (self.project / "cortex.yaml").write_text(json.dumps(rows))
        return read(self.project / "cortex.yaml")

    @property
    def environment(self) -> DockerEnvironment:
        return DockerEnvironment(self.home, {"host": "127.0.0.1", "port": str(self.port)})

    def deploy(self, config: Config) -> Deployed:
        (found,) = self.environment.deploy(config, force=False, progress=lambda line: None)
        return found

    def did(self, *words: str) -> list[str]:
        """Return the commands since the last call that have one of some words."""
        commands = (self.here / "commands").read_text().splitlines()
        (self.here / "commands").write_text("")
        return [line for line in commands if any(word in line for word in words)]

    @property
    def services(self) -> list[str]:
        return sorted(json.loads((self.here / "containers.json").read_text()))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker(tmp_path)
    monkeypatch.setenv("PATH", f"{found.here}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_STAND_IN", str(found.here))
    return found


def test_the_first_deployment(docker: Docker) -> None:
    """Images first, then the workers, then the links of the front, then the front itself."""
    deployed = docker.deploy(docker.write())
    assert not deployed.error
    assert deployed.message == "creating iris (RealtimeAPI)"
    assert deployed.api is not None
    assert (deployed.api.status, deployed.api.endpoint) == ("live", f"http://localhost:{docker.port}/iris")
    done = docker.did("build", " up ", "/readyz", "ln -sfn", "HUP", "/-/configuration")
    assert "--force-rm" in done[0], "a build that fails leaves no container"
    words = ("build", "/readyz", "ln -sfn", "HUP", "/-/configuration", " up ")
    order = [next(word for word in words if word in line) for line in done]
    assert order == ["build", " up ", "/readyz", "ln -sfn", " up ", "/-/configuration", "/-/configuration"]
    assert docker.services[0] == "front"
    assert len(docker.services) == 2


def test_what_already_runs_is_left_alone(docker: Docker) -> None:
    """The same files again change nothing."""
    docker.deploy(docker.write())
    docker.did()
    assert docker.deploy(docker.write()).message == "iris (RealtimeAPI) is up to date"
    assert not docker.did(" up ", "stop", "rm ", "kill")


def test_an_update_starts_the_new_run_before_it_stops_the_old(docker: Docker) -> None:
    """And nginx is not asked to reload, since its upstreams are links."""
    docker.deploy(docker.write(1))
    (old,) = (name for name in docker.services if name != "front")
    docker.did()
    assert docker.deploy(docker.write(2)).message == "updating iris (RealtimeAPI)"
    (new,) = (name for name in docker.services if name != "front")
    done = [line for line in docker.did(" up ", " stop ", " rm ", "kill") if "exec" not in line]
    verbs = [next(verb for verb in (" up ", " stop ", "volume rm", " rm ", "kill") if verb in line) for line in done]
    assert verbs == [" up ", " stop ", " rm ", "volume rm"]
    assert new in done[0]
    assert old in done[1]
    assert new != old


def test_another_number_of_workers_is_told_to_nginx(docker: Docker) -> None:
    """More replicas are more upstreams: nginx is asked to reload before the old run is stopped.

    Not by `docker kill`: a container that was sent any signal so is not started again with its machine.
    """
    docker.deploy(docker.write(1))
    docker.did()
    docker.deploy(docker.write(1, min_replicas=2))
    done = docker.did("HUP", " stop ")
    assert done[0] == "docker exec id-front sh -c kill -HUP 1"
    assert " stop " in done[1]
    assert len(docker.services) == 3


def test_an_update_that_fails_leaves_the_old_run(docker: Docker) -> None:
    """The new containers are removed; the reason is their last error."""
    docker.deploy(docker.write(1))
    before = docker.services
    (docker.here / "crash").write_text("iris")
    deployed = docker.deploy(docker.write(2))
    assert deployed.error == f"api-0: exited with 3: {REASON}"
    assert docker.services == before
    assert deployed.api is not None
    assert deployed.api.status == "live"
    assert f"goes on: api-0: exited with 3: {REASON}" in deployed.api.notices[-1]


def test_a_restart_that_is_interrupted_is_not_called_an_update(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The revision that it was to restart is the one that goes on."""
    docker.deploy(docker.write())
    with monkeypatch.context() as patched:
        patched.setattr(Changeover, "_start", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            docker.environment.refresh("iris", force=False, progress=str)
    api = docker.environment.api("iris")
    assert api.notices == (f"the restart failed, so {api.api_id} goes on: it was interrupted",)


@pytest.mark.parametrize(
    "said",
    ["[FATAL tini (6)] exec python failed: No such file", "python: can't open file '/opt/cortex/listen.py': [Errno 2]"],
)
def test_an_image_that_is_not_made_from_ours_is_told(
    said: str, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Cortex's own images are not."""
    (docker.here / "crash").write_text("iris")
    monkeypatch.setattr(Engine, "last_words", lambda *_: said)
    assert "predictor.image must be made from cortex-api" in docker.deploy(docker.write()).error


def test_the_links_lead_back_from_an_update_that_is_interrupted(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after they were turned to the new run, which is taken down."""
    docker.deploy(docker.write(1))
    (old,) = (name for name in docker.services if name != "front")
    monkeypatch.setattr(ComposeFile, "remember", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        docker.deploy(docker.write(2))
    assert docker.services == ["front", old]
    assert old.removesuffix("-api-0") in docker.did("ln -sfn")[-1]


def test_an_nginx_that_was_not_told_is_told_by_the_next_command(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is interrupted may have written what nginx is to have, and nothing more."""
    docker.deploy(docker.write(1))
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "ask", _interrupted_at("kill -HUP 1", Engine.ask))
        with pytest.raises(KeyboardInterrupt):
            docker.deploy(docker.write(1, min_replicas=2))
    docker.did()
    assert docker.deploy(docker.write(1, min_replicas=2)).message == "iris (RealtimeAPI) is up to date"
    assert docker.did("kill -HUP 1")


def test_nginx_forgets_an_api_whose_first_deployment_is_interrupted(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was told of it already: its endpoint is not left to lead nowhere."""
    docker.deploy(docker.write())
    config = docker.write()
    config.path.write_text(config.path.read_text().replace('"iris"', '"wine"'))
    with monkeypatch.context() as patched:
        patched.setattr(DockerFront, "_await", _interrupted_once(DockerFront._await))
        with pytest.raises(KeyboardInterrupt):
            docker.deploy(read(config.path))
    assert len(docker.did("kill -HUP 1")) == 2
    assert "wine" not in (docker.home / "environments/docker/front/nginx.conf").read_text()
    assert docker.services[0] == "front"
    assert len(docker.services) == 2


def test_nginx_forgets_an_api_whose_end_is_interrupted(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its containers are gone, and its endpoint is none."""
    docker.deploy(docker.write())
    config = docker.write()
    config.path.write_text(config.path.read_text().replace('"iris"', '"wine"'))
    docker.deploy(read(config.path))
    with monkeypatch.context() as patched:
        patched.setattr(DockerFront, "follow", _interrupted_once(DockerFront.follow))
        with pytest.raises(KeyboardInterrupt):
            docker.environment.delete("wine", keep_cache=False)
    assert "wine" not in (docker.home / "environments/docker/front/nginx.conf").read_text()
    assert len(docker.services) == 2


def test_a_front_that_could_not_be_changed_is_not_called_up_to_date(docker: Docker) -> None:
    """The next command tries again, as long as the setting is there."""
    docker.deploy(docker.write())
    settings = {"host": "127.0.0.1", "port": str(docker.port), "front_image": "mine:1"}
    environment = DockerEnvironment(docker.home, settings)
    (docker.here / "refuse up front").write_text("mine:1: not found")
    for _ in range(2):
        (found,) = environment.deploy(docker.write(), force=False, progress=str)
        assert "mine:1: not found" in found.error
    (docker.here / "refuse up front").unlink()
    (found,) = environment.deploy(docker.write(), force=False, progress=str)
    assert found.message == "iris (RealtimeAPI) is up to date"
    assert docker.did(" up ")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _interrupted_once(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter([_interrupted])
    return lambda *arguments: next(calls, otherwise)(*arguments)


def _interrupted_at(word: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: _interrupted() if word in arguments else otherwise(*arguments)


def test_a_first_deployment_that_fails_leaves_nothing(docker: Docker) -> None:
    """No container, network or volume, and no compose file or directory that would say there was one."""
    (docker.here / "crash").write_text("iris")
    assert docker.deploy(docker.write()).error == f"api-0: exited with 3: {REASON}"
    assert docker.did("down --volumes", "network rm")[1].endswith("_default")
    assert docker.services == []
    assert not (docker.home / "environments/docker/compose.yaml").exists()
    assert not (docker.home / "environments/docker/apis").exists()
    assert docker.environment.apis() == ()


def test_what_a_killed_first_deployment_left_goes_with_the_next_command(docker: Docker) -> None:
    """Also with one for another API: no command shows these containers, which Docker starts again for ever."""
    docker.deploy(docker.write())
    file = docker.home / "environments/docker/compose.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "x-cortex": {}}))
    with pytest.raises(UserError, match="rose is not deployed"):
        docker.environment.delete("rose", keep_cache=False)
    assert docker.services == []
    assert not file.exists()
    assert not (docker.home / "environments/docker/apis").exists()


def test_nginx_forgets_an_api_whose_first_deployment_was_killed(docker: Docker) -> None:
    """With the next command, whichever that is."""
    docker.deploy(docker.write())
    config = docker.write()
    config.path.write_text(config.path.read_text().replace('"iris"', '"wine"'))
    docker.deploy(read(config.path))
    file = docker.home / "environments/docker/compose.yaml"
    document = yaml.safe_load(file.read_text())
    del document["x-cortex"]["wine"]
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match="wine is not deployed"):
        docker.environment.refresh("wine", force=False, progress=str)
    assert "wine" not in (docker.home / "environments/docker/front/nginx.conf").read_text()
    assert len(docker.services) == 2


def test_a_front_that_does_not_come_up_leaves_no_api(docker: Docker) -> None:
    """The first API is taken down again, since nobody could reach it."""
    (docker.here / "crash").write_text("front")
    assert docker.deploy(docker.write()).error
    assert docker.services == []
    assert docker.environment.apis() == ()


def test_the_endpoint_is_where_the_front_is_until_it_follows_other_settings(docker: Docker, tmp_path: Path) -> None:
    """A port, or a certificate, that was set meanwhile is told with the deployment that has it."""
    docker.deploy(docker.write())
    files = issue(tmp_path)
    port, tls_port = free_port(), free_port()
    settings = {"certificate": str(files.certificate), "certificate_key": str(files.key), "tls_port": str(tls_port)}
    changed = DockerEnvironment(docker.home, {"host": "127.0.0.1", "port": str(port), **settings})
    assert changed.api("iris").endpoint == f"http://localhost:{docker.port}/iris"
    (deployed,) = changed.deploy(docker.write(), force=False, progress=str)
    assert deployed.api is not None
    assert deployed.api.endpoint == f"https://localhost:{tls_port}/iris"
    assert docker.environment.api("iris").endpoint == f"https://localhost:{tls_port}/iris"


def test_a_port_that_is_taken_is_told_before_anything_is_built(docker: Docker) -> None:
    """In one line, with how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        environment = DockerEnvironment(docker.home, {"host": "127.0.0.1", "port": port})
        (found,) = environment.deploy(docker.write(), force=False, progress=lambda line: None)
    assert found.error.startswith(f"port {port} is taken: choose another with `cortex env configure NAME")
    assert not docker.did("build", " up ")


def test_a_port_that_is_taken_is_told_before_the_front_leaves_its_own(docker: Docker) -> None:
    """The front that runs keeps its port, whichever command is to move it; to a port that is free it moves."""
    docker.deploy(docker.write())
    docker.did()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        environment = DockerEnvironment(docker.home, {"host": "127.0.0.1", "port": port})
        (found,) = environment.deploy(docker.write(), force=False, progress=lambda line: None)
        assert found.error.startswith(f"port {port} is taken: ")
        with pytest.raises(UserError, match=f"port {port} is taken: "):
            environment.refresh("iris", force=False, progress=lambda line: None)
    assert not docker.did(" up ", "stop")
    (found,) = environment.deploy(docker.write(), force=False, progress=lambda line: None)
    assert found.message == "iris (RealtimeAPI) is up to date"
    assert docker.did(" up ")


@pytest.mark.parametrize(
    ("host", "published"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_a_front_is_published_by_number(host: str, published: str, docker: Docker) -> None:
    """Compose takes no name; a file that it does not take would keep every later command from its work."""
    (document,) = DockerEnvironment(docker.home, {"host": host, "port": "8080"}).render(docker.write())
    assert document["services"]["front"]["ports"] == [f"{published}:8080:8080"]


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_told_before_the_front_leaves_its_own(host: str, docker: Docker) -> None:
    """Also at the port that the front has."""
    docker.deploy(docker.write())
    docker.did()
    environment = DockerEnvironment(docker.home, {"host": host, "port": str(docker.port)})
    (found,) = environment.deploy(docker.write(), force=False, progress=str)
    assert found.error.startswith(f"host: {host} is no address of this machine (")
    assert not docker.did(" up ", "stop")


def test_a_certificate_that_was_renewed_is_taken(docker: Docker, tmp_path: Path) -> None:
    """The next deployment copies it and has nginx reload, though the API is up to date."""
    files = issue(tmp_path)
    ports = {"port": str(docker.port), "tls_port": str(free_port())}
    settings = {"certificate": str(files.certificate), "certificate_key": str(files.key)}
    environment = DockerEnvironment(docker.home, {"host": "127.0.0.1", **ports, **settings})
    assert [row.error for row in environment.deploy(docker.write(), force=False, progress=str)] == [""]
    issue(tmp_path)
    docker.did()
    assert [row.error for row in environment.deploy(docker.write(), force=False, progress=str)] == [""]
    assert docker.did("HUP")
    copy = docker.home / "environments/docker/front/tls.crt"
    assert copy.read_bytes() == files.certificate.read_bytes()


def test_a_wrong_key_is_told_before_anything_is_built(docker: Docker, tmp_path: Path) -> None:
    """Also where a front runs already, which goes on with what it has."""
    certificate, key = issue(tmp_path).certificate, issue(tmp_path, "other").key
    settings = {"host": "127.0.0.1", "certificate": str(certificate), "certificate_key": str(key)}
    (found,) = DockerEnvironment(docker.home, settings).deploy(docker.write(), force=False, progress=lambda line: None)
    assert found.error == f"certificate_key: {key} is not the key of the certificate {certificate}"
    assert not docker.did("build", " up ")


def test_a_docker_elsewhere_that_does_not_answer(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not this machine's that is to be started."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    (docker.here / "refuse").write_text("Cannot connect to the Docker daemon at tcp://127.0.0.1:9. Is it running?")
    assert docker.deploy(docker.write()).error.startswith("Docker does not answer at DOCKER_HOST=tcp://127.0.0.1:9: ")


def test_two_environments_of_one_home_share_nothing(docker: Docker) -> None:
    """Each has a compose project, a directory and APIs of its own, all named by it."""
    docker.deploy(docker.write())
    other = DockerEnvironment(docker.home, {"port": str(free_port())}, name="second")
    assert other.apis() == ()
    projects = {docker.environment._engine.project, other._engine.project}
    assert len(projects) == 2
    assert {path.name for path in (docker.home / "environments").iterdir()} == {"docker"}


def test_no_two_apis_have_one_endpoint(docker: Docker) -> None:
    """nginx could not lead to both: the second is refused before anything is built or started."""
    docker.deploy(docker.write())
    docker.did()
    config = docker.write()
    text = config.path.read_text().replace('"iris"', '"wine"')
    config.path.write_text(text.replace("}}", '}, "networking": {"endpoint": "/iris"}}'))
    deployed = docker.deploy(read(config.path))
    assert "wine: networking.endpoint: /iris is the endpoint of iris, behind the same front" in deployed.error
    assert not docker.did("build", " up ")


def test_no_two_apis_have_one_inferentia_device(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the first that is free, an update keeps its own, a preview says so, and too many are refused."""
    monkeypatch.setattr(devices, "neuron", lambda: Found((Device("0", cores=4), Device("1", cores=4))))

    def config(*names: str) -> Config:
        predictor = {"type": "python", "path": "predictor.py"}
        rows = [{"name": name, "predictor": predictor, "compute": {"inf": 1}} for name in names]
        (docker.project / "cortex.yaml").write_text(json.dumps(rows))
        return read(docker.project / "cortex.yaml")

    def mounted(document: dict[str, Any]) -> dict[str, list[str]]:
        rows = (row for name, row in document["services"].items() if name != "front")
        return {row["labels"]["cortex.api"]: row["devices"] for row in rows}

    each = [["/dev/neuron0:/dev/neuron0"], ["/dev/neuron1:/dev/neuron1"], ["/dev/neuron2:/dev/neuron2"]]
    assert mounted(dict(docker.environment.render(config("a", "b"))[0])) == {"a": each[0], "b": each[1]}
    assert [row.error for row in docker.environment.deploy(config("a", "b"), force=False, progress=str)] == ["", ""]
    docker.write(2)
    assert [row.error for row in docker.environment.deploy(config("b"), force=False, progress=str)] == [""]
    assert mounted(docker.environment._compose_file.read()) == {"a": each[0], "b": each[1]}
    assert mounted(dict(docker.environment.render(config("c"))[0])) == {"c": each[2]}
    assert docker.deploy(config("c")).error == (
        f"{docker.project / 'cortex.yaml'}:1: c: compute.inf: 1 Inferentia devices are asked for, and this machine has "
        "2, of which other APIs have 2: `cortex delete` one of them first"
    )


@pytest.mark.parametrize("choice", ["nginx:8080", "none", "apache"])
def test_the_front_is_no_choice(choice: str, docker: Docker) -> None:
    """There is always one; its port is a setting, and the words that change it are told."""
    docker.environment.choose_front("nginx")
    with pytest.raises(UserError, match="`cortex env configure docker --provider docker --set port=PORT`"):
        docker.environment.choose_front(choice)


@pytest.mark.parametrize("command", ["deploy", "refresh", "delete"])
def test_by_force_a_command_takes_over_from_one_that_waits(command: str, docker: Docker) -> None:
    """That one gives its update up and says why; without force the other one is refused."""
    docker.deploy(docker.write(1))
    (docker.here / "unready").touch()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(docker.deploy, docker.write(2))
        until(lambda: len(docker.services) == 3)
        with pytest.raises(UserError, match="another cortex command is changing iris"):
            docker.environment.refresh("iris", force=False, progress=str)
        pool.submit(until, waiting.done).add_done_callback(lambda _: (docker.here / "unready").unlink())
        if command == "deploy":
            (deployed,) = docker.environment.deploy(docker.write(3), force=True, progress=str)
            assert not deployed.error
        elif command == "refresh":
            docker.environment.refresh("iris", force=True, progress=str)
        else:
            docker.environment.delete("iris", keep_cache=False)
        assert waiting.result().error == "another command took over"


def test_a_command_for_another_api_takes_over_nothing(docker: Docker) -> None:
    """It is refused at once, although `delete` takes over wherever it can."""
    docker.deploy(docker.write(1))
    (docker.here / "unready").touch()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(docker.deploy, docker.write(2))
        until(lambda: len(docker.services) == 3)
        begun = time.monotonic()
        with pytest.raises(UserError, match="another cortex command is changing environment docker"):
            docker.environment.delete("rose", keep_cache=False)
        assert time.monotonic() - begun < 20
        assert not waiting.done()
        (docker.here / "unready").unlink()
        assert not waiting.result().error


def test_delete_ends_a_first_deployment_that_waits(docker: Docker) -> None:
    """It has begun, so there is something to delete."""
    (docker.here / "unready").touch()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(docker.deploy, docker.write())
        until(lambda: (docker.here / "containers.json").exists() and docker.services)
        assert docker.environment.delete("iris", keep_cache=False) == "deleting iris"
        assert waiting.result().error == "another command took over"
    assert docker.services == []


def test_logs_are_followed_over_updates(docker: Docker) -> None:
    """From run to run, each line once, until the API is deleted."""
    docker.deploy(docker.write(1))
    lines = docker.environment.logs("iris", follow=True)
    first = next(lines)
    docker.deploy(docker.write(2))
    second = next(lines)
    assert first.endswith("| it runs")
    assert first != second
    docker.environment.delete("iris", keep_cache=False)
    assert not list(lines)


def test_delete_leaves_nothing(docker: Docker) -> None:
    """With the last API go the front, the volumes and the compose file."""
    docker.deploy(docker.write())
    assert docker.environment.delete("iris", keep_cache=False) == "deleting iris"
    assert docker.did("down --volumes")
    assert docker.services == []
    assert [path for path in docker.home.rglob("*") if path.is_file() and path.name not in (".lock",)] == []
    assert docker.environment.apis() == ()


def test_what_only_cortex_ran_is_a_notice(docker: Docker) -> None:
    """An API that needs something of it would fail without a word of why."""
    (docker.project / "dependencies.sh").touch()
    deployed = docker.deploy(docker.write())
    assert deployed.api is not None
    assert deployed.api.notices[-1].startswith("dependencies.sh: not run here; name an image ")


def test_an_image_of_one_api_goes_with_it(docker: Docker) -> None:
    """The one that an update replaced, and with the API its last one; with --keep-cache that one stays."""

    def updated(packages: str) -> str:
        (docker.project / "requirements.txt").write_text(packages)
        docker.deploy(docker.write())
        services = yaml.safe_load((docker.home / "environments/docker/compose.yaml").read_text())["services"]
        (image,) = {row["image"] for name, row in services.items() if name != "front"}
        return str(image)

    first, second = updated("a==1"), updated("a==2")
    assert docker.did("image rm") == [f"docker image rm {first}"]
    docker.environment.delete("iris", keep_cache=True)
    assert docker.did("image rm") == []
    updated("a==2")
    docker.environment.delete("iris", keep_cache=False)
    assert docker.did("image rm") == [f"docker image rm {second}"]


def test_an_image_that_a_failed_update_left_goes_with_the_next_that_does_not(docker: Docker) -> None:
    """Until then it is kept, since to install its packages takes time."""
    docker.deploy(docker.write())
    (docker.project / "requirements.txt").write_text("a==1")
    (docker.here / "crash").write_text("iris")
    assert docker.deploy(docker.write()).error
    (built,) = (line for line in (docker.here / "images").read_text().split() if line.startswith("cortex-api-"))
    (docker.here / "crash").unlink()
    (docker.project / "requirements.txt").unlink()
    assert not docker.did("image rm")
    assert not docker.deploy(docker.write(2)).error
    assert docker.did("image rm") == [f"docker image rm {built}"]


def test_an_image_of_its_owner_stays(docker: Docker) -> None:
    """Whatever it is called: only what was built here is removed."""
    (docker.here / "images").write_text("nginx:stable\ncortex-api-mine:1\ncortex-api-iris:latest")
    for name in ("cortex-api-mine:1", "cortex-api-iris:latest"):
        config = docker.write()
        predictor = {"type": "python", "path": "predictor.py", "image": name}
        config.path.write_text(json.dumps([{"name": "iris", "predictor": predictor}]))
        assert not docker.deploy(read(config.path)).error
    docker.environment.delete("iris", keep_cache=False)
    assert not docker.did("image rm")


@pytest.mark.parametrize("text", ["", "[]", "x-cortex: {iris: {}}", "x-cortex: [iris]", "{", "\x00"])
def test_a_compose_file_that_is_damaged_is_told(text: str, docker: Docker) -> None:
    """One line that names the file; nothing is done."""
    file = docker.home / "environments/docker/compose.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(UserError, match=r"compose\.yaml: "):
        docker.environment.apis()
    assert file.read_text() == text


def test_a_revision_that_lost_its_content_is_told_and_written_anew(docker: Docker) -> None:
    """As on a machine that was switched off."""
    docker.deploy(docker.write())
    for file in docker.home.glob("environments/docker/apis/iris/revisions/*/*.json"):
        file.write_bytes(b"")
    for ask in (docker.environment.api, partial(docker.environment.refresh, force=False, progress=str)):
        with pytest.raises(UserError, match="is damaged; `cortex deploy` writes it anew"):
            ask("iris")
    assert not docker.deploy(docker.write()).error
    assert docker.environment.api("iris").status == "live"


def test_deleting_one_of_two_stops_it_although_the_front_is_lost(docker: Docker) -> None:
    """No worker is left that could ask nginx: that is told, and the containers of the API are gone all the same."""
    docker.deploy(docker.write())
    config = docker.write()
    config.path.write_text(config.path.read_text().replace('"iris"', '"wine"'))
    assert not docker.deploy(read(config.path)).error
    state = docker.here / "containers.json"
    rows = json.loads(state.read_text())
    state.write_text(json.dumps({name: row for name, row in rows.items() if not name.startswith("iris")}))
    with pytest.raises(Error):
        docker.environment.delete("wine", keep_cache=False)
    assert docker.services == ["front"]


@pytest.mark.parametrize("gone", ["", "-0-api-0", "-1-api-0", "front"])
def test_a_container_that_is_gone_is_told(gone: str, docker: Docker) -> None:
    """What was removed behind our back, all or one, is an error with what to do; the next deployment mends it."""
    docker.deploy(docker.write(min_replicas=2))
    state = docker.here / "containers.json"
    rows = json.loads(state.read_text())
    state.write_text(json.dumps({name: row for name, row in rows.items() if not name.endswith(gone)}))
    (api,) = docker.environment.apis()
    assert (api.status, api.reason) == ("error", "containers of it are gone; run `cortex deploy` again")
    assert docker.deploy(docker.write(min_replicas=2)).message == "updating iris (RealtimeAPI)"
    assert docker.environment.api("iris").status == "live"


def test_containers_that_were_stopped_are_deployed_again(docker: Docker) -> None:
    """Also when their network was removed meanwhile: none of them is only started again, the front neither."""
    docker.deploy(docker.write())
    state = docker.here / "containers.json"
    rows = json.loads(state.read_text())
    for row in rows.values():
        row["State"]["Running"] = False
    state.write_text(json.dumps(rows))
    assert docker.environment.api("iris").status == "error"
    assert not docker.deploy(docker.write()).error
    assert docker.environment.api("iris").status == "live"


def test_a_container_that_was_out_of_memory_is_told_while_it_runs_again(docker: Docker) -> None:
    """Its restarts alone would not say why."""
    docker.deploy(docker.write())
    state = docker.here / "containers.json"
    rows = json.loads(state.read_text())
    (name,) = rows.keys() - {"front"}
    rows[name]["State"]["OOMKilled"], rows[name]["RestartCount"] = True, 1
    state.write_text(json.dumps(rows))
    api = docker.environment.api("iris")
    assert (api.status, api.notices) == ("live", ("api-0: was out of memory, and was started again",))


@pytest.mark.parametrize("lost", [{"NetworkSettings": {"Networks": {}}}, {"State": {"Running": True, "Paused": True}}])
def test_a_front_that_runs_and_cannot_be_reached_is_told_and_made_again(lost: dict[str, Any], docker: Docker) -> None:
    """It was taken out of its network, or paused."""
    docker.deploy(docker.write())
    state = docker.here / "containers.json"
    rows = json.loads(state.read_text())
    rows["front"] |= lost
    state.write_text(json.dumps(rows))
    api = docker.environment.api("iris")
    assert api.status == "error"
    assert api.reason == "the front is paused, or in no network any more; run `cortex deploy` again"
    docker.did()
    assert not docker.deploy(docker.write()).error
    assert docker.did("--force-recreate")
    assert docker.environment.api("iris").status == "live"


def test_a_container_that_leaves_while_it_is_looked_at_is_not_missed(docker: Docker) -> None:
    """As those of the old run do while `cortex get` watches an update."""
    docker.deploy(docker.write())
    (docker.here / "leaving").write_text("id-old")
    assert docker.environment.api("iris").status == "live"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "this user may not use Docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "Docker is installed but not running"),
        ("OSError: [Errno 28] No space left on device: '/opt/cortex/lib'", "the disk that Docker uses is full"),
        ("Cannot start service api-0: exec: permission denied", "failed: Cannot start service api-0: exec: permission"),
        ("Error: something new", "something new"),
    ],
)
def test_what_docker_refuses_is_told_in_clear_words(said: str, told: str, docker: Docker) -> None:
    """Not permitted, not running, and whatever else it says."""
    (docker.here / "refuse").write_text(said)
    assert told in docker.deploy(docker.write()).error


def test_without_docker(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Docker is told how to go on."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert "docker is not on the PATH: install Docker" in docker.deploy(docker.write()).error


def test_render_needs_no_docker(docker: Docker) -> None:
    """The compose file is shown without doing anything, with what it mounts."""
    config = docker.write()
    (document,) = docker.environment.render(config)
    assert set(document) == {"services", "volumes", "x-files", "x-links"}
    assert any(name.endswith("nginx.conf") for name in document["x-files"])
    assert {f"unix:{link}" for link in document["x-links"]} == {*compose.upstreams(config.apis[0])}
    assert not (docker.here / "commands").exists()
    assert not list(docker.home.iterdir())


@pytest.mark.parametrize(("there", "shown"), [(("a", "b"), {"a", "b"}), ((), {"*"})])
def test_render_shows_every_model_of_a_directory(there: tuple[str, ...], shown: set[str], docker: Docker) -> None:
    """As in a preview of this machine: what is not there is one model that stands for all."""
    (docker.project / "predictor.py").write_text("class TensorFlowPredictor: ...\n")
    for name in there:
        (docker.project / "models" / name).mkdir(parents=True)
    row = {"name": "iris", "predictor": {"type": "tensorflow", "path": "predictor.py", "models": {"dir": "models"}}}
    (docker.project / "cortex.yaml").write_text(json.dumps([row]))
    (document,) = docker.environment.render(read(docker.project / "cortex.yaml"))
    (text,) = (text for name, text in document["x-files"].items() if name.endswith("models.config"))
    assert {name for name in ("a", "b", "*") if f'base_path: "/models/{name}"' in text} == shown


@pytest.mark.parametrize("settings", [{"colour": "red"}, {"port": "http"}, {"port": "70000"}, {"retry_posts": "yes"}])
def test_settings_are_checked(settings: dict[str, str], tmp_path: Path) -> None:
    """A setting that is unknown or wrong is an error before anything is done. test_protection.py has those of TLS."""
    with pytest.raises(UserError):
        DockerEnvironment(tmp_path, settings)
