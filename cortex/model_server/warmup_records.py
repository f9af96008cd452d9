"""The kinds of records in a warm-up file: how each is answered, and both answers as arrays that can be compared."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cortex import tensors
from cortex.model_server import call as calls
from cortex.model_server import inference
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Array, Arrays
from cortex.model_server.saved_model import Signatures
from cortex.model_server.status import Code, StatusError
from cortex.protos import classification_pb2, inference_pb2, prediction_log_pb2, regression_pb2

_KINDS = frozenset({"predict_log", "classify_log", "regress_log", "multi_inference_log"})


def check(log: prediction_log_pb2.PredictionLog) -> None:
    """Refuse a kind of record that is not replayed, as TF Serving does. Raises StatusError (UNIMPLEMENTED)."""
    kind = log.WhichOneof("log_type")
    if kind not in _KINDS:
        number = log.DESCRIPTOR.fields_by_name[kind].number if kind else 0
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number} ({kind})")


def answer(
    log: prediction_log_pb2.PredictionLog, signatures: Signatures, run: Callable[[Call], Arrays]
) -> Mapping[str, Array]:
    """Return what the model answers to the request of a record that `check` has let pass. Raises StatusError."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        return run(calls.parse(signatures, log.predict_log.request))
    if kind == "classify_log":
        return dict(_classes("", inference.classify(signatures, log.classify_log.request, run)))
    if kind == "regress_log":
        return dict(_values("", inference.regress(signatures, log.regress_log.request, run)))
    return dict(_tasks(inference.infer(signatures, log.multi_inference_log.request, run)))


def recorded(log: prediction_log_pb2.PredictionLog) -> Mapping[str, Array]:
    """Return the recorded answer, empty when the record has none. Raises ValueError for a malformed one."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        return {alias: tensors.to_array(proto) for alias, proto in log.predict_log.response.outputs.items()}
    if kind == "classify_log" and log.classify_log.HasField("response"):
        return dict(_classes("", log.classify_log.response.result))
    if kind == "regress_log" and log.regress_log.HasField("response"):
        return dict(_values("", log.regress_log.response.result))
    if kind == "multi_inference_log":
        return dict(_tasks(log.multi_inference_log.response.results))
    return {}


def _classes(task: str, result: classification_pb2.ClassificationResult) -> Iterator[tuple[str, Array]]:
    found = [each for example in result.classifications for each in example.classes]
    yield f"{task}classes", np.array([each.label.encode() for each in found], np.object_)
    yield f"{task}scores", np.array([each.score for each in found], np.float32)


def _values(task: str, result: regression_pb2.RegressionResult) -> Iterator[tuple[str, Array]]:
    yield f"{task}values", np.array([each.value for each in result.regressions], np.float32)


def _tasks(results: "list[inference_pb2.InferenceResult]") -> Iterator[tuple[str, Array]]:
    for number, each in enumerate(results, start=1):
        if each.HasField("classification_result"):
            yield from _classes(f"task {number}: ", each.classification_result)
        else:
            yield from _values(f"task {number}: ", each.regression_result)
