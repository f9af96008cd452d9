"""One Predict call, checked against its signature: what arrives as a message leaves as arrays, or as a status."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cortex import tensors
from cortex.model_server.engines.base import Array, Arrays, size_of
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, Signatures
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import meta_graph_pb2, model_pb2, predict_pb2, tensor_pb2, types_pb2

Tensors = Mapping[str, tensor_pb2.TensorProto]
Inputs = Mapping[str, meta_graph_pb2.TensorInfo]
InputsOf = Callable[[model_pb2.ModelSpec], Inputs]
"""Gives the inputs of the signature that is named. Raises StatusError."""


@dataclass(frozen=True)
class Call:
    """What an engine is asked: a signature that exists, its inputs by alias, and the outputs wanted."""

    signature: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a model answered, and which model, version and signature did."""

    model: str
    version: int
    signature: str
    outputs: Arrays

    def size(self) -> int:
        """Return the bytes of the outputs."""
        return sum(size_of(array) for array in self.outputs.values())


def parse(signatures: Signatures, request: predict_pb2.PredictRequest) -> Call:
    """Check the request in TF Serving's order and words, and decode its tensors. Raises StatusError."""
    name = signature_name(request.model_spec)
    if name not in signatures:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    signature = signatures[name]
    sent = _sent(request, signature)
    inputs = {
        alias: _array(index, alias, sent[alias], signature.inputs[alias].dtype)
        for index, alias in enumerate(sorted(signature.inputs))
    }
    return Call(name, inputs, _outputs(request.output_filter, signature))


def response(answer: Answer, *, as_content: bool = False) -> predict_pb2.PredictResponse:
    """Return the answer as a message: typed fields as TF Serving's, or raw ``tensor_content`` when asked for."""
    message = predict_pb2.PredictResponse()
    message.model_spec.name = answer.model
    message.model_spec.version.value = answer.version
    message.model_spec.signature_name = answer.signature
    for alias, array in answer.outputs.items():
        tensors.fill(message.outputs[alias], array, typed=not as_content)
    return message


def signature_name(spec: model_pb2.ModelSpec) -> str:
    """Return the signature that a request means."""
    return spec.signature_name or DEFAULT_SIGNATURE


def dtype_string(enum: int) -> str:
    """Return TensorFlow's name of a dtype as its C++ messages spell it: ``float``, ``half``, ``int64``."""
    if enum not in types_pb2.DataType.values():
        return f"unknown dtype enum ({enum})"
    name: str = types_pb2.DataType.Name(enum)
    return name.removeprefix("DT_").lower()


def _sent(request: predict_pb2.PredictRequest, signature: meta_graph_pb2.SignatureDef) -> Tensors:
    """Return a tensor for each input: what the request has, or the signature's default. Raises StatusError."""
    sent, wanted = set(request.inputs), set(signature.inputs)
    given: Tensors = request.inputs
    if sent == wanted:
        return given  # nearly always; a copy of the map would take as long as all else here
    defaults = set(signature.defaults)
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_set(sent)}) != len({_set(wanted)}). "
            f"Sent extra: {_set(sent - wanted)}. Missing but required: {_set(wanted - sent)}."
        )
    for alias in sorted(sent - wanted):
        raise invalid(
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_set(wanted)}."
        )
    for alias in sorted(wanted - sent - defaults):
        raise invalid(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {_set(sent)}, or default input alias set: "
            f"{','.join(sorted(defaults))}"
        )
    return {**signature.defaults, **given}


def _array(index: int, alias: str, proto: tensor_pb2.TensorProto, dtype: int) -> Array:
    """Decode one input; its dtype is compared before any memory is taken for it."""
    if proto.dtype != dtype:
        raise invalid(f"Expects arg[{index}] to be {dtype_string(dtype)} but {dtype_string(proto.dtype)} is provided")
    try:
        return tensors.to_array(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}: {error}") from error


def _outputs(wanted: Iterable[str], signature: meta_graph_pb2.SignatureDef) -> tuple[str, ...]:
    chosen: list[str] = []
    for alias in wanted:
        if alias not in signature.outputs:
            known = _set(signature.outputs)
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {known}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return tuple(chosen or sorted(signature.outputs))


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
