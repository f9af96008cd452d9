"""The stacks that are compared, on a tiny classifier: real engine, real deployment, real model server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmark import subjects
from benchmark.asker import Asker, ask
from benchmark.cells import (
    API,
    BF16,
    ENGINE,
    FP32,
    GRPC,
    IN_PROCESS,
    JSON,
    LINE,
    MODEL_SERVER,
    ONE_PROCESS,
    SMALL,
    Cell,
)
from benchmark.processes import free_port
from benchmark.stacks import Stacks
from benchmark.subjects import Subject
from benchmark.usage import Meter
from cortex.errors import UserError
from cortex.pid import lives

ASKER = """
import sys, time
from benchmark.asker import answer_orders
if "broken" in sys.argv:
    sys.exit(1)
answer_orders([lambda: time.sleep(0.01), (lambda: 1 / 0) if "failing" in sys.argv else lambda: time.sleep(0.01)])
"""


@pytest.fixture(scope="module")
def stacks(classifiers: Path) -> Iterator[Stacks]:
    tiny = Subject(FP32, classifiers / "saved", FP32)
    with Stacks({FP32: tiny}, lambda _: None, max(os.sched_getaffinity(0))) as started:
        yield started


@pytest.mark.e2e
def test_side_by_side(stacks: Stacks) -> None:
    """Engine, model server and API of one deployment answer in turns, and each start is made once."""
    cells = [
        Cell(ENGINE, FP32, IN_PROCESS, SMALL, 2),
        Cell(MODEL_SERVER, FP32, GRPC, SMALL, 2),
        Cell(MODEL_SERVER, FP32, LINE, SMALL, 2),
        Cell(ONE_PROCESS, FP32, GRPC, SMALL, 2),
        Cell(ONE_PROCESS, FP32, JSON, SMALL, 2),
        Cell(API, FP32, JSON, SMALL, 2),
    ]
    for cell in cells:
        stacks.start(cell)
    running = {process.pid for process in psutil.Process().children(recursive=True)}
    for cell in cells:
        found = stacks.run(cell, 0.3)
        assert found.rate > 0
        assert found.p50 > 0
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= running
    stacks.start(cells[-1])
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= running
    assert stacks.processes(cells[1]) == stacks.processes(cells[-1]) != stacks.processes(cells[3])


@pytest.fixture
def asker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that asks something that takes 10 ms, with two threads."""
    (tmp_path / "asking.py").write_text(ASKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    return "asking"


def test_asker(asker: str) -> None:
    """Two processes of two threads ask for as long as they are told, as often as they are told; then they end."""
    with Asker(asker) as first, Asker(asker) as second:
        family = [*first.processes(), *second.processes()]
        for _ in range(2):
            asked = ask([first, second], 0.2)
            assert asked.p50 >= 0.01
            assert 4 / 0.2 < asked.rate <= 4 / 0.01
    assert not any(lives(each) for each in family)


def test_an_asker_that_does_not_start(asker: str) -> None:
    """An asker that cannot start is an error, and so is one that ends while it is asked."""
    with pytest.raises(UserError, match="asking did not start"), Asker(asker, "broken"):
        pass
    with Asker(asker) as ended:
        os.kill(ended.processes()[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match="asking ended early"):
            ask([ended], 1.0)


def test_an_asker_one_of_whose_threads_fails(asker: str) -> None:
    """What the others asked is no figure."""
    with Asker(asker, "failing") as failing, pytest.raises(UserError, match="asking ended early"):
        ask([failing], 0.1)


def test_usage(asker: str) -> None:
    """Processor time is that of the system, of the load, or of others: work here counts as the load's."""
    with Asker(asker) as idle:
        meter = Meter(idle.processes)
        with meter.running():
            end = os.times().user + 0.2
            while os.times().user < end:
                pass
    assert meter.usage.load > 0.05


def test_requests_that_fail_are_no_figures(classifiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack whose requests fail has no throughput: the comparison ends with the reason."""

    class Down:
        url = f"http://127.0.0.1:{free_port()}"

        def processes(self) -> list[psutil.Process]:
            return []

    with Stacks({}, lambda _: None) as stacks:
        monkeypatch.setattr(stacks, "_api", lambda cell: Down())
        with pytest.raises(UserError, match=r"API, fp32, json, small picture, 1 client: .*connection refused"):
            stacks.run(Cell(API, FP32, JSON, SMALL, 1), 0.1)


def test_int8_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 artifact lies in the user's cache, known by the content of its source, and is made when missing."""
    calls: list[tuple[str, ...]] = []

    def export(*arguments: str) -> None:
        calls.append(arguments)
        Path(arguments[-1]).mkdir(parents=True)

    monkeypatch.setattr(subjects, "_export", export)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    (version / "weights").write_bytes(b"1")
    first, second = (subjects.subjects(tmp_path / "model", ("int8",), print)["int8"] for _ in range(2))
    assert first == second
    assert len(calls) == 1
    assert first.base_path.is_relative_to(tmp_path / "cache" / "cortex-benchmark")
    (version / "weights").write_bytes(b"2")
    assert subjects.subjects(tmp_path / "model", ("int8",), print)["int8"] != first


def test_a_precision_that_the_processor_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out beside others, and refused alone: there would be nothing to compare."""
    monkeypatch.setattr("export.inference.precisions", lambda: (FP32,))
    assert list(subjects.subjects(tmp_path, (FP32, BF16), print)) == [FP32]
    with pytest.raises(UserError, match="--precision bf16: the processor does not compute in it"):
        subjects.subjects(tmp_path, (BF16,), print)


def test_the_newest_version(tmp_path: Path) -> None:
    """A version is a directory that a model server would serve, whatever else lies beside it."""
    for name in ("2", "10", "²", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert Subject(FP32, tmp_path, FP32).directory == tmp_path / "10"
