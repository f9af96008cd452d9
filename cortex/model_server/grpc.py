"""The gRPC door: TF Serving's services on TCP, a Unix socket, or both.

The server is grpcio's thread-pool one, not `grpc.aio`: a request is decoded, run and encoded on the thread that picked
it up. An event loop would hand it to a thread for the run and take it back, two more switches in the shortest path.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import grpc

from cortex.executor import PatientExecutor
from cortex.model_server.api_key import ApiKeys
from cortex.model_server.engines.base import deadline_after
from cortex.model_server.handlers import Handlers
from cortex.model_server.profiler import Profiler
from cortex.model_server.request import Recorder, watch
from cortex.model_server.status import Code, StatusError, guarded, invalid, truncated
from cortex.protos import model_service_pb2_grpc, prediction_service_pb2_grpc

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_UNLIMITED = -1
_INTEGER = re.compile(r"-?[0-9]{1,100}")
_RUNTIME = "cortex-runtime"
_HEALTH = "/grpc.health.v1.Health/"

Response = TypeVar("Response")


@dataclass(frozen=True)
class GrpcOptions:
    """Where to listen; ``port`` 0 and an empty ``socket_path`` listen nowhere. ``arguments`` are gRPC's own.

    ``credentials`` are `grpc.ServerCredentials`, or None for plain text. ``health`` and ``profiler`` add the services
    of these names; ``keys`` are asked of every call but those to the health service.
    """

    port: int = 0
    socket_path: str = ""
    threads: int = 8
    arguments: tuple[tuple[str, int | str], ...] = ()
    credentials: Any = None
    health: bool = False
    profiler: bool = False
    keys: ApiKeys = field(default_factory=ApiKeys)


class GrpcServer:
    """Own the gRPC ports of a process."""

    def __init__(self, handlers: Handlers, options: GrpcOptions, recorder: Recorder | None = None) -> None:
        self._handlers = handlers
        self._recorder = recorder or Recorder()
        self._options = options
        self._server: Any = None
        self._drain: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Open the ports. Raises StatusError (INVALID_ARGUMENT) that names the one that cannot be opened."""
        addresses = self._addresses()
        if not addresses:
            return
        logging.getLogger("grpc._common").setLevel(logging.CRITICAL)  # a traceback for every message that is none
        server = self._with_services()
        for address in addresses:
            _listen(server, address, self._options.credentials)
        server.start()
        self._server = server
        for address in addresses:
            _log.info("Running gRPC ModelServer at %s ...", address)

    def stop(self, grace: float) -> None:
        """Refuse new requests, and wait up to ``grace`` seconds for those that run."""
        if self._server is not None:
            self._drain()
            self._server.stop(grace).wait()

    def _with_services(self) -> Any:
        options = self._options
        pool = PatientExecutor(options.threads, thread_name_prefix="grpc")
        interceptors = [_KeyCheck(options.keys)] if options.keys else []
        server = grpc.server(pool, interceptors=interceptors, options=[*_channel_options(), *options.arguments])
        prediction = _Prediction(self._handlers, self._recorder)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(self._handlers), server)
        if options.profiler:
            server.add_generic_rpc_handlers((Profiler(),))
        if options.health:
            from cortex.model_server.health import Health  # a package of its own: only whoever asks needs it

            health = Health()
            health.register(server)
            self._drain = health.drain
        return server

    def _addresses(self) -> list[str]:
        tcp = [f"0.0.0.0:{self._options.port}"] if self._options.port else []
        unix = [f"unix:{self._options.socket_path}"] if self._options.socket_path else []
        return tcp + unix


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, handlers: Handlers, recorder: Recorder) -> None:
        self._handlers = handlers
        self._recorder = recorder

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the proto's name
        return self._watched("Predict", self._handlers.predict, request, context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._watched("Classify", self._handlers.classify, request, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._watched("Regress", self._handlers.regress, request, context)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._watched("MultiInference", self._handlers.multi_inference, request, context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer as TF Serving does; what runs the version goes beside the answer, where TF Serving sends nothing."""

        def answer() -> Any:
            response = self._handlers.metadata(request)
            with contextlib.suppress(StatusError):  # it has been unloaded meanwhile
                runtime = self._handlers.description(response.model_spec)
                context.set_trailing_metadata(((_RUNTIME, json.dumps(asdict(runtime))),))
            return response

        return _answer(answer, context)

    def _watched(
        self, method: str, handle: Callable[[Any, float | None], Any], request: Any, context: grpc.ServicerContext
    ) -> Any:
        """Run a model for a client; a client that goes away meanwhile takes its request out of the queues."""

        def run() -> Any:
            with watch(self._recorder, "GRPC", method) as watched:
                if not context.add_callback(watched.cancel):
                    raise StatusError(Code.CANCELLED, "the client went away")
                return handle(request, _deadline(context))

        return _answer(run, context)


class _Model(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(lambda: self._handlers.status(request), context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Reload while the client waits: one that is gone must not keep a thread."""
        return _answer(lambda: self._handlers.reload(request, lambda: not context.is_active()), context)


class _KeyCheck(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio is untyped
    """Refuse a call without a key before its message is read."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith(_HEALTH):
            return continuation(handler_call_details)
        try:
            self._keys.check(dict(handler_call_details.invocation_metadata))
        except StatusError as error:
            return _refusal(error)
        return continuation(handler_call_details)


def _refusal(error: StatusError) -> Any:
    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(_CODES[error.code], error.message)

    return grpc.unary_unary_rpc_method_handler(refuse)


def _answer(handle: Callable[[], Response], context: grpc.ServicerContext) -> Response:
    try:
        with guarded():
            return handle()
    except StatusError as error:
        context.abort(_CODES[error.code], truncated(error.message))
        raise  # not reached: abort raises


def _deadline(context: grpc.ServicerContext) -> float | None:
    left = context.time_remaining()
    return None if left is None else deadline_after(left)


def _channel_options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _UNLIMITED),
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not steal half of the requests
    ]


def _listen(server: Any, address: str, credentials: Any) -> None:
    if _opens(server, address, credentials):
        return
    if credentials is not None and not _opens(server, "127.0.0.1:0", credentials):
        raise invalid(
            "Failed to BuildAndStart gRPC server: what --ssl_config_file holds cannot be used: server_key, server_cert "
            "and custom_ca must be PEM texts, not paths, and server_key the key of server_cert, without a password"
        )
    raise invalid(f"Failed to BuildAndStart gRPC server: cannot listen on {address}; is it in use?")


def _opens(server: Any, address: str, credentials: Any) -> bool:
    with contextlib.suppress(RuntimeError):
        if credentials is not None:
            return bool(server.add_secure_port(address, credentials))
        return bool(server.add_insecure_port(address))
    return False


def parse_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Parse ``--grpc_channel_arguments``, ``k=v,k=v``: a value that is a number becomes one. Raises StatusError."""
    arguments: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise invalid(f"--grpc_channel_arguments: {pair!r} is not of the form key=value")
        number = int(value) if _INTEGER.fullmatch(value) else None
        if number is not None and not -(2**31) <= number < 2**31:
            raise invalid(f"--grpc_channel_arguments: {pair!r} takes more than 32 bits")
        arguments.append((key, value if number is None else number))
    return tuple(arguments)
