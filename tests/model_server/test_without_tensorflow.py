"""A machine without TensorFlow, or with TensorFlow alone: what needs none of it works."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from cortex.protos import shipped
from cortex.protos.__main__ import descriptors
from tests.waiting import DEADLINE, until


def _hiding(*packages: str) -> str:
    return f"""
import runpy, sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


HIDDEN = _hiding("tensorflow", "tensorflow_serving", "keras")
SERVER = HIDDEN + "runpy.run_module('cortex.model_server', run_name='__main__', alter_sys=True)"
CLIENT = (
    HIDDEN
    + """
import grpc, numpy
from cortex import tensors
from cortex.protos import get_model_status_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
request = predict_pb2.PredictRequest()
request.model_spec.name = "m"
request.inputs["x"].CopyFrom(tensors.to_proto(numpy.array([1.0, 2.0], numpy.float32)))
answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
status = get_model_status_pb2.GetModelStatusRequest()
status.model_spec.name = "m"
state = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status[0].state
print(tensors.to_array(answer.outputs["y"]).ravel().tolist(), state)
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""
)


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_the_shipped_descriptors_are_those_of_the_packages() -> None:
    """``python -m cortex.protos`` has been run since the packages or the list of messages changed."""
    assert descriptor_pb2.FileDescriptorSet.FromString(shipped.PATH.read_bytes()) == descriptors()


def test_a_saved_model_is_served_without_tensorflow(models: Path, tmp_path: Path) -> None:
    """The openvino engine serves a SavedModel over gRPC, to a client that has no TensorFlow either."""
    path, log = tmp_path / "server.sock", tmp_path / "log"
    flags = ["--port=0", f"--grpc_socket_path={path}", "--model_name=m", f"--model_base_path={models / 'half_plus'}"]
    with log.open("w") as output:
        server = subprocess.Popen([sys.executable, "-c", SERVER, *flags], stdout=output, stderr=output)
    try:
        until(lambda: "Entering the event loop" in log.read_text() or server.poll() is not None)
        answer = _run(CLIENT, f"unix:{path}")
        assert answer.stdout == "[3.5, 4.0] 30\n", answer.stderr + log.read_text()
    finally:
        server.terminate()
        assert server.wait(DEADLINE) == 0


@pytest.mark.parametrize(("model", "why"), [("mixed", "OpenVINO has no exact"), ("half_plus", None)])
def test_a_model_that_needs_tensorflow_says_so(models: Path, model: str, why: str | None) -> None:
    """What only TensorFlow runs fails to load, with the wheel that would run it."""
    code = HIDDEN + (
        "from pathlib import Path\n"
        "from cortex.model_server import servable\n"
        "engine = 'auto' if sys.argv[2] == 'mixed' else 'tensorflow'\n"
        "servable.load('m', 1, Path(sys.argv[1]), servable.LoadOptions(engine=engine))"
    )
    failed = _run(code, str(models / model / "1"), model)
    assert "engine tensorflow is not installed" in failed.stderr
    assert "pip install tensorflow" in failed.stderr
    assert why is None or why in failed.stderr


@pytest.mark.parametrize("first", ["", "import tensorflow"])
def test_tensorflow_needs_no_package_of_tf_servings(models: Path, first: str) -> None:
    """A model runs on TensorFlow where that is all that was installed, whoever imports it first."""
    code = f"""
{first}
import numpy
from pathlib import Path
from cortex.model_server import saved_model
from cortex.model_server.engines.base import EngineOptions
from cortex.model_server.engines.tensorflow import TensorFlow

engine = TensorFlow.open(saved_model.read(Path(sys.argv[1]), frozenset(["serve"])), EngineOptions())
print(engine.run("serving_default", {{"x": numpy.array([1.0], numpy.float32)}}, ["y"])["y"].tolist())
"""
    ran = _run(_hiding("tensorflow_serving") + code, str(models / "half_plus/1"))
    assert ran.stdout == "[2.5]\n", ran.stderr
