"""grpc.health.v1 on the gRPC door, for orchestrators that ask there; behind ``--enable_grpc_healthcheck_service``."""

from concurrent.futures import Executor
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it has no stubs

_SERVICES = ("", "ModelService", "PredictionService")  # the names that TF Serving gives them, without the package


class Health:
    """Say SERVING from the start of the ports, which open once the models are loaded, to the start of the drain."""

    def __init__(self, pool: Executor) -> None:
        self._servicer = _Servicer(experimental_non_blocking=True, experimental_thread_pool=pool)

    def register(self, server: Any) -> None:
        """Add the service to a gRPC server that has not started yet."""
        for service in _SERVICES:
            self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def drain(self) -> None:
        """Say NOT_SERVING from here on, and end the calls that watch: the server would wait for them."""
        self._servicer.enter_graceful_shutdown()
        self._servicer.end_watches()


class _Servicer(health.HealthServicer):  # type: ignore[misc]  # it has no stubs
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._watching: dict[int, Any] = {}

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:  # noqa: N802
        """Watch as the library does, and be known to `end_watches`."""
        key = id(context)
        self._watching[key] = context
        context.add_callback(lambda: self._watching.pop(key, None))
        return super().Watch(request, context, send_response_callback)

    def end_watches(self) -> None:
        for context in list(self._watching.values()):
            context.cancel()
