"""A deployed API over HTTP: its predictions and what it says about itself."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cortex.errors import UserError

if TYPE_CHECKING:
    import requests

    from cortex.environments.base import API

_PREDICT_TIMEOUT = 600.0
_SUMMARY_TIMEOUT = 5.0


@dataclass(frozen=True)
class ModelInput:
    """Describe one input of one model of an API; ``shape`` has -1 for a dimension of any size."""

    model: str
    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Summary:
    """What an API says of itself: of its models, of which one without models has none."""

    inputs: tuple[ModelInput, ...] = ()
    running: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``NAME-VERSION`` to what computes it: ``engine``, ``precision``, ``threads``, ``streams``, or more."""


def read_sample(file: Path) -> bytes:
    """Return a file's bytes as they are. UserError unless they are JSON."""
    try:
        text = file.read_bytes()
        json.loads(text)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON: {error}") from error
    return text


def predict(api: "API", sample: bytes) -> bytes:
    """Post JSON to an API and return the body of its answer. UserError unless it is live and answers with 200."""
    name = api.spec.name
    if api.status != "live":
        why = f": {api.reason}" if api.reason else ""
        raise UserError(f"{name} is updating{why}" if api.status == "updating" else f"{name} is not live{why}")
    answer = _request("POST", api, _PREDICT_TIMEOUT, data=sample, headers={"Content-Type": "application/json"})
    if answer.status_code != 200:
        raise UserError(answer.text.strip() or f"empty response (status code {answer.status_code})")
    return answer.content


def summary(api: "API") -> Summary:
    """Ask an API what its models take and how they run. UserError when it does not say."""
    answer = _request("GET", api, _SUMMARY_TIMEOUT)
    try:
        told = answer.json()
        return Summary(_inputs(told.get("model_signatures", {})), _running(told.get("model_metadata") or {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{api.spec.name}: GET {api.endpoint} has no summary (status {answer.status_code})") from error


def _inputs(signatures: Mapping[str, Any]) -> tuple[ModelInput, ...]:
    return tuple(
        ModelInput(model, name, str(tensor["type"]), tuple(tensor["shape"]))
        for model, inputs in sorted(signatures.items())
        for name, tensor in sorted(inputs.items())
    )


def _running(models: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the model server says of each version that it runs; a foreign one says nothing."""
    told = {name: row.get("runtime") for name, row in sorted(models.items()) if isinstance(row, dict)}
    return {name: dict(runtime) for name, runtime in told.items() if runtime}


def _request(method: str, api: "API", timeout: float, **options: Any) -> "requests.Response":
    import requests  # 60 ms that commands without HTTP need not pay
    from urllib3.exceptions import InsecureRequestWarning

    with requests.Session() as session, warnings.catch_warnings():
        # a proxy cannot reach this machine's loopback, and a front's certificate is for another name than that
        session.trust_env = session.verify = not _is_local(api.endpoint)
        warnings.simplefilter("ignore", InsecureRequestWarning)
        try:
            return session.request(method, api.endpoint, timeout=timeout, allow_redirects=False, **options)
        except requests.Timeout as error:
            raise UserError(f"{api.spec.name}: no answer from {api.endpoint} within {timeout:g} seconds") from error
        except requests.RequestException as error:
            raise UserError(
                f"{api.spec.name}: no answer from {api.endpoint} ({type(error).__name__}); "
                f"`cortex logs {api.spec.name}` may tell why"
            ) from error


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
