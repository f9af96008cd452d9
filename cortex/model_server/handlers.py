"""What the server answers, whatever door the question came through.

gRPC and REST both end here, with TF Serving's messages and a deadline on `time.monotonic`'s clock. Every failure is a
StatusError. `Servable.run` is the one place where a model runs for a client.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cortex.model_server import call as calls
from cortex.model_server import inference
from cortex.model_server.config import ModelConfig, parse
from cortex.model_server.engines.base import Arrays, Description, remaining
from cortex.model_server.repository import Repository
from cortex.model_server.request import DECODE, ENCODE, Recorder, current
from cortex.model_server.request_log import RequestLog
from cortex.model_server.servable import Servable
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

_SIGNATURE_DEF = "signature_def"


class Handlers:
    """Answer requests from the repository's models; called from many threads at once.

    ``as_content`` sends outputs as raw bytes. ``check_methods`` refuses Classify and Regress on signatures whose method
    name is another. ``recorder`` keeps the counters that a reload may ask for.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        as_content: bool = False,
        check_methods: bool = False,
        log: RequestLog | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._repository = repository
        self._log = log or RequestLog()
        self._recorder = recorder or Recorder()
        self._as_content = as_content
        self._check_methods = check_methods

    def predict(
        self, request: predict_pb2.PredictRequest, deadline: float | None, *, as_content: bool = False
    ) -> predict_pb2.PredictResponse:
        """Run a signature on the request's tensors."""
        answer = self.run(_spec(request), lambda _: request, deadline)
        try:
            with current().stage(ENCODE):
                return calls.response(answer, as_content=as_content or self._as_content)
        except ValueError as error:
            raise StatusError(Code.INTERNAL, f"an output cannot be sent: {error}") from error

    def run(
        self,
        spec: model_pb2.ModelSpec,
        decode: Callable[[calls.InputsOf], predict_pb2.PredictRequest],
        deadline: float | None,
    ) -> calls.Answer:
        """Run a signature on the request that ``decode`` makes for the inputs of the version that answers it.

        The outputs are arrays.
        """
        watched = current()
        with self._lease(spec) as servable:
            watched.answered_by(servable.name, servable.version)  # whatever it comes to, it counts as this model's
            with watched.stage(DECODE):
                request = decode(servable.inputs)
                call = servable.parse(request)
            watched.answered_by(servable.name, servable.version, call.signature)
            remaining(deadline)
            answer = calls.Answer(servable.name, servable.version, call.signature, servable.run(call, deadline))
        self._log.add(answer.model, request, lambda: calls.response(answer), answer.size)
        return answer

    def classify(
        self, request: classification_pb2.ClassificationRequest, deadline: float | None
    ) -> classification_pb2.ClassificationResponse:
        """Return the classes of the request's Examples."""
        return self._infer(request, deadline, inference.classify, classification_pb2.ClassificationResponse())

    def regress(
        self, request: regression_pb2.RegressionRequest, deadline: float | None
    ) -> regression_pb2.RegressionResponse:
        """Return the values of the request's Examples."""
        return self._infer(request, deadline, inference.regress, regression_pb2.RegressionResponse())

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, deadline: float | None
    ) -> inference_pb2.MultiInferenceResponse:
        """Return the classes or values that each task asks for, of the same Examples."""
        response = inference_pb2.MultiInferenceResponse()
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._lease(spec) as servable:
            run = _runner(servable, deadline)
            results = inference.infer(servable.signatures, request, run, check_method=self._check_methods)
            response.results.extend(results)
            for task, result in zip(request.tasks, response.results, strict=True):
                _echo(task.model_spec, servable, result.model_spec)
        self._log.add(servable.name, request, lambda: response, response.ByteSize)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        spec = _spec(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._lease(spec) as servable:
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
                signatures.signature_def[name].ClearField("defaults")
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response

    def description(self, spec: model_pb2.ModelSpec) -> Description:
        """Say what runs a version: its engine, precision, threads."""
        with self._lease(spec) as servable:
            return servable.description

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of a version, or of all versions of a model."""
        spec = _spec(request)
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self._repository.statuses(_name(spec), version):
            entry = response.model_version_status.add(version=number, state=int(state))
            entry.status.error_code = int(error.code) if error else 0
            entry.status.error_message = error.message if error else ""
        return response

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, is_given_up: Callable[[], bool]
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the whole wanted state of the repository; tell by how much the counters asked for have grown.

        The wait for new models ends when ``is_given_up`` says that the client is gone.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        before = {name: self._recorder.count(name) for name in request.metric_names}
        self.apply(parse(request.config.model_config_list), is_given_up)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        for name, count in before.items():
            response.metric.add(name=name, int64_value_increase=self._recorder.count(name) - count)
        return response

    def apply(self, models: Sequence[ModelConfig], is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Serve these models and no others, and log the requests that they ask to log. Raises StatusError."""
        self._log.check(models)
        self._repository.reload(models, is_given_up, accepted=lambda: self._log.configure(models))

    def is_ready(self) -> bool:
        """Say whether every configured model serves."""
        return self._repository.is_ready()

    def _infer(self, request: Any, deadline: float | None, infer: Callable[..., Any], response: Any) -> Any:
        with self._lease(_spec(request)) as servable:
            run = _runner(servable, deadline)
            response.result.CopyFrom(infer(servable.signatures, request, run, check_method=self._check_methods))
            _echo(request.model_spec, servable, response.model_spec)
        self._log.add(servable.name, request, lambda: response, response.ByteSize)
        return response

    def _lease(self, spec: model_pb2.ModelSpec) -> AbstractContextManager[Servable]:
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        return self._repository.lease(_name(spec), version, label)


def _runner(servable: Servable, deadline: float | None) -> inference.Run:
    current().answered_by(servable.name, servable.version)

    def run(call: calls.Call) -> Arrays:
        current().answered_by(servable.name, servable.version, call.signature)
        current().examples = len(call.inputs[inference.INPUT])
        remaining(deadline)
        return servable.run(call, deadline)

    return run


def _spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _echo(asked: model_pb2.ModelSpec, servable: Servable, spec: model_pb2.ModelSpec) -> None:
    """Note who answered: the model, its version, and the signature that was meant."""
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = calls.signature_name(asked)


def _name(spec: model_pb2.ModelSpec) -> str:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    name: str = spec.name
    return name
