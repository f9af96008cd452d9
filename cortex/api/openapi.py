"""What ``/openapi.json`` says about a prediction: the forms of a request and of its answer."""

from typing import Any

from cortex.api.predictor import LoadedPredictor

_ANY_JSON: dict[str, Any] = {"schema": {}, "example": {}}
_FILE = {"type": "string", "format": "binary"}
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}

RESPONSES: dict[int | str, dict[str, Any]] = {
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


def request_forms(predictor: LoadedPredictor) -> dict[str, Any]:
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
