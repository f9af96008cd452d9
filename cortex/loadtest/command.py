"""Carry out what was asked for: one run, a sweep, a search or a scenario, and all that is to be said of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.loadtest import machine, pages, scenarios, schedules
from cortex.loadtest.assertion import Condition, conditions
from cortex.loadtest.comparison import compare
from cortex.loadtest.cost import cost
from cortex.loadtest.crew import Tell, run
from cortex.loadtest.doors import Door
from cortex.loadtest.findings import Comparison, Objective, Report
from cortex.loadtest.http import HTTP
from cortex.loadtest.loads import ClosedLoop, Load, OpenLoop
from cortex.loadtest.options import Options, door, payloads
from cortex.loadtest.payloads import Payload
from cortex.loadtest.progress import Progress
from cortex.loadtest.redaction import redacted
from cortex.loadtest.results import Result
from cortex.loadtest.search import confirmed, objective, search
from cortex.loadtest.server import ServerWatch
from cortex.loadtest.sweep import CONNECTIONS, sweep, values

_OPEN_CONNECTIONS = 64
_OPEN_SECONDS, _SWEEP_SECONDS, _TRIAL_SECONDS = 10.0, 5.0, 5.0
_FINDING_WARMUP = 1.0  # seconds before each run of a sweep or a search
_LONGER = 3  # times a trial: the run that confirms a rate
_TRIAL_PATIENCE = 1.0
_PAGE_SECONDS = 5.0  # for a page of metrics to come


@dataclass(frozen=True)
class Job:
    """Options that were read: everything is known to be usable before the first request is sent."""

    options: Options
    door: Door
    payloads: Sequence[Payload]
    bound: Objective | None
    sizes: Sequence[float]
    schedule: schedules.Schedule | None
    earlier: Result | None
    conditions: Sequence[Condition]
    command: str


def job(options: Options, command: str = "") -> Job:
    """Read options, files and pictures. Raises UserError. ``command`` is kept in the report, to repeat it."""
    to = door(options)
    _check_metrics(options, to)
    return Job(
        options,
        to,
        payloads(options, to),
        None if options.slo is None else objective(options.slo),
        _sizes(options),
        None if options.schedule is None else schedules.schedule(options.schedule, options.arrivals),
        _earlier(options.compare) if options.compare else None,
        () if options.conditions is None else conditions(options.conditions),
        command,
    )


def _check_metrics(options: Options, to: Door) -> None:
    """Raise UserError for a page of metrics that was named and cannot be read; the usual one may be missing."""
    for url in options.metrics:
        try:
            pages.read(url, to if isinstance(to, HTTP) else None, _PAGE_SECONDS)
        except (OSError, ValueError) as error:
            raise UserError(f"--metrics-url {url}: no metrics can be read there ({error})") from error


def carry_out(job: Job, tell: Tell = lambda _: None) -> Report:
    """Do it, and return the report. KeyboardInterrupt ends it early with what there is."""
    report = _found(job, tell)
    options = job.options
    priced = cost(report.result, options.price_per_hour, options.target_rate)
    result = replace(report.result, cost=priced)
    comparison = _comparison(options.compare, job.earlier, result) if options.compare and job.earlier else None
    checks = tuple(condition.check(result) for condition in job.conditions)
    return replace(report, result=result, comparison=comparison, checks=checks)


def _found(job: Job, tell: Tell) -> Report:
    if job.options.scenario:
        return Report(_scenario(job, tell))
    if job.sizes:
        return _swept(job, tell)
    if job.bound:
        return _searched(job, job.bound, tell)
    load = _load(job)
    return Report(_run(job, load, tell, job.options.warmup or 0.0))


def _load(job: Job) -> Load:
    options = job.options
    if job.schedule:
        return _open(options, job.schedule)
    if options.rate:
        return _open(options, schedules.steady(options.rate, options.seconds or _OPEN_SECONDS, options.arrivals))
    return ClosedLoop(options.workers, options.threads or 1, options.samples, options.seconds, options.think_time)


def _open(options: Options, schedule: schedules.Schedule) -> OpenLoop:
    return OpenLoop(schedule, options.workers, _open_threads(options))


def _open_threads(options: Options) -> int:
    return options.threads or max(_OPEN_CONNECTIONS // options.workers, 1)


def _swept(job: Job, tell: Tell) -> Report:
    options = job.options
    seconds = options.seconds or _SWEEP_SECONDS

    def measure(size: float) -> Result:
        if options.over == CONNECTIONS:
            processes = max(each for each in range(1, options.workers + 1) if int(size) % each == 0)
            load: Load = ClosedLoop(processes, int(size) // processes, seconds=seconds, think_time=options.think_time)
            named = f"{size:g} connections"
        else:
            load = _open(options, schedules.steady(size, seconds, options.arrivals))
            named = f"{size:g} requests/s"
        return _run(job, load, _prefixed(tell, named), _finding_warmup(options))

    found = sweep(options.over, job.sizes, measure)
    return Report(found.points[-1 if found.knee is None else found.knee].result, sweep=found)


def _searched(job: Job, bound: Objective, tell: Tell) -> Report:
    options = job.options
    seconds, warmup = options.seconds or _TRIAL_SECONDS, _finding_warmup(options)
    closed = ClosedLoop(options.workers, _open_threads(options), seconds=seconds)
    first = _run(job, closed, _prefixed(tell, "capacity"), warmup)
    if first.interrupted or not first.requests:
        return Report(first)

    def measure(rate: float, longer: bool) -> Result:
        schedule = schedules.steady(rate, seconds * (_LONGER if longer else 1), options.arrivals)
        load = replace(_open(options, schedule), patience=_TRIAL_PATIENCE)
        named = f"{'confirming ' if longer else ''}{rate:.1f} requests/s"
        return _run(job, load, _prefixed(tell, named), warmup)

    found = search(bound, first.requests_per_second, measure)
    return Report(confirmed(found) or first, search=found)


def _scenario(job: Job, tell: Tell) -> Result:
    options = job.options
    scenario = scenarios.Scenario(
        str(options.scenario),
        options.loadgen_logs,
        1 if options.scenario == scenarios.SINGLE_STREAM else options.workers * _open_threads(options),
        options.seconds or _OPEN_SECONDS,
        options.rate or 0.0,
        job.bound or scenarios.BOUND,
    )
    return scenarios.measure(
        scenario, job.door, job.payloads, tell, watch=_watch(job), settings=_settings(job, scenario)
    )


def _run(job: Job, load: Load, tell: Tell, warmup: float) -> Result:
    return run(
        load,
        job.door,
        job.payloads,
        tell,
        warmup=warmup,
        shuffle=job.options.shuffle,
        watch=_watch(job),
        settings=_settings(job, load),
    )


def _watch(job: Job) -> ServerWatch:
    """Look at the metrics pages named, or at the one beside an endpoint of HTTP."""
    http = job.door if isinstance(job.door, HTTP) else None
    metrics = job.options.metrics or ((f"{http.origin}/metrics",) if http else ())
    return ServerWatch(metrics, job.door.address, http)


def _settings(job: Job, load: Load) -> dict[str, Any]:
    options, first = job.options, job.payloads[0]
    return {
        "endpoint": redacted(options.endpoint),
        "protocol": options.protocol_used,
        "payload": redacted(options.image),
        "payloads": len(job.payloads),
        "request_bytes": len(first.body),
        "images_per_request": first.inferences,
        "load": _words(load),
        "processes": load.workers,
        "threads_per_process": load.threads,
        "keep_alive": options.keep_alive,
        "answers_checked": first.expected is not None,
        "command": job.command,
        "machine": machine.facts(),
    }


def _words(load: Load) -> str:
    if isinstance(load, ClosedLoop):
        think = f", {load.think_time:g} s of thought" if load.think_time else ""
        return "closed loop" + think
    if isinstance(load, OpenLoop):
        schedule = load.schedule
        if isinstance(schedule, schedules.Profile):
            parts = [
                f"{each.first:g}" if each.first == each.last else f"{each.first:g}..{each.last:g}"
                for each in schedule.segments
            ]
            return f"open loop, {', '.join(parts)} requests/s, {schedule.arrivals} arrivals"
        return "open loop, recorded arrivals"
    return "LoadGen"


def _prefixed(tell: Tell, words: str) -> Callable[[Progress], None]:
    return lambda progress: tell(replace(progress, stage=f"{words}, {progress.stage}"))


def _finding_warmup(options: Options) -> float:
    return _FINDING_WARMUP if options.warmup is None else options.warmup


def _sizes(options: Options) -> Sequence[float]:
    if options.sweep is None:
        return ()
    sizes = values(options.sweep)
    if options.over == CONNECTIONS and any(size != int(size) for size in sizes):
        raise UserError(f"{options.sweep}: connections are whole numbers")
    return sizes


def _earlier(path: Path) -> Result:
    try:
        return Report.from_dict(str(path), json.loads(path.read_bytes())).result
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a report that --json has written") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _comparison(path: Path, earlier: Result, result: Result) -> Comparison:
    """Compare, or say why that cannot be: a run that has been made is reported in any case."""
    try:
        return compare(path, earlier, result)
    except UserError as error:
        return Comparison(str(path), earlier, (), f"Not compared: {error}.")
