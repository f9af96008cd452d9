"""TensorFlow, the reference: it runs every SavedModel of TensorFlow 1 and 2.

A v1 session is used through `_make_callable_from_options`, as TF Serving's C++ session is: it feeds tensors without
comparing them to the placeholder's declared shape (clients rely on that), and a call costs about 20 us.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2

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

_CALLABLES = 32
"""Callables kept: one per signature and set of outputs; a client that filters outputs in many ways makes many."""


class TensorFlow:
    """Run a SavedModel in one session."""

    def __init__(self, model: SavedModel, session: Any, description: Description) -> None:
        self.signatures = model.signatures
        self._session = session
        self._description = description
        self._callable = functools.lru_cache(_CALLABLES)(self._make_callable)

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Restore the variables and initialize the tables. Raises Unsupported with TensorFlow's own words."""
        if not isinstance(model, SavedModel):
            raise Unsupported(f"TensorFlow does not read a {model.format}")
        config = _session_config(options)
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                tf.compat.v1.saved_model.load(session, set(model.tags), str(model.directory))
        except Exception as error:
            session.close()
            raise Unsupported(f"TensorFlow cannot load the model: {one_line(error)}") from error
        return cls(model, session, Description("tensorflow", options.precision, config.intra_op_parallelism_threads))

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs. The deadline is looked at before the run, which is not interrupted."""
        remaining(deadline)
        aliases = tuple(sorted(inputs))
        try:
            values = self._callable(signature, aliases, tuple(outputs))(*(inputs[alias] for alias in aliases))
        except tf.errors.OpError as error:
            raise StatusError(Code(error.error_code), error.message) from error
        except (TypeError, ValueError) as error:
            raise invalid(one_line(error)) from error
        return {alias: _array(value) for alias, value in zip(outputs, values, strict=True)}

    def describe(self) -> Description:
        """Return the precision and threads the session was made with."""
        return self._description

    def close(self) -> None:
        """Close the session and let go of its graph."""
        self._callable.cache_clear()
        self._session.close()

    def _make_callable(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        signature = self.signatures[name]
        options = config_pb2.CallableOptions(
            feed=[signature.inputs[alias].name for alias in inputs],
            fetch=[signature.outputs[alias].name for alias in outputs],
        )
        made: Callable[..., list[Any]] = self._session._make_callable_from_options(options)
        return made


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
