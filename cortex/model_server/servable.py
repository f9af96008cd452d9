"""One version of one model, ready to answer: an engine that has proved itself on the recorded requests."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cortex.errors import Error
from cortex.model_server import call as calls
from cortex.model_server import model_card, model_file, warmup, warmup_records
from cortex.model_server.batching import Batcher
from cortex.model_server.batching_lane import Lane
from cortex.model_server.call import Call
from cortex.model_server.crashes import Crashes, Trial
from cortex.model_server.engines.base import (
    Array,
    Arrays,
    Description,
    Engine,
    EngineOptions,
    Unsupported,
    UnsupportedPrecision,
    remaining,
)
from cortex.model_server.engines.selection import AUTO, Attempt, attempts, formats
from cortex.model_server.model_card import ModelCard
from cortex.model_server.request import EXECUTE, WARM_UP, Recorder, Request, current, watch
from cortex.model_server.saved_model import runnable
from cortex.model_server.status import Code, StatusError, internal, invalid
from cortex.protos import meta_graph_pb2, model_pb2, predict_pb2, prediction_log_pb2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded: the engine asked for, what it is told, and the warm-up."""

    engine: str = AUTO
    precision: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    tags: frozenset[str] = frozenset({"serve"})
    prefer_tflite: bool = False
    warm_up: bool = True
    warm_up_iterations: int = 1


class Servable:
    """A loaded version. `run` is called from many threads; `close` once, when nobody holds it any more."""

    def __init__(
        self, name: str, version: int, engine: Engine, lane: Lane | None, recorder: Recorder, trial: Trial
    ) -> None:
        self.name = name
        self.version = version
        self.signatures = engine.signatures
        """Every signature of the model, as GetModelMetadata reports them."""
        self._runnable = runnable(engine.signatures)
        self._engine = engine
        self._lane = lane
        self._fixed = {name: _fixed_rows(signature) for name, signature in self.signatures.items()}
        self._recorder = recorder
        self._trial = trial

    @property
    def description(self) -> Description:
        """What is really running."""
        return self._engine.describe()

    def inputs(self, spec: model_pb2.ModelSpec) -> calls.Inputs:
        """Return the inputs of the signature that a JSON request names. Raises StatusError in TF Serving's words."""
        name = calls.signature_name(spec)
        if name not in self.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        found = dict(self.signatures[name].inputs)
        if not found:
            raise invalid(f"Failed to get input map for signature: {spec.signature_name or 'DEFAULT'}")
        return found

    def parse(self, request: predict_pb2.PredictRequest) -> Call:
        """Check a request against this version's signatures. Raises StatusError."""
        return calls.parse(self._runnable, request)

    def run(self, call: Call, deadline: float | None) -> Arrays:
        """Return the outputs of a call, run alone or in a batch with others. Raises StatusError.

        An answer that comes too late is none, whether or not its engine lets itself be broken off.
        """
        with current().stage(EXECUTE):
            if self._lane is None:
                outputs = self._execute(call, deadline)
            else:
                outputs = self._lane.run(call, self._execute, deadline, self._fixed[call.signature])
        remaining(deadline)
        return outputs

    def close(self) -> None:
        """Give the engine's memory back."""
        self._trial.end()
        self._engine.close()

    def _execute(self, call: Call, deadline: float | None) -> Arrays:
        if self._trial.is_over:
            return self._answer(call, deadline)
        with self._trial.watched(last=True):
            return self._answer(call, deadline)

    def _answer(self, call: Call, deadline: float | None) -> Arrays:
        try:
            return _run(self._engine, call, deadline, self._recorder)
        except StatusError:
            raise
        except Exception as error:
            _log.exception("%s version %d failed in signature %s", self.name, self.version, call.signature)
            raise internal(error) from error


@dataclass(frozen=True)
class Surroundings:
    """What the versions of a process share: batching, if there is any, who counts, and what crashed before."""

    batcher: Batcher | None = None
    recorder: Recorder = field(default_factory=Recorder)
    crashes: Crashes | None = None


def load(
    name: str, version: int, directory: Path, options: LoadOptions, surroundings: Surroundings | None = None
) -> Servable:
    """Load a version directory with the first engine that can run it and gives the recorded answers.

    Raises StatusError with the reasons when none does, and Crashed for a version that ended the process too often.
    """
    around = surroundings or Surroundings()
    with watch(_Loads(around.recorder, directory), "", ""):
        trial = around.crashes.trial(directory) if around.crashes is not None else Trial()
        with trial.watched(last=False):
            return _load(name, version, directory, options, around, trial)


class _Loads(Recorder):
    """Tell the recorder how the load of a directory went."""

    def __init__(self, recorder: Recorder, directory: Path) -> None:
        self._recorder = recorder
        self._directory = str(directory)

    def ended(self, request: Request, code: Code) -> None:
        self._recorder.loaded(self._directory, request, code)


def _load(
    name: str, version: int, directory: Path, options: LoadOptions, around: Surroundings, trial: Trial
) -> Servable:
    card = model_card.read(directory)
    lane = around.batcher.lane(name, directory) if around.batcher is not None else None
    engine = _proven(directory, card, options, around.recorder)
    loaded = Servable(name, version, engine, lane, around.recorder, trial)
    _log.info("{name: %s version: %d} runs with %s", name, version, loaded.description)
    if card is not None:
        _log.info("{name: %s version: %d} model card: %s", name, version, card)
        if card.weights == "random":
            _log.warning("{name: %s version: %d} has random weights: its predictions mean nothing", name, version)
    return loaded


def _run(engine: Engine, call: Call, deadline: float | None, recorder: Recorder) -> Arrays:
    started = time.monotonic()
    outputs = engine.run(call.signature, call.inputs, call.outputs, deadline)
    recorder.ran(call.inputs, outputs, time.monotonic() - started)
    return outputs


def _proven(directory: Path, card: ModelCard | None, options: LoadOptions, recorder: Recorder) -> Engine:
    kinds = formats(options.engine)
    models = model_file.find(directory, options.tags, kinds, prefer_tflite=options.prefer_tflite)
    failures: list[tuple[Attempt, Error]] = []
    for attempt in attempts(options.engine, options.precision, options.options, models):
        if any(_is_final(error) and _is_alike(failed, attempt) for failed, error in failures):
            continue
        try:
            return _attempt(attempt, card, options, recorder)
        except (Unsupported, warmup.Mismatch, warmup.Refused) as error:
            _log.info("%s does not run the %s of %s: %s", attempt, attempt.model.format, directory, error)
            failures.append((attempt, error))
    reasons = "; ".join(f"{attempt}: {getattr(error, 'message', error)}" for attempt, error in failures)
    if any(isinstance(error, warmup.Mismatch) for _, error in failures):
        raise warmup.Mismatch(reasons)
    last = failures[-1][1]
    raise StatusError(last.code if isinstance(last, StatusError) else Code.INVALID_ARGUMENT, reasons)


def _fixed_rows(signature: meta_graph_pb2.SignatureDef) -> int | None:
    """Return the number of rows that a signature takes, or None for any."""
    sizes = [info.tensor_shape.dim[0].size for info in signature.inputs.values() if info.tensor_shape.dim]
    return max((size for size in sizes if size >= 0), default=None)


def _is_alike(one: Attempt, other: Attempt) -> bool:
    """Say whether two attempts differ in precision only."""
    return one.engine == other.engine and one.model is other.model


def _is_final(error: Error) -> bool:
    """Say whether another precision of the same engine would fail in the same way."""
    return isinstance(error, Unsupported | warmup.Refused) and not isinstance(error, UnsupportedPrecision)


def _attempt(attempt: Attempt, card: ModelCard | None, options: LoadOptions, recorder: Recorder) -> Engine:
    engine, directory = attempt.open(), attempt.model.directory
    if not options.warm_up:
        return engine

    signatures = runnable(engine.signatures)

    def run(call: Call) -> Arrays:
        try:
            return _run(engine, call, None, recorder)
        except StatusError as error:
            raise warmup.Refused(error.code, error.message) from error

    def answer(log: prediction_log_pb2.PredictionLog) -> Mapping[str, Array]:
        return warmup_records.answer(log, signatures, run)

    try:
        allowed = warmup.tolerances(card, engine.describe().precision)
        with current().stage(WARM_UP):
            compared = warmup.replay(directory, answer, allowed, options.warm_up_iterations)
    except Exception:
        engine.close()
        raise
    if compared:
        _log.info("%s gives the %d recorded answers of %s", attempt, compared, directory)
    return engine
