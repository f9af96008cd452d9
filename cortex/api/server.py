"""One API worker: ``python -m cortex.api.server --spec SPEC.json --worker N [--model-server unix:/path.sock]``.

It runs in the project's directory, in the environment that ``.env`` makes there. It waits for its models, constructs
the predictor, and only then accepts connections on the listening socket that it inherits as ``CORTEX_LISTEN_FD`` (or on
``--port``). Its supervisor hears of progress and readiness over ``NOTIFY_SOCKET``. SIGTERM drains it. Exit codes: 0
after a drain, 3 when it could not start.
"""

import argparse
import gc
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex.api import dotenv, log
from cortex.api.end import end_in_time, giving_up

if __name__ == "__main__":
    log.configure()
    with giving_up():
        dotenv.source()  # before the imports that take long, because it starts all over

from uvicorn import Config

from cortex import model_client as clients  # its classes are imported when they are named
from cortex.api.accept import Tally
from cortex.api.app import Worker, create_app
from cortex.api.drain import DrainProtocol, DrainServer, DrainState
from cortex.api.metrics import Metrics
from cortex.api.predictor import construct, load_class
from cortex.api.refusal import Refusal
from cortex.errors import UserError
from cortex.executor import PatientExecutor
from cortex.model_client.base import ModelClient
from cortex.notify import notify
from cortex.spec import APISpec

_KEEP_ALIVE_S = 75  # longer than the proxies in front keep a connection, so that they are the ones to close it
_BACKLOG = 2048
_log = logging.getLogger("cortex")


@dataclass(frozen=True)
class Options:
    """The command line of a worker."""

    spec: Path
    worker: int
    model_server: str | None
    port: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one worker until it is told to stop."""
    options = _parse(arguments)
    state = DrainState()
    with giving_up():
        worker = _start(options, state)
        listener = _listener(options.port)
        config = _config(worker)
        state.refusal = Refusal(worker.places, worker.max_body, worker.metrics)
        tally = _tally(worker.spec, listener, options.worker)
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection during a request need look through it
    DrainServer(config, state, tally, _cut_off(options, worker)).run(sockets=[listener])
    worker.pool.shutdown()  # lets every post_predict finish
    if worker.client is not None:
        worker.client.close()
    end_in_time()


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m cortex.api.server", description="Run one worker of an API.")
    parser.add_argument("--spec", type=Path, required=True, help="the API's resolved spec, as JSON")
    parser.add_argument("--worker", type=int, default=0, help="the number of this worker within its API")
    parser.add_argument("--model-server", help="where the model server listens: unix:/path.sock or host:port")
    parser.add_argument("--port", type=int, default=8888, help="used when CORTEX_LISTEN_FD is not set")
    return Options(**vars(parser.parse_args(arguments)))


def _start(options: Options, state: DrainState) -> Worker:
    spec = APISpec.model_validate_json(options.spec.read_bytes())
    project = Path.cwd()
    metrics = Metrics()
    client = _client(spec, options.model_server, metrics)
    _progress(f"loading the predictor from {spec.predictor.path}")
    pool = PatientExecutor(spec.predictor.threads_per_process, thread_name_prefix="predict")
    try:
        predictor = load_class(spec.predictor, project)
        # in the pool, because some libraries want to be called by the thread that initialized them
        loaded = pool.submit(construct, predictor, spec.predictor, client).result()
    finally:
        log.attach()
    notices = tuple(json.loads(os.environ.get("CORTEX_NOTICES", "[]")))
    return Worker(spec, loaded, pool, client, notices, draining=lambda: state.draining, metrics=metrics)


def _client(spec: APISpec, address: str | None, metrics: Metrics) -> ModelClient | None:
    models = spec.predictor.models
    match spec.predictor.type:
        case "tensorflow":
            if address is None:
                raise UserError("a tensorflow predictor needs --model-server unix:/path.sock or host:port")
            return clients.TensorFlowClient.connect(address, models, _progress, metrics.model_call)
        case "onnx":
            return clients.ONNXClient.load(models, _progress, metrics.model_call)
        case "python":
            return clients.PythonClient(models, spec.predictor.cache_size) if models else None


def _cut_off(options: Options, worker: Worker) -> Callable[[], object]:
    """Return what has requests wait no longer for a model server that ended with the supervisor of both."""
    return worker.client.close if options.model_server and worker.client else lambda: None


def _progress(line: str) -> None:
    _log.info("%s", line)
    notify(status=line)


def _listener(port: int) -> socket.socket:
    inherited = os.environ.get("CORTEX_LISTEN_FD")
    if inherited is None:
        return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    listener = socket.socket(fileno=int(inherited))
    listener.set_inheritable(False)  # what the predictor starts must not keep the port
    return listener


def _tally(spec: APISpec, listener: socket.socket, worker: int) -> Tally | None:
    """Return what the workers of one revision share to take turns; None for one that is alone."""
    directory, workers = os.environ.get("PROMETHEUS_MULTIPROC_DIR"), spec.predictor.processes_per_replica
    if directory is None or worker >= workers or workers == 1:
        return None
    try:
        return Tally.open(Path(directory), listener, workers=workers, worker=worker)
    except OSError as error:
        _log.warning("connections will be spread unevenly over the workers: %s: %s", directory, error.strerror)
        return None


def _config(worker: Worker) -> Config:
    return Config(
        create_app(worker),
        http=DrainProtocol,
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


if __name__ == "__main__":
    main()
