"""grpc.health.v1 on the gRPC door, for orchestrators that ask there; behind ``--enable_grpc_healthcheck_service``."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it has no stubs

from cortex.executor import PatientExecutor

_SERVICES = ("", "ModelService", "PredictionService")  # the names that TF Serving gives them, without the package
_THREADS = 4
_PATIENCE = 1.0
"""Seconds for watchers to hear of the drain; one that lets no answer come through must not hold it up."""
_Answer = health_pb2.HealthCheckResponse


class Health:
    """Say SERVING from the start of the ports, which open once the models are loaded, to the start of the drain.

    Watching takes threads of its own: a client that lets no answer come through holds one, and never one of a model's.
    """

    def __init__(self) -> None:
        pool = PatientExecutor(_THREADS, thread_name_prefix="health")
        self._servicer = _Servicer(experimental_non_blocking=True, experimental_thread_pool=pool)

    def register(self, server: Any) -> None:
        """Add the service to a gRPC server that has not started yet."""
        for service in _SERVICES:
            self._servicer.set(service, _Answer.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def drain(self) -> None:
        """Say NOT_SERVING from here on, and end the calls that watch: the server would wait for them."""
        self._servicer.enter_graceful_shutdown()
        self._servicer.end_watches()


@dataclass(eq=False)
class _Watcher:
    """One call that watches, and the lock for whoever sends to it: two at the same time are an error to gRPC."""

    service: str
    context: Any
    send: Callable[[Any], None]
    sending: threading.Lock = field(default_factory=threading.Lock)


class _Servicer(health.HealthServicer):  # type: ignore[misc]  # it has no stubs
    """The library's, but for Watch.

    The library sends under a lock that gRPC's only thread takes when another watch ends, and a send waits for that
    thread: the whole door stood still for good.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._watching: set[_Watcher] = set()  # add and discard are atomic
        self._is_draining = False

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> None:  # noqa: N802
        """Tell the status now, and again when the drain starts, which ends the call."""
        watcher = _Watcher(request.service, context, send_response_callback)
        self._watching.add(watcher)
        if not context.add_callback(lambda: self._watching.discard(watcher)):
            self._watching.discard(watcher)
        if self._is_draining:
            context.cancel()
        else:
            self._tell(watcher)

    def end_watches(self) -> None:
        """Tell all watchers that the drain has begun, and let them go: those that have not heard of it in time, too."""
        self._is_draining = True
        watching = list(self._watching)
        telling = [threading.Thread(target=self._tell, args=(each,), daemon=True) for each in watching]
        for thread in telling:
            thread.start()
        end = time.monotonic() + _PATIENCE
        for thread in telling:
            thread.join(max(0.0, end - time.monotonic()))
        for watcher in watching:
            watcher.context.cancel()

    def _tell(self, watcher: _Watcher) -> None:
        with watcher.sending:
            watcher.send(_Answer(status=self._status(watcher.service)))

    def _status(self, service: str) -> int:
        if service not in _SERVICES:
            return int(_Answer.SERVICE_UNKNOWN)
        return int(_Answer.NOT_SERVING if self._is_draining else _Answer.SERVING)
