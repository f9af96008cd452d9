"""TensorFlow, the reference: it runs every SavedModel of TensorFlow 1 and 2.

A v1 session is used below its Python checks, as TF Serving's C++ session is: it feeds tensors without comparing them to
the placeholder's declared shape (clients rely on that), breaks a run off at its deadline, and a call costs some 25 us.
"""

import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import ops

from cortex.model_server import saved_model
from cortex.model_server.engines.base import (
    BF16,
    Array,
    Arrays,
    Description,
    EngineOptions,
    Unsupported,
    one_line,
    remaining,
)
from cortex.model_server.model_file import Model
from cortex.model_server.saved_model import SavedModel
from cortex.model_server.status import Code, StatusError, invalid

tf.get_logger().setLevel("ERROR")  # it warns of v1 functions, and repeats every restore

_FILTERS = 32
"""Ways to filter outputs that are run as such: a session keeps a graph for each, and never lets go of it."""


class TensorFlow:
    """Run a SavedModel in one session."""

    def __init__(self, model: SavedModel, session: Any, description: Description) -> None:
        self.signatures = model.signatures
        self._session = session
        self._description = description
        self._filters: set[tuple[str, frozenset[str]]] = set()
        self._tensor = functools.cache(self._find_tensor)
        session._extend_graph()

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Restore the variables and initialize the tables. Raises Unsupported with TensorFlow's own words."""
        if not isinstance(model, SavedModel):
            raise Unsupported(f"TensorFlow does not read {model.format} models")
        config = _session_config(options)
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                graph = tf.compat.v1.saved_model.load(session, set(model.tags), str(model.directory))
                session.run([_assign(session.graph, *pair) for pair in saved_model.copies(graph).items()])
        except Exception as error:
            session.close()
            raise Unsupported(f"TensorFlow cannot load the model: {one_line(error)}") from error
        return cls(model, session, Description("tensorflow", options.precision, config.intra_op_parallelism_threads))

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs; a run that outlives the deadline is broken off between two of its operations."""
        left = remaining(deadline)
        stated = self.signatures[signature]
        fetched = self._fetched(signature, outputs)
        try:
            feed = {self._tensor(stated.inputs[alias].name): array for alias, array in inputs.items()}
            if len(feed) < len(inputs):
                raise ValueError("two inputs of the signature are the same tensor of the graph")
            fetch = [self._tensor(stated.outputs[alias].name) for alias in fetched]
            with _run_options(left) as options:
                values = self._session._call_tf_sessionrun(options, feed, fetch, [], None)
        except tf.errors.OpError as error:
            raise StatusError(Code(error.error_code), error.message) from error
        except (KeyError, TypeError, ValueError) as error:
            raise invalid(one_line(error)) from error
        found = dict(zip(fetched, values, strict=True))
        return {alias: _array(found[alias]) for alias in outputs}

    def describe(self) -> Description:
        """Return the precision and threads the session was made with."""
        return self._description

    def close(self) -> None:
        """Close the session and let go of its graph, in no circle: what a start loads, no collection looks through."""
        self._session.close()
        ops.dismantle_graph(self._session.graph)
        del self._tensor

    def _fetched(self, signature: str, outputs: Sequence[str]) -> list[str]:
        """Return what to run for these outputs: them, in one order, or all once clients have filtered in many ways."""
        key = (signature, frozenset(outputs))
        if key not in self._filters and len(self._filters) >= _FILTERS:
            return sorted(self.signatures[signature].outputs)
        self._filters.add(key)
        return sorted(outputs)

    def _find_tensor(self, name: str) -> Any:
        return self._session.graph.get_tensor_by_name(name)._as_tf_output()


def _assign(graph: tf.Graph, variable: str, copy: str) -> Any:
    handle, source = (graph.get_operation_by_name(name).outputs[0] for name in (variable, copy))
    value = tf.raw_ops.ReadVariableOp(resource=source, dtype=handle.op.get_attr("dtype"))
    return tf.raw_ops.AssignVariableOp(resource=handle, value=value)


@contextmanager
def _run_options(left: float | None) -> Iterator[Any]:
    """Hold the options of a run that has so many seconds, or any number of them."""
    if left is None:
        yield None
        return
    options = config_pb2.RunOptions(timeout_in_ms=math.ceil(left * 1000))
    buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
    try:
        yield buffer
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)


def _array(value: Any) -> Array:
    """Return what a session fetched as an array: it gives a scalar string as bare bytes."""
    return np.asarray(value, np.object_ if isinstance(value, bytes) else None)


def _session_config(options: EngineOptions) -> config_pb2.ConfigProto:
    config = config_pb2.ConfigProto()
    if options.session_config_file:
        config = _read_session_config(Path(options.session_config_file))
    config.intra_op_parallelism_threads = (
        options.threads or options.intra_op_threads or config.intra_op_parallelism_threads or options.cores
    )
    config.inter_op_parallelism_threads = options.inter_op_threads or config.inter_op_parallelism_threads
    if options.gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = options.gpu_memory_fraction
    if options.precision == BF16:
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1  # RewriterConfig.ON
    return config


def _read_session_config(path: Path) -> config_pb2.ConfigProto:
    try:
        return text_format.Parse(path.read_text(), config_pb2.ConfigProto())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise invalid(f"Invalid protobuf file: '{path}': {one_line(error)}") from error
