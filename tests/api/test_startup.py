"""From the command line to readiness: what a worker loads, what it tells, and how it gives up."""

import os
import shutil
from pathlib import Path

import onnx
import pytest
import requests
from onnx import TensorProto, helper

from cortex.spec import SINGLE_MODEL
from tests.waiting import DEADLINE

TF_PREDICTOR = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config, job_spec):
        assert job_spec is None
        self.client = tensorflow_client
        config["mine"] = True

    def predict(self, payload):
        return self.client.predict(payload)
"""
TF_SPEC = {"predictor": {"type": "tensorflow", "models": [{"path": "/models/one"}]}}
ECHO = {SINGLE_MODEL: {"versions": {"1": "AVAILABLE"}, "signatures": {"predict": {"x": [1, [-1]]}}}}


SILENT = """
import logging.config
logging.config.dictConfig({"version": 1, "root": {"level": "INFO", "handlers": []}})
"""


def python(init="pass", predict="return 1", head=""):
    return f"""
{head}
class PythonPredictor:
    def __init__(self, config):
        {init}
    def predict(self, payload):
        {predict}
"""


def test_a_tensorflow_worker(workers):
    """A worker waits for its models, loads the predictor, serves, and never loads TensorFlow."""
    _, address = workers.start_model_server({SINGLE_MODEL: {**ECHO[SINGLE_MODEL], "versions": {"1": "LOADING:1.5"}}})
    worker = workers.start(TF_PREDICTOR, TF_SPEC, model_server=address).await_ready()
    statuses = [lines["STATUS"] for lines in worker.said]
    assert statuses == [
        "waiting for the model server",
        f"model(s) still loading: {SINGLE_MODEL}",
        "loading the predictor from predictor.py",
        "serving",
    ]
    answer = requests.post(worker.url, json={"x": [1, 2]}, timeout=10)
    assert answer.json() == {"x": [1.0, 2.0], "asked_version": [1]}
    summary = requests.get(worker.url, timeout=10).json()
    assert summary["model_signatures"] == {SINGLE_MODEL: {"x": {"shape": [-1], "type": "float32"}}}
    assert summary["model_metadata"][f"{SINGLE_MODEL}-1"]["signature_key"] == "predict"
    assert "libtensorflow" not in Path(f"/proc/{worker.process.pid}/maps").read_text()
    assert "TensorFlow model signature: {" in worker.log
    assert "using signature key 'predict'" in worker.log


def test_a_worker_imports_neither_tensorflow_nor_the_reader_of_yaml(workers):
    """After everything a worker imports, what only others need is not among its modules."""
    unneeded = ("tensorflow", "cortex.spec.config", "yaml")
    worker = workers.start(python(predict=f"import sys; return [name for name in {unneeded} if name in sys.modules]"))
    assert worker.await_ready().post(b"").json() == []


@pytest.mark.parametrize(
    ("predictor", "spec", "told", "logged"),
    [
        (
            python(init="raise KeyError('labels')"),
            {},
            "error: predictor.py: __init__: KeyError: 'labels': runtime exception",
            "KeyError: 'labels'",
        ),
        (
            python(head="import not_there_at_all"),
            {},
            "error: error in predictor.py: ModuleNotFoundError: No module named 'not_there_at_all'",
            "import not_there_at_all",
        ),
        ("x = 1", {}, "error: error in predictor.py: PythonPredictor class is not defined", "failed to start api"),
        (python(head="import sys; sys.exit(0)"), {}, "error: error in predictor.py: SystemExit: 0", "SystemExit: 0"),
        (
            python(head="raise ValueError(chr(0xd800))"),
            {},
            "error: error in predictor.py: ValueError: \\ud800",
            "ValueError: \\ud800",
        ),
        (
            python(head=SILENT, init="raise KeyError('labels')"),
            {},
            "error: predictor.py: __init__: KeyError: 'labels': runtime exception",
            "KeyError: 'labels'",
        ),
        (
            python(),
            {"predictor": {"type": "tensorflow", "models": [{"path": "/m"}]}},
            "error: a tensorflow predictor needs --model-server unix:/path.sock or host:port",
            "failed to start api",
        ),
    ],
)
def test_giving_up(workers, predictor, spec, told, logged):
    """A worker that cannot start logs the traceback, tells its supervisor in one line, and exits with code 3."""
    worker = workers.start(predictor, spec)
    assert worker.await_said(lambda lines: lines["STATUS"].startswith("error"))["STATUS"] == told
    assert worker.process.wait(timeout=DEADLINE) == 3
    assert "ERROR:failed to start api\nTraceback" in worker.log
    assert logged in worker.log
    assert all("READY" not in lines for lines in worker.said)


@pytest.mark.parametrize("other", ["threading.Thread", "multiprocessing.Process"])
def test_a_thread_or_process_does_not_keep_a_worker_that_gave_up(workers, other):
    """A predictor that has started something, and then fails, is one that failed."""
    init = f"{other}(target=time.sleep, args=(600,)).start(); 1 / 0"
    worker = workers.start(python(head="import multiprocessing, threading, time", init=init))
    assert worker.process.wait(timeout=DEADLINE) == 3
    assert "ZeroDivisionError" in worker.log


def test_a_model_that_failed_to_load(workers):
    """The reason of the model server is the reason of the worker."""
    _, address = workers.start_model_server({SINGLE_MODEL: {**ECHO[SINGLE_MODEL], "versions": {"1": "END:no graph"}}})
    worker = workers.start(TF_PREDICTOR, TF_SPEC, model_server=address)
    told = worker.await_said(lambda lines: lines["STATUS"].startswith("error"))["STATUS"]
    assert told == f"error: model '{SINGLE_MODEL}' failed to load: version 1: no graph"
    assert worker.process.wait(timeout=DEADLINE) == 3


def test_the_projects_surroundings(workers):
    """python_path is importable, .env overrides the environment, the working directory is the project."""
    worker = workers.start(
        python(
            head="import os, helper, sys",
            predict="return [helper.NAME, os.environ['A'], os.environ['B'], os.path.exists('predictor.py'), __name__]",
        ),
        {"predictor": {"python_path": "src/"}},
        {".env": "A='from the file'\nB='from the file'\n", "src/helper.py": "NAME = 'helper'"},
        env={"B": "from the plan"},
    )
    answer = worker.await_ready().post(b"").json()
    assert answer == ["helper", "from the file", "from the file", True, "cortex_predictor"]


DOTENV = """
# as a shell reads it
A="a $B" # what the plan has
N=$((6 * 7))
export C='it is $A'
PYTHONPATH=./lib:$PYTHONPATH
PATH=$PATH:/opt/for-this-test
if [ -n "$NOT_THERE" ]; then D=1; fi
echo "hello from a shell"
"""


@pytest.fixture(params=["bash", "sh"])
def shell(request, tmp_path):
    """Return an environment in which this shell is found, and no other."""
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"this machine has no {request.param}")
    folder = tmp_path / f"only-{request.param}"
    folder.mkdir()
    (folder / request.param).symlink_to(found)
    return {"PATH": str(folder)}


def test_a_shell_sources_dotenv(workers, shell):
    """.env is read as a shell reads it, before Python starts; the process stays the one that its supervisor started."""
    told = "[os.getpid(), inside.NAME, *(os.environ.get(name) for name in ('A', 'N', 'C', 'D', 'PATH'))]"
    worker = workers.start(
        python(head="import inside, os", predict=f"return {told}, [name for name in os.environ if 'SOURCED' in name]"),
        files={".env": DOTENV, "lib/inside.py": "NAME = 'lib'"},
        env={**shell, "B": "b", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    ).await_ready()
    path = f"{shell['PATH']}:/opt/for-this-test"
    assert worker.post(b"").json() == [[worker.process.pid, "lib", "a b", "42", "it is $A", None, path], []]
    assert "hello from a shell\n" in worker.log


def test_what_dotenv_leaves_running_holds_nobody_up(workers):
    """A worker starts while something that .env has put into the background goes on."""
    worker = workers.start(python(), files={".env": "(while [ -e predictor.py ]; do sleep 0.1; done) &\n"})
    try:
        worker.await_ready()
    finally:
        worker.log_path.with_name("predictor.py").unlink()


@pytest.mark.parametrize(
    ("dotenv", "words", "line"),
    [
        ("A=1\nnosuch\n", "nosuch: ", 2),
        ("A=1\nB=b c\n", "c: ", 2),
        ("A='1\nB=2\n", "", 1),
        ("A=$(exit 4)\n", "exit status", 1),
        ("A=1\nfalse\n", "exit status 1", 2),
        ("exit 0\n", "exit status 0", None),
    ],
)
def test_a_dotenv_that_fails(workers, shell, dotenv, words, line):
    """It is told as what keeps the worker from starting, with the line where there is bash."""
    worker = workers.start(python(), files={".env": dotenv}, env=shell)
    told = worker.await_said(lambda lines: "STATUS" in lines)["STATUS"]
    assert told.startswith("error: .env: ")
    assert words in told
    if shell["PATH"].endswith("bash") and line is not None:
        assert f"line {line}: " in told
    assert worker.process.wait(timeout=DEADLINE) == 3
    assert "ERROR:failed to start api\nTraceback" in worker.log


def test_a_project_may_be_named_like_our_modules(workers):
    """Files of the project that are named like installed packages do not break the worker itself."""
    files = {"cortex/__init__.py": "raise RuntimeError", "fastapi.py": "raise RuntimeError", "own.py": "A = 1"}
    worker = workers.start(python(head="import own", predict="return own.A"), files=files).await_ready()
    assert worker.post(b"").json() == 1


def test_fastapi_waits_for_somebody_who_reads_the_documentation(workers):
    """A worker serves without FastAPI, and shows the documentation that FastAPI writes."""
    loaded = "'fastapi' in sys.modules"
    worker = workers.start(python(head="import sys", predict=f"return {loaded}")).await_ready()
    assert worker.post(b"").json() is False
    assert requests.get(worker.url + "/openapi.json", timeout=30).json()["info"]["title"]
    assert worker.post(b"").json() is True


def test_a_body_that_nobody_asks_for_is_not_read(workers):
    """A predictor without a payload answers whatever was sent; its config is what the yaml says."""
    predictor = """
class PythonPredictor:
    def __init__(self, config):
        self.config = config

    def predict(self):
        return self.config
"""
    config = {"list": [], "a": {"b": None}}
    worker = workers.start(predictor, {"predictor": {"config": config}}).await_ready()
    assert worker.post(b"{not json", headers={"content-type": "application/json"}).json() == config


def test_init_and_predict_share_a_thread(workers):
    """With one thread per process, predict runs in the thread that ran __init__."""
    predictor = python(
        head="from threading import get_ident",
        init="self.thread = get_ident()",
        predict="return self.thread == get_ident()",
    )
    assert workers.start(predictor).await_ready().post(b"").json() is True


def test_python_models(workers, tmp_path):
    """A python predictor with models gets them through python_client and its own load_model, before it is ready."""
    (tmp_path / "m" / "7").mkdir(parents=True)
    (tmp_path / "m" / "7" / "weights").write_text("42")
    predictor = """
import pathlib

class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client

    def load_model(self, model_path):
        print("loading", flush=True)
        return pathlib.Path(model_path, "weights").read_text()

    def predict(self):
        return int(self.client.get_model())
"""
    worker = workers.start(predictor, {"predictor": {"models": [{"path": str(tmp_path / "m")}]}}).await_ready()
    assert "loading\n" in worker.log
    assert worker.post(b"").json() == 42
    assert f"{SINGLE_MODEL}-7" in requests.get(worker.url, timeout=10).json()["model_metadata"]


def test_sigterm_while_loading(workers):
    """A worker that is still loading ends at once when it is told to."""
    worker = workers.start(python(init="import time; time.sleep(600)"))
    worker.await_said(lambda lines: lines["STATUS"].startswith("loading the predictor"))
    worker.process.terminate()
    assert worker.process.wait(timeout=DEADLINE) == -15


def test_an_onnx_worker(workers, tmp_path):
    """An onnx predictor gets an onnx_client, whose models run inside the worker."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "neg", [value], [helper.make_tensor_value_info("y", 1, ["batch"])]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    predictor = """
class ONNXPredictor:
    def __init__(self, onnx_client, config):
        self.client = onnx_client

    def predict(self, payload):
        return self.client.predict(payload)[0].tolist()
"""
    spec = {"predictor": {"type": "onnx", "models": [{"path": str(tmp_path / "m.onnx")}]}}
    worker = workers.start(predictor, spec).await_ready()
    assert requests.post(worker.url, json=[1, 2], timeout=10).json() == [-1.0, -2.0]
    summary = requests.get(worker.url, timeout=10).json()
    assert summary["model_signatures"] == {SINGLE_MODEL: {"x": {"shape": ["batch"], "type": "float32"}}}
