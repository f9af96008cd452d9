"""The gRPC door: PredictionService and ModelService on TCP, a Unix socket, or both.

The server is grpcio's thread-pool one, not `grpc.aio`: a request is decoded, run and encoded on the thread that picked
it up. An event loop would hand it to a thread for the run and take it back, two more switches in the shortest path.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from cortex.model_server.handlers import Handlers
from cortex.model_server.status import Code, StatusError, invalid, truncated
from cortex.protos import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_UNLIMITED = -1
_FOREVER = 30 * 24 * 3600.0  # a call without a deadline has billions of seconds left, as gRPC tells it

Response = TypeVar("Response")


@dataclass(frozen=True)
class GrpcOptions:
    """Where to listen; ``port`` None and an empty ``socket_path`` listen nowhere. ``arguments`` are gRPC's own.

    ``credentials`` are `grpc.ServerCredentials`, or None for plain text.
    """

    port: int | None = None
    socket_path: str = ""
    threads: int = 8
    arguments: tuple[tuple[str, int | str], ...] = ()
    credentials: Any = None


class GrpcServer:
    """Own the gRPC ports of a process."""

    def __init__(self, handlers: Handlers, options: GrpcOptions) -> None:
        self._handlers = handlers
        self._options = options
        self._server: Any = None

    def start(self) -> None:
        """Open the ports. Raises StatusError (INVALID_ARGUMENT) that names the one that cannot be opened."""
        addresses = self._addresses()
        if not addresses:
            return
        pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="grpc")
        server = grpc.server(pool, options=[*_channel_options(), *self._options.arguments])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self._handlers), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(self._handlers), server)
        for address in addresses:
            _listen(server, address, self._options.credentials)
        server.start()
        self._server = server
        for address in addresses:
            _log.info("Running gRPC ModelServer at %s ...", address)

    def stop(self, grace: float) -> None:
        """Refuse new requests, and wait up to ``grace`` seconds for those that run."""
        if self._server is not None:
            self._server.stop(grace).wait()

    def _addresses(self) -> list[str]:
        tcp = [] if self._options.port is None else [f"0.0.0.0:{self._options.port}"]
        unix = [f"unix:{self._options.socket_path}"] if self._options.socket_path else []
        return tcp + unix


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the proto's name
        return _answer(lambda: self._handlers.predict(request, _deadline(context)), context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(lambda: self._handlers.metadata(request), context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        _refuse("Classify", context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        _refuse("Regress", context)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        _refuse("MultiInference", context)


class _Model(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(lambda: self._handlers.status(request), context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(lambda: self._handlers.reload(request), context)


def _answer(handle: Callable[[], Response], context: grpc.ServicerContext) -> Response:
    try:
        return handle()
    except StatusError as error:
        context.abort(_CODES[error.code], truncated(error.message))
        raise  # not reached: abort raises


def _refuse(method: str, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not supported by this server; use Predict")


def _deadline(context: grpc.ServicerContext) -> float | None:
    left = context.time_remaining()
    return time.monotonic() + left if left is not None and left < _FOREVER else None


def _channel_options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _UNLIMITED),
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not steal half of the requests
    ]


def _listen(server: Any, address: str, credentials: Any) -> None:
    with contextlib.suppress(RuntimeError):
        if credentials is not None:
            opened = server.add_secure_port(address, credentials)
        else:
            opened = server.add_insecure_port(address)
        if opened:
            return
    raise invalid(f"Failed to BuildAndStart gRPC server: cannot listen on {address}; is it in use?")


def parse_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Parse ``--grpc_channel_arguments``, ``k=v,k=v``: a value that is a number becomes one. Raises StatusError."""
    arguments: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise StatusError(Code.INVALID_ARGUMENT, f"--grpc_channel_arguments: {pair!r} is not of the form key=value")
        arguments.append((key, int(value) if value.lstrip("-").isdigit() else value))
    return tuple(arguments)
