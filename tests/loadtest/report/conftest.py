"""A report that has everything, made from seeded figures: renderers need no server."""

import random
from dataclasses import replace

import pytest

from cortex.loadtest.findings import Change, Check, Comparison, Objective, Point, Report, Search, Sweep, Trial
from cortex.loadtest.results import Client, Cost, Result, Server, Stage, Steady, Window
from tests.loadtest.latencies import of

SECONDS = 20
HOSTILE = "<script>alert('1')</script>\"'&[bold]\x1b[31m"


@pytest.fixture(scope="session")
def result() -> Result:
    """An open-loop run of 20 s whose server froze for two of them, answered some with errors, and went on."""
    rng = random.Random(7)
    windows = tuple(_window(second, rng) for second in range(SECONDS))
    due = [rng.gammavariate(9, 0.0021) for _ in range(3600)] + [rng.uniform(0.1, 2.0) for _ in range(400)]
    return Result(
        seconds=20.02,
        requests=4000,
        inferences=8000,
        latency=of(*due),
        errors={"HTTP 503 Service Unavailable": 31, "timeout": 4},
        uncorrected=of(*(rng.gammavariate(9, 0.0021) for _ in range(3999)), 2.01),
        sent_bytes=212_000_000,
        received_bytes=1_400_000,
        windows=windows,
        steady=Steady(True, 3.0, "Steady from 3 s on: rate and median agree within 10 % over three seconds."),
        client=Client(2, 8, 4.31, 0.31, 0.00047, 12, 0.003, 0.0041, None),
        server=Server(_STAGES, 1.87, 490_000_000, 4),
        cost=Cost(0.34, 0.236, 1000.0, 3, 1.02),
        started="2026-11-21T07:30:16+01:00",
        settings={
            "command": "throughput_test.py cat.jpg http://localhost:8888 --rate 200 -i 20 --html report.html",
            "endpoint": "http://localhost:8888/resnet50",
            "door": "http",
            "payload": "cat.jpg, 2 images per request, 53 kB",
            "load": {"kind": "constant", "rate": 200},
            "keep_alive": True,
            "open_loop": True,
            "machine": {"processor": "Example CPU @ 2.60GHz", "cores": "2 usable of 2", "memory": "8.3 GB"},
        },
        warmup_seconds=5.0,
    )


@pytest.fixture(scope="session")
def whole(result: Result) -> Report:
    """A report in which every part is present."""
    return Report(
        result,
        Sweep("connections", tuple(map(_point, range(7))), 3, "The knee is at 8 connections: 186 requests/s."),
        Search(Objective(99, 0.1), _trials(), 192.0, "192 requests/s hold p99 at most 100 ms, for 30 s."),
        Comparison("before.json", result, _CHANGES, "Throughput is better; the rest is no real change."),
        (Check("p99<3s", "1.98s", True), Check("errors<0.1%", "0.87%", False)),
    )


@pytest.fixture(scope="session")
def plain(result: Result) -> Report:
    """A short closed loop: everything that may be missing is missing."""
    closed = replace(result, settings={}, errors={}, windows=result.windows[:1], steady=None, client=None)
    return Report(replace(closed, server=None, cost=None, started="", uncorrected=result.latency, inferences=4000))


@pytest.fixture(scope="session")
def unanswered() -> Report:
    """A run to which nobody answered."""
    return Report(Result(1.5, 0, 0, None, {"connection refused": 30}, windows=(Window(0, 1.5, 0, 0, 30, None),)))


@pytest.fixture(scope="session")
def hostile(result: Result) -> Report:
    """A report in which every text that comes from outside is markup, for browsers and for terminals."""
    settings = {"endpoint": HOSTILE, HOSTILE: [HOSTILE], "command": HOSTILE, "machine": {HOSTILE: HOSTILE}}
    stages = (Stage(HOSTILE, 0.001, 5, HOSTILE),)
    bad = replace(
        result,
        errors={HOSTILE: 3},
        settings=settings,
        started=HOSTILE,
        steady=Steady(False, None, HOSTILE),
        server=Server(stages),
        client=replace(result.client or Client(1, 1, 1, 1, 1, 0, 0, 0, None), warning=HOSTILE),
    )
    comparison = Comparison(HOSTILE, bad, (Change(HOSTILE, 1, 1, 1, 0.9, 1.1, HOSTILE),), HOSTILE)
    sweep = Sweep(HOSTILE, (Point(1, bad),), 0, HOSTILE)
    search = Search(Objective(99, 0.1), (Trial(5, False, HOSTILE, bad),), None, HOSTILE)
    return Report(bad, sweep, search, comparison, (Check(HOSTILE, HOSTILE, False),))


def _window(second: int, rng: random.Random) -> Window:
    if second == 11:
        return Window(second, 1.0, 0, 0, 0, None)
    late = 1.2 if second == 12 else 0.0
    slow = [late * rng.random() + rng.gammavariate(9, 0.0021) for _ in range(200)]
    return Window(second, 1.0, 200, 400, 35 if second == 13 else 0, of(*slow))


def _point(power: int) -> Point:
    connections = 2**power
    rate = 190 * (1 - 0.5 ** (connections / 2))
    times = [0.02 * max(1.0, connections / 4) * (0.8 + 0.4 * each / 50) for each in range(50)]
    return Point(
        connections, Result(5.0, int(rate * 5), int(rate * 5), of(*times), {"timeout": 3} if power > 5 else {})
    )


def _trials() -> tuple[Trial, ...]:
    pairs = ((100, 0.03), (200, 0.3), (150, 0.04), (175, 0.05), (190, 0.07), (195, 0.13), (192, 0.08))
    return tuple(Trial(rate, p99 < 0.1, f"p99 {p99 * 1e3:.1f} ms", _held(rate, p99)) for rate, p99 in pairs)


def _held(rate: int, p99: float) -> Result:
    return Result(5.0, rate * 5, rate * 5, of(*[p99 / 2] * 90, *[p99] * 10))


_STAGES = (
    Stage("decode", 0.0031, 4000, "http://localhost:8888/metrics"),
    Stage("preprocess", 0.0012, 4000, "http://localhost:8888/metrics"),
    Stage("queue", 0.0019, 4000, "http://localhost:8888/metrics"),
    Stage("execute", 0.0094, 4000, "http://localhost:8888/metrics"),
    Stage("encode", 0.0002, 4000, "http://localhost:8888/metrics"),
)
_CHANGES = (
    Change("requests/s", 171.0, 199.8, 1.168, 1.14, 1.19, "better"),
    Change("latency p50", 0.0182, 0.0180, 0.989, 0.96, 1.02, "no change"),
    Change("latency p99", 1.71, 1.98, 1.158, 1.05, 1.25, "worse"),
)
