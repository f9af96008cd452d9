"""Keras on TensorFlow, on the CPU, and without the start-up noise of their native libraries."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cortex.errors import UserError


def prepare() -> None:
    """Import TensorFlow and Keras as every export needs them: about 3 s once, then nothing.

    The export computes on the CPU, so the answers that it records do not depend on a GPU. Keras' own configuration file
    and ``KERAS_BACKEND`` may ask for other backends or layouts; an artifact must not depend on them either.
    Raises UserError when Keras already runs on another backend.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        _import()
    else:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what matters also comes as an exception
        with _stderr_held():
            _import()


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say in one line why TensorFlow cannot write; its own message wraps the reason in names of graph nodes."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message.splitlines()[0])
        raise UserError(f"cannot write {target}: {reason.rpartition('; ')[2]}") from error


def _import() -> None:
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise UserError(f"keras runs on {keras.backend.backend()} here: export in a process of its own")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    tf.get_logger().setLevel("ERROR")


@contextmanager
def _stderr_held() -> Iterator[None]:
    """Keep what native code writes to the standard error stream, and show it only if the block fails.

    TensorFlow reports missing CUDA drivers and its CPU options there before any log level counts. Who sets
    ``TF_CPP_MIN_LOG_LEVEL`` sees all of it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
