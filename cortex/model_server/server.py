"""The process: flags to options, models loaded, then ports opened, until a signal; then drained."""

import faulthandler
import functools
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cortex import __version__, metrics_files
from cortex.model_server import api_key, options, servable
from cortex.model_server.batching import Batcher
from cortex.model_server.flags import BadFlag, CommandLine, Flags, parse, print_usage
from cortex.model_server.grpc import GrpcServer
from cortex.model_server.handlers import Handlers
from cortex.model_server.line import LineServer
from cortex.model_server.reloading import Reloading
from cortex.model_server.repository import Repository
from cortex.model_server.request import Page, Recorder, Recorders
from cortex.model_server.request_log import RequestLog
from cortex.model_server.servable import Surroundings
from cortex.model_server.signals import Signals
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
        is_shared = metrics_files.open_directory() is not None
        self._pages = _pages(flags)
        self._recorder = Recorders((*self._pages.values(), *(_shared() if is_shared and not self._pages else ())))
        source = options.batching(flags)
        self._batcher = Batcher(source.common(), source, self._recorder) if source else None
        self._crashes = options.crashes(flags)
        around = Surroundings(self._batcher, self._recorder, self._crashes)
        load = functools.partial(servable.load, options=options.load_options(flags), surroundings=around)
        self._repository = Repository(load, options.repository_options(flags))
        self._log = RequestLog(self._recorder, options.request_log(flags))
        self._handlers = Handlers(
            self._repository,
            as_content=flags.enable_serialization_as_tensor_content,
            check_methods=flags.enable_signature_method_name_check,
            log=self._log,
            recorder=self._recorder,
        )
        self._keys = api_key.read(flags.api_key_file)
        self._grpc = GrpcServer(self._handlers, options.grpc_options(flags, self._keys), self._recorder)
        path = options.line(flags, self._keys)
        self._line = LineServer(self._handlers, path, self._recorder) if path else None
        self._reloading = Reloading(
            flags.model_config_file,
            flags.model_config_file_poll_wait_seconds,
            self._handlers.apply,
            self._batcher,
            self._keys,
        )
        self._stop_rest = lambda: None

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Load the configured models, then open the ports. Returns early when interrupted. Raises StatusError."""
        models = options.models(self._flags)
        options.check_doors(self._flags)
        self._log.check(models)
        if self._batcher is not None:
            self._batcher.start()
        self._repository.start(models, interrupted)
        if interrupted():
            return
        self._log.configure(models)
        gc.collect()
        gc.freeze()  # what is loaded by now mostly stays: no collection during a request need look through it
        self._reloading.start()  # before all doors: whoever is answered finds everything started
        if self._line is not None:
            self._line.start()  # before gRPC, by which clients know that they need not wait any more
        self._grpc.start()
        self._start_rest()

    def forget(self) -> None:
        """Say that the process ends in an orderly way, even in the middle of a load."""
        self._crashes.close()

    def reload(self) -> None:
        """Read the configuration again, on a thread of its own."""
        self._reloading.ask()

    def stop(self) -> None:
        """Stop accepting, answer what is in flight within `GRACE` seconds, then unload."""
        self.forget()
        self._reloading.stop()
        self._repository.hurry()
        if self._batcher is not None:
            self._batcher.hurry()
        doors: list[Callable[[], object]] = [self._stop_rest, functools.partial(self._grpc.stop, GRACE)]
        if self._line is not None:
            doors.append(functools.partial(self._line.stop, GRACE))
        stopping = [threading.Thread(target=stop, name="stop") for stop in doors]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._batcher is not None:
            self._batcher.close()
        self._log.close()
        self._repository.close()

    def _start_rest(self) -> None:
        if not options.has_rest(self._flags):
            return
        # uvicorn costs 15 MB: only whoever asks pays
        from cortex.model_server import routes
        from cortex.model_server.rest import RestOptions, RestServer

        flags = self._flags
        where = RestOptions(
            port=flags.rest_api_port,
            threads=max(1, flags.rest_api_num_threads),
            timeout=flags.rest_api_timeout_in_ms / 1000 if flags.rest_api_timeout_in_ms > 0 else None,
            cors=flags.rest_api_enable_cors_support,
            max_body=flags.rest_api_max_body_bytes,
            keys=self._keys,
        )

        def show(page: Page) -> routes.Answer:
            return routes.text(page.page(), page.content_type)

        pages = {path: functools.partial(show, page) for path, page in self._pages.items()}
        server = RestServer(self._handlers, where, self._recorder, pages)
        server.start(GRACE)
        self._stop_rest = server.stop


def _pages(flags: Flags) -> Mapping[str, Page]:
    """Return the pages of metrics by path: ours, and TF Serving's where its file asks for it. Raises StatusError."""
    if not options.has_rest(flags):
        return {}
    from cortex.model_server import tf_serving_metrics  # and with it Prometheus' library
    from cortex.model_server.metrics import Metrics

    pages: dict[str, Page] = {"/metrics": Metrics()}
    if flags.monitoring_config_file and (path := tf_serving_metrics.read_path(Path(flags.monitoring_config_file))):
        pages[path] = tf_serving_metrics.TFServingMetrics()
    return pages


def _shared() -> Sequence[Recorder]:
    """Return what counts for a page that other processes show, where this one has none."""
    from cortex.model_server.metrics import Metrics

    return (Metrics(),)


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
    faulthandler.enable()  # a crash in native code shows where every thread was
    logging.basicConfig(format="%(asctime)s %(levelname).1s %(message)s", level=logging.INFO, stream=sys.stderr)
    _report_idle(line)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its warnings are a line for every broken request
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


def _report_idle(line: CommandLine) -> None:
    """Say which flags do nothing, as they are or as they stand together."""
    flags = line.flags
    if line.not_in_effect:
        _log.warning("These flags are accepted and have no effect here: %s", ", ".join(line.not_in_effect))
    for name, engine in line.of_other_engines:
        _log.warning("--%s counts for models that the %s engine runs, and for no others", name, engine)
    if flags.rest_api_port and not options.has_rest(flags):
        _log.error(
            "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
            "Skipped exporting HTTP/REST API."
        )
    if flags.monitoring_config_file and not options.has_rest(flags):
        _log.warning("--monitoring_config_file has no effect without --rest_api_port: metrics are served there")
    if flags.enable_per_model_batching_parameters and not (flags.enable_batching or flags.batching):
        _log.warning("--enable_per_model_batching_parameters has no effect without --enable_batching")
    if "batching_latency_bound_micros" in line.given and not flags.batching:
        _log.warning("--batching_latency_bound_micros has no effect without --batching=auto")


def _serve(flags: Flags) -> int:
    signals = Signals()
    signals.listen()
    try:
        server = ModelServer(flags)
        try:
            return _run(server, signals)
        finally:
            server.forget()
    except StatusError as error:
        print(f"Failed to start server. Error: {error}")
        notify(status=f"error: {error}")
        return _FAILED


def _run(server: ModelServer, signals: Signals) -> int:
    server.start(lambda: signals.stopped)
    if signals.stopped:
        return 0
    notify(ready=True, status="serving")
    _log.info("Entering the event loop ...")
    while signals.is_reload():
        server.reload()
    _log.info("Stopping: requests in flight have %g seconds", GRACE)
    server.stop()
    return 0
