"""nginx of this machine in front of APIs: real requests through a real nginx, to real workers where that matters."""

import gzip
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cortex.environments.local.front import LocalFront, _binary
from cortex.environments.nginx import Front, Route
from cortex.errors import UserError
from cortex.spec import APISpec, Networking, Predictor
from tests.certificates import Files, issue
from tests.ports import free_port
from tests.programs import needs_nginx
from tests.waiting import DEADLINE, until

pytestmark = needs_nginx


@dataclass
class Stub:
    """A worker that answers what it was sent, once it is let."""

    server: ThreadingHTTPServer
    go: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    dies: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def stubs() -> Iterator[Callable[[], Stub]]:
    """Start stubs; they end with the test."""
    started = []

    def start() -> Stub:
        stub = Stub(ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: stub)))
        stub.go.set()
        stub.server.daemon_threads = True
        threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        started.append(stub)
        return stub

    yield start
    for stub in started:
        stub.go.set()
        stub.server.shutdown()
        stub.server.server_close()


def _handler(stub: Callable[[], Stub]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            stub().asked.set()
            if stub().dies:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            stub().go.wait(30)
            told = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "size": len(body)}
            answer = json.dumps({**told, "port": stub().address, "padding": "x" * 2000}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815  # what http.server calls for a GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@dataclass
class Fronted:
    """A front of one home, and where it listens."""

    home: Path
    settings: Front
    front: LocalFront

    @property
    def url(self) -> str:
        return f"http://{self.settings.listen}"

    def with_(self, **options: Any) -> "Fronted":
        settings = replace(self.settings, **options)
        return Fronted(self.home, settings, LocalFront(self.home, settings))


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    """A front that is stopped after the test."""
    settings = Front("", listen=f"127.0.0.1:{free_port()}", listen_tls=f"127.0.0.1:{free_port()}")
    found = Fronted(tmp_path / "home", settings, LocalFront(tmp_path / "home", settings))
    found.home.mkdir()
    try:
        yield found
    finally:
        found.front.stop()


def _route(name: str, *upstreams: str, endpoint: str = "", max_body: int = 2**20) -> Route:
    return Route(name, endpoint or f"/{name}", upstreams, max_body)


def _family(front: Fronted) -> list[psutil.Process]:
    return front.front._family()


def test_apis_share_one_port_by_path(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """Each API answers at its endpoint and below it; the first one has all other paths too."""
    iris, cats = stubs(), stubs()
    fronted.front.follow(
        [_route("iris", iris.address), _route("cats", cats.address, endpoint="/animals/cats")],
    )
    table = {
        "/": (iris, "/"),
        "/predict?a=b": (iris, "/predict?a=b"),
        "/iris": (iris, "/"),
        "/iris?q=1": (iris, "/?q=1"),
        "/iris/docs": (iris, "/docs"),
        "/animals/cats": (cats, "/"),
        "/animals/cats/predict": (cats, "/predict"),
        "/animals": (iris, "/animals"),
    }
    for path, (stub, seen) in table.items():
        answer = requests.post(fronted.url + path, data=b"x", timeout=10).json()
        assert (answer["port"], answer["path"]) == (stub.address, seen), path
    assert requests.get(f"{fronted.url}/iris/metrics", timeout=10).status_code == 404


def test_it_takes_more_connections_than_a_shell_has_descriptors_for(fronted: Fronted) -> None:
    """A shell allows 1,024 of them to an ordinary user, who may have more."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
    try:
        fronted.front.follow([_route("iris", "127.0.0.1:1")])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
    workers = [process for process in _family(fronted) if not process.children()]
    assert workers
    for worker in workers:
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert int(limits.partition("Max open files")[2].split()[0]) > 4096


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_a_body_that_is_put_aside(umask: int, fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """nginx puts a large one in a file, as the user that root's workers become."""
    before = os.umask(umask)
    try:
        fronted.front.follow([_route("iris", stubs().address, max_body=2**22)])
    finally:
        os.umask(before)
    answer = requests.post(fronted.url, data=bytes(2**21), timeout=10)
    assert (answer.status_code, answer.json()["size"]) == (200, 2**21)


def test_a_worker_learns_who_asks(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """Address, scheme and request id are passed on; an id that the API would not take is replaced."""
    fronted.front.follow([_route("iris", stubs().address)])
    sent = {"X-Request-Id": "mine-1", "X-Forwarded-For": "10.0.0.1"}
    headers = requests.post(fronted.url, data=b"x", headers=sent, timeout=10).json()["headers"]
    assert headers["x-real-ip"] == "127.0.0.1"
    assert headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-request-id"] == "mine-1"
    assert headers["host"] == fronted.settings.listen
    other = requests.post(fronted.url, data=b"x", headers={"X-Request-Id": "two words"}, timeout=10).json()["headers"]
    assert len(other["x-request-id"]) == 32


def test_answers_are_compressed_for_who_asks(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """JSON of some length is sent compressed, when the client can read that."""
    fronted.front.follow([_route("iris", stubs().address)])
    raw = requests.post(fronted.url, data=b"x", headers={"Accept-Encoding": "gzip"}, timeout=10, stream=True)
    assert json.loads(gzip.decompress(raw.raw.read(decode_content=False)))["padding"]
    plain = requests.post(fronted.url, data=b"x", headers={"Accept-Encoding": "identity"}, timeout=10)
    assert "Content-Encoding" not in plain.headers


def test_no_worker_is_an_error_in_json(fronted: Fronted) -> None:
    """What nginx answers by itself has the form of the API's errors, and the request's id."""
    fronted.front.follow([_route("iris", f"127.0.0.1:{free_port()}")])
    answer = requests.post(fronted.url, data=b"x", headers={"X-Request-Id": "mine"}, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "application/json")
    assert set(answer.json()) == {"error"}
    assert (answer.headers["Retry-After"], answer.headers["X-Request-Id"]) == ("1", "mine")


def test_a_rate_limit_is_told_in_json(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """Beyond the rate and its burst, an address is answered 429."""
    limited = fronted.with_(rate="1r/s")
    limited.front.follow([_route("iris", stubs().address)])
    answers = [requests.post(limited.url, data=b"x", timeout=10) for _ in range(40)]
    codes = {answer.status_code for answer in answers}
    assert codes == {200, 429}
    assert next(answer for answer in answers if answer.status_code == 429).json()["error"].startswith("too many")


@pytest.mark.parametrize("retry", [False, True])
def test_a_worker_that_dies(retry: bool, fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """A POST that reached a worker goes to another one only when its owner said so; a GET always does."""
    dying, living = stubs(), stubs()
    dying.dies = True
    chosen = fronted.with_(retry_posts=retry)
    chosen.front.follow([_route("iris", dying.address, living.address)])
    posts = {requests.post(chosen.url, data=b"x", timeout=10).status_code for _ in range(10)}
    assert dying.asked.is_set()
    assert posts == ({200} if retry else {200, 502})
    time_to_forgive = time.monotonic() + 1.5  # nginx passes over a worker that failed for a second
    until(lambda: time.monotonic() > time_to_forgive)
    assert {requests.get(chosen.url, timeout=10).status_code for _ in range(4)} == {200}


def test_a_worker_that_is_gone_costs_no_request(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """What did not reach a worker goes to another one, whatever it is."""
    fronted.front.follow([_route("iris", f"127.0.0.1:{free_port()}", stubs().address)])
    assert {requests.post(fronted.url, data=b"x", timeout=10).status_code for _ in range(10)} == {200}


def test_a_change_loses_no_request(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """A request under way is answered by the worker that has it, while new ones go where they are led now."""
    old, new = stubs(), stubs()
    old.go.clear()
    fronted.front.follow([_route("iris", old.address)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.post, fronted.url, data=b"x", timeout=30)
        assert old.asked.wait(10)
        fronted.front.follow([_route("iris", new.address)])
        assert requests.post(fronted.url, data=b"x", timeout=10).json()["port"] == new.address
        old.go.set()
        assert waiting.result().json()["port"] == old.address


def test_no_worker_leads_elsewhere_after_a_change(
    fronted: Fronted, stubs: Callable[[], Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a tenth of a second the new workers of nginx answer beside the old ones."""
    old, new = stubs(), stubs()
    fronted.front.follow([_route("iris", old.address)])
    monkeypatch.setattr(fronted.front, "_answers", lambda _: True)
    fronted.front.follow([_route("iris", new.address)])
    answers = [requests.post(fronted.url, data=b"x", timeout=10).json() for _ in range(50)]
    assert {answer["port"] for answer in answers} == {new.address}


def test_what_is_told_again_is_no_change(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """An update of an API does not touch nginx, so that no kept connection ends."""
    routes = [_route("iris", stubs().address)]
    fronted.front.follow(routes)
    before = {process.pid for process in _family(fronted)}
    fronted.front.follow(routes)
    assert {process.pid for process in _family(fronted)} == before


def test_a_kept_connection_outlives_a_change(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """Where nginx can do that; its next answer says that the connection ends, and nothing is lost with it."""
    if _version() < (1, 27, 4):
        pytest.skip("nginx before 1.27.4 closes a connection that is idle while it reloads")
    old, new = stubs(), stubs()
    fronted.front.follow([_route("iris", old.address)])
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1))
        assert session.post(fronted.url, data=b"x", timeout=10).headers["Connection"] == "keep-alive"
        before = {process.pid for process in _family(fronted)}
        fronted.front.follow([_route("iris", new.address)])
        last = session.post(fronted.url, data=b"x", timeout=10)
        assert (last.json()["port"], last.headers["Connection"]) == (old.address, "close")
        assert session.post(fronted.url, data=b"x", timeout=10).json()["port"] == new.address
    until(lambda: len(before & {process.pid for process in _family(fronted)}) == 1)


def _version() -> tuple[int, ...]:
    said = subprocess.run([_binary(), "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, said.split("/")[1].split()[0].split(".")))


def test_tls(fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path) -> None:
    """With a certificate the front speaks TLS, and sends whoever does not there."""
    files, port = issue(tmp_path), int(fronted.settings.listen_tls.rpartition(":")[2])
    secure = _secure(fronted, files)
    secure.front.follow([_route("iris", stubs().address)])
    assert _asked_by_tls(secure, files)["headers"]["x-forwarded-proto"] == "https"
    sent_on = requests.post(f"{secure.url}/predict?a=1", data=b"x", allow_redirects=False, timeout=10)
    assert sent_on.status_code == 308
    assert sent_on.headers["Location"] == f"https://127.0.0.1:{port}/predict?a=1"


def _secure(fronted: Fronted, files: Files) -> Fronted:
    port = int(fronted.settings.listen_tls.rpartition(":")[2])
    return fronted.with_(certificate=str(files.certificate), certificate_key=str(files.key), public_tls_port=port)


def _asked_by_tls(fronted: Fronted, files: Files) -> Any:
    url = f"https://{fronted.settings.listen_tls}"
    return requests.post(url, data=b"x", verify=str(files.authority), timeout=10).json()


def test_a_front_takes_tls_up_without_losing_a_request(
    fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path
) -> None:
    """What came by plain HTTP before is answered; the same processes go on, and leave TLS as they took it up."""
    stub, files = stubs(), issue(tmp_path)
    stub.go.clear()
    routes = [_route("iris", stub.address)]
    fronted.front.follow(routes)
    master = fronted.front._master()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.post, fronted.url, data=b"x", timeout=30)
        assert stub.asked.wait(10)
        _secure(fronted, files).front.follow(routes)
        stub.go.set()
        assert _asked_by_tls(fronted, files)["port"] == stub.address
        assert waiting.result().json()["port"] == stub.address
    fronted.front.follow(routes)
    assert requests.post(fronted.url, data=b"x", allow_redirects=False, timeout=10).status_code == 200
    assert fronted.front._master() == master
    assert not list((fronted.home / "front").glob("tls-*"))


def test_a_renewed_certificate(fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path) -> None:
    """Under the same paths: the next command has nginx take it, and until then the old one serves."""
    routes, old = [_route("iris", stubs().address)], issue(tmp_path)
    secure = _secure(fronted, old)
    secure.front.follow(routes)
    authority = old.authority.read_text()
    new = issue(tmp_path)
    with pytest.raises(requests.exceptions.SSLError):
        _asked_by_tls(secure, new)
    secure.front.follow(routes)
    assert _asked_by_tls(secure, new)
    old.authority.write_text(authority)
    with pytest.raises(requests.exceptions.SSLError):
        _asked_by_tls(secure, old)


def test_what_is_refused_leaves_the_front_as_it_was(
    fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path
) -> None:
    """A key of another certificate, and a port that is taken: nginx and its files are not touched."""
    routes, files = [_route("iris", stubs().address)], issue(tmp_path)
    secure = _secure(fronted, files)
    secure.front.follow(routes)
    before = {path: path.read_bytes() for path in (fronted.home / "front").iterdir() if path.suffix != ".log"}
    wrong = _secure(fronted, replace(files, key=issue(tmp_path, "other").key))
    with pytest.raises(UserError, match="is not the key of the certificate"):
        wrong.front.follow(routes)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="something else listens there"):
            _secure(fronted.with_(listen_tls=taken), files).front.follow(routes)
    assert {path: path.read_bytes() for path in (fronted.home / "front").iterdir() if path.suffix != ".log"} == before
    assert _asked_by_tls(secure, files)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_its_own_ports_are_not_taken(host: str, fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path) -> None:
    """However they are written; what is said of them again changes nothing."""
    routes, files = [_route("iris", stubs().address)], issue(tmp_path)
    ports = {key: f"{host}:{getattr(fronted.settings, key).rpartition(':')[2]}" for key in ("listen", "listen_tls")}
    secure = _secure(fronted.with_(**ports), files)
    for _ in range(2):
        secure.front.follow(routes)
    assert _asked_by_tls(fronted, files)


def test_nothing_is_left_behind(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """Without an API there is no front: no process, no file."""
    fronted.front.follow([_route("iris", stubs().address)])
    run_dir = Path(fronted.front._front.directory)
    assert fronted.front.running
    assert run_dir.exists()
    fronted.front.follow([])
    assert not fronted.front.running
    assert not _family(fronted)
    assert not run_dir.exists()
    assert not (fronted.home / "front").exists()


def test_a_home_with_odd_letters(fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path) -> None:
    """What would end a word of nginx's configuration does not in a path."""
    home = tmp_path / 'it\'s a "home"; {1} \\ x'
    home.mkdir()
    front = LocalFront(home, fronted.settings)
    try:
        front.follow([_route("iris", stubs().address)])
        assert requests.post(fronted.url, data=b"x", timeout=10).status_code == 200
    finally:
        front.stop()


def test_a_home_that_nginx_would_misread(fronted: Fronted, tmp_path: Path) -> None:
    """A variable in the name of a log cannot be written as anything else; that is told before anything is deployed."""
    with pytest.raises(UserError, match=r"nginx takes no path with a \$ for its logs: move .*/\$home \(CORTEX_HOME\)"):
        LocalFront(tmp_path / "$home", fronted.settings).check()


def test_a_shell_with_another_tmpdir_finds_the_same_front(
    fronted: Fronted, stubs: Callable[[], Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, with its master, and leaves nothing behind."""
    fronted.front.follow([_route("iris", stubs().address)])
    run_dir, master = Path(fronted.front._front.directory), fronted.front._master()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    other = fronted.with_()
    assert other.front.running
    other.front.follow([_route("iris", stubs().address), _route("rose", stubs().address)])
    assert other.front._master() == master
    other.front.stop()
    assert not run_dir.exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_front_that_was_killed_comes_back(fronted: Fronted, stubs: Callable[[], Stub]) -> None:
    """A worker of nginx is replaced by its master; a master by the next command, its workers answering meanwhile."""
    routes = [_route("iris", stubs().address)]
    fronted.front.follow(routes)
    master = fronted.front._master()
    assert master is not None
    worker = master.children()[0]
    worker.kill()
    until(lambda: worker.pid not in {child.pid for child in master.children()} and master.children())
    assert requests.post(fronted.url, data=b"x", timeout=10).status_code == 200
    master.kill()
    psutil.wait_procs([master], timeout=10)
    assert requests.post(fronted.url, data=b"x", timeout=10).status_code == 200
    fronted.front.follow(routes)
    assert fronted.front.running
    assert requests.post(fronted.url, data=b"x", timeout=10).status_code == 200


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Route]:
    """A real worker of the API, on a socket file as in a container; its largest body is 1000 bytes."""
    (tmp_path / "predictor.py").write_text(
        "class PythonPredictor:\n    def __init__(self, config): pass\n    def predict(self, payload): return payload\n"
    )
    spec = APISpec(
        name="echo",
        predictor=Predictor(type="python", path="predictor.py"),
        networking=Networking(endpoint="/echo", max_body_size="1000"),
    )
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    address = f"unix:{tmp_path}/worker.sock"
    listen = Path(__file__).parents[3] / "deploy/listen.py"
    command = [sys.executable, "-P", "-m", "cortex.api.server", "--spec", str(tmp_path / "spec.json")]
    env = {**os.environ, "CORTEX_LISTEN": address}
    tmp_path.chmod(0o755)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, str(listen), *command], cwd=tmp_path, env=env, stderr=log)
    probe = [sys.executable, str(Path(__file__).parents[3] / "deploy/probe.py"), "/readyz", address]
    try:
        until(lambda: process.poll() is not None or not subprocess.run(probe, capture_output=True).returncode)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield Route.of(spec, [address])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, (tmp_path / "log").read_text()


def test_a_real_worker(fronted: Fronted, worker: Route) -> None:
    """A worker answers over its socket file as it does over TCP, and so does nginx for it where it can."""
    fronted = fronted.with_(user="root") if os.geteuid() == 0 else fronted  # pytest's directories are closed to others
    fronted.front.follow([worker])
    assert requests.post(f"{fronted.url}/echo", json={"a": 1}, timeout=30).json() == {"a": 1}
    assert requests.get(f"{fronted.url}/echo/readyz", timeout=10).text == "ready"
    with requests.Session() as session:
        assert {session.post(fronted.url, json=[each], timeout=10).json()[0] for each in range(50)} == set(range(50))
    by_nginx = requests.post(f"{fronted.url}/echo", data=b"x" * 1001, timeout=10)
    by_worker = "the request body is larger than networking.max_body_size, which is 1000 bytes"
    assert (by_nginx.status_code, by_nginx.text) == (413, by_worker)
    assert by_nginx.headers["X-Request-Id"]
    probe = [sys.executable, str(Path(__file__).parents[3] / "deploy/probe.py")]
    asked = subprocess.run([*probe, "/metrics", worker.upstreams[0]], capture_output=True, text=True)
    assert 'cortex_requests_total{status="2XX"} 51.0' in asked.stdout
    assert subprocess.run([*probe, worker.upstreams[0]]).returncode == 0
    assert subprocess.run([*probe, "/readyz", "unix:/nowhere"], capture_output=True).returncode == 1
