import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.model_server import batching_parameters, batching_rows
from cortex.model_server.batching import Batcher
from cortex.model_server.batching_lane import Lane
from cortex.model_server.batching_pace import Pace
from cortex.model_server.batching_parameters import BatchingParameters, BatchingSource
from cortex.model_server.batching_queue import Piece, Queue, Task
from cortex.model_server.call import Call
from cortex.model_server.request import QUEUE, Recorder, watch
from cortex.model_server.status import Code, StatusError
from tests.waiting import DEADLINE, until

A_MINUTE = 60_000_000


class _Model:
    """Doubles its rows, and notes the shape of every run; ``gate`` holds runs back."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Semaphore(0)

    def __call__(self, call: Call, deadline: float | None) -> dict[str, Any]:
        self.runs.append(call.inputs["x"].shape)
        self.waiting.release()
        assert self.gate.wait(30)
        return {"y": call.inputs["x"] * 2}


@contextmanager
def _batcher(parameters: BatchingParameters, **more: Any) -> Iterator[Batcher]:
    batcher = Batcher(parameters, **more)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


@contextmanager
def _batching(**parameters: Any) -> Iterator[Lane]:
    with _batcher(BatchingParameters(**parameters)) as batcher:
        lane = batcher.lane("m", Path("/nowhere"))
        assert lane is not None
        yield lane


def _call(rows: int, value: float = 1, width: int = 2) -> Call:
    return Call("serving_default", {"x": np.full((rows, width), value, np.float32)}, ("y",))


def _ask(lane: Lane | None, model: Any, call: Call, deadline: float | None = None) -> Any:
    assert lane is not None
    return lane.run(call, model, deadline)["y"]


def test_a_full_batch_runs_at_once() -> None:
    """Requests that fill a batch are answered by one run, each with its own rows."""
    model = _Model()
    parameters = {"max_batch_size": 4, "batch_timeout_micros": A_MINUTE, "num_batch_threads": 1}
    with _batching(**parameters) as lane, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda value: _ask(lane, model, _call(1, value)), range(4)))
    assert [answer.tolist() for answer in answers] == [[[2 * value] * 2] for value in range(4)]
    assert model.runs == [(4, 2)]


def test_a_part_of_a_batch_runs_when_its_time_is_up() -> None:
    """A request does not wait longer than batch_timeout_micros for others."""
    model = _Model()
    with _batching(max_batch_size=64, batch_timeout_micros=1000, num_batch_threads=1) as lane:
        assert _ask(lane, model, _call(3)).shape == (3, 2)
    assert model.runs == [(3, 2)]


def test_batches_are_padded_to_an_allowed_size() -> None:
    """A batch is padded up to the next allowed size; the padding is not answered."""
    model = _Model()
    with _batching(max_batch_size=8, allowed_batch_sizes=(2, 4, 8), num_batch_threads=1) as lane:
        assert _ask(lane, model, _call(3)).shape == (3, 2)
    assert model.runs == [(4, 2)]


def test_the_allowed_size_of_a_batch() -> None:
    """It is the next one; a batch that has one already is not padded, nor one above all of them."""
    parameters = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(2, 4))
    assert [parameters.padded(size) for size in range(1, 6)] == [2, 2, 4, 4, 5]


def test_the_size_of_a_run_is_that_of_a_batch_where_nothing_is_split() -> None:
    """max_execution_batch_size counts together with enable_large_batch_splitting alone, as in TF Serving."""
    limits = {"max_batch_size": 8, "max_execution_batch_size": 4}
    assert BatchingParameters(**limits).execution_size == 8
    assert BatchingParameters(**limits, enable_large_batch_splitting=True).execution_size == 4
    assert BatchingParameters(max_batch_size=8, enable_large_batch_splitting=True).execution_size == 8


def test_requests_that_cannot_be_joined_run_apart() -> None:
    """Other models, shapes and dtypes have queues of their own; nobody's shape spoils another's batch."""
    model = _Model()
    with _batching(max_batch_size=2, batch_timeout_micros=1000, num_batch_threads=1) as lane:
        model.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(_ask, lane, model, _call(1, 1)),
                pool.submit(_ask, lane, model, _call(1, 2, width=3)),
                pool.submit(_ask, lane._batcher.lane("other", Path("/nowhere")), model, _call(1, 3)),
            ]
            model.gate.set()
            assert [each.result().shape for each in asked] == [(1, 2), (1, 3), (1, 2)]
    assert sorted(model.runs) == [(1, 2), (1, 2), (1, 3)]


@pytest.mark.parametrize("shapes", [{"x": ()}, {"x": (1, 2), "z": (2, 2)}, {"x": (0, 2)}])
def test_calls_without_common_rows_are_not_batched(shapes: dict[str, tuple[int, ...]]) -> None:
    """Scalars, inputs of different lengths and empty batches run alone."""
    call = Call("s", {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, ("y",))
    with _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane:
        assert _ask(lane, _Model(), call).shape == shapes["x"]


def test_a_model_for_a_fixed_number_of_rows_is_not_given_others() -> None:
    """An export for one row refuses a batch of two; one for four rows is batched where all batches are padded to it."""
    for parameters, fixed, rows in (({}, 1, 1), ({}, 4, 1), ({"allowed_batch_sizes": (4,)}, 4, 4)):
        model = _Model()
        with (
            _batching(max_batch_size=4, batch_timeout_micros=30_000, num_batch_threads=1, **parameters) as lane,
            ThreadPoolExecutor(2) as pool,
        ):
            asked = [pool.submit(lane.run, _call(1), model, None, fixed) for _ in range(2)]
            assert all(each.result(DEADLINE)["y"].shape == (1, 2) for each in asked)
        assert {run[0] for run in model.runs} == {rows}


def test_a_request_larger_than_a_batch_is_refused() -> None:
    """Without splitting, max_batch_size is the limit of one request."""
    with (
        _batching(max_batch_size=4, num_batch_threads=1) as lane,
        pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch size 4") as caught,
    ):
        _ask(lane, _Model(), _call(5))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_large_requests_are_split() -> None:
    """With splitting, a large request runs in pieces of max_execution_batch_size, and is answered whole."""
    model = _Model()
    call = Call("s", {"x": np.arange(10, dtype=np.float32).reshape(5, 2)}, ("y",))
    parameters = {"enable_large_batch_splitting": True, "max_execution_batch_size": 2, "max_batch_size": 8}
    with _batching(**parameters, num_batch_threads=1) as lane:
        assert _ask(lane, model, call).tolist() == (call.inputs["x"] * 2).tolist()
    assert model.runs == [(2, 2), (2, 2), (1, 2)]


def test_a_request_is_complete_with_the_last_of_its_pieces() -> None:
    """Whichever that is; they stand in the order of the rows, and what fails afterwards takes nothing back."""
    task = Task(_call(3, 0), lambda *_: {}, 3, None)
    task.answer(2, 1, {"y": np.ones(1)})
    assert not task.done.is_set()
    task.answer(0, 2, {"y": np.zeros(2)})
    assert task.done.is_set()
    task.fail(StatusError(Code.INTERNAL, "too late"))
    assert [answer["y"].tolist() for answer in task.answers()] == [[0, 0], [1]]


def test_the_first_failure_of_a_request_stands() -> None:
    """One piece that fails ends the request; why another one did as well is not told."""
    task = Task(_call(3, 0), lambda *_: {}, 3, None)
    for text in ("first", "second"):
        task.fail(StatusError(Code.INTERNAL, text))
    assert task.done.is_set()
    with pytest.raises(StatusError, match="first"):
        task.answers()


def test_a_queue_counts_the_rows_that_wait() -> None:
    """Those of a request that leaves, too: what batches took of it before is no longer there to leave."""
    queue, large, small = Queue(), *(Task(_call(rows), lambda *_: {}, rows, None) for rows in (5, 2))
    queue.add(large)
    queue.add(small)
    assert [(piece.start, piece.rows) for piece in queue.take(3, split=True)] == [(0, 3)]
    assert queue.rows == 4
    for _ in range(2):  # one that has left already leaves nothing more
        queue.remove(large)
        assert (queue.rows, len(queue)) == (2, 1)
    assert [piece.task for piece in queue.take(3, split=True)] == [small]
    assert queue.rows == 0


def test_a_full_queue_is_unavailable_at_once() -> None:
    """When max_enqueued_batches wait, the next request is refused and not kept waiting."""
    model = _Model()
    model.gate.clear()
    parameters = {"max_batch_size": 1, "max_enqueued_batches": 2, "num_batch_threads": 1}
    with _batching(**parameters) as lane, ThreadPoolExecutor(3) as pool:
        running = pool.submit(_ask, lane, model, _call(1))
        assert model.waiting.acquire(timeout=30)
        queued = [pool.submit(_ask, lane, model, _call(1)) for _ in range(2)]
        until(lambda: sum(map(len, lane._batcher._queues.values())) == 2)
        with pytest.raises(StatusError, match="The batch scheduling queue to which this task was submitted is full"):
            _ask(lane, model, _call(1))
        model.gate.set()
        assert all(each.result().shape == (1, 2) for each in (running, *queued))


def test_a_request_that_times_out_leaves_the_queue() -> None:
    """A deadline counts in the queue too, and the model is not run for a request that is gone: it only waited."""
    model = _Model()
    with (
        _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane,
        watch(Recorder(), "GRPC", "Predict") as request,
    ):
        with pytest.raises(StatusError, match=r"Run\(\) timeout exceeded while waiting in batching queue") as caught:
            _ask(lane, model, _call(1), deadline=time.monotonic() + 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert not lane._batcher._queues
    assert model.runs == []
    assert request.stages[QUEUE] >= 0.05


@pytest.mark.parametrize(("seconds", "latest"), [((30.0, 60.0), 60.0), ((30.0, None), None)])
def test_a_batch_runs_until_its_last_request_is_late(seconds: tuple[float | None, ...], latest: float | None) -> None:
    """The engine is told by when nobody waits any more; a request without a deadline always does."""
    told: list[float | None] = []

    def model(call: Call, deadline: float | None) -> dict[str, Any]:
        told.append(deadline)
        return {"y": call.inputs["x"]}

    now = time.monotonic()
    deadlines = [None if each is None else now + each for each in seconds]
    with (
        _batching(max_batch_size=2, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane,
        ThreadPoolExecutor(2) as pool,
    ):
        list(pool.map(lambda deadline: _ask(lane, model, _call(1), deadline), deadlines))
    assert told == [None if latest is None else now + latest]


def test_an_error_is_everybodys_in_the_batch() -> None:
    """A run that fails for no fault of theirs fails the requests of its batch, with the same status, and no other."""

    def failing(call: Call, deadline: float | None) -> dict[str, Any]:
        raise StatusError(Code.INTERNAL, "no")

    with _batching(max_batch_size=2, num_batch_threads=1) as lane:
        with pytest.raises(StatusError, match="INTERNAL: no"):
            _ask(lane, failing, _call(1))
        assert _ask(lane, _Model(), _call(1)).shape == (1, 2)


def test_what_one_client_sent_is_refused_to_nobody_else() -> None:
    """Where the model refuses a batch for what is in it, each request runs by itself."""

    def positive(call: Call, deadline: float | None) -> dict[str, Any]:
        runs.append(len(call.inputs["x"]))
        if call.inputs["x"].min() < 0:
            raise StatusError(Code.INVALID_ARGUMENT, "no")
        return {"y": call.inputs["x"]}

    runs: list[int] = []
    with (
        _batching(max_batch_size=3, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane,
        ThreadPoolExecutor(3) as pool,
    ):
        bad, *good = [pool.submit(_ask, lane, positive, _call(1, value)) for value in (-1, 2, 3)]
        with pytest.raises(StatusError, match="INVALID_ARGUMENT: no"):
            bad.result(DEADLINE)
        assert [each.result(DEADLINE)[0, 0] for each in good] == [2, 3]
    assert runs == [3, 1, 1, 1]


def test_outputs_must_have_the_rows_of_the_batch() -> None:
    """A model that does not answer row by row cannot be batched, and says so."""

    def summing(call: Call, deadline: float | None) -> dict[str, Any]:
        return {"y": call.inputs["x"].sum(keepdims=True)}

    with (
        _batching(max_batch_size=4, num_batch_threads=1) as lane,
        pytest.raises(StatusError, match="0th dimension does not equal the sum of the 0th dimension") as caught,
    ):
        _ask(lane, summing, _call(3))
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_an_output_without_rows_is_the_fault_of_who_asks_for_it() -> None:
    """Who shares a batch with a request for such an output is answered."""

    def both(call: Call, deadline: float | None) -> dict[str, Any]:
        found = {"y": call.inputs["x"] * 2, "mean": call.inputs["x"].mean()}
        return {alias: found[alias] for alias in call.outputs}

    one = _call(1)
    other = Call(one.signature, one.inputs, ("mean", "y"))
    parameters = {"max_batch_size": 2, "batch_timeout_micros": A_MINUTE, "num_batch_threads": 1}
    with _batching(**parameters) as lane, ThreadPoolExecutor(2) as pool:
        good, bad = pool.submit(_ask, lane, both, one), pool.submit(_ask, lane, both, other)
        assert good.result(DEADLINE).tolist() == [[2.0, 2.0]]
        with pytest.raises(StatusError, match="Batched output tensor mean's 0th dimension"):
            bad.result(DEADLINE)


def test_an_unexpected_failure_is_an_error_of_the_batch_only(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a run does not end the batching thread, and the log says where it is."""

    def broken(call: Call, deadline: float | None) -> dict[str, Any]:
        raise ZeroDivisionError

    with _batching(max_batch_size=1, num_batch_threads=1) as lane:
        with pytest.raises(StatusError, match="INTERNAL: ZeroDivisionError"):
            _ask(lane, broken, _call(1))
        assert _ask(lane, _Model(), _call(1)).shape == (1, 2)
    assert "in broken\n" in caplog.text


def _parse(tmp_path: Path, text: str) -> BatchingParameters:
    path = tmp_path / "batching.config"
    path.write_text(text)
    return batching_parameters.read(path)


def test_parameters_file(tmp_path: Path) -> None:
    """The file is TF Serving's text proto of wrapped values; what it leaves out has the default."""
    parameters = _parse(
        tmp_path,
        "max_batch_size { value: 8 } batch_timeout_micros { value: 5000 } num_batch_threads { value: 3 }\n"
        "allowed_batch_sizes: 2 allowed_batch_sizes: 8 pad_variable_length_inputs: true\n"
        'thread_pool_name { value: "t" }',
    )
    assert parameters == BatchingParameters(
        max_batch_size=8,
        batch_timeout_micros=5000,
        num_batch_threads=3,
        allowed_batch_sizes=(2, 8),
        pad_variable_length_inputs=True,
        thread_pool_name="t",
    )
    assert _parse(tmp_path, "") == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8", "Invalid protobuf file: '"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must not be negative"),
        ("num_batch_threads { value: -2 }", "num_batch_threads must be positive"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 2", "in ascending order"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 0 allowed_batch_sizes: 8", "must be positive"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "the last entry of allowed_batch_sizes must equal 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 9 }", "max_execution_batch_size must be"),
    ],
)
def test_bad_parameters_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    """A parameters file that cannot be used is INVALID_ARGUMENT that says why."""
    with pytest.raises(StatusError) as caught:
        _parse(tmp_path, text)
    assert message in caught.value.message


def test_requests_larger_than_the_limit_are_refused_when_split_too() -> None:
    """max_batch_size limits a request; max_execution_batch_size limits a run."""
    parameters = {"enable_large_batch_splitting": True, "max_execution_batch_size": 2, "max_batch_size": 4}
    with (
        _batching(**parameters, num_batch_threads=1) as lane,
        pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch size 4"),
    ):
        _ask(lane, _Model(), _call(5))


def test_a_piece_of_a_large_request_fills_the_batch_of_others() -> None:
    """With splitting, rows of a large request join what already waits; everybody gets his own rows."""
    model, parameters = _Model(), {"max_batch_size": 8, "max_execution_batch_size": 4, "num_batch_threads": 1}
    with (
        _batching(enable_large_batch_splitting=True, batch_timeout_micros=A_MINUTE, **parameters) as lane,
        ThreadPoolExecutor(2) as pool,
    ):
        small = pool.submit(_ask, lane, model, _call(1, 7))
        until(lambda: lane._batcher._queues)
        large = pool.submit(_ask, lane, model, _call(7, 3))
        assert small.result(DEADLINE).tolist() == [[14, 14]]
        assert large.result(DEADLINE).tolist() == [[6, 6]] * 7
    assert model.runs == [(4, 2), (4, 2)]


def test_unequal_shapes_are_padded_with_their_first_element() -> None:
    """With pad_variable_length_inputs, requests of one rank share a batch; the outputs are as wide as the widest."""
    model, parameters = _Model(), {"max_batch_size": 2, "batch_timeout_micros": A_MINUTE, "num_batch_threads": 1}
    with _batching(pad_variable_length_inputs=True, **parameters) as lane, ThreadPoolExecutor(2) as pool:
        narrow = pool.submit(_ask, lane, model, _call(1, 5, width=1))
        wide = pool.submit(_ask, lane, model, _call(1, 6, width=3))
        assert narrow.result(DEADLINE).tolist() == [[10, 10, 10]]
        assert wide.result(DEADLINE).tolist() == [[12, 12, 12]]
    assert model.runs == [(2, 3)]


@pytest.mark.parametrize(("kind", "empty", "first"), [(np.float32, 0, 7), (np.object_, b"", b"a")])
def test_a_row_of_nothing_is_padded_with_what_stands_for_nothing(kind: Any, empty: Any, first: Any) -> None:
    """It has no first element: numbers are padded with zeros, strings with empty ones."""
    calls = [Call("", {"x": np.full((1, width), first, kind)}, ("y",)) for width in (0, 2)]
    batch = [Piece(Task(call, lambda *_: {}, 1, None), 0, 1) for call in calls]
    assert batching_rows.joined(batch, 0).inputs["x"].tolist() == [[empty, empty], [first, first]]


@pytest.mark.parametrize("padded", [True, False])
def test_pieces_whose_outputs_are_of_different_widths(padded: bool) -> None:
    """A large request that ran beside a wide one and alone is as wide as the wide one, where it may be padded."""

    def model(call: Call, deadline: float | None) -> dict[str, Any]:
        x = call.inputs["x"]
        return {"y": x if padded else np.repeat(x, 1 + int(x[0, 0] == 7), axis=1)}

    parameters = {"max_batch_size": 8, "max_execution_batch_size": 4, "num_batch_threads": 1}
    with (
        _batching(
            enable_large_batch_splitting=True,
            pad_variable_length_inputs=padded,
            batch_timeout_micros=A_MINUTE,
            **parameters,
        ) as lane,
        ThreadPoolExecutor(2) as pool,
    ):
        wide = pool.submit(_ask, lane, model, _call(1, 7, width=3 if padded else 2))
        until(lambda: lane._batcher._queues)
        split = pool.submit(_ask, lane, model, _call(7, 3, width=2))
        if padded:
            assert wide.result(DEADLINE).tolist() == [[7, 7, 7]]
            assert split.result(DEADLINE).tolist() == [[3, 3, 3]] * 7
        else:
            with pytest.raises(StatusError, match=r"of a request that was split .*: \[3, 4\], \[4, 2\]$") as caught:
                split.result(DEADLINE)
            assert caught.value.code is Code.FAILED_PRECONDITION


def test_requests_for_different_outputs_share_a_batch() -> None:
    """A batch runs once for every output that one of its requests wants; each gets only its own."""
    asked: list[tuple[str, ...]] = []

    def both(call: Call, deadline: float | None) -> dict[str, Any]:
        asked.append(call.outputs)
        return {name: call.inputs["x"] * (2 if name == "y" else 3) for name in call.outputs}

    parameters = {"max_batch_size": 2, "batch_timeout_micros": A_MINUTE, "num_batch_threads": 1}
    with _batching(**parameters) as lane, ThreadPoolExecutor(2) as pool:
        calls = [Call("s", _call(1).inputs, (name,)) for name in ("y", "z")]
        answers = list(pool.map(lambda call: lane.run(call, both, None), calls))
    assert [{name: array.tolist() for name, array in each.items()} for each in answers] == [
        {"y": [[2, 2]]},
        {"z": [[3, 3]]},
    ]
    assert asked == [("y", "z")]


def test_a_call_that_runs_alone_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be batched runs, and the log says which request that was, without flooding."""
    with _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane:
        for _ in range(3):
            _ask(lane, _Model(), Call("s", {"x": np.ones((), np.float32)}, ("y",)))
    assert caplog.text.count("A request of m (signature s, input shapes {'x': []}) has no rows to batch by") == 1


def test_a_cancelled_request_leaves_the_queue() -> None:
    """When the client goes away, the model is not run for it, and nobody else waits behind it."""
    model = _Model()

    def ask(lane: Lane) -> Any:
        with watch(Recorder(), "GRPC", "Predict") as request:
            asked.append(request)
            return _ask(lane, model, _call(1))

    asked: list[Any] = []
    with (
        _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(ask, lane)
        until(lambda: lane._batcher._queues)
        asked[0].cancel()
        with pytest.raises(StatusError, match="CANCELLED"):
            answer.result(DEADLINE)
        assert not lane._batcher._queues
    assert model.runs == []


def test_parameters_change_while_requests_wait(tmp_path: Path) -> None:
    """A reload applies to what waits, and to the number of threads; a bad file changes nothing."""
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 60000000 } num_batch_threads { value: 3 }"
    )
    source, model = BatchingSource(file), _Model()
    with _batcher(source.common(), source=source) as batcher, ThreadPoolExecutor(1) as pool:
        lane = batcher.lane("m", tmp_path)
        answer = pool.submit(_ask, lane, model, _call(2))
        until(lambda: batcher._queues)
        file.write_text("max_batch_size { value: 0 }")
        with pytest.raises(StatusError, match="max_batch_size must be positive"):
            batcher.reload()
        assert not answer.done()
        file.write_text("max_batch_size { value: 2 } num_batch_threads { value: 1 }")
        batcher.reload()
        assert answer.result(DEADLINE).shape == (2, 2)
        until(lambda: len([thread for thread in batcher._threads if thread.is_alive()]) == 1)
        assert _ask(lane, model, _call(1)).shape == (1, 2)


def test_threads_that_the_system_lacks_are_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload that asks for too many threads goes on with those there are; a start that gets none says so."""

    def lacking(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with _batcher(BatchingParameters(num_batch_threads=1)) as batcher:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", lacking)
            batcher.configure(BatchingParameters(num_batch_threads=2))
            with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: no thread to run batches"):
                Batcher(BatchingParameters()).start()
        assert "Batches run on 1 threads: can't start new thread" in caplog.text
        assert _ask(batcher.lane("m", Path("/nowhere")), _Model(), _call(1)).shape == (1, 2)


def test_a_version_may_bring_its_own_parameters(tmp_path: Path) -> None:
    """With per-model parameters, a version with a file is batched by it, and one without is not batched."""
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    (tmp_path / "with" / "batching_params.pbtxt").write_text("max_batch_size { value: 3 }")
    with _batcher(BatchingParameters(num_batch_threads=1), source=BatchingSource(per_model=True)) as batcher:
        lane = batcher.lane("m", tmp_path / "with")
        assert lane is not None
        assert lane.parameters.max_batch_size == 3
        assert batcher.lane("m", tmp_path / "without") is None
        (tmp_path / "with" / "batching_params.pbtxt").write_text("max_batch_size { value: 5 }")
        batcher.reload()
        assert lane.parameters.max_batch_size == 5
        (tmp_path / "without" / "batching_params.pbtxt").write_text("nonsense")
        with pytest.raises(StatusError, match="Invalid protobuf file"):
            batcher.lane("m", tmp_path / "without")


def test_a_reload_of_a_versions_own_parameters_applies_to_what_waits(tmp_path: Path) -> None:
    """A request that waits by the file of its version goes by what the file says now, not by what it said."""
    model, file = _Model(), tmp_path / "batching_params.pbtxt"
    file.write_text(f"batch_timeout_micros {{ value: {A_MINUTE} }}")
    source = BatchingSource(per_model=True)
    with _batcher(source.common(), source=source) as batcher, ThreadPoolExecutor(1) as pool:
        lane = batcher.lane("m", tmp_path)
        answer = pool.submit(_ask, lane, model, _call(1), time.monotonic() + 20)
        until(lambda: batcher._queues)
        time.sleep(0.1)  # the threads sleep by now, until the minute is over
        file.write_text("batch_timeout_micros { value: 1000 }")
        batcher.reload()
        assert answer.result(DEADLINE).shape == (1, 2)


def test_a_thread_that_waits_holds_no_batch() -> None:
    """What the last requests brought, and what answered them, goes with their answers."""
    model = _Model()
    with _batching(max_batch_size=8, num_batch_threads=1) as lane:
        call = _call(1)
        held = weakref.ref(call.inputs["x"])
        assert _ask(lane, model, call).shape == (1, 2)
        del call
        until(lambda: held() is None)


def test_nobody_waits_once_the_process_stops() -> None:
    """When the process is about to stop, what waits for a batch runs at once."""
    with _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as lane:
        lane._batcher.hurry()
        assert _ask(lane, _Model(), _call(1)).shape == (1, 2)


@pytest.mark.parametrize(
    ("fixed", "each", "gap", "size", "wait"),
    [
        (0.0, 0.010, 0.001, 5, 0.0),  # a row keeps every core busy: joining saves nothing, so nobody waits
        (0.010, 0.001, 0.001, 40, 0.010),  # a dear start and cheap rows, and they come fast: wait for them
        (0.010, 0.001, 0.500, 40, 0.0),  # the next row is too far away
        (0.040, 0.001, 0.001, 10, 0.040),
        (0.200, 0.001, 0.001, 1, 0.050),  # one row alone is over the bound already: no larger, no longer
        (0.000, 0.0001, 0.001, 500, 0.0),  # cheap rows: the parameters are the limit
    ],
)
def test_the_automatic_rule(fixed: float, each: float, gap: float, size: int, wait: float) -> None:
    """Size and wait follow from the cost of a run, the gap between rows and the latency bound: decision 0006."""
    pace = Pace(bound=0.1)
    assert (pace.size, pace.wait) == (1, 0.0)
    for number in range(200):
        pace.arrived(1, number * gap)
        pace.ran(1 + number % 4, fixed + (1 + number % 4) * each)
    assert pace.size == pytest.approx(size, abs=1)
    assert pace.wait == pytest.approx(wait, abs=1e-6)


def test_a_run_that_was_slow_once_is_forgotten() -> None:
    """The first batch may take a compilation; forty runs later it counts no more, though all were of one row."""
    pace = Pace(bound=0.1)
    pace.ran(1, 0.010)
    pace.ran(pace.size, 2.0)
    assert pace.size == 1
    for _ in range(40):
        pace.ran(pace.size, 0.005 + 0.001 * pace.size)
    assert pace.size > 1


def test_a_dear_start_is_found_out_from_single_rows() -> None:
    """Requests that come one by one say nothing of what joining them would save: so two are tried together."""
    pace = Pace(bound=0.1)
    for _ in range(4):
        pace.ran(pace.size, 0.030 + 0.001 * pace.size)
    assert pace.size == pytest.approx(20, abs=1)
    slow = Pace(bound=0.1)
    slow.ran(1, 0.060)  # one row takes more than its half of the bound already
    assert slow.size == 1


def test_each_signature_has_a_pace_of_its_own() -> None:
    """What a signature takes decides nothing for another of the same model."""
    with _batching(latency_bound_micros=100_000) as lane:
        lane.ran("dear", 1, 0.2)
        lane.ran("cheap", 1, 0.001)
        assert [lane.size(name) for name in ("dear", "cheap", "not asked yet")] == [1, 50, 1]


def test_automatic_batching_joins_what_had_to_queue() -> None:
    """While a run is under way requests queue, and the next run takes as many as the bound allows; none is refused."""
    model = _Model()
    with (
        _batching(latency_bound_micros=A_MINUTE, num_batch_threads=1) as lane,
        ThreadPoolExecutor(9) as pool,
    ):
        assert _ask(lane, model, _call(1)).shape == (1, 2)
        model.gate.clear()
        first = pool.submit(_ask, lane, model, _call(1))
        until(lambda: len(model.runs) == 2)
        others = [pool.submit(_ask, lane, model, _call(1)) for _ in range(8)]
        until(lambda: sum(map(len, lane._batcher._queues.values())) == 8)
        model.gate.set()
        assert all(each.result(DEADLINE).shape == (1, 2) for each in (first, *others))
        assert _ask(lane, model, _call(2000)).shape == (2000, 2)
    assert model.runs == [(1, 2), (1, 2), (8, 2), (2000, 2)]
