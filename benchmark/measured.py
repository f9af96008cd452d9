"""The measured process: one classifier, timed or held against labels, with nothing else in the process.

``python -m benchmark.measured RUN`` takes a `Run` as JSON. It reports on standard output; a failure is one line there
that begins with ``error: ``, and exit code 1.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from benchmark import batches
from benchmark.configuration import ACCURACY, Configuration
from benchmark.graph import INT8, Classifier
from benchmark.imagenet_records import Record
from benchmark.settings import Settings
from cortex.errors import Error, UserError

Array = NDArray[Any]

_EVERY = 10  # steps between two lines of progress
_TOP = 5
_WITH_BACKGROUND = 1001
"""Outputs of a model whose first is "none of them": it counts classes as the records do."""


@dataclass(frozen=True)
class Run:
    """One measurement. ``result`` is the file that its figures go to, as JSON."""

    asked: Configuration
    settings: Settings
    result: Path

    def as_json(self) -> str:
        return _RUN.dump_json(self).decode()


_RUN = TypeAdapter(Run)


def main(argument: str) -> int:
    try:
        run = _RUN.validate_json(argument)
        if run.settings.processors:
            os.sched_setaffinity(0, run.settings.processors)  # before an engine counts them
        with Classifier(run.asked, run.settings) as classifier:
            quantised = ", on a quantised graph" if run.asked.precision == INT8 else ""
            _say(f"Running {classifier.describe()}{quantised}")
            figures = _accuracy(run, classifier) if run.asked.measure == ACCURACY else _throughput(run, classifier)
    except Error as error:
        _say(f"error: {error}")
        return error.exit_code
    try:
        run.result.write_text(json.dumps(figures))
    except OSError as error:
        _say(f"error: {run.result}: {error.strerror}")
        return 1
    return 0


def _throughput(run: Run, classifier: Classifier) -> dict[str, float]:
    asked, settings, size = run.asked, run.settings, run.settings.batch_size
    fmt = batches.format_of(classifier.shape, classifier.dtype, asked.pixels, size)
    if asked.data_location:
        feed = batches.real(fmt, size, asked.data_location, batches.decoder(fmt))
    else:
        feed = batches.synthetic(fmt, size)
    if settings.warmup_steps:
        _say("[Running warmup steps...]")
        _timed(classifier.scores, feed, settings.warmup_steps, size)
    _say("[Running benchmark steps...]")
    return _figures(_timed(classifier.scores, feed, settings.steps, size), size)


def _timed(answer: Callable[[Array], Array], feed: Iterator[Array], steps: int, batch_size: int) -> Array:
    """Return the seconds of each step; every ten, say how many pictures a second these ten took."""
    seconds = np.zeros(steps)
    for step, batch in zip(range(steps), feed, strict=False):
        begin = time.perf_counter()
        answer(batch)
        seconds[step] = time.perf_counter() - begin
        if (step + 1) % _EVERY == 0:
            rate = batch_size * _EVERY / seconds[step + 1 - _EVERY : step + 1].sum()
            _say(f"steps = {step + 1}, {rate:.3f} images/sec")
    return seconds


def _figures(seconds: Array, batch_size: int) -> dict[str, float]:
    p50, p90, p99 = (float(each) for each in np.percentile(seconds, (50, 90, 99)) * 1e3)
    throughput, mean = float(batch_size / seconds.mean()), float(seconds.mean() * 1e3)
    _say(f"Batch size = {batch_size}")
    _say(f"Throughput: {throughput:.3f} images/sec")
    if batch_size == 1:
        _say(f"Latency: {mean:.3f} ms")
        _say(f"Latency percentiles: p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms")
    names = ("throughput", "step_mean_ms", "step_p50_ms", "step_p90_ms", "step_p99_ms")
    return dict(zip(names, (throughput, mean, p50, p90, p99), strict=True))


def _accuracy(run: Run, classifier: Classifier) -> dict[str, float]:
    """Hold the answers against the labels. With five classes or fewer, top-5 is 1."""
    asked, settings = run.asked, run.settings
    assert asked.data_location
    fmt = batches.format_of(classifier.shape, classifier.dtype, asked.pixels, settings.batch_size)
    seen = first = among = 0
    feed = batches.labelled(fmt, settings.batch_size, asked.data_location, batches.decoder(fmt))
    for step, (batch, records) in enumerate(feed, 1):
        ranked = _ranked(classifier.scores(_filled(batch, classifier))[: len(records)])
        wanted = np.array([_class(record, ranked.shape[1], asked.label_offset) for record in records])
        right = ranked == wanted[:, None]
        seen, first, among = seen + len(records), first + right[:, 0].sum(), among + right[:, :_TOP].any(1).sum()
        if step % _EVERY == 0:
            _say(f"steps = {step}, {seen} images, top-1 = {first / seen:.4f}, top-5 = {among / seen:.4f}")
        if step == settings.steps:
            break
    if not seen:
        raise UserError(f"--data-location {asked.data_location}: no picture in it")
    _say(f"Batch size = {settings.batch_size}")
    _say(f"Images: {seen}")
    _say(f"Top-1 accuracy: {first / seen:.4f}")
    _say(f"Top-5 accuracy: {among / seen:.4f}")
    return {"images": seen, "top_1": float(first / seen), "top_5": float(among / seen)}


def _filled(batch: Array, classifier: Classifier) -> Array:
    """Return a short last batch as long as the model takes them, where it takes only one length."""
    missing = (classifier.shape or (-1,))[0] - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing > 0 else batch


def _ranked(scores: Array) -> Array:
    """Return the classes of each row, the likeliest first."""
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    return np.argsort(-rows, axis=1, kind="stable")


def _class(record: Record, outputs: int, offset: int | None) -> int:
    """Return the output that stands for the label of a record."""
    if offset is None:
        offset = 0 if outputs == _WITH_BACKGROUND else 1
    number = record.label - offset
    if not 0 <= number < outputs:
        problem = f"label {record.label} is none of the {outputs} classes of the model"
        raise UserError(f"{record.where}: {problem} (--label-offset {offset})")
    return number


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
