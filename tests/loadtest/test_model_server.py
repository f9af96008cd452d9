"""TF Serving's doors, against the real model server with a small model."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import requests
from onnx import TensorProto, helper

from cortex.loadtest import ClosedLoop, Result, run
from cortex.loadtest.findings import Objective
from cortex.loadtest.options import Options, door, payloads
from cortex.loadtest.scenarios import SCENARIOS, Scenario, measure
from cortex.loadtest.server import ServerWatch
from tests.ports import free_port
from tests.waiting import DEADLINE

SIDES = [8, 6]


@dataclass(frozen=True)
class Served:
    """Where one model can be reached."""

    rest: str
    grpc: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model server with a model that answers the mean colour of each picture."""
    folder = tmp_path_factory.mktemp("model_server")
    _write_model(folder / "model" / "1")
    rest, grpc = free_port(), free_port()
    flags = [f"--rest_api_port={rest}", f"--port={grpc}", "--model_name=colour", f"--model_base_path={folder}/model"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "cortex.model_server", *flags], stdout=log, stderr=log)
    try:
        _await(process, f"http://127.0.0.1:{rest}/v1/models/colour", folder / "log")
        yield Served(f"http://127.0.0.1:{rest}", f"grpc://127.0.0.1:{grpc}")
    finally:
        process.kill()
        process.wait()


def _write_model(version: Path) -> None:
    version.mkdir(parents=True)
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
    ]
    sides = (("input", TensorProto.UINT8, ["n", *SIDES, 3]), ("colour", TensorProto.FLOAT, ["n", 3]))
    taken, given = (helper.make_tensor_value_info(*side) for side in sides)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    graph = helper.make_graph(nodes, "colour", [taken], [given], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), version / "a.onnx")


def _await(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return requests.get(url, timeout=1).raise_for_status()
        except requests.RequestException:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)


@pytest.mark.parametrize("path", ["", "/v1/models/colour", "/v1/models/colour:predict", "/v1/models/colour?key=a/b"])
def test_rest(served: Served, picture_file: Path, path: str) -> None:
    """A picture becomes rows of the shape that the metadata tell; answers are checked, and the stages are read."""
    expected = picture_file.with_name("expected.json")
    expected.write_text(json.dumps({"predictions": [[200, 100, 50]] * 2}))
    options = Options(
        *(str(picture_file), served.rest + path),
        **{"protocol": "tfserving-rest", "model": None if path else "colour", "batch_size": 2},
        **{"expect": str(expected), "tolerance": 0.1},
    )
    _assert_right(_measured(options, served), 2)


def test_grpc(served: Served, picture_file: Path) -> None:
    """The same over gRPC, whose stages are on a page that must be named."""
    _assert_right(_measured(Options(str(picture_file), served.grpc, model="colour", batch_size=3), served), 3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(served: Served, picture_file: Path, tmp_path: Path, name: str) -> None:
    """LoadGen's scenarios go through these doors, too; its own log counts as many samples."""
    options = Options(str(picture_file), served.grpc, model="colour")
    scenario = Scenario(name, tmp_path, threads=4, seconds=0.3, rate=40, bound=Objective(90, 1))
    result = measure(scenario, door(options), payloads(options, door(options)))
    assert result.errors == {}
    assert result.requests >= 2
    assert result.settings["LoadGen"].startswith(("VALID", "INVALID, not satisfied"))
    assert result.client
    assert name != "Offline" or result.client.warning is None


def _measured(options: Options, served: Served) -> Result:
    to = door(options)
    watch = ServerWatch([f"{served.rest}/metrics"], None)
    return run(ClosedLoop(samples=4), to, payloads(options, to), watch=watch)


def _assert_right(result: Result, batch: int) -> None:
    assert (result.requests, result.inferences, result.errors) == (4, 4 * batch, {})
    assert result.server
    assert {"decode", "execute", "encode"} <= {each.name for each in result.server.stages}
    assert {each.count for each in result.server.stages} == {4}
