"""One version of one model, ready to answer: an engine that has proved itself on the recorded requests."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cortex.errors import Error
from cortex.model_server import call as calls
from cortex.model_server import model_card, saved_model, warmup
from cortex.model_server.batching import Batcher
from cortex.model_server.call import Call
from cortex.model_server.engines.base import (
    Arrays,
    Description,
    Engine,
    EngineOptions,
    Unsupported,
    UnsupportedPrecision,
)
from cortex.model_server.engines.selection import AUTO, Attempt, attempts
from cortex.model_server.model_card import ModelCard
from cortex.model_server.saved_model import SavedModel
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import meta_graph_pb2, predict_pb2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded: the engine asked for, what it is told, and the warm-up."""

    engine: str = AUTO
    precision: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    tags: frozenset[str] = frozenset({"serve"})
    warm_up: bool = True
    warm_up_iterations: int = 1


class Servable:
    """A loaded version. `run` is called from many threads; `close` once, when nobody holds it any more."""

    def __init__(self, name: str, version: int, model: SavedModel, engine: Engine, batcher: Batcher | None) -> None:
        self.name = name
        self.version = version
        self._model = model
        self._engine = engine
        self._batcher = batcher

    @property
    def signatures(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """Every signature of the SavedModel, as GetModelMetadata reports them."""
        return self._model.signatures

    @property
    def description(self) -> Description:
        """What is really running."""
        return self._engine.describe()

    def parse(self, request: predict_pb2.PredictRequest) -> Call:
        """Check a request against this version's signatures. Raises StatusError."""
        return calls.parse(self._model.runnable, request)

    def run(self, call: Call, deadline: float | None) -> Arrays:
        """Return the outputs of a call, run alone or in a batch with others. Raises StatusError."""
        if self._batcher is None:
            return self._execute(call, deadline)
        return self._batcher.run((self.name, self.version, id(self)), call, self._execute, deadline)

    def close(self) -> None:
        """Give the engine's memory back."""
        self._engine.close()

    def _execute(self, call: Call, deadline: float | None) -> Arrays:
        try:
            return self._engine.run(call.signature, call.inputs, call.outputs, deadline)
        except StatusError:
            raise
        except Exception as error:
            _log.exception("%s version %d failed in signature %s", self.name, self.version, call.signature)
            raise StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}") from error


def load(name: str, version: int, directory: Path, options: LoadOptions, batcher: Batcher | None = None) -> Servable:
    """Load a version directory with the first engine that can run it and gives the recorded answers.

    Raises StatusError with the reasons when none does.
    """
    model = saved_model.read(directory, options.tags)
    card = model_card.read(directory)
    loaded = Servable(name, version, model, _proven(model, card, options), batcher)
    _log.info("{name: %s version: %d} runs with %s", name, version, loaded.description)
    if card is not None:
        _log.info("{name: %s version: %d} model card: %s", name, version, card)
        if card.weights == "random":
            _log.warning("{name: %s version: %d} has random weights: its predictions mean nothing", name, version)
    return loaded


def _proven(model: SavedModel, card: ModelCard | None, options: LoadOptions) -> Engine:
    failures: dict[Attempt, Error] = {}
    for attempt in attempts(options.engine, options.precision, options.options):
        if any(_is_final(error) for failed, error in failures.items() if failed.engine == attempt.engine):
            continue
        try:
            return _attempt(attempt, model, card, options)
        except (Unsupported, warmup.Mismatch) as error:
            _log.info("%s does not run %s: %s", attempt, model.directory, error)
            failures[attempt] = error
    reasons = "; ".join(f"{attempt}: {getattr(error, 'message', error)}" for attempt, error in failures.items())
    if any(isinstance(error, warmup.Mismatch) for error in failures.values()):
        raise warmup.Mismatch(reasons)
    raise invalid(reasons)


def _is_final(error: Error) -> bool:
    """Say whether another precision of the same engine would fail in the same way."""
    return isinstance(error, Unsupported) and not isinstance(error, UnsupportedPrecision)


def _attempt(attempt: Attempt, model: SavedModel, card: ModelCard | None, options: LoadOptions) -> Engine:
    engine = attempt.open(model)
    if not options.warm_up:
        return engine

    def answer(request: predict_pb2.PredictRequest) -> Arrays:
        call = calls.parse(model.runnable, request)
        return engine.run(call.signature, call.inputs, call.outputs)

    try:
        allowed = warmup.tolerances(card, engine.describe().precision)
        compared = warmup.replay(model.directory, answer, allowed, options.warm_up_iterations)
    except Exception:
        engine.close()
        raise
    if compared:
        _log.info("%s gives the %d recorded answers of %s", attempt, compared, model.directory)
    return engine
