"""The HTTP face of one worker: predictions, a summary, health, metrics and documentation."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from cortex.api import documentation
from cortex.api.admission import Admission
from cortex.api.metrics import CONTENT_TYPE, Metrics
from cortex.api.paths import DOCS, HEALTH, METRICS, OPENAPI, PREDICT_PATHS, READY
from cortex.api.payload import close, read_arguments
from cortex.api.predictor import LoadedPredictor
from cortex.api.refusal import Places
from cortex.api.responses import EXCEPTION_HANDLERS, failed, refusal, then, to_response
from cortex.api.trace import Trace
from cortex.model_client.base import ModelClient
from cortex.spec import APISpec

_MESSAGE = "make a prediction by sending a post request to this endpoint with a json payload"
_log = logging.getLogger("cortex")


class _PredictionFailed(Exception):
    """Carry what user code raised, of whatever kind, out of its thread; the cause is the original."""


@dataclass(frozen=True)
class Worker:
    """What one worker has loaded, and answers requests with."""

    spec: APISpec
    predictor: LoadedPredictor
    pool: ThreadPoolExecutor
    """Runs the predictor's code and nothing else."""
    client: ModelClient | None = None
    notices: tuple[str, ...] = ()
    draining: Callable[[], bool] = lambda: False
    metrics: Metrics = field(default_factory=Metrics)

    @cached_property
    def max_body(self) -> int:
        return self.spec.networking.max_body_bytes

    @cached_property
    def places(self) -> Places:
        """Count the requests under way, of which this worker takes its share of the API's limit."""
        total = self.spec.autoscaling.max_replica_concurrency
        return Places(math.ceil(total / self.spec.predictor.processes_per_replica))

    async def predict(self, request: Request) -> Response:
        """Answer one prediction request."""
        with self.metrics.timed("decode"):
            arguments = await read_arguments(request, self.predictor.predict, self.max_body)
        loop, asked = asyncio.get_running_loop(), time.perf_counter()
        try:
            arguments["response"], response = await loop.run_in_executor(self.pool, self._predict, arguments, asked)
        except _PredictionFailed as error:
            _log.error("prediction failed [%s]", request.state.request_id, exc_info=error.__cause__)
            close(arguments["payload"])
            return failed()
        except BaseException:
            close(arguments["payload"])
            raise
        return then(response, BackgroundTask(self._after, arguments, request.state.request_id))

    def summary(self) -> dict[str, Any]:
        """Describe what is running. Blocks while the model server is asked."""
        summary: dict[str, Any] = {"message": _MESSAGE, "api_name": self.spec.name, "notices": list(self.notices)}
        if self.client is not None:
            if signatures := self.client.input_signatures:
                summary["model_signatures"] = signatures
            summary["model_metadata"] = self.client.metadata
        return summary

    async def not_ready(self) -> str | None:
        """Return why this worker should get no request now, or None when it is ready."""
        if self.draining():
            return "draining"
        if self.client is not None and not await run_in_threadpool(self.client.healthy):
            return "the model server does not answer, or serves no model"
        return None

    def _predict(self, arguments: dict[str, Any], asked: float) -> tuple[Any, Response]:
        self.metrics.stage("queue", time.perf_counter() - asked)
        try:
            with self.metrics.predicting():
                prediction = self.predictor.predict(arguments)
            with self.metrics.timed("encode"):
                return prediction, to_response(prediction)
        except HTTPException:
            raise
        except BaseException as error:
            if refused := refusal(error):
                raise refused from error
            # SystemExit would end this process and StopIteration hang the request: nothing of a user's gets past here
            raise _PredictionFailed from error

    async def _after(self, arguments: dict[str, Any], request_id: str) -> None:
        if self.predictor.post_predict is None:
            close(arguments["payload"])
            return
        asyncio.get_running_loop().run_in_executor(self.pool, self._post_predict, arguments, request_id)

    def _post_predict(self, arguments: dict[str, Any], request_id: str) -> None:
        assert self.predictor.post_predict is not None  # see _after
        try:
            self.predictor.post_predict(arguments)
        except BaseException:  # noqa: BLE001  # user code, whose answer is long sent; the log is all that is left
            _log.exception("post_predict failed [%s]", request_id)
        finally:
            close(arguments["payload"])


def create_app(worker: Worker) -> Starlette:
    """Return the app that serves one worker."""
    app = Starlette(
        routes=[*_predict_routes(worker), *_probe_routes(worker), *_documentation_routes(worker)],
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[
            Middleware(Trace, metrics=worker.metrics),
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["*"],
                allow_headers=["*"],
                allow_credentials=True,
                expose_headers=["x-request-id"],
            ),
            Middleware(
                Admission,
                places=worker.places,
                max_body=worker.max_body,
                metrics=worker.metrics,
            ),
        ],
    )
    app.router.redirect_slashes = False
    return app


def _predict_routes(worker: Worker) -> Iterator[Route]:
    async def summary(_: Request) -> Response:
        return to_response(await run_in_threadpool(worker.summary))

    for path in PREDICT_PATHS:
        yield Route(path, worker.predict, methods=["POST"])
        yield Route(path, summary, methods=["GET"])


def _probe_routes(worker: Worker) -> Iterator[Route]:
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        if reason := await worker.not_ready():
            return PlainTextResponse(reason, HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ready")

    async def metrics(_: Request) -> Response:
        return Response(await run_in_threadpool(worker.metrics.exposition), media_type=CONTENT_TYPE)

    yield Route(HEALTH, healthz)
    yield Route(READY, readyz)
    yield Route(METRICS, metrics)


def _documentation_routes(worker: Worker) -> Iterator[BaseRoute]:
    async def openapi(_: Request) -> Response:
        described = worker.spec.name, worker.predictor, worker.notices
        return JSONResponse(await run_in_threadpool(documentation.openapi, *described))

    async def page(_: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(documentation.page, worker.spec.name))

    yield Route(OPENAPI, openapi)
    yield Route(DOCS, page)
    yield Mount(DOCS, StaticFiles(packages=[documentation.ASSETS]))
