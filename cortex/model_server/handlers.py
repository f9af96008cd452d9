"""What the server answers, whatever door the question came through.

gRPC and REST both end here, with TF Serving's messages and a deadline on `time.monotonic`'s clock. Every failure is a
StatusError. `Handlers.run` is the one place where a model runs for a client.
"""

from contextlib import AbstractContextManager

from cortex.model_server import call as calls
from cortex.model_server.config import parse
from cortex.model_server.engines.base import remaining
from cortex.model_server.repository import Repository
from cortex.model_server.saved_model import DEFAULT_SIGNATURE
from cortex.model_server.servable import Servable
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

_SIGNATURE_DEF = "signature_def"


class Handlers:
    """Answer requests from the repository's models; called from many threads at once."""

    def __init__(self, repository: Repository, *, as_content: bool = False) -> None:
        self._repository = repository
        self._as_content = as_content

    def predict(self, request: predict_pb2.PredictRequest, deadline: float | None) -> predict_pb2.PredictResponse:
        """Run a signature on the request's tensors."""
        try:
            return calls.response(self.run(request, deadline), as_content=self._as_content)
        except ValueError as error:
            raise StatusError(Code.INTERNAL, f"an output cannot be sent: {error}") from error

    def run(self, request: predict_pb2.PredictRequest, deadline: float | None) -> calls.Answer:
        """Run a signature, and return its outputs as arrays."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        with self._lease(request.model_spec) as servable:
            call = servable.parse(request)
            remaining(deadline)
            return calls.Answer(servable.name, servable.version, call.signature, servable.run(call, deadline))

    def inputs(self, spec: model_pb2.ModelSpec) -> dict[str, meta_graph_pb2.TensorInfo]:
        """Return the inputs of the signature that a JSON request names, in TF Serving's words for REST."""
        with self._lease(spec) as servable:
            name = spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            found = dict(servable.signatures[name].inputs)
        if not found:
            raise invalid(f"Failed to get input map for signature: {spec.signature_name or 'DEFAULT'}")
        return found

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._lease(request.model_spec) as servable:
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
                signatures.signature_def[name].ClearField("defaults")
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of a version, or of all versions of a model."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self._repository.statuses(_name(spec), version):
            entry = response.model_version_status.add(version=number, state=int(state))
            entry.status.error_code = int(error.code) if error else 0
            entry.status.error_message = error.message if error else ""
        return response

    def reload(self, request: model_management_pb2.ReloadConfigRequest) -> model_management_pb2.ReloadConfigResponse:
        """Replace the whole wanted state of the repository."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._repository.reload(parse(request.config.model_config_list))
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def is_ready(self) -> bool:
        """Say whether every configured model serves."""
        return self._repository.is_ready()

    def _lease(self, spec: model_pb2.ModelSpec) -> AbstractContextManager[Servable]:
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        return self._repository.lease(_name(spec), version, label)


def _name(spec: model_pb2.ModelSpec) -> str:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    name: str = spec.name
    return name
