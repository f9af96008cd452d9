"""The HTTP face of one worker: predictions, a summary, health, metrics and documentation."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cortex.api.admission import Admission
from cortex.api.metrics import CONTENT_TYPE, Metrics
from cortex.api.openapi import RESPONSES, request_forms
from cortex.api.paths import HEALTH, METRICS, PREDICT_PATHS, READY
from cortex.api.payload import close, read_arguments
from cortex.api.predictor import LoadedPredictor
from cortex.api.responses import EXCEPTION_HANDLERS, failed, then, to_response
from cortex.api.trace import Trace
from cortex.client.base import ModelClient
from cortex.quantity import parse_quantity
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

    @property
    def max_body(self) -> int:
        return int(parse_quantity(self.spec.networking.max_body_size))

    @property
    def max_in_flight(self) -> int:
        """Return this worker's share of the API's limit."""
        total = self.spec.autoscaling.max_replica_concurrency
        return math.ceil(total / self.spec.predictor.processes_per_replica)

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

    async def summary(self) -> dict[str, Any]:
        """Describe what is running."""
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
            return "the model server does not answer"
        return None

    def _predict(self, arguments: dict[str, Any], asked: float) -> tuple[Any, Response]:
        self.metrics.stage("queue", time.perf_counter() - asked)
        try:
            with self.metrics.predicting():
                prediction = self.predictor.predict(arguments)
            with self.metrics.timed("encode"):
                return prediction, to_response(prediction)
        except (HTTPException, RequestValidationError):
            raise
        except BaseException as error:
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


def create_app(worker: Worker) -> FastAPI:
    """Return the app that serves one worker."""
    app = FastAPI(
        title=worker.spec.name,
        description="\n\n".join((worker.predictor.description, *worker.notices)),
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=EXCEPTION_HANDLERS,  # type: ignore[arg-type]  # starlette's type is invariant in its keys
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
                max_in_flight=worker.max_in_flight,
                max_body=worker.max_body,
                metrics=worker.metrics,
            ),
        ],
    )
    _add_predict_routes(app, worker)
    _add_probe_routes(app, worker)
    return app


def _add_predict_routes(app: FastAPI, worker: Worker) -> None:
    async def predict(request: Request) -> Response:
        return await worker.predict(request)

    async def summary() -> Response:
        return to_response(await worker.summary())

    for path, suffix in zip(PREDICT_PATHS, ("", "_at_path"), strict=True):
        app.add_api_route(
            path,
            predict,
            methods=["POST"],
            operation_id=f"predict{suffix}",
            response_model=None,
            responses=RESPONSES,
            openapi_extra=request_forms(worker.predictor),
        )
        app.add_api_route(path, summary, methods=["GET"], operation_id=f"summary{suffix}", response_model=None)


def _add_probe_routes(app: FastAPI, worker: Worker) -> None:
    @app.get(HEALTH, response_class=PlainTextResponse)
    async def healthz() -> str:
        """Say that the process lives."""
        return "ok"

    @app.get(READY, response_class=PlainTextResponse)
    async def readyz() -> PlainTextResponse:
        """Say whether requests should be sent here: the predictor is loaded, its model server answers, no drain."""
        if reason := await worker.not_ready():
            return PlainTextResponse(reason, HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ready")

    @app.get(METRICS, response_class=PlainTextResponse)
    async def expose() -> Response:
        """Return the metrics of all workers, for Prometheus."""
        return Response(await run_in_threadpool(worker.metrics.exposition), media_type=CONTENT_TYPE)
