"""The tf.Examples of a Classify, Regress or MultiInference request, as the string tensor that a signature takes."""

import numpy as np

from cortex.model_server.engines.base import Array
from cortex.model_server.status import invalid
from cortex.protos import input_pb2


def tensor(message: input_pb2.Input) -> Array:
    """Return the serialized Examples, shape [n], objects of type bytes. Raises INVALID_ARGUMENT when there are none.

    The context stands before each Example: to parse two serialized messages in a row is to merge them, so a feature of
    the Example replaces the context's.
    """
    kind = message.WhichOneof("kind")
    listed = getattr(message, kind) if kind else input_pb2.ExampleList()
    context = listed.context.SerializeToString() if kind == "example_list_with_context" else b""
    if not listed.examples:
        raise invalid("Input is empty.")
    examples = np.empty(len(listed.examples), np.object_)
    examples[:] = [context + example.SerializeToString() for example in listed.examples]
    return examples
