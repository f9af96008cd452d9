"""Write a sample of what a model is asked, and what it answers, as TF Serving's PredictionLog in TFRecord files.

A model's ``logging_config`` asks for it. Requests never wait for the disk: they are put into a bounded queue, and a
thread of its own writes them; what does not fit is dropped and counted. A file ends at `MAX_RECORDS` records, which is
as many as a warm-up file may hold: any of them can be put into ``assets.extra/tf_serving_warmup_requests``, where the
logged answers become answers that the model must give. All files of a log together have a limit too: the oldest, of
earlier runs as well, are removed before a new one is begun.
"""

import itertools
import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import EncodeError

from cortex.model_server.config import LoggingConfig, ModelConfig
from cortex.model_server.request import Recorder
from cortex.model_server.status import Code, invalid
from cortex.model_server.warmup import MAX_RECORDS
from cortex.protos import prediction_log_pb2
from cortex.tfrecord import encode

_log = logging.getLogger(__name__)

_KINDS = {
    "PredictRequest": "predict_log",
    "ClassificationRequest": "classify_log",
    "RegressionRequest": "regress_log",
    "MultiInferenceRequest": "multi_inference_log",
}


_NAME = re.compile(r"-\d{8}T\d{6}-\d+-\d{5,}\.tfrecord")
"""What follows the prefix in the name of a file: the time, the process, and the number of the file in it."""


@dataclass(frozen=True)
class RequestLogOptions:
    """Limits: bytes of a file, of all files of a log, and of what waits in memory, with answers; records that wait."""

    max_file_bytes: int = 64 * 2**20
    max_total_bytes: int = 2**30
    max_queue_bytes: int = 64 * 2**20
    max_queue_records: int = 1000


@dataclass(frozen=True)
class _Entry:
    config: LoggingConfig
    model: str
    request: Any
    answer: Callable[[], Any]
    size: int
    seconds: int


_Prefixes = frozenset[str]
"""In the queue: those that requests are logged under from here on. The files of others are done."""


class RequestLog:
    """Own the logs of a server, and the thread that writes them; there is none until a model asks for it."""

    def __init__(self, recorder: Recorder | None = None, options: RequestLogOptions | None = None) -> None:
        self._recorder = recorder or Recorder()
        self._options = options or RequestLogOptions()
        self._configs: Mapping[str, LoggingConfig] = {}
        self._files: dict[str, _Files] = {}
        self._numbers = itertools.count(1)
        self._queue: deque[_Entry | _Prefixes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def check(self, models: Sequence[ModelConfig]) -> None:
        """Raise StatusError (INVALID_ARGUMENT) for a log that cannot be written; make the directories of the others."""
        for model in models:
            if model.logging is not None:
                _check(model.name, Path(model.logging.filename_prefix).parent)

    def configure(self, models: Sequence[ModelConfig]) -> None:
        """Log by these models' configs from now on."""
        with self._changed:
            self._configs = {model.name: model.logging for model in models if model.logging is not None}
            if self._configs and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
                self._thread.start()
            if self._thread is not None:
                self._queue.append(_Prefixes(each.filename_prefix for each in self._configs.values()))
                self._changed.notify()

    def add(self, model: str, request: Any, answer: Callable[[], Any], held: Callable[[], int]) -> None:
        """Log a request to a model, if it is in the sample.

        ``answer`` makes the response message, later; ``held`` is the memory, in bytes, that it takes until then.
        """
        config = self._configs.get(model)
        if config is None or random.random() >= config.sampling_rate:  # noqa: S311 - a sample, not a secret
            return
        entry = _Entry(config, model, request, answer, request.ByteSize() + held(), int(time.time()))
        with self._changed:
            if self._is_full(entry):
                self._recorder.logged(model, Code.RESOURCE_EXHAUSTED)
                return
            self._queue.append(entry)
            self._bytes += entry.size
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits, for up to ``timeout`` seconds, and close the files."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _is_full(self, entry: _Entry) -> bool:
        if self._closed or len(self._queue) >= self._options.max_queue_records:
            return True
        return bool(self._queue) and self._bytes + entry.size > self._options.max_queue_bytes

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            if isinstance(entry, _Entry):
                self._recorder.logged(entry.model, self._write(entry))
            else:
                self._close_but(entry)
        self._close_but(_Prefixes())

    def _next(self) -> _Entry | _Prefixes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            entry = self._queue.popleft()
            self._bytes -= entry.size if isinstance(entry, _Entry) else 0
            return entry

    def _close_but(self, used: _Prefixes) -> None:
        for prefix in self._files.keys() - used:
            self._files.pop(prefix).close()

    def _write(self, entry: _Entry) -> Code:
        prefix = entry.config.filename_prefix
        files = self._files.setdefault(prefix, _Files(prefix, self._options, self._numbers))
        try:
            files.write(encode(_message(entry).SerializeToString()))
        except OSError as error:
            files.warn(f"A request log cannot be written, records are lost: {error}")
            return Code.UNAVAILABLE
        except (ValueError, EncodeError) as error:  # a message that cannot be made, or is larger than protobuf allows
            files.warn(f"A request of {entry.model} cannot be logged: {error}")
            return Code.INTERNAL
        return Code.OK


class _Files:
    """The files of one prefix, one after the other; each holds whole records only.

    ``numbers`` tell apart all that the process writes: a log may end and begin again within a second.
    """

    def __init__(self, prefix: str, options: RequestLogOptions, numbers: Iterator[int]) -> None:
        self._prefix = prefix
        self._numbers = numbers
        self._limit = min(options.max_file_bytes, options.max_total_bytes)
        self._total = options.max_total_bytes
        self._file: Any = None
        self._size = self._records = 0
        self._warned = ""

    def write(self, record: bytes) -> None:
        """Append a record, in a new file where the current one is full, or was removed or moved away.

        Raises OSError, and leaves no half record.
        """
        if self._file is not None and (self._is_full(record) or not Path(self._file.name).exists()):
            self.close()
        if self._file is None:
            self._make_room(max(self._limit, len(record)))
            self._open()
        try:
            if self._file.write(record) < len(record):
                raise OSError(f"{self._file.name}: no space left")
        except OSError:
            try:
                self._file.truncate(self._size)
            finally:
                self.close()
            raise
        self._size += len(record)
        self._records += 1
        self._warned = ""

    def close(self) -> None:
        """Close the current file, if there is one; an empty one is removed."""
        if self._file is not None:
            self._file.close()
            if not self._size:
                Path(self._file.name).unlink(missing_ok=True)
            self._file = None

    def warn(self, message: str) -> None:
        """Say what is wrong, once until a record is written again."""
        if message != self._warned:
            _log.error("%s", message)
            self._warned = message

    def _is_full(self, record: bytes) -> bool:
        return self._records >= MAX_RECORDS or self._size + len(record) > self._limit

    def _make_room(self, size: int) -> None:
        """Remove the oldest files until a file of this size is within the limit of all."""
        prefix = Path(self._prefix)
        names = [path for path in prefix.parent.iterdir() if path.name.startswith(prefix.name)]
        files = sorted(path for path in names if _NAME.fullmatch(path.name, len(prefix.name)))
        sizes = {path: path.stat().st_size for path in files}
        held = sum(sizes.values())
        for path in files:
            if held + size <= self._total:
                return
            path.unlink(missing_ok=True)
            held -= sizes[path]
            _log.info("Removed %s: the files of a request log may hold %d bytes", path, self._total)

    def _open(self) -> None:
        moment = time.strftime("%Y%m%dT%H%M%S")
        path = f"{self._prefix}-{moment}-{os.getpid()}-{next(self._numbers):05}.tfrecord"
        self._file = Path(path).open("xb", buffering=0)  # noqa: SIM115 - held until it is full
        self._size = self._records = 0


def _message(entry: _Entry) -> prediction_log_pb2.PredictionLog:
    message, response = prediction_log_pb2.PredictionLog(), entry.answer()
    log = getattr(message, _KINDS[entry.request.DESCRIPTOR.name])
    log.request.CopyFrom(entry.request)
    log.response.CopyFrom(response)
    if "model_spec" in response.DESCRIPTOR.fields_by_name:
        message.log_metadata.model_spec.CopyFrom(response.model_spec)
    message.log_metadata.sampling_config.sampling_rate = entry.config.sampling_rate
    message.log_metadata.timestamp_secs = entry.seconds
    return message


def _check(model: str, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise invalid(f"Model {model}: logging_config: {directory} cannot be made: {error}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise invalid(f"Model {model}: logging_config: {directory} is not writable")
