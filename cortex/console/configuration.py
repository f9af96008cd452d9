"""The effective configuration of a deployed API, as a yaml that could be deployed."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from cortex.environments.dump import Dumper
from cortex.spec import SINGLE_MODEL

if TYPE_CHECKING:
    from cortex.environments.base import API

_ELSEWHERE = ("monitoring", "autoscaling", "update_strategy")
"""Sections of which an environment may use little; shown when asked for."""
_MODELS = ("models", "models_dir", "models_dir_signature_key", "cache_size", "disk_cache_size")
_SERVED = ("engine", "precision", "model_server")
"""What says how a model server runs models; refused where there is none."""
_FREE = ("config", "env")
"""Maps whose keys are the user's own."""
_DURATIONS = ("batch_interval", "window", "downscale_stabilization_period", "upscale_stabilization_period")


def configuration(api: "API", *, verbose: bool) -> str:
    """Dump the spec with every default filled in, by the keys of a yaml; ``verbose`` adds what a cluster would use."""
    spec = api.spec.model_dump(mode="json")
    spec["predictor"] = _predictor(spec["predictor"])
    spec["networking"]["local_port"] = spec["networking"]["local_port"] or _port(api)
    if not verbose:
        spec = {key: section for key, section in spec.items() if key not in _ELSEWHERE}
        spec["networking"] = {key: spec["networking"][key] for key in ("local_port", "max_body_size")}
    return "".join(_section(key, _readable(section)) for key, section in _given(spec).items()).rstrip()


def _port(api: "API") -> int | None:
    """Return the port that an API has to itself: none where it shares an address with others, by its path."""
    where = urlsplit(api.endpoint)
    return None if where.path else where.port


def _section(key: str, section: Any) -> str:
    """Write a section without what is unset; only of ``compute`` that means something."""
    shown = section if key == "compute" or not isinstance(section, dict) else _given(section)
    text = yaml.dump({key: shown}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))
    if key != "compute":
        return text
    return "".join(f"{line}  # no limit\n" if line.endswith(": null") else f"{line}\n" for line in text.splitlines())


def _predictor(predictor: dict[str, Any]) -> dict[str, Any]:
    """Give the models by the keys of a yaml."""
    apart = {key: predictor.pop(key) for key in ("type", "path", *_MODELS)}
    if apart["type"] != "tensorflow":
        predictor = {key: value for key, value in predictor.items() if key not in _SERVED}
    return {"type": apart["type"], "path": apart["path"], **_models(apart), **predictor}


def _models(predictor: dict[str, Any]) -> dict[str, Any]:
    """Return ``model_path`` and ``signature_key`` for a single model, else the map ``models`` when there are any."""
    models = predictor["models"]
    if len(models) == 1 and models[0]["name"] == SINGLE_MODEL:
        return {"model_path": models[0]["path"], "signature_key": models[0]["signature_key"]}
    keys = {
        "paths": [_model(model) for model in models] or None,
        "dir": predictor["models_dir"],
        "signature_key": predictor["models_dir_signature_key"],
        "cache_size": predictor["cache_size"],
        "disk_cache_size": predictor["disk_cache_size"],
    }
    return {"models": _given(keys) or None}


def _model(model: dict[str, Any]) -> dict[str, Any]:
    return _given({"name": model["name"], "model_path": model["path"], "signature_key": model["signature_key"]})


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _readable(section: Any) -> Any:
    """Write durations with their unit, at any depth outside the user's own maps."""
    if not isinstance(section, dict):
        return section
    return {key: _value(key, value) for key, value in section.items()}


def _value(key: str, value: Any) -> Any:
    if key in _DURATIONS:
        return f"{value:.9f}".rstrip("0").rstrip(".") + "s"  # nanoseconds are Go's smallest unit
    return value if key in _FREE else _readable(value)
