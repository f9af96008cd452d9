"""The process: flags to options, models loaded, then ports opened, until a signal; then drained."""

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cortex import __version__
from cortex.model_server import config, options, servable
from cortex.model_server.batching import Batcher
from cortex.model_server.config import ModelConfig
from cortex.model_server.flags import BadFlag, CommandLine, Flags, parse, print_usage
from cortex.model_server.grpc import GrpcServer
from cortex.model_server.handlers import Handlers
from cortex.model_server.repository import Repository
from cortex.model_server.signals import Interrupt
from cortex.model_server.status import StatusError
from cortex.notify import notify

_log = logging.getLogger("cortex.model_server")

GRACE = 30.0
"""Seconds that requests in flight have to finish after SIGTERM."""
_FAILED = 255


class ModelServer:
    """Own the models and the ports of one process."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        parameters = options.batching(flags)
        self._batcher = Batcher(parameters) if parameters else None
        load = functools.partial(servable.load, options=options.load_options(flags), batcher=self._batcher)
        self._repository = Repository(load, options.repository_options(flags))
        self._handlers = Handlers(self._repository, as_content=flags.enable_serialization_as_tensor_content)
        self._grpc = GrpcServer(self._handlers, options.grpc_options(flags))
        self._config_poll = _ConfigPoll(flags, self._repository)
        self._stop_rest = lambda: None

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Load the configured models, then open the ports. Returns early when interrupted. Raises StatusError."""
        models = options.models(self._flags)
        if self._batcher is not None:
            self._batcher.start()
        self._repository.start(models, interrupted)
        if interrupted():
            return
        self._grpc.start()
        self._start_rest()
        self._config_poll.start()

    def stop(self) -> None:
        """Stop accepting, answer what is in flight within `GRACE` seconds, then unload."""
        self._config_poll.stop()
        rest = threading.Thread(target=self._stop_rest, name="stop-rest")
        rest.start()
        self._grpc.stop(GRACE)
        rest.join()
        if self._batcher is not None:
            self._batcher.close()
        self._repository.close()

    def _start_rest(self) -> None:
        if not self._flags.rest_api_port:
            return
        if self._flags.rest_api_port == self._flags.port:
            _log.error(
                "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
                "Skipped exporting HTTP/REST API."
            )
            return
        from cortex.model_server.rest import RestOptions, RestServer  # uvicorn costs 15 MB: only whoever asks pays

        flags = self._flags
        where = RestOptions(
            port=flags.rest_api_port,
            threads=max(1, flags.rest_api_num_threads),
            timeout=flags.rest_api_timeout_in_ms / 1000,
            cors=flags.rest_api_enable_cors_support,
            max_body=flags.rest_api_max_body_bytes,
        )
        server = RestServer(self._handlers, where)
        server.start(GRACE)
        self._stop_rest = server.stop


class _ConfigPoll:
    """Read ``--model_config_file`` again and again, and reload what it says when it says something new."""

    def __init__(self, flags: Flags, repository: Repository) -> None:
        self._path = Path(flags.model_config_file)
        self._interval = flags.model_config_file_poll_wait_seconds if flags.model_config_file else 0
        self._repository = repository
        self._stopping = threading.Event()
        self._last: Sequence[ModelConfig] | None = None

    def start(self) -> None:
        if self._interval > 0:
            threading.Thread(target=self._run, name="config-poll", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._poll()
            except StatusError as error:
                _log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error)

    def _poll(self) -> None:
        models = config.read(self._path)
        if models is None:
            _log.info("Taking no action for empty config.")
        elif models != self._last:
            self._repository.reload(models)
            self._last = models


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT. The exit code is 0, or 255 when it could not start."""
    try:
        line = parse(sys.argv[1:] if arguments is None else arguments)
    except BadFlag as error:
        print(error)
        print_usage()
        return _FAILED
    if line.flags.version:
        print(f"Cortex ModelServer: {__version__}")
        return 0
    _report_unknown(line)
    logging.basicConfig(format="%(asctime)s %(levelname).1s %(message)s", level=logging.INFO, stream=sys.stderr)
    if line.not_in_effect:
        _log.warning("These flags are accepted and have no effect here: %s", ", ".join(line.not_in_effect))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    code = _serve(line.flags)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a thread may be inside a native library, which nothing can interrupt, nor wait for


def _report_unknown(line: CommandLine) -> None:
    for argument in line.unknown:
        print(f"unknown argument: {argument}")
    if line.unknown:
        print_usage()
        sys.stdout.flush()


def _serve(flags: Flags) -> int:
    interrupt = Interrupt()
    interrupt.listen()
    try:
        server = ModelServer(flags)
        server.start(lambda: interrupt.received)
    except StatusError as error:
        print(f"Failed to start server. Error: {error}")
        notify(status=f"error: {error}")
        return _FAILED
    if interrupt.received:
        return 0
    notify(ready=True, status="serving")
    _log.info("Entering the event loop ...")
    interrupt.wait()
    _log.info("Stopping: requests in flight have %g seconds", GRACE)
    server.stop()
    return 0
