"""MLPerf Inference's scenarios, timed by MLCommons' own LoadGen, which also writes its own logs.

LoadGen decides when samples are issued, and judges. Requests go through the same doors as ever, and what comes of them
is counted as ever. LoadGen cannot be stopped once it runs, so it has a process of its own, like any other load.

A run that LoadGen calls VALID is one that met the settings given here; an official one has MLCommons' own durations and
counts. LoadGen knows nothing of failed requests: a run with any of them is called invalid here.
"""

import importlib
import math
import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from types import ModuleType
from typing import Any

from cortex.errors import UserError
from cortex.loadtest.crew import Tell, run
from cortex.loadtest.doors import Door
from cortex.loadtest.findings import Objective
from cortex.loadtest.payloads import Payload
from cortex.loadtest.results import Result
from cortex.loadtest.server import ServerWatch
from cortex.loadtest.worker import ORPHANED, Worker

SINGLE_STREAM, SERVER = "SingleStream", "Server"
RATED = (SERVER, "Offline")
SCENARIOS = (SINGLE_STREAM, "MultiStream", *RATED)
BOUND = Objective(99.0, 0.015)
"""That of MLPerf's Server scenario for ResNet-50."""
_SOONEST = 200_000  # nanoseconds: LoadGen makes as many queries beforehand as the time could hold
_SUMMARY, _VERDICT = "mlperf_log_summary.txt", "Result is"


@dataclass(frozen=True)
class Scenario:
    """A `Load` that LoadGen times. ``rate`` is Server's target, and what Offline expects, in samples/s."""

    name: str
    logs: Path
    threads: int
    seconds: float | None = 10.0
    rate: float = 0.0
    bound: Objective = BOUND
    """On Server's latency."""

    workers = 1
    requests = None
    patience = math.inf
    module = __name__

    @property
    def open_loop(self) -> bool:
        return self.name == SERVER

    def arrivals(self, worker: int, begin: float, start: float) -> Any:
        raise NotImplementedError("LoadGen says when")

    def settings(self, loadgen: ModuleType) -> Any:
        """Return the settings for LoadGen."""
        settings = loadgen.TestSettings()
        settings.scenario = getattr(loadgen.TestScenario, self.name)
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = round((self.seconds or 0.0) * 1000)
        settings.min_query_count = 1
        settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = _SOONEST
        settings.server_target_qps = self.rate
        settings.server_target_latency_ns = round(self.bound.bound * 1e9)
        settings.server_target_latency_percentile = self.bound.percentile / 100
        settings.offline_expected_qps = self.rate
        return settings


def measure(
    scenario: Scenario,
    door: Door,
    payloads: Sequence[Payload],
    tell: Tell = lambda _: None,
    *,
    watch: ServerWatch | None = None,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Run a scenario. LoadGen's verdict and the folder of its logs are in the result's settings.

    Raises UserError when LoadGen is not installed, the folder cannot be made, or a rate is missing.
    """
    _loadgen()
    if scenario.name in RATED and not scenario.rate:
        raise UserError(f"the scenario {scenario.name} needs --rate: the samples per second that are wanted")
    try:
        scenario.logs.mkdir(parents=True, exist_ok=True)
        (scenario.logs / _SUMMARY).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{scenario.logs}: {error.strerror}; name a folder for LoadGen's logs") from error
    result = run(scenario, door, payloads, tell, watch=watch, settings=settings)
    said = {"scenario": scenario.name, "LoadGen": _verdict(scenario.logs, result), "LoadGen's logs": str(scenario.logs)}
    return replace(result, settings=dict(result.settings) | said)


def _verdict(logs: Path, result: Result) -> str:
    if result.interrupted or not (logs / _SUMMARY).is_file():
        return "no verdict: it did not run to its end"
    if result.failed:
        return f"INVALID: {result.failed} requests failed, which LoadGen does not know"
    lines = [line.partition(":") for line in (logs / _SUMMARY).read_text(errors="replace").splitlines()]
    found = next((value.strip() for name, _, value in lines if name.startswith(_VERDICT)), "no verdict in its log")
    unmet = [name.strip().removesuffix(" satisfied") for name, _, value in lines if value.strip() == "NO"]
    return f"{found}, not satisfied: {', '.join(unmet)}" if unmet else found


def _loadgen() -> ModuleType:
    """Return LoadGen. Its wheel's package only gets in the way of the extension module beside it."""
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError:
        raise UserError("MLPerf's scenarios need LoadGen: pip install mlcommons-loadgen") from None


class _Issuer(Worker):
    """A worker whose threads send what LoadGen issues."""

    def run(self) -> None:
        scenario = self._work.load
        assert isinstance(scenario, Scenario)
        self._loadgen = _loadgen()
        self._issued: queue.SimpleQueue[tuple[Any, float]] = queue.SimpleQueue()
        for _ in range(scenario.threads):
            threading.Thread(target=self._serve, daemon=True).start()
        test = threading.Thread(target=self._test, args=(scenario,), daemon=True)
        test.start()
        while test.is_alive() and not self._pipe.poll(self._interval()):
            self._pass_on()
        self._pass_on(ended=True, unsent=self._issued.qsize())

    def _test(self, scenario: Scenario) -> None:
        loadgen, count = self._loadgen, len(self._work.payloads)
        log = loadgen.LogSettings()
        log.log_output.outdir = str(scenario.logs)
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = False
        system = loadgen.ConstructSUT(self._issue, lambda: None)
        library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
        audit = str(scenario.logs / "audit.config")
        self._stopped.wait(max(self._begin - time.monotonic(), 0))
        loadgen.StartTestWithLogSettings(system, library, scenario.settings(loadgen), log, audit)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)

    def _issue(self, samples: Sequence[Any]) -> None:
        due = time.monotonic()
        for sample in samples:
            self._issued.put(((sample.id, sample.index), due))

    def _serve(self) -> None:
        connection = self._work.door.connect()
        while True:
            waited = self._issued.empty()
            (sample, index), due = self._issued.get()
            self._one(connection, self._work.payloads[index], due, waited)
            self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(sample, 0, 0)])


def main() -> None:
    """Carry out a scenario; the pipe is worker.py's."""
    with Pipe(int(sys.argv[-1])) as pipe, suppress(*ORPHANED):
        work, number = pipe.recv()
        pipe.send(None)
        _Issuer(work, number, pipe, begin=pipe.recv()).run()
