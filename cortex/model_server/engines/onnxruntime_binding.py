"""Run a session on a GPU through bound buffers: inputs are copied to the GPU from pinned memory, while others compute.

Pinned (page-locked) memory is what a GPU can read by itself. Where ONNX Runtime offers none for the provider, buffers
are ordinary memory, and everything else is the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import _pybind_state as native

from cortex.model_server.engines.base import Array, Arrays

AT_ONCE = 4
"""Requests that have buffers at the same time: one computes, the others are copied."""


class Binding:
    """One request's buffers, which one thread at a time uses; an input's is kept until its shape changes."""

    def __init__(self, session: Any, pinned: Any) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._pinned = pinned
        self._buffers: dict[str, Any] = {}

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[Array]:
        """Return the outputs, in memory of the caller's own."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, self._filled(name, array))
        for name in outputs:
            self._binding.bind_output(name)
        self._session.run_with_iobinding(self._binding)
        copies: list[Array] = self._binding.copy_outputs_to_cpu()
        return copies

    def _filled(self, name: str, array: Array) -> Any:
        buffer = self._buffers.get(name)
        if buffer is None or tuple(buffer.shape()) != array.shape:
            buffer = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, memory_info=self._pinned)
            self._buffers[name] = buffer
        buffer.update_inplace(np.ascontiguousarray(array))
        return buffer


def pinned_memory(provider: str) -> Any:
    """Return ONNX Runtime's handle on memory that this provider's device reads by itself, or None."""
    for device in ort.get_ep_devices():
        if device.ep_name == provider:
            return device.memory_info(native.OrtDeviceMemoryType.HOST_ACCESSIBLE)
    return None
