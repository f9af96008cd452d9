import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.model_server import batching_parameters
from cortex.model_server.batching import Batcher
from cortex.model_server.batching_parameters import BatchingParameters
from cortex.model_server.call import Call
from cortex.model_server.status import Code, StatusError
from tests.model_server.harness import poll

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
def _batching(**parameters: Any) -> Iterator[Batcher]:
    batcher = Batcher(BatchingParameters(**parameters))
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


def _call(rows: int, value: float = 1, width: int = 2) -> Call:
    return Call("serving_default", {"x": np.full((rows, width), value, np.float32)}, ("y",))


def _ask(batcher: Batcher, model: Any, call: Call, owner: str = "m", deadline: float | None = None) -> Any:
    return batcher.run(owner, call, model, deadline)["y"]


def test_a_full_batch_runs_at_once() -> None:
    """Requests that fill a batch are answered by one run, each with its own rows."""
    model = _Model()
    parameters = {"max_batch_size": 4, "batch_timeout_micros": A_MINUTE, "num_batch_threads": 1}
    with _batching(**parameters) as batcher, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda value: _ask(batcher, model, _call(1, value)), range(4)))
    assert [answer.tolist() for answer in answers] == [[[2 * value] * 2] for value in range(4)]
    assert model.runs == [(4, 2)]


def test_a_part_of_a_batch_runs_when_its_time_is_up() -> None:
    """A request does not wait longer than batch_timeout_micros for others."""
    model = _Model()
    with _batching(max_batch_size=64, batch_timeout_micros=1000, num_batch_threads=1) as batcher:
        assert _ask(batcher, model, _call(3)).shape == (3, 2)
    assert model.runs == [(3, 2)]


def test_batches_are_padded_to_an_allowed_size() -> None:
    """A batch is padded up to the next allowed size; the padding is not answered."""
    model = _Model()
    with _batching(max_batch_size=8, allowed_batch_sizes=(2, 4, 8), num_batch_threads=1) as batcher:
        assert _ask(batcher, model, _call(3)).shape == (3, 2)
    assert model.runs == [(4, 2)]


def test_requests_that_cannot_be_joined_run_apart() -> None:
    """Other models, shapes and dtypes have queues of their own; nobody's shape spoils another's batch."""
    model = _Model()
    with _batching(max_batch_size=2, batch_timeout_micros=1000, num_batch_threads=1) as batcher:
        model.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(_ask, batcher, model, _call(1, 1)),
                pool.submit(_ask, batcher, model, _call(1, 2, width=3)),
                pool.submit(_ask, batcher, model, _call(1, 3), "other"),
            ]
            model.gate.set()
            assert [each.result().shape for each in asked] == [(1, 2), (1, 3), (1, 2)]
    assert sorted(model.runs) == [(1, 2), (1, 2), (1, 3)]


@pytest.mark.parametrize("shapes", [{"x": ()}, {"x": (1, 2), "z": (2, 2)}, {"x": (0, 2)}])
def test_calls_without_common_rows_are_not_batched(shapes: dict[str, tuple[int, ...]]) -> None:
    """Scalars, inputs of different lengths and empty batches run alone."""
    call = Call("s", {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, ("y",))
    with _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as batcher:
        assert _ask(batcher, _Model(), call).shape == shapes["x"]


def test_a_request_larger_than_a_batch_is_refused() -> None:
    """Without splitting, max_batch_size is the limit of one request."""
    with (
        _batching(max_batch_size=4, num_batch_threads=1) as batcher,
        pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch size 4") as caught,
    ):
        _ask(batcher, _Model(), _call(5))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_large_requests_are_split() -> None:
    """With splitting, a large request runs in pieces of max_execution_batch_size, and is answered whole."""
    model = _Model()
    call = Call("s", {"x": np.arange(10, dtype=np.float32).reshape(5, 2)}, ("y",))
    parameters = {"enable_large_batch_splitting": True, "max_execution_batch_size": 2, "max_batch_size": 8}
    with _batching(**parameters, num_batch_threads=1) as batcher:
        assert _ask(batcher, model, call).tolist() == (call.inputs["x"] * 2).tolist()
    assert model.runs == [(2, 2), (2, 2), (1, 2)]


def test_a_full_queue_is_unavailable_at_once() -> None:
    """When max_enqueued_batches wait, the next request is refused and not kept waiting."""
    model = _Model()
    model.gate.clear()
    parameters = {"max_batch_size": 1, "max_enqueued_batches": 2, "num_batch_threads": 1}
    with _batching(**parameters) as batcher, ThreadPoolExecutor(3) as pool:
        running = pool.submit(_ask, batcher, model, _call(1))
        assert model.waiting.acquire(timeout=30)
        queued = [pool.submit(_ask, batcher, model, _call(1)) for _ in range(2)]
        poll(lambda: sum(map(len, batcher._queues.values())) == 2)
        with pytest.raises(StatusError, match="The batch scheduling queue to which this task was submitted is full"):
            _ask(batcher, model, _call(1))
        model.gate.set()
        assert all(each.result().shape == (1, 2) for each in (running, *queued))


def test_a_request_that_times_out_leaves_the_queue() -> None:
    """A deadline counts in the queue too, and the model is not run for a request that is gone."""
    model = _Model()
    with _batching(max_batch_size=8, batch_timeout_micros=A_MINUTE, num_batch_threads=1) as batcher:
        with pytest.raises(StatusError, match=r"Run\(\) timeout exceeded while waiting in batching queue") as caught:
            _ask(batcher, model, _call(1), deadline=time.monotonic() + 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert not batcher._queues
    assert model.runs == []


def test_an_error_is_everybodys_in_the_batch() -> None:
    """A run that fails fails the requests of its batch, with the same status, and nothing else."""

    def failing(call: Call, deadline: float | None) -> dict[str, Any]:
        raise StatusError(Code.INTERNAL, "no")

    with _batching(max_batch_size=2, num_batch_threads=1) as batcher:
        with pytest.raises(StatusError, match="INTERNAL: no"):
            _ask(batcher, failing, _call(1))
        assert _ask(batcher, _Model(), _call(1)).shape == (1, 2)


def test_outputs_must_have_the_rows_of_the_batch() -> None:
    """A model that does not answer row by row cannot be batched, and says so."""

    def summing(call: Call, deadline: float | None) -> dict[str, Any]:
        return {"y": call.inputs["x"].sum(keepdims=True)}

    with (
        _batching(max_batch_size=4, num_batch_threads=1) as batcher,
        pytest.raises(StatusError, match="0th dimension does not equal the sum of the 0th dimension") as caught,
    ):
        _ask(batcher, summing, _call(3))
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_an_unexpected_failure_is_an_error_of_the_batch_only() -> None:
    """A bug in a run does not end the batching thread."""

    def broken(call: Call, deadline: float | None) -> dict[str, Any]:
        raise ZeroDivisionError

    with _batching(max_batch_size=1, num_batch_threads=1) as batcher:
        with pytest.raises(StatusError, match="INTERNAL: ZeroDivisionError"):
            _ask(batcher, broken, _call(1))
        assert _ask(batcher, _Model(), _call(1)).shape == (1, 2)


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
        max_batch_size=8, batch_timeout_micros=5000, num_batch_threads=3, allowed_batch_sizes=(2, 8)
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
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "the last entry of allowed_batch_sizes must equal 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 9 }", "max_execution_batch_size must be"),
    ],
)
def test_bad_parameters_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    """A parameters file that cannot be used is INVALID_ARGUMENT that says why."""
    with pytest.raises(StatusError) as caught:
        _parse(tmp_path, text)
    assert message in caught.value.message
