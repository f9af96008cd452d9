"""An API as users write it: both dialects of Cortex's yaml, and how each becomes the one `cortex.spec.APISpec`.

The dialects differ in ``predictor.models``: a list of models in Cortex 0.18 to 0.21, a map since 0.22. In both, an API
with one model may give ``model_path`` instead.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag

from cortex.spec.problem import Steps
from cortex.spec.scalars import ModelName, Omittable, Text
from cortex.spec.values import APISettings, APISpec, Frozen, Model, Predictor, PredictorSettings

LIST, MAP = "<list>", "<map>"
"""The steps that pydantic puts into the way to an error, to say which form of ``models`` it means."""


_Section = TypeVar("_Section", bound=Frozen)


class WrittenModel(Frozen):
    """One model among several."""

    name: ModelName
    model_path: Text
    signature_key: Omittable[Text] = None


class WrittenModels(Frozen):
    """The models of an API since Cortex 0.22. ``signature_key`` is for every model that names none."""

    paths: Omittable[list[WrittenModel]] = None
    dir: Omittable[Text] = None
    signature_key: Omittable[Text] = None
    cache_size: Omittable[Annotated[int, Field(ge=1)]] = None
    disk_cache_size: Omittable[Annotated[int, Field(ge=1)]] = None


def _form(value: object) -> str | None:
    if isinstance(value, list):
        return LIST
    return MAP if isinstance(value, dict | WrittenModels) else None


class WrittenPredictor(PredictorSettings):
    """The predictor with its models in either dialect."""

    model_path: Omittable[Text] = None
    models: (
        Annotated[
            Annotated[list[WrittenModel], Tag(LIST)] | Annotated[WrittenModels, Tag(MAP)],
            Discriminator(_form),
        ]
        | None
    ) = None
    signature_key: Omittable[Text] = None

    def listed(self) -> tuple[tuple[Steps, WrittenModel], ...]:
        """Return the models that are named one by one, each with the way to it in the API."""
        if isinstance(self.models, WrittenModels):
            return _numbered(("predictor", "models", "paths"), self.models.paths)
        return _numbered(("predictor", "models"), self.models)


def _numbered(steps: Steps, models: list[WrittenModel] | None) -> tuple[tuple[Steps, WrittenModel], ...]:
    return tuple(((*steps, index), model) for index, model in enumerate(models or ()))


class WrittenAPI(APISettings):
    """One item of a yaml."""

    predictor: WrittenPredictor


def complete(api: WrittenAPI) -> APISpec:
    """Return the spec of an API that keeps every rule, with the defaults that depend on other keys filled in.

    ``model_fields_set`` of each section stays what the user wrote, for whoever tells the user what is not used.
    """
    filled = {
        "predictor": Predictor(**_written(api.predictor, PredictorSettings), **_models(api.predictor)),
        "networking": _fill(api.networking, endpoint=api.endpoint),
        "autoscaling": _fill(
            api.autoscaling, init_replicas=api.replicas, target_replica_concurrency=api.target_concurrency
        ),
    }
    return APISpec(**{**_written(api, APISettings), **filled})


def _written(value: BaseModel, settings: type[BaseModel]) -> dict[str, Any]:
    """Return what the user wrote of a section, as far as it belongs to ``settings``."""
    return {name: getattr(value, name) for name in settings.model_fields if name in value.model_fields_set}


def _fill(section: _Section, **values: object) -> _Section:
    """Return a section with other values, and the same ``model_fields_set``."""
    return type(section).model_construct(section.model_fields_set, **{**dict(section), **values})


def _models(predictor: WrittenPredictor) -> dict[str, Any]:
    """Return the fields of `Predictor` that say which models there are."""
    if predictor.model_path is not None:
        return {"models": (Model(path=predictor.model_path, signature_key=predictor.signature_key),)}
    written = predictor.models if isinstance(predictor.models, WrittenModels) else WrittenModels()
    key = written.signature_key or predictor.signature_key
    return {
        "models": tuple(
            Model(name=model.name, path=model.model_path, signature_key=model.signature_key or key)
            for _, model in predictor.listed()
        ),
        "models_dir": written.dir,
        "models_dir_signature_key": key if written.dir else None,
        "cache_size": written.cache_size,
        "disk_cache_size": written.disk_cache_size,
    }


def written_steps(steps: Steps, predictor: Mapping[str, Any]) -> Steps:
    """Return the way in the yaml to what is at ``steps`` of an `APISpec`; ``predictor`` is as read from the yaml."""
    match steps:
        case ("predictor", "models_dir"):
            return ("predictor", "models", "dir")
        case ("predictor", "models", int(index), "path"):
            models = predictor.get("models")
            if "model_path" in predictor:
                return ("predictor", "model_path")
            if isinstance(models, list):
                return ("predictor", "models", index, "model_path")
            way: Steps = ("paths", index, "model_path") if "paths" in (models or {}) else ("dir",)
            return ("predictor", "models", *way)
    return steps
