"""``/openapi.json`` and ``/docs``: the paths of a worker, and the forms of a prediction's request and answer.

FastAPI writes them, and is imported when somebody asks: it would cost every worker 11 MB and 0.2 s of its start.
"""

from collections.abc import Callable, Iterable
from typing import Any

from cortex.api.paths import DOCS, HEALTH, METRICS, OPENAPI, PREDICT_PATHS, READY
from cortex.api.predictor import LoadedPredictor

ASSETS = "fastapi_offline", "static"
"""The package and its directory with what the page loads: there may be no way to the internet, or nobody's business."""
_ANY_JSON: dict[str, Any] = {"schema": {}, "example": {}}
_FILE = {"type": "string", "format": "binary"}
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}

_PROBES = {
    HEALTH: "Say that the process lives.",
    READY: "Say whether requests should be sent here: the predictor is loaded, its model server answers, no drain.",
    METRICS: "Return the metrics of all workers, for Prometheus.",
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What predict() returned: a str as text, bytes as they are, anything else as JSON.",
        "content": {"application/json": {"schema": {}}, **_PLAIN, "application/octet-stream": {"schema": _FILE}},
    },
    400: {
        "description": "The body is not what its content type says, or the predictor refused it.",
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}},
            **_PLAIN,
        },
    },
    413: {"description": "The body is larger than networking.max_body_size.", "content": _PLAIN},
    500: {"description": "The predictor failed. The log tells why, under the same x-request-id.", "content": _PLAIN},
    503: {"description": "Too many requests are in flight. Try again after Retry-After seconds.", "content": _PLAIN},
}


def openapi(name: str, predictor: LoadedPredictor, notices: Iterable[str]) -> dict[str, Any]:
    """Return the OpenAPI document of an API, whose paths are beside it."""
    from fastapi import FastAPI

    app = FastAPI(title=name, description="\n\n".join((predictor.description, *notices)), servers=[{"url": "."}])
    for path, suffix in zip(PREDICT_PATHS, ("", "_at_path"), strict=True):
        app.add_api_route(
            path,
            _operation("Predict", None),
            methods=["POST"],
            operation_id=f"predict{suffix}",
            response_model=None,
            responses=_RESPONSES,
            openapi_extra=_request_forms(predictor),
        )
        app.add_api_route(path, _operation("Summary", None), methods=["GET"], operation_id=f"summary{suffix}")
    for path, says in _PROBES.items():
        app.add_api_route(path, _operation(path.strip("/"), says), responses={200: {"content": _PLAIN}})
    return app.openapi()


def page(name: str) -> str:
    """Return the page that shows the document, and lets a person try it."""
    from fastapi.openapi.docs import get_swagger_ui_html

    html = get_swagger_ui_html(
        openapi_url=_beside(OPENAPI),
        title=f"{name} - Swagger UI",
        swagger_js_url=_beside(f"{DOCS}/swagger-ui-bundle.js"),
        swagger_css_url=_beside(f"{DOCS}/swagger-ui.css"),
        swagger_favicon_url=_beside(f"{DOCS}/favicon.png"),
        swagger_ui_parameters={"validatorUrl": None},
    )
    return bytes(html.body).decode()


def _beside(path: str) -> str:
    """Return how a page leads to a path of the same API: a front has both of them below the API's endpoint."""
    return path.removeprefix("/")


def _operation(name: str, says: str | None) -> Callable[[], None]:
    """Return a function whose name and words FastAPI puts into the document; it is never called."""

    def operation() -> None:
        raise NotImplementedError

    operation.__name__, operation.__doc__ = name, says
    return operation


def _request_forms(predictor: LoadedPredictor) -> dict[str, Any]:
    """Return the ``requestBody`` of a prediction; nothing when the predictor does not ask for the payload."""
    if "payload" not in predictor.predict.arguments:
        return {}
    fields = {"type": "object", "additionalProperties": {"type": "string"}}
    parts = {"type": "object", "additionalProperties": {"anyOf": [_FILE, {"type": "string"}]}}
    return {
        "requestBody": {
            "description": "The payload of predict(): JSON is parsed, a form is a form, any other type is bytes.",
            "content": {
                "application/json": _ANY_JSON,
                "multipart/form-data": {"schema": parts},
                "application/x-www-form-urlencoded": {"schema": fields},
                "application/octet-stream": {"schema": _FILE},
            },
        }
    }
