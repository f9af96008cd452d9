"""TF Serving's messages and stubs, without paying for TensorFlow.

``tensorflow-serving-api`` imports ``tensorflow.core...._pb2``, and that executes TensorFlow's own package ``__init__``:
2.5 s and 600 MB. The message modules need none of it. So while they load, a bare module that only knows TensorFlow's
``__path__`` stands in ``sys.modules``; afterwards it is taken out, and a later real ``import tensorflow`` works.

Where TF Serving's package is not installed, or TensorFlow is not, the modules that are missing are made from the
descriptors in ``tf_serving.binpb``, which ``python -m cortex.protos`` writes from the installed packages.
"""

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cortex.protos import shipped


@contextmanager
def _message_modules() -> Iterator[None]:
    path = _path_of("tensorflow")
    if path is None:  # what is there of TF Serving's needs more of TensorFlow's modules than is carried along
        missing = ["tensorflow", "tensorflow_serving"]
    else:
        missing = [] if _path_of("tensorflow_serving") else ["tensorflow_serving"]
    with ExitStack() as entered:
        if path and "tensorflow" not in sys.modules:
            entered.enter_context(_bare_tensorflow(path))
        if missing:
            entered.enter_context(shipped.modules(missing))
        yield


def _path_of(package: str) -> list[str] | None:
    """Return where a package lies, or None when it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # something else hides it
        return None
    return None if spec is None else list(spec.submodule_search_locations or ())


@contextmanager
def _bare_tensorflow(path: list[str]) -> Iterator[None]:
    bare = types.ModuleType("tensorflow")
    bare.__path__ = path
    sys.modules["tensorflow"] = bare
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


with _message_modules():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "saved_model_pb2",
    "tensor_pb2",
    "types_pb2",
]
