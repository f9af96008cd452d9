"""The user's predictor: finding its class, checking its signatures, constructing it, calling it.

The rules and messages are Cortex's. Everything here that runs user code says so; what user code raises comes back as
one typed error whose cause is the original.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cortex.api.end import told
from cortex.errors import NotStarted, UserError
from cortex.spec import Predictor

MODULE = "cortex_predictor"
"""The name under which the user's file is imported, as in Cortex."""

_PREDICT_ARGS = ("payload", "query_params", "headers", "batch_id")
_POST_PREDICT_ARGS = ("response", "payload", "query_params", "headers")


@dataclass(frozen=True)
class _Rule:
    """The arguments that one method must have, and those that it may have."""

    required: tuple[str, ...] = ("self",)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Kind:
    """One type of predictor: the name of its class, and the arguments of its constructor."""

    class_name: str
    init: _Rule


_KINDS = {
    "tensorflow": _Kind("TensorFlowPredictor", _Rule(("self", "tensorflow_client", "config"), ("job_spec",))),
    "onnx": _Kind("ONNXPredictor", _Rule(("self", "onnx_client", "config"), ("job_spec",))),
    "python": _Kind("PythonPredictor", _Rule(("self", "config"), ("job_spec", "python_client"))),
}
_OPTIONAL_METHODS = {
    "post_predict": _Rule(optional=_POST_PREDICT_ARGS),
    "on_job_complete": _Rule(),
}
_LOAD_MODEL = _Rule(("self", "model_path"))
"""Of a python predictor with models; any other may have a method of that name for itself, as before Cortex 0.22."""


@dataclass(frozen=True)
class Hook:
    """A method of the predictor, with the arguments that it asks for."""

    method: Callable[..., Any]
    arguments: frozenset[str]

    @classmethod
    def of(cls, instance: Any, name: str) -> "Hook":
        """Return the method of that name."""
        method = getattr(instance, name)
        return cls(method, frozenset(inspect.getfullargspec(method).args) - {"self"})

    def __call__(self, available: Mapping[str, Any]) -> Any:
        """Call the method with those of the available arguments that it asks for."""
        return self.method(**{name: available[name] for name in self.arguments})


@dataclass(frozen=True)
class LoadedPredictor:
    """A constructed predictor, ready to answer."""

    predict: Hook
    post_predict: Hook | None
    description: str
    """What the predictor's author says about ``predict``, else about the class; for the API's documentation."""


def load_class(spec: Predictor, project: Path) -> type[Any]:
    """Import the user's file and return its predictor class. Runs user code. UserError says what is wrong with it.

    Side effect: the project, or its ``python_path``, becomes importable.
    """
    sys.path.insert(0, str(project / (spec.python_path or "")))
    kind = _KINDS[spec.type]
    try:
        found = _unpickle(project / spec.path) if spec.path.endswith(".pickle") else _import(project / spec.path, kind)
        _check_methods(found, kind.init, with_models=spec.type == "python" and bool(spec.models))
    except UserError as error:
        raise UserError(f"error in {spec.path}: {error}") from error.__cause__
    return found


def construct(predictor: type[Any], spec: Predictor, client: Any | None) -> LoadedPredictor:
    """Construct the predictor, giving it a copy of its config. Runs user code; NotStarted says what it raised."""
    available = {"config": deepcopy(spec.config), "job_spec": None, f"{spec.type}_client": client}
    asked = inspect.getfullargspec(predictor.__init__).args
    try:
        instance = predictor(**{name: value for name, value in available.items() if name in asked})
        if spec.type == "python" and client is not None:
            _give_load_method(instance, client, spec)
    except (Exception, SystemExit) as error:
        raise NotStarted(f"{spec.path}: __init__: {told(error)}: runtime exception") from error
    post_predict = Hook.of(instance, "post_predict") if getattr(instance, "post_predict", None) else None
    description = inspect.getdoc(instance.predict) or inspect.getdoc(predictor) or ""
    return LoadedPredictor(Hook.of(instance, "predict"), post_predict, description)


def _give_load_method(instance: Any, client: Any, spec: Predictor) -> None:
    client.set_load_method(instance.load_model)
    if spec.cache_size is not None:
        return  # the models come and go as they are asked for
    for model in spec.models:
        client.get_model(model.name)  # ready means that the models are there


def _import(path: Path, kind: _Kind) -> type[Any]:
    if not path.is_file():
        raise UserError("file does not exist")
    module = _module(path)
    found = getattr(module, kind.class_name, None)
    if not inspect.isclass(found):
        raise UserError(f"{kind.class_name} class is not defined")
    return found


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise UserError("not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # before it runs: dataclasses and pickle look for it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(told(error)) from error
    return module


def _unpickle(path: Path) -> type[Any]:
    try:
        dill: Any = importlib.import_module("dill")
    except ImportError as error:
        raise UserError("a pickled predictor needs dill: pip install dill") from error
    try:
        found = dill.loads(path.read_bytes())
    except (Exception, SystemExit) as error:
        raise UserError(f"unable to load pickle: {told(error)}") from error
    if not inspect.isclass(found):
        raise UserError("unable to load pickle: it does not hold a class")
    return found


def _check_methods(found: type[Any], init: _Rule, *, with_models: bool) -> None:
    for name, rule in _OPTIONAL_METHODS.items():
        if getattr(found, name, None):
            _check_method(found, name, rule)
    _check_method(found, "__init__", init)
    _check_method(found, "predict", _Rule(optional=_PREDICT_ARGS))
    if with_models:
        _check_method(found, "load_model", _LOAD_MODEL)
        _check_method(found, "__init__", _Rule((*init.required, "python_client"), ("job_spec",)))


def _check_method(found: type[Any], name: str, rule: _Rule) -> None:
    method = getattr(found, name, None)
    if method is None:
        raise UserError(f'required function "{name}" is not defined')
    if not callable(method):
        raise UserError(f'"{name}" is defined, but is not a function')
    names = inspect.getfullargspec(method).args
    if problem := _problem(names, rule):
        raise UserError(f'invalid signature for function "{name}({", ".join(names)})": {problem}')


def _problem(names: list[str], rule: _Rule) -> str | None:
    for name in rule.required:
        if name not in names:
            return f'"{name}" is a required argument, but was not provided'
    if names[0] != "self":
        return '"self" must be the first argument'
    for name in names:
        if name not in rule.required and name not in rule.optional:
            return f'"{name}" is not a supported argument'
    return None
