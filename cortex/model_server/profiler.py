"""ProfilerService on the gRPC door: TensorFlow's own profiler server, reached through the port that clients know.

TensorFlow's server opens a port of its own without TLS, and can only do so on every interface. So it is started only
when somebody asks for a profile, only in a process that runs TensorFlow, and its port is closed to other machines at
once; where the system cannot do that, there is no profiler.
"""

import socket
import sys
import threading
from typing import Any

import grpc

from cortex.model_server import loopback

PREFIX = "/tensorflow.ProfilerService/"
_LONGEST = 24 * 3600.0  # seconds; a call without a deadline has more left than gRPC can count back in
_ENGINE = "cortex.model_server.engines.tensorflow"


class Profiler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio is untyped
    """Pass every call of the service on, byte for byte."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._channel: Any = None

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call to the profiler, or None for a call to something else."""
        method = handler_call_details.method
        if not method.startswith(PREFIX):
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._pass_on(method, request, context))

    def _pass_on(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        if _ENGINE not in sys.modules:
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "The profiler is TensorFlow's, and no model of this server runs on the tensorflow engine",
            )
        if not loopback.is_possible():
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "TensorFlow's profiler would listen on every interface, and this system cannot keep it to itself",
            )
        try:
            answer: bytes = self._opened().unary_unary(method)(request, timeout=min(context.time_remaining(), _LONGEST))
            return answer
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
            raise  # not reached: abort raises

    def _opened(self) -> Any:
        """Return a channel to TensorFlow's server, which the first call starts; it lives as long as the process."""
        with self._starting:
            if self._channel is None:
                import tensorflow as tf  # it is loaded: see _ENGINE

                port = _free_port()
                tf.profiler.experimental.server.start(port)
                loopback.restrict(port)
                self._channel = grpc.insecure_channel(
                    f"127.0.0.1:{port}",
                    options=[
                        ("grpc.max_receive_message_length", -1),
                        ("grpc.max_send_message_length", -1),
                        ("grpc.enable_http_proxy", 0),
                    ],
                )
            return self._channel


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
