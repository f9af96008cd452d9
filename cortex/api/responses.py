"""What a predictor returned, or what went wrong, as an HTTP response in Cortex's form."""

import copy
import json
import sys
from http import HTTPStatus
from typing import Any

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cortex.api.paths import PREDICT_PATHS
from cortex.api.payload import NotJSON
from cortex.errors import UserError

_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


def to_response(prediction: Any) -> Response:
    """Return the response for what ``predict`` returned.

    bytes are sent as they are, str as text, a starlette Response untouched (but 204 and 304 have no body), anything
    else as JSON, in which NaN is allowed. Raises UserError for what JSON cannot express, and for a Response whose
    content-length is not that of its body.
    """
    if isinstance(prediction, bytes):
        return Response(prediction, media_type="application/octet-stream")
    if isinstance(prediction, str):
        return Response(prediction, media_type="text/plain")
    if isinstance(prediction, Response):
        return _whole(copy.copy(prediction))  # user code may keep one and return it again
    try:
        return Response(json.dumps(prediction), media_type="application/json")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{error}: please return an object that is JSON serializable (including its nested fields; numpy values "
            "are not: use .tolist() or float()), a bytes object, a string, or a starlette.responses.Response object"
        ) from error


def then(response: Response, task: BackgroundTask) -> Response:
    """Return the response with a task to run once it is sent, after those that it has already."""
    earlier = [response.background] if response.background is not None else []
    response.background = BackgroundTasks([*earlier, task]) if earlier else task
    return response


def failed() -> Response:
    """Return the answer to a request on which the predictor failed; why is in the log, not here."""
    return Response("internal server error", HTTPStatus.INTERNAL_SERVER_ERROR)


def refusal(error: BaseException) -> HTTPException | None:
    """Return the 400 that FastAPI's RequestValidationError stands for, and None for any other error.

    Cortex had FastAPI, and a predictor may raise its error. Nothing here imports it: whoever raises it has.
    """
    fastapi = sys.modules.get("fastapi.exceptions")
    if fastapi is not None and isinstance(error, fastapi.RequestValidationError):
        return HTTPException(HTTPStatus.BAD_REQUEST, str(error))
    return None


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer with the status and the detail of the HTTPException that the user's code or the routing raised."""
    assert isinstance(error, HTTPException)  # registered for nothing else
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and request.url.path in PREDICT_PATHS:
        headers["Allow"] = "GET, POST"  # two routes, of which the routing names only the first
    if error.status_code in _BODILESS:
        return _whole(Response(status_code=error.status_code, headers=headers))
    return _whole(Response(str(error.detail), error.status_code, headers))


def _whole(response: Response) -> Response:
    """Return a response whose body, where it has one already, is as long as its headers say; UserError for another."""
    if response.status_code in _BODILESS and hasattr(response, "body"):
        response.body = b""  # what JSONResponse(None, 204) has; the connection would break over it
    body, told = getattr(response, "body", None), response.headers.get("content-length")
    if body is not None and told is not None and told != str(len(body)):
        raise UserError(f"the content-length of a response is {told}, that of its body {len(body)}")
    return response


async def on_bad_json(_: Request, error: Exception) -> Response:
    """Answer 400 with the parser's words."""
    return JSONResponse({"error": str(error)}, HTTPStatus.BAD_REQUEST)


EXCEPTION_HANDLERS = {
    HTTPException: on_http_exception,
    NotJSON: on_bad_json,
}
