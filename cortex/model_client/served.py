"""The models of an API as its model server has them: waiting until they are there, and reading their signatures."""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from cortex.errors import NotStarted, UserError
from cortex.model_client.base import Progress
from cortex.model_client.signature import Signature, choose_signature
from cortex.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from cortex.spec import Model

_log = logging.getLogger("cortex")
_WAITING = "waiting for the model server"
_POLL_S = 0.1
_STATUS_TIMEOUT_S = 2.0
_METADATA_TIMEOUT_S = 10.0
_METADATA_TRIES = 2
_RUNTIME = "cortex-runtime"

_State = get_model_status_pb2.ModelVersionStatus.State
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class Version:
    """One version of a model that the model server has loaded."""

    signatures: Mapping[str, meta_graph_pb2.SignatureDef]
    signature: Signature
    runtime: Mapping[str, Any]
    """What runs it (``engine``, ``precision``, ``threads`` ...); empty when the model server does not say."""


@dataclass(frozen=True)
class ServedModel:
    """One model with its loaded versions, of which there is at least one."""

    model: Model
    versions: Mapping[int, Version]


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to a model server: messages of any size, and a reconnect that does not dawdle."""
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 300),
            ("grpc.enable_http_proxy", 0),
        ],
    )


def await_models(channel: grpc.Channel, models: tuple[Model, ...], progress: Progress) -> tuple[ServedModel, ...]:
    """Wait until every model is loaded, for as long as that takes, and return them with their signatures.

    Raises NotStarted when a model failed to load or the model server does not speak TF Serving's protocol, and
    UserError when its highest version lacks the signature that is asked for; a lower one without it is left out.
    """
    progress(_WAITING)
    versions = {model.name: _await_versions(channel, model.name, progress) for model in models}
    _log.info("successfully loaded %s models into the model server", list(versions))
    return tuple(_served(channel, model, versions[model.name]) for model in models)


def statuses(
    channel: grpc.Channel, name: str, timeout: float, *, wait_for_ready: bool
) -> list[get_model_status_pb2.ModelVersionStatus]:
    """Return the state of every version of a model that the model server knows. Raises grpc.RpcError."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        request, timeout=timeout, wait_for_ready=wait_for_ready
    )
    return list(answer.model_version_status)


def available(rows: Iterable[get_model_status_pb2.ModelVersionStatus]) -> list[int]:
    """Return the versions that are served, in order."""
    return sorted(row.version for row in rows if row.state == _State.AVAILABLE)


def _await_versions(channel: grpc.Channel, name: str, progress: Progress) -> list[int]:
    said = _WAITING
    while True:
        try:
            rows = statuses(channel, name, _STATUS_TIMEOUT_S, wait_for_ready=True)
            waiting_for = f"model(s) still loading: {name}"
        except grpc.RpcError as error:
            if error.code() not in _NOT_YET:
                raise NotStarted(f"the model server refused to tell its status: {error.details()}") from error
            rows = []
            waiting_for = _unanswered(error.code(), name)
        if versions := _loaded(rows, name):
            return versions
        if waiting_for != said:
            progress(said := waiting_for)
            _log.info("%s", waiting_for)
        time.sleep(_POLL_S)


def _unanswered(code: grpc.StatusCode, name: str) -> str:
    if code is grpc.StatusCode.NOT_FOUND:
        return f"{_WAITING}: it has no version of model '{name}' yet"
    return _WAITING


def _loaded(rows: list[get_model_status_pb2.ModelVersionStatus], name: str) -> list[int]:
    if any(row.state in (_State.START, _State.LOADING) for row in rows):
        return []
    numbers = available(rows)
    failed = [row for row in rows if row.state == _State.END and row.status.error_code]
    reasons = "; ".join(f"version {row.version}: {row.status.error_message}" for row in failed)
    if failed and not numbers:
        raise NotStarted(f"model '{name}' failed to load: {reasons}")
    if failed:
        _log.warning("model '%s' is served without what failed to load: %s", name, reasons)
    return numbers


def _served(channel: grpc.Channel, model: Model, numbers: list[int]) -> ServedModel:
    """Return a model with those of its versions, the highest among them, that have the signature to call."""
    *lower, highest = numbers
    versions = {highest: _version(channel, model, highest)}
    for number in lower:
        try:
            versions[number] = _version(channel, model, number)
        except UserError as error:
            _log.warning("model '%s' is served without one of its versions: %s", model.name, error)
    return ServedModel(model, versions)


def _version(channel: grpc.Channel, model: Model, version: int) -> Version:
    signatures, runtime = _metadata(channel, model.name, version)
    try:
        signature = choose_signature(signatures, model.signature_key, model.name)
    except UserError as error:
        raise UserError(f"version {version}: {error}") from error
    _log.info("TensorFlow model signature: %s", {model.name: signature.describe()})
    if runtime:
        _log.info("model %s version %s runs with %s", model.name, version, dict(runtime))
    return Version(signatures, signature, runtime)


def _metadata(
    channel: grpc.Channel, name: str, version: int
) -> tuple[Mapping[str, meta_graph_pb2.SignatureDef], Mapping[str, Any]]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = name
    request.model_spec.version.value = version
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for left in reversed(range(_METADATA_TRIES)):
        try:
            answer, call = stub.GetModelMetadata.with_call(request, timeout=_METADATA_TIMEOUT_S, wait_for_ready=True)
            break
        except grpc.RpcError as error:
            if not left:
                raise UserError(
                    f"timeout: unable to read model metadata for model '{name}': {error.details()}"
                ) from error
            _log.warning("unable to read model metadata for model '%s' - retrying ...", name)
    unpacked = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(unpacked)
    return dict(unpacked.signature_def), _runtime(call.trailing_metadata())


def _runtime(trailing: Iterable[tuple[str, str | bytes]]) -> Mapping[str, Any]:
    """Read what our own model server says of what it runs with; another one says nothing, or what we cannot read."""
    try:
        found = json.loads(dict(trailing).get(_RUNTIME, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
