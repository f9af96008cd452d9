"""The configuration of the front, as text: nginx takes it, whatever is asked of it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from cortex.environments.fields import FieldError
from cortex.environments.nginx import Front, Route, check, configuration, digest
from cortex.spec.config import read
from tests.programs import NGINX, needs_nginx

ROOT = Path(__file__).parents[2]
ROUTES = (
    Route("iris", "/iris", ("127.0.0.1:8888", "unix:/run/front/iris/0-1.sock"), 1000),
    Route("cats", "/animals/cats", ("127.0.0.1:8889",), 32 * 2**20),
)
AWKWARD = (replace(ROUTES[0], name="addresses"), replace(ROUTES[1], name="sessions", endpoint=f"/{'a' * 999}"))


def test_the_configuration_of_the_example_is_in_deploy() -> None:
    """deploy/nginx.conf is what the docker environment writes for cortex_cpu.yaml."""
    name = "image-classifier-resnet50"
    route = Route(name, f"/{name}", (f"unix:/run/front/{name}/0-0.sock",), 32 * 2**20)
    assert (ROOT / "deploy/nginx.conf").read_text() == configuration([route], Front("/tmp"))


@needs_nginx
@pytest.mark.parametrize("routes", [(), ROUTES[:1], ROUTES, AWKWARD])
@pytest.mark.parametrize("options", [{}, {"rate": "5r/s"}, {"tls": "yes"}, {"retry_posts": True}])
def test_nginx_takes_it(routes: tuple[Route, ...], options: dict[str, object], tmp_path: Path) -> None:
    """Every combination of APIs and options is a configuration that nginx accepts, in a directory of any name."""
    directory = tmp_path / 'a "folder" \\ here; {'
    directory.mkdir()
    front = Front(str(directory), listen="127.0.0.1:18080", error_log="stderr", access_log="off")
    if options == {"tls": "yes"}:
        certificate = trustme.CA().issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
        certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
        options = {"certificate": str(tmp_path / "tls.crt"), "certificate_key": str(tmp_path / "tls.key")}
    text = configuration(routes, replace(front, **options)).replace("access_log off timed", "access_log off")
    (tmp_path / "nginx.conf").write_text(text)
    assert NGINX is not None
    argv = [NGINX, "-t", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize(("port", "shown"), [(443, ""), (8443, ":8443")])
def test_http_is_sent_to_the_port_of_https(port: int, shown: str) -> None:
    """Whose number is not told where it is the one that every client takes."""
    front = Front("/tmp", certificate="/tmp/tls.crt", certificate_key="/tmp/tls.key", public_tls_port=port)
    assert f"return 308 https://$host{shown}$request_uri;" in configuration(ROUTES, front)


@pytest.mark.parametrize("endpoint", ["/-/configuration", "/a/../b", "/."])
def test_an_endpoint_that_no_request_could_reach_is_refused(endpoint: str, tmp_path: Path) -> None:
    """The front answers at the first one itself, and would not start; clients and nginx resolve the others."""
    (tmp_path / "p.py").touch()
    (tmp_path / "cortex.yaml").write_text(
        f"[{{name: iris, predictor: {{type: python, path: p.py}}, networking: {{endpoint: {endpoint}}}}}]"
    )
    with pytest.raises(FieldError, match="cannot be reached behind nginx"):
        check(read(tmp_path / "cortex.yaml").apis[0], ())


def test_a_configuration_tells_its_own_digest() -> None:
    """What a front answers when asked which configuration it has changes with anything in it."""
    front = Front("/tmp")
    assert f"return 200 '{digest(ROUTES, front)}';" in configuration(ROUTES, front)
    variants = {digest(ROUTES, front), digest(ROUTES[:1], front), digest(ROUTES, replace(front, rate="1r/s"))}
    assert len(variants) == 3
