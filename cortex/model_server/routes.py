"""The paths below ``/v1/``: what each asks of the handlers, and how it is answered.

Predict, classify and regress speak TF Serving's JSON. With ``Content-Type: application/x-protobuf`` they take and give
the messages of the gRPC door instead, which spares a tensor the way through text (ours).
"""

import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from google.protobuf.message import DecodeError, Message

from cortex.model_server import codec, json_document, json_examples, json_writer
from cortex.model_server.handlers import Handlers
from cortex.model_server.json_document import Document
from cortex.model_server.request import DECODE, ENCODE, Recorder, current, watch
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

JSON = "application/json"
PROTOBUF = "application/x-protobuf"

_WHERE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_WHERE}:(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_MODEL = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHERE}(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)
_INT64_DIGITS = 19
_BYTES_PER_VALUE = 16
"""A JSON list or object may stand for every so many bytes of the largest body: see `json_document.parse`."""


@dataclass(frozen=True)
class Request:
    """One HTTP request; ``path`` is as sent, without the query, and ``content_type`` in lower case."""

    method: str
    path: str
    body: bytes
    content_type: str
    max_body: int


@dataclass(frozen=True)
class Answer:
    """What goes back to the client."""

    body: bytes
    content_type: str = JSON
    status: int = 200


def dispatch(
    handlers: Handlers, request: Request, deadline: float | None, recorder: Recorder, gone: Future[None]
) -> Answer:
    """Answer one request; one whose client goes away, when ``gone`` is done, leaves the queues. Raises StatusError."""
    if request.method == "POST" and (match := _INFERENCE.fullmatch(request.path)):
        with watch(recorder, "REST", match["method"].lower()) as watched:
            if gone.done():
                raise StatusError(Code.CANCELLED, "the client went away")
            gone.add_done_callback(lambda _: watched.cancel())
            return _infer(handlers, match, request, deadline)
    if request.method == "GET" and (match := _MODEL.fullmatch(request.path)):
        return text(_describe(handlers, match))
    raise invalid(f"Malformed request: {request.method} {request.path}")


def text(body: str, content_type: str = JSON, status: int = 200) -> Answer:
    """Return an answer of text; bytes that are not UTF-8, which strings of a model may hold, stay what they are."""
    return Answer(body.encode("utf-8", "surrogateescape"), content_type, status)


def _infer(handlers: Handlers, match: re.Match[str], request: Request, deadline: float | None) -> Answer:
    method = match["method"].lower()
    if request.content_type == PROTOBUF:
        kind, handle = _MESSAGES[method]
        response = handle(handlers, _parsed(kind, request.body, _spec(match)), deadline)
        return Answer(response.SerializeToString(), PROTOBUF)
    with current().stage(DECODE):
        document = json_document.parse(request.body, request.max_body // _BYTES_PER_VALUE)
    return text(_DOCUMENTS[method](handlers, _spec(match), document, deadline))


# JSON


def _predict(handlers: Handlers, spec: model_pb2.ModelSpec, document: Document, deadline: float | None) -> str:
    answer = handlers.run(spec, partial(codec.decode, document, spec), deadline)
    is_row = codec.format_of(document) is codec.Format.ROW
    with current().stage(ENCODE):
        return (json_writer.predictions if is_row else json_writer.outputs)(answer.outputs)


def _classify(handlers: Handlers, spec: model_pb2.ModelSpec, document: Document, deadline: float | None) -> str:
    spec.signature_name = json_document.signature_name(document)
    request = classification_pb2.ClassificationRequest(model_spec=spec, input=json_examples.decode(document))
    return json_writer.classes(handlers.classify(request, deadline).result)


def _regress(handlers: Handlers, spec: model_pb2.ModelSpec, document: Document, deadline: float | None) -> str:
    spec.signature_name = json_document.signature_name(document)
    request = regression_pb2.RegressionRequest(model_spec=spec, input=json_examples.decode(document))
    return json_writer.values(handlers.regress(request, deadline).result)


_DOCUMENTS: dict[str, Callable[[Handlers, model_pb2.ModelSpec, Document, float | None], str]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
}


def _describe(handlers: Handlers, match: re.Match[str]) -> str:
    if not match["name"]:
        raise invalid("Missing model name in request.")
    if not match["metadata"]:
        return json_writer.message(handlers.status(get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(match))))
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=_spec(match), metadata_field=["signature_def"])
    return json_writer.metadata(handlers.metadata(request))


# Messages


_MESSAGES: dict[str, tuple[Any, Callable[[Handlers, Any, float | None], Message]]] = {
    "predict": (predict_pb2.PredictRequest, partial(Handlers.predict, as_content=True)),
    "classify": (classification_pb2.ClassificationRequest, Handlers.classify),
    "regress": (regression_pb2.RegressionRequest, Handlers.regress),
}


def _parsed(kind: Any, body: bytes, spec: model_pb2.ModelSpec) -> Any:
    """Parse a message, and let the path say which model and version it is for; the signature is the message's."""
    try:
        request = kind.FromString(body)
    except DecodeError as error:
        raise invalid(f"The request body is not a {kind.DESCRIPTOR.full_name}: {error}") from error
    spec.signature_name = request.model_spec.signature_name
    request.model_spec.CopyFrom(spec)
    return request


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > _INT64_DIGITS or int(digits) >= 2**63:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    if match["label"]:
        spec.version_label = unquote(match["label"])
    return spec
