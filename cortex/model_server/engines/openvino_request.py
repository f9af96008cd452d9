"""An infer request of OpenVINO, and the memory that goes with it.

Whatever runs beside an engine runs with cold caches, so it counts how much is touched. An input or output whose size
is known beforehand has memory of its own, of which OpenVINO is told once; what a run takes then are two copies, and no
memory is taken and given back.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import openvino as ov

from cortex.model_server.engines.base import Array, remaining, timed_out, writable

_LONGEST_WAIT_MS = 2**31 - 1  # what OpenVINO counts in


class InferRequest:
    """One infer request of a compiled model. Only one thread may use it at a time.

    ``may_cancel`` says whether a run that outlives its deadline can be given up, or has to come to its end.
    """

    def __init__(self, model: Any, *, may_cancel: bool) -> None:
        self._may_cancel = may_cancel
        self._native = native = model.create_infer_request()
        self._has_state = bool(native.query_state())
        self._outputs = [_own(port, partial(native.set_output_tensor, at)) for at, port in enumerate(model.outputs)]
        # after the outputs: one that is an input and no more would take the input's memory away
        self._inputs = [_own(port, partial(native.set_input_tensor, at)) for at, port in enumerate(model.inputs)]

    def run(self, inputs: Mapping[int, Array], outputs: Sequence[int], deadline: float | None) -> list[Array]:
        """Return the outputs with these indices, for the inputs by theirs.

        Raises RuntimeError or TypeError for arrays that the model does not take, and StatusError at the deadline.
        """
        if self._has_state:  # it is whoever's asked before
            self._native.reset_state()
        shared = [self._put(index, array) for index, array in inputs.items()]
        self._infer(deadline)
        del shared  # not before: OpenVINO has only their addresses
        return [self._taken(index) for index in outputs]

    def _put(self, index: int, array: Array) -> Array:
        """Give OpenVINO an input, and return the memory that it will read."""
        own = self._inputs[index]
        if own is None:
            own = writable(array)
            self._native.set_input_tensor(index, ov.Tensor(own, shared_memory=True))
        else:
            np.copyto(own, array, casting="no")
        return own

    def _taken(self, index: int) -> Array:
        own = self._outputs[index]
        found: Array = self._native.get_output_tensor(index).data if own is None else own
        return found.copy()

    def _infer(self, deadline: float | None) -> None:
        left = remaining(deadline)
        self._native.start_async()
        if left is None or self._native.wait_for(min(_LONGEST_WAIT_MS, math.ceil(left * 1000))):
            self._native.wait()
            return
        if not self._may_cancel:
            self._native.wait()
            raise timed_out()
        self._native.cancel()
        try:
            self._native.wait()
        except RuntimeError:
            raise timed_out() from None  # OpenVINO says "was canceled" here


def _own(port: Any, bind: Callable[[Any], None]) -> Array | None:
    """Bind memory to a port and return it as an array, or None for a size that is not known, or a type numpy lacks."""
    dtype = port.element_type.to_dtype()
    if port.partial_shape.is_dynamic or dtype.kind not in "biuf" or ov.Type(dtype) != port.element_type:
        return None
    tensor = ov.Tensor(port.element_type, port.shape)
    bind(tensor)
    memory: Array = tensor.data
    return memory
