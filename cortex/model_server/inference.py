"""Classify, Regress and MultiInference: signatures that take serialized tf.Examples and give classes or values.

The checks, their order and their texts are those of TF Serving's ``classifier.cc``, ``regressor.cc`` and
``multi_inference.cc``. A signature is known by its input ``inputs`` and its outputs ``classes`` and ``scores``, or
``outputs``; the method name that TensorFlow 1 wrote beside them counts only where it is asked to.
"""

from collections.abc import Callable, Iterator

from google.protobuf import text_format

from cortex.model_server import examples
from cortex.model_server.call import Call, dtype_string, signature_name
from cortex.model_server.engines.base import Array, Arrays
from cortex.model_server.saved_model import Signatures
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    meta_graph_pb2,
    regression_pb2,
    types_pb2,
)
from cortex.tensors import enum_of

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

INPUT = "inputs"
_CLASSES, _SCORES, _VALUES = "classes", "scores", "outputs"

Run = Callable[[Call], Arrays]


def classify(
    signatures: Signatures, request: classification_pb2.ClassificationRequest, run: Run, *, check_method: bool = False
) -> classification_pb2.ClassificationResult:
    """Return the classes of each Example. Raises StatusError."""
    name = signature_name(request.model_spec)
    signature = _found(signatures, name, "No signature was found with the name")
    outputs = _classes_and_scores(signature, check_method)
    call = _call(name, signature, request.input, outputs)
    return _classification(run(call), _size(call))


def regress(
    signatures: Signatures, request: regression_pb2.RegressionRequest, run: Run, *, check_method: bool = False
) -> regression_pb2.RegressionResult:
    """Return the value of each Example. Raises StatusError."""
    name = signature_name(request.model_spec)
    signature = _found(signatures, name, "No signature was found with the name")
    outputs = _values(signature, check_method)
    call = _call(name, signature, request.input, outputs)
    return _regression(run(call), _size(call))


def infer(
    signatures: Signatures, request: inference_pb2.MultiInferenceRequest, run: Run, *, check_method: bool = False
) -> list[inference_pb2.InferenceResult]:
    """Return the result of each task on the same Examples. Raises StatusError before anything runs, if it can.

    TF Serving fetches all outputs in one run; here each task is one, since an engine runs one signature.
    """
    outputs = list(_checked_tasks(signatures, request, check_method))
    results = []
    for task, wanted in zip(request.tasks, outputs, strict=True):
        name = signature_name(task.model_spec)
        call = _call(name, signatures[name], request.input, wanted)
        result = inference_pb2.InferenceResult()
        if task.method_name == CLASSIFY:
            result.classification_result.CopyFrom(_classification(run(call), _size(call)))
        else:
            result.regression_result.CopyFrom(_regression(run(call), _size(call)))
        results.append(result)
    return results


def _checked_tasks(
    signatures: Signatures, request: inference_pb2.MultiInferenceRequest, check_method: bool
) -> Iterator[tuple[str, ...]]:
    """Check every task against the signatures and the tasks before it, and yield the outputs it needs."""
    seen: set[str] = set()
    tensors: set[str] = set()
    for task in request.tasks:
        _check_model(task.model_spec.name, request.tasks[0].model_spec.name)
        name = signature_name(task.model_spec)
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        signature = _found(signatures, name, "Requested signature not found in model graph")
        yield _task_outputs(task.method_name, signature, check_method)
        tensors.add(signature.inputs[INPUT].name)
        if len(tensors) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")


def _check_model(name: str, first: str) -> None:
    if not name:
        raise invalid("Found ModelSpec with an empty model name.")
    if name != first:
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")


def _task_outputs(method: str, signature: meta_graph_pb2.SignatureDef, check_method: bool) -> tuple[str, ...]:
    if method == CLASSIFY:
        return _classes_and_scores(signature, check_method)
    if method == REGRESS:
        return _values(signature, check_method)
    raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")


# The signature


def _found(signatures: Signatures, name: str, text: str) -> meta_graph_pb2.SignatureDef:
    if name not in signatures:
        raise invalid(f"{text}: {name}")
    return signatures[name]


def _classes_and_scores(signature: meta_graph_pb2.SignatureDef, check_method: bool) -> tuple[str, ...]:
    if check_method:
        _check_method(signature, CLASSIFY, "classification")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_input(signature, "classification")
    outputs = tuple(alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs)
    if not outputs:
        raise _unfit(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            "Signature was: ",
            signature,
        )
    return outputs


def _values(signature: meta_graph_pb2.SignatureDef, check_method: bool) -> tuple[str, ...]:
    if check_method:
        _check_method(signature, REGRESS, "regression")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    _check_input(signature, "regression")
    if _VALUES not in signature.outputs:
        raise _unfit("No regression outputs found in SignatureDef: ", signature)
    return (_VALUES,)


def _check_method(signature: meta_graph_pb2.SignatureDef, wanted: str, kind: str) -> None:
    if signature.method_name != wanted:
        raise invalid(f"Expected {kind} signature method_name to be {wanted}. Was: {signature.method_name}")


def _check_input(signature: meta_graph_pb2.SignatureDef, kind: str) -> None:
    if INPUT not in signature.inputs:
        raise _unfit(f"No {kind} inputs found in SignatureDef: ", signature)


def _unfit(text: str, signature: meta_graph_pb2.SignatureDef) -> StatusError:
    return StatusError(Code.FAILED_PRECONDITION, text + text_format.MessageToString(signature))


# The call and its results


def _call(
    name: str, signature: meta_graph_pb2.SignatureDef, message: input_pb2.Input, outputs: tuple[str, ...]
) -> Call:
    array = examples.tensor(message)
    wanted = signature.inputs[INPUT].dtype
    if wanted != types_pb2.DT_STRING:
        raise invalid(f"Expects arg[0] to be {dtype_string(wanted)} but string is provided")
    return Call(name, {INPUT: array}, outputs)


def _size(call: Call) -> int:
    return len(call.inputs[INPUT])


def _classification(outputs: Arrays, size: int) -> classification_pb2.ClassificationResult:
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None:
        _check_matrix(_CLASSES, classes, types_pb2.DT_STRING, size)
    if scores is not None:
        _check_matrix(_SCORES, scores, types_pb2.DT_FLOAT, size)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(size):
        labels = [] if classes is None else [_text(label) for label in classes[row].tolist()]
        values = [] if scores is None else scores[row].tolist()
        entry = result.classifications.add()
        for column in range(max(len(labels), len(values))):
            one = entry.classes.add()
            if labels:
                one.label = labels[column]
            if values:
                one.score = values[column]
    return result


def _check_matrix(name: str, array: Array, dtype: int, size: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if enum_of(array.dtype) != dtype:
        raise invalid(
            f"Expected {name} Tensor of {types_pb2.DataType.Name(dtype)}. "
            f"Got: {types_pb2.DataType.Name(enum_of(array.dtype))}"
        )
    if len(array) != size:
        raise invalid(f"Expected {name} output batch size of {size}. Got: {len(array)}")


def _regression(outputs: Arrays, size: int) -> regression_pb2.RegressionResult:
    values = outputs[_VALUES]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(values)}"
        )
    if len(values) != size:
        raise invalid(f"Input batch size did not match output batch size: {size} vs. {len(values)}")
    if enum_of(values.dtype) != types_pb2.DT_FLOAT:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {types_pb2.DataType.Name(enum_of(values.dtype))}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _shape(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _text(label: bytes | str) -> str:
    """Return a label as the text that the message holds; bytes that are none are replaced, as JSON would need."""
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label
