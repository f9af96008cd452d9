"""`cortex deploy --dry-run`: the exact plan of each shipped target, on any machine, with nothing there or done.

The golden plans are whole outputs, in which only the machine's own paths and its host have other names. After a change
that is meant, CORTEX_WRITE_GOLDEN=1 has the test write them anew; read the difference before it is committed.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from cortex import threads
from cortex.cli import main
from cortex.environments.registry import Registry
from cortex.environments.state import Home
from cortex.plan import Plan
from cortex.spec.config import read
from tests.certificates import issue

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The shipped yamls with their predictor, and neither a model nor anything else."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("cortex_cpu.yaml", "cortex_gpu.yaml", "cortex_accelerator.yaml", "predictor.py"):
        shutil.copy(ROOT / name, project / name)
    return project


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, on a machine of eight cores without any device or model server."""
    monkeypatch.setattr(threads, "available", lambda: 8)
    monkeypatch.setenv("CORTEX_HOST", "127.0.0.1")
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    monkeypatch.delenv("CORTEX_TENSORFLOW_MODEL_SERVER", raising=False)
    return tmp_path / "home"


def printed(home: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(argument) for argument in arguments], Registry(home))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return str(out).removeprefix("\n")


@pytest.mark.parametrize("target", ["cpu", "gpu", "accelerator"])
def test_the_plan_of_each_target(
    target: str, project: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes, arguments, environment, sockets and files: all of it, and nothing is written anywhere."""
    before = sorted(tmp_path.rglob("*"))
    out = printed(home, capsys, "deploy", project / f"cortex_{target}.yaml", "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    run = Home(home).api("image-classifier-resnet50").run_dir
    for path, name in ((run, "/RUN"), (home, "/HOME"), (project, "/PROJECT"), (sys.executable, "/PYTHON")):
        out = out.replace(str(path), name)
    golden = GOLDEN / f"plan_{target}.yaml"
    if os.environ.get("CORTEX_WRITE_GOLDEN"):
        golden.write_text(out)
    assert out == golden.read_text()


def test_json_is_a_list_of_plans(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line: a list with a plan for each API, which `cortex.plan` reads back but for the API's name."""
    out = printed(home, capsys, "deploy", project / "cortex_gpu.yaml", "--dry-run", "-o", "json")
    [plan] = json.loads(out)
    assert out.count("\n") == 1
    assert plan.pop("api") == "image-classifier-resnet50"
    server = Plan.from_json(json.dumps(plan)).back[0]
    assert server.env["CUDA_VISIBLE_DEVICES"] == "0", "the GPU is taken to be there"


def test_render_says_the_same(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = project / "cortex_cpu.yaml"
    assert printed(home, capsys, "render", "local", yaml) == printed(home, capsys, "deploy", yaml, "--dry-run")


def test_several_apis_get_ports_of_their_own(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ports that the yaml names are left to their APIs, whatever the order; documents are set apart by `---`."""
    rows = [
        {"name": "a", "predictor": {"type": "python", "path": "predictor.py"}},
        {"name": "b", "predictor": {"type": "python", "path": "predictor.py"}},
        {"name": "c", "predictor": {"type": "python", "path": "predictor.py"}, "networking": {"local_port": 8888}},
    ]
    (project / "many.yaml").write_text(json.dumps(rows))
    out = printed(home, capsys, "render", "local", project / "many.yaml")
    assert out.split("\n").count("---") == 2
    assert [line for line in out.splitlines() if line.startswith("port:")] == ["port: 8889", "port: 8890", "port: 8888"]


@pytest.mark.parametrize(("there", "names"), [(True, ["one", "two"]), (False, ["*"])], ids=["there", "not there"])
def test_a_directory_of_models(
    there: bool, names: list[str], project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its models are those that it has; where it is not, a star stands for them."""
    if there:
        for name in names:
            (project / "models" / name).mkdir(parents=True)
    row = {"name": "a", "predictor": {"type": "tensorflow", "path": "predictor.py", "models": {"dir": "models"}}}
    (project / "dir.yaml").write_text(json.dumps([row]))
    out = printed(home, capsys, "render", "local", project / "dir.yaml")
    for name in names:
        assert f'base_path: "{project}/models/{name}"' in out
    assert out.count("base_path") == len(names)


def test_a_remote_model_is_named_and_not_asked_for(
    project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / "cortex_cpu.yaml").read_text().replace(": models/resnet50", ": s3://nowhere.invalid/resnet50")
    (project / "remote.yaml").write_text(text)
    assert 'base_path: "s3://nowhere.invalid/resnet50"' in printed(
        home, capsys, "render", "local", project / "remote.yaml"
    )


def test_onnx_artifacts_run_on_onnx_runtime(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """models/resnet50_gpu is a drop-in: the engine follows the artifact's format."""
    version = project / "models/resnet50/1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"\x08\x08")
    out = printed(home, capsys, "render", "local", project / "cortex_gpu.yaml")
    assert "--engine=onnxruntime" in out
    assert read(project / "cortex_gpu.yaml").apis[0].predictor.engine == "auto"


def test_the_front_that_is_asked_for_is_shown(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--front` with `--dry-run`: one more document, with where nginx would listen and its whole configuration."""
    yaml = project / "cortex_cpu.yaml"
    out = printed(home, capsys, "deploy", yaml, "--dry-run", "--front", "nginx:8090", "-o", "json")
    plan, front = json.loads(out)
    assert (front["front"], front["listen"]) == ("nginx", "127.0.0.1:8090")
    assert front["argv"][1:3] == ["-c", f"{home}/front/nginx.conf"]
    [text] = front["files"].values()
    assert "listen 127.0.0.1:8090;" in text
    assert f"server 127.0.0.1:{plan['port']} " in text
    assert not home.exists()


def test_an_api_leaves_the_front_its_port(project: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that it would have itself, if there were no front."""
    arguments = ("deploy", project / "cortex_cpu.yaml", "--dry-run", "--front", "nginx:8888", "-o", "json")
    plan, front = json.loads(printed(home, capsys, *arguments))
    assert (plan["port"], front["listen"]) == (8889, "127.0.0.1:8888")


def test_the_settings_of_the_front_are_shown(
    project: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TLS and the rate limit stand in its configuration; no certificate is copied."""
    files = issue(tmp_path)
    settings = {"certificate": str(files.certificate), "certificate_key": str(files.key), "rate_limit": "10r/s"}
    Registry(home).configure("local", None, settings)
    arguments = ("deploy", project / "cortex_cpu.yaml", "--dry-run", "--front", "nginx", "-o", "json")
    [text] = json.loads(printed(home, capsys, *arguments))[1]["files"].values()
    assert "listen 127.0.0.1:8080;" in text
    assert "listen 127.0.0.1:8443 ssl;" in text
    assert f"ssl_certificate_key {home}/front/tls-" in text
    assert "rate=10r/s;" in text
    assert not (home / "front").exists()


def test_a_front_that_is_there_is_shown_without_asking(
    project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment would lead it to the API; `--front none` would have it gone."""
    yaml, listen = project / "cortex_cpu.yaml", home / "front/listen"
    listen.parent.mkdir(parents=True)
    listen.write_text("127.0.0.1:8080")
    assert "\nfront: nginx\n" in printed(home, capsys, "deploy", yaml, "--dry-run")
    assert "\nfront: nginx\n" not in printed(home, capsys, "deploy", yaml, "--dry-run", "--front", "none")
    assert listen.exists()


@pytest.mark.parametrize(
    ("environment", "choice", "told"),
    [
        ("local", "apache", "--front apache: must be nginx, nginx:PORT or none"),
        ("docker", "none", "--front none: a docker environment always has nginx in front"),
        ("kubernetes", "nginx", "--front nginx: a cluster has an Ingress or Gateway of its own in front"),
    ],
)
def test_a_front_that_would_be_refused(
    environment: str, choice: str, told: str, project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run says so, in every environment, as the deployment would."""
    registry = Registry(home)
    if environment != "local":
        registry.configure(environment, environment)
    arguments = ["deploy", str(project / "cortex_cpu.yaml"), "--dry-run", "--front", choice, "--env", environment]
    assert main(arguments, registry) == 1
    assert told in capsys.readouterr().err
