"""OpenVINO's forms of a signature: all cores for one request, or cores of its own for each of several; one row, or any
number of rows."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from cortex.model_server import model_file
from cortex.model_server.engines import coalescing, openvino_form
from cortex.model_server.engines.base import EngineOptions
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.engines.selection import formats
from cortex.model_server.status import Code, StatusError
from tests.waiting import DEADLINE

LOG = "cortex.model_server.engines.openvino_forms"
SIZE, LAYERS = 512, 40


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An IR that computes for a few milliseconds, long enough for requests to meet."""
    weight = np.random.default_rng(0).normal(0, SIZE**-0.5, (SIZE, SIZE)).astype(np.float32)
    given = ops.parameter([-1, SIZE], np.float32, name="x")
    x: Any = given
    for layer in range(LAYERS):
        x = ops.tanh(ops.matmul(x, ops.constant(np.roll(weight, layer, 1)), False, False))
    x.output(0).set_names({"y"})
    given.output(0).set_names({"x"})
    directory = tmp_path_factory.mktemp("slow")
    ov.save_model(ov.Model([x], [given], "slow"), directory / "model.xml", compress_to_fp16=False)
    return directory


def opened(directory: Path, threads: int = 2) -> OpenVINO:
    (model,) = model_file.find(directory, frozenset({"serve"}), formats("openvino"), prefer_tflite=False)
    return OpenVINO.open(model, EngineOptions(threads=threads))


def ask_together(engine: OpenVINO, until: Callable[[], bool], askers: int = 4) -> list[Any]:
    """Ask from several threads until ``until()`` holds, and return every answer to the same question."""
    question = np.ones((64, SIZE), np.float32)
    answers: list[Any] = []
    end = time.monotonic() + DEADLINE

    def ask() -> None:
        while not until() and time.monotonic() < end:
            answers.append(engine.run("serving_default", {"x": question}, ["y"])["y"])

    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert until(), f"not within {DEADLINE} s"
    return answers


def after(count: int) -> Callable[[], bool]:
    """Return what holds from the ``count``-th time on that it is asked."""
    asked = itertools.count(1)
    return lambda: next(asked) > count


def said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in record.getMessage() for record in list(caplog.records))


def test_requests_that_meet_make_the_second_form_once(slow_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first form answers while the second one compiles, both give the same answers, and it is compiled once."""
    caplog.set_level(logging.INFO, logger=LOG)
    engine = opened(slow_model)
    alone = engine.run("serving_default", {"x": np.ones((64, SIZE), np.float32)}, ["y"])["y"]
    assert not caplog.records, "a request that is alone needs no second form"
    try:
        answers = ask_together(engine, lambda: said(caplog, "2 streams on 2 threads"))
        answers += ask_together(engine, after(40))
    finally:
        engine.close()
    assert len(caplog.records) == 1
    assert len(answers) > 8
    for answer in answers:
        np.testing.assert_allclose(answer, alone, atol=1e-5)


def test_one_core_needs_one_form(slow_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one thread there is nothing to divide."""
    caplog.set_level(logging.INFO, logger=LOG)
    engine = opened(slow_model, threads=1)
    ask_together(engine, after(30))
    engine.close()
    assert not caplog.records


def test_a_second_form_that_cannot_be_made_takes_nothing_away(
    slow_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When OpenVINO cannot compile once more, the first form goes on answering, and the log says so."""
    engine = opened(slow_model)
    ask_together(engine, after(1), askers=1)
    monkeypatch.setattr(engine, "_form", out_of_memory)
    try:
        answers = ask_together(engine, lambda: said(caplog, "no form with cores of their own"))
        answers += ask_together(engine, after(20))
    finally:
        engine.close()
    assert len(answers) >= 20


def test_a_system_without_a_thread_to_spare_takes_nothing_away(
    slow_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started to compile the second form, the request that asked for it is answered too."""

    class Thread(threading.Thread):
        def start(self) -> None:
            if self.name == "openvino-compile":
                raise RuntimeError("can't start new thread")
            super().start()

    engine = opened(slow_model)
    monkeypatch.setattr(threading, "Thread", Thread)
    try:
        answers = ask_together(engine, lambda: said(caplog, "can't start new thread"))
        answers += ask_together(engine, after(20))
    finally:
        engine.close()
    assert len(answers) >= 20


@pytest.mark.parametrize(("askers", "holds"), [(4, False), (8, True)])
def test_answers_are_held_where_requests_wait_for_a_stream(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch, askers: int, *, holds: bool
) -> None:
    """Two streams with two requests each are not busy; with four, nobody waits for ever, and every answer is right."""
    groups = []

    class Group(coalescing._Group):
        def __init__(self) -> None:
            super().__init__()
            groups.append(self)

    engine = opened(slow_model)
    monkeypatch.setattr(coalescing, "_Group", Group)
    alone = engine.run("serving_default", {"x": np.ones((64, SIZE), np.float32)}, ["y"])["y"]
    answers = ask_together(engine, after(80), askers)
    engine.close()
    assert bool(groups) == holds
    for answer in answers:
        np.testing.assert_allclose(answer, alone, atol=1e-5)


def out_of_memory(*_: object) -> None:
    raise MemoryError("std::bad_alloc")


def test_closing_waits_for_a_compilation(slow_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No thread is left compiling for a model that was unloaded."""
    engine = opened(slow_model)
    ask_together(engine, after(8))
    engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "openvino-compile"]


def model_of(directory: Path, *shapes: list[int], build: Callable[..., Any] = ops.add) -> Path:
    """Write an IR that makes one output ``y`` of inputs ``x0``, ``x1``... of these shapes."""
    given = [ops.parameter(shape, np.float32) for shape in shapes]
    for number, each in enumerate(given):
        each.output(0).set_names({f"x{number}"})
    output = build(*given)
    output.output(0).set_names({"y"})
    ov.save_model(ov.Model([output], given, "small"), directory / "model.xml", compress_to_fp16=False)
    return directory


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shapes of the first input of every graph that is compiled, in their order."""
    shapes: list[str] = []
    form = OpenVINO._form

    def noted(engine: OpenVINO, graph: Any, *rest: Any) -> Any:
        shapes.append(str(graph.model.inputs[0].partial_shape))
        return form(engine, graph, *rest)

    monkeypatch.setattr(OpenVINO, "_form", noted)
    return shapes


def test_any_number_of_rows_is_compiled_when_it_is_asked_for(slow_model: Path, compiled: list[str]) -> None:
    """Requests of one row have a graph of their own, whose answers are those of the other."""
    engine = opened(slow_model)
    question = np.random.default_rng(1).normal(size=(3, SIZE)).astype(np.float32)
    one = [engine.run("serving_default", {"x": question[row : row + 1]}, ["y"])["y"] for row in range(3)]
    assert compiled == [f"[1,{SIZE}]"]
    several = engine.run("serving_default", {"x": question}, ["y"])["y"]
    none = engine.run("serving_default", {"x": question[:0]}, ["y"])["y"]
    engine.close()
    assert compiled == [f"[1,{SIZE}]", f"[?,{SIZE}]"]
    np.testing.assert_allclose(np.concatenate(one), several, atol=1e-5)
    assert none.shape == (0, SIZE)


def test_requests_of_other_rows_meet_too(slow_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request of one row is not alone while one of many rows is under way: both graphs get their second form."""
    caplog.set_level(logging.INFO, logger=LOG)
    engine = opened(slow_model)
    one, many = (np.ones((rows, SIZE), np.float32) for rows in (1, 256))

    def second_forms() -> int:
        return sum("2 streams on 2 threads" in record.getMessage() for record in list(caplog.records))

    def ask(question: Any) -> None:
        while second_forms() < 2 and time.monotonic() < end:
            engine.run("serving_default", {"x": question}, ["y"])

    end = time.monotonic() + DEADLINE
    threads = [threading.Thread(target=ask, args=(question,)) for question in (one, many)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    engine.close()
    assert second_forms() == 2


@pytest.mark.parametrize(
    ("shapes", "want"),
    [
        (([-1, 3], [-1, 3]), "[1,3]"),
        (([-1, 3], [1, 3]), "[1,3]"),
        (([-1, 3], [4, 3]), "[1,3]"),
        (([2, 3], [1, 3]), "[2,3]"),
        (([-1, -1], [1, 3]), "[?,?]"),
    ],
)
def test_what_one_row_is(shapes: tuple[list[int], ...], want: str, tmp_path: Path, compiled: list[str]) -> None:
    """Where a first dimension is open and no other; whatever was compiled, every number of rows is answered."""
    engine = opened(model_of(tmp_path, *shapes), threads=1)
    assert compiled == [want]
    for rows in (1, 4):
        sizes = [[(rows, 3)[axis] if dim < 0 else dim for axis, dim in enumerate(shape)] for shape in shapes]
        given = {f"x{number}": np.ones(size, np.float32) for number, size in enumerate(sizes)}
        answer = engine.run("serving_default", given, ["y"])["y"]
        np.testing.assert_array_equal(answer, given["x0"] + given["x1"])
    engine.close()


def test_a_graph_that_one_row_does_not_fit(tmp_path: Path, compiled: list[str]) -> None:
    """It splits its rows in two: it is compiled as it is, and two rows are answered."""

    def first_half(given: Any) -> Any:
        return ops.relu(ops.split(given, ops.constant(0), 2).output(0))

    engine = opened(model_of(tmp_path, [-1, 3], build=first_half), threads=1)
    assert compiled == ["[?,3]"]
    answer = engine.run("serving_default", {"x0": np.arange(6, dtype=np.float32).reshape(2, 3)}, ["y"])["y"]
    engine.close()
    np.testing.assert_array_equal(answer, [[0, 1, 2]])


@pytest.mark.parametrize("rows", [1, 1000])
def test_arrays_that_nobody_may_write_to(slow_model: Path, rows: int) -> None:
    """A message's arrays are such: OpenVINO gets memory that lasts for as long as it computes."""
    engine = opened(slow_model)
    question = np.ones((rows, SIZE), np.float32)
    want = engine.run("serving_default", {"x": question}, ["y"])["y"]
    question.setflags(write=False)
    np.testing.assert_array_equal(engine.run("serving_default", {"x": question}, ["y"])["y"], want)
    engine.close()


@pytest.mark.parametrize("rows", [1, 2])
def test_arrays_of_another_type_are_refused(slow_model: Path, rows: int) -> None:
    """The caller has compared the types; the engine converts nothing by itself."""
    engine = opened(slow_model)
    with pytest.raises(StatusError) as refused:
        engine.run("serving_default", {"x": np.ones((rows, SIZE))}, ["y"])
    engine.close()
    assert refused.value.code == Code.INVALID_ARGUMENT


def layers(given: Any, depth: int = 6) -> Any:
    weight = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
    for _ in range(depth):
        given = ops.tanh(ops.matmul(given, ops.constant(weight), False, False))
    return given


def means(*given: Any) -> Any:
    """Add layers of each input up, and take the mean over its second dimension."""
    total = layers(given[0])
    for each in given[1:]:
        total = ops.add(total, layers(each))
    return ops.reduce_mean(total, ops.constant([1]), False)


def rows(count: int, value: float) -> Any:
    return np.full((1, count, 64), value, np.float32)


@pytest.mark.parametrize("shape", [[1, 2], [-1, 2], [-1, -1]])
def test_the_state_of_a_graph_is_nobody_elses(tmp_path: Path, shape: list[int]) -> None:
    """An IR that goes on from what was asked before, as those of language models do, begins anew with each request."""
    given = ops.parameter(shape, np.float32, name="x")
    given.output(0).set_names({"x"})
    before = ops.read_value(ops.constant(np.zeros((1, 2), np.float32)), "total", np.float32, [1, 2])
    total = ops.add(before, ops.reduce_sum(given, np.array([0]), True))
    total.output(0).set_names({"y"})
    model = ov.Model([ops.result(total)], [ops.assign(total, "total")], [given], "stateful")
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    engine = opened(tmp_path)
    for value in (1, 2, 1):
        got = engine.run("serving_default", {"x": np.full((1, 2), value, np.float32)}, ["y"])["y"]
        assert got.tolist() == [[value, value]]
    engine.close()


def test_a_run_that_fails_spoils_no_other(tmp_path: Path) -> None:
    """Inputs that do not fit each other are refused; what is asked before and after, and meanwhile, is answered right.

    A graph in which sizes are open would mix up those of the failed run and the next.
    """
    directory = model_of(tmp_path, [-1, -1, 64], [-1, -1, 64], build=means)
    wrong: list[object] = []

    def ask(engine: OpenVINO, want: dict[int, Any], seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            count = chance.choice(list(want))
            other = count if chance.random() < 0.6 else 3
            try:
                answer = engine.run("serving_default", {"x0": rows(count, count), "x1": rows(other, 1.0)}, ["y"])["y"]
            except StatusError as error:
                if other == count or error.code != Code.INVALID_ARGUMENT:
                    wrong.append(error)
            else:
                if other != count or not np.allclose(answer, want[count], atol=1e-4):
                    wrong.append((count, other))

    fresh = opened(directory)
    want = {
        count: fresh.run("serving_default", {"x0": rows(count, count), "x1": rows(count, 1.0)}, ["y"])["y"]
        for count in (5, 7, 50)
    }
    fresh.close()
    engine = opened(directory)
    threads = [threading.Thread(target=ask, args=(engine, want, seed)) for seed in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    engine.close()
    assert not wrong


def test_shapes_that_failed_are_refused_without_a_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run that fails costs its compiled model; from then on shapes are tried before they are run."""
    engine = opened(model_of(tmp_path, [-1, -1, 64], [-1, -1, 64], build=means), threads=1)
    compiled = []

    class Compiled(openvino_form._Compiled):
        def __init__(self, *given: Any, **how: Any) -> None:
            super().__init__(*given, **how)
            compiled.append(self)

    monkeypatch.setattr(openvino_form, "_Compiled", Compiled)
    for other in (3, 4, 5, 3):
        with pytest.raises(StatusError) as refused:
            engine.run("serving_default", {"x0": rows(9, 1.0), "x1": rows(other, 1.0)}, ["y"])
        assert refused.value.code == Code.INVALID_ARGUMENT
        engine.run("serving_default", {"x0": rows(9, 1.0), "x1": rows(9, 1.0)}, ["y"])
    engine.close()
    assert len(compiled) == 1


def test_a_deadline_spoils_no_other(tmp_path: Path) -> None:
    """What outlived its deadline leaves nothing of itself to the next request, whatever its shape."""
    engine = opened(model_of(tmp_path, [-1, -1, 64], build=means))
    want = {count: engine.run("serving_default", {"x0": rows(count, count)}, ["y"])["y"] for count in (5, 7)}
    for _ in range(10):
        with pytest.raises(StatusError) as late:
            engine.run("serving_default", {"x0": rows(100_000, -1.0)}, ["y"], time.monotonic() + 0.01)
        assert late.value.code == Code.DEADLINE_EXCEEDED
        for count in (5, 5, 7, 5):
            answer = engine.run("serving_default", {"x0": rows(count, count)}, ["y"])["y"]
            np.testing.assert_allclose(answer, want[count], atol=1e-4)
    engine.close()
