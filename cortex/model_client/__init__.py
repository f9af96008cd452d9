"""What user code receives to reach its models: one client for each type of predictor.

`base` says what the API worker asks of every client, `models` how a model and its version are named, and each client
has a module of its own, so that a worker imports only the one it runs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortex.model_client.onnx import ONNXClient as ONNXClient
    from cortex.model_client.python import PythonClient as PythonClient
    from cortex.model_client.tensorflow import TensorFlowClient as TensorFlowClient

_MODULES = {
    "TensorFlowClient": "cortex.model_client.tensorflow",
    "ONNXClient": "cortex.model_client.onnx",
    "PythonClient": "cortex.model_client.python",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
