"""What user code receives to reach its models: one client for each type of predictor.

`base` says what the API worker asks of every client, `models` how a model and its version are named, and each client
has a module of its own, so that a worker imports only the one it runs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortex.client.onnx import ONNXClient as ONNXClient
    from cortex.client.python import PythonClient as PythonClient
    from cortex.client.tensorflow import TensorFlowClient as TensorFlowClient

_MODULES = {
    "TensorFlowClient": "cortex.client.tensorflow",
    "ONNXClient": "cortex.client.onnx",
    "PythonClient": "cortex.client.python",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
