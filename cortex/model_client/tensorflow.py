"""TensorFlowClient: predictions from TF Serving, or from anything that speaks its protocol."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from cortex.errors import UserError
from cortex.model_client.base import Progress, Timed
from cortex.model_client.inputs import fill_tensor
from cortex.model_client.line import Line
from cortex.model_client.models import LATEST, choose_name, choose_version
from cortex.model_client.outputs import flat_list
from cortex.model_client.served import ServedModel, Version, available, await_models, open_channel, statuses
from cortex.model_client.signature import Signature
from cortex.protos import predict_pb2, prediction_service_pb2_grpc
from cortex.spec import Model
from cortex.tensors import Array, to_array

_PREDICT_TIMEOUT_S = 300.0
_STATUS_TIMEOUT_S = 1.0


class TensorFlowClient:
    """Run the models of one API on its model server. Safe to use from several threads.

    Predictions go over the model server's line where it has one, else over gRPC, and everything else over gRPC.
    A prediction waits for a model server that is restarting, up to 300 seconds. One that was under way when the model
    server died fails with grpc.RpcError and is not repeated, because it may be what killed it.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        models: tuple[ServedModel, ...],
        timed: Timed = nullcontext,
        line: Line | None = None,
    ) -> None:
        self._channel = channel
        self._line = line
        self._timed = timed
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = {served.model.name: served for served in models}

    @classmethod
    def connect(
        cls, address: str, models: tuple[Model, ...], progress: Progress, timed: Timed = nullcontext
    ) -> "TensorFlowClient":
        """Return a client once the model server at ``address`` (``unix:/path`` or ``host:port``) has loaded ``models``.

        Raises NotStarted or UserError, see `cortex.model_client.served.await_models`.
        """
        channel = open_channel(address)
        try:
            served = await_models(channel, models, progress)
            return cls(channel, served, timed, Line.beside(address, _PREDICT_TIMEOUT_S))
        except BaseException:
            channel.close()
            raise

    def predict(
        self, model_input: Mapping[str, Any], model_name: str | None = None, model_version: str = LATEST
    ) -> dict[str, list[Any]]:
        """Return each output as a flat list, in Cortex's form: int64 as strings, bytes as base64, NaN as words.

        ``model_input`` maps each input of the signature to an array or a (nested) list. Raises UserError for an input
        that is missing or does not convert, KeyError for an input or an output type that Cortex does not know, and
        grpc.RpcError when the model server fails.
        """
        with self._timed():
            outputs = self._run(model_input, model_name, model_version)
            return {name: flat_list(name, proto) for name, proto in outputs.items()}

    def predict_numpy(
        self, model_input: Mapping[str, Any], model_name: str | None = None, model_version: str = LATEST
    ) -> dict[str, Array]:
        """Return each output as an array with its shape and dtype; strings are an object array of bytes.

        Arrays may be read-only. Takes and raises what `predict` does, but knows every dtype and empty outputs.
        """
        with self._timed():
            outputs = self._run(model_input, model_name, model_version)
            return {name: to_array(proto) for name, proto in outputs.items()}

    @property
    def input_signatures(self) -> dict[str, Any]:
        """Describe the inputs of each model's latest version: ``{model: {input: {"shape": [...], "type": "..."}}}``.

        Blocks for a second at most, as `metadata` does.
        """
        served = {name: versions for name, versions in self._served().items() if versions}
        return {name: versions[max(versions)].signature.describe() for name, versions in served.items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """Describe every version that is served under ``name-version``, as Cortex 0.22 did. The values survive JSON."""
        return {
            f"{name}-{number}": _describe(Path(self._models[name].model.path) / str(number), version)
            for name, versions in self._served().items()
            for number, version in sorted(versions.items())
        }

    @property
    def stub(self) -> prediction_service_pb2_grpc.PredictionServiceStub:
        """The gRPC stub of TF Serving's PredictionService, for what this class does not do."""
        return self._stub

    def healthy(self) -> bool:
        """Say whether the model server answers, and still serves one of its models. Blocks for a second at most."""
        try:
            return any(self._available(served) for served in self._models.values())
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Close all connections; predictions under way may fail."""
        self._channel.close()
        if self._line is not None:
            self._line.close()

    def _served(self) -> dict[str, Mapping[int, Version]]:
        """Return the versions of each model, without those that the model server, started again, has given up.

        Where it does not say which it has given up, that is none of them.
        """
        try:
            return {name: self._available(served) for name, served in self._models.items()}
        except grpc.RpcError:
            return {name: served.versions for name, served in self._models.items()}

    def _available(self, served: ServedModel) -> Mapping[int, Version]:
        rows = statuses(self._channel, served.model.name, _STATUS_TIMEOUT_S, wait_for_ready=False)
        return {number: served.versions[number] for number in available(rows) if number in served.versions}

    def _run(self, model_input: Mapping[str, Any], model_name: str | None, model_version: str) -> Mapping[str, Any]:
        served = self._models[choose_name(list(self._models), model_name)]
        number = choose_version(served.versions, model_version, served.model.name)
        try:
            return self._outputs(served, number, model_input)
        except grpc.RpcError as error:
            if model_version != LATEST or error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            left = self._available(served)
            if number in left or not left:
                raise
            return self._outputs(served, max(left), model_input)  # the other was given up, and has answered nothing

    def _outputs(self, served: ServedModel, number: int, model_input: Mapping[str, Any]) -> Mapping[str, Any]:
        signature = served.versions[number].signature
        request = predict_pb2.PredictRequest()
        request.model_spec.name = served.model.name
        request.model_spec.version.value = number
        request.model_spec.signature_name = signature.key
        _fill(request, signature, model_input, served.model.name)
        return dict(self._answer(request).outputs)

    def _answer(self, request: predict_pb2.PredictRequest) -> Any:
        answer = self._line.predict(request) if self._line is not None else None
        if answer is None:  # there is no line, or nobody listens: gRPC waits until somebody does
            answer = self._stub.Predict(request, timeout=_PREDICT_TIMEOUT_S, wait_for_ready=True)
        return answer


def _fill(
    request: predict_pb2.PredictRequest, signature: Signature, model_input: Mapping[str, Any], model: str
) -> None:
    for name in signature.inputs:
        if not isinstance(model_input, Mapping) or name not in model_input:
            raise UserError(f"missing key '{name}' for model '{model}'")
    for name, value in model_input.items():
        expected = signature.inputs[name]
        try:
            fill_tensor(request.inputs[name], value, expected.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f'key "{name}": {expected.expectation}: {error}') from error


def _describe(path: Path, version: Version) -> dict[str, Any]:
    return {
        "disk_path": str(path),
        "signature_def": {key: json_format.MessageToDict(value) for key, value in version.signatures.items()},
        "signature_key": version.signature.key,
        "input_signatures": version.signature.describe(),
        "runtime": dict(version.runtime),
        "timestamp": int(path.stat().st_mtime) if path.exists() else None,
    }
