"""What a request carries, as the arguments that a predictor may ask for."""

import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from cortex.api.predictor import Hook

_FORMS = ("multipart/form", "application/x-www-form-urlencoded")


class NotJSON(Exception):
    """Say why a body that is announced as JSON is none."""


async def read_arguments(request: Request, predict: Hook, max_body: int) -> dict[str, Any]:
    """Return every argument that ``predict`` may ask for; the body is read only when it asks for ``payload``.

    Raises NotJSON, and HTTPException for a form that does not hold together or a body that is too large.
    """
    return {
        "payload": await _read_payload(request, max_body) if "payload" in predict.arguments else None,
        "query_params": request.query_params,
        "headers": request.headers,
        "batch_id": None,
    }


def close(payload: Any) -> None:
    """Close the temporary files of a form; do nothing for any other payload."""
    if isinstance(payload, FormData):
        for _, value in payload.multi_items():
            if isinstance(value, UploadFile):
                value.file.close()


async def _read_payload(request: Request, max_body: int) -> Any:
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith(_FORMS):
        try:
            # the body's own limit already holds for all parts together
            return await request.form(max_part_size=max_body)
        except UnicodeError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form is not in its charset: {error}") from error
    body = await request.body()
    return _parse_json(body) if content_type.startswith("application/json") else body


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError as error:
        raise NotJSON("too deeply nested") from error
    except ValueError as error:
        raise NotJSON(str(error)) from error
