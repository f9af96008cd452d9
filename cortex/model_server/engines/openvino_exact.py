"""What of a graph stays in single precision where OpenVINO computes it in bf16.

bf16 has 8 significant bits: 2023 is 2024 in it, and the position 1001 of a word is 1000. OpenVINO rounds to it all that
comes before the last matrix product, so a number that is an index, a date or a position became another one, and its
answer another's. Products bear it, and are what bf16 is for. So what is computed from inputs, shapes and integers alone
stays exact until it comes to one.
"""

import re
from typing import Any

import numpy as np
from openvino import opset13

from cortex.model_server.engines.openvino_bodies import bodies

_PRODUCTS = re.compile(r"MatMul|Einsum|\w*Convolution\w*|(LSTM|GRU|RNN)\w+|If|Loop|TensorIterator|FakeQuantize")
_MARKED = b"""<net name="marked" version="11">
<layers>
<layer id="0" name="given" type="Parameter" version="opset1"><data shape="" element_type="f32"/>
<rt_info><attribute name="precise" version="0"/></rt_info><output><port id="0" precision="FP32"/></output></layer>
<layer id="1" name="answer" type="Result" version="opset1"><input><port id="0" precision="FP32"/></input></layer>
</layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges>
</net>"""
"""A graph with the mark that the plugin heeds: Python can copy one, and make none. Its name depends on the version."""


def keep_exact(core: Any, model: Any) -> None:
    """Mark, in an `openvino.Model`, what is not to be rounded to bf16.

    Where the plugin replaces a difference or a quotient of two computed numbers, or a tile, the mark is lost.
    """
    marks = core.read_model(_MARKED, b"").inputs[0].get_node().get_rt_info()
    _mark(model, list(marks.items()))


def _mark(model: Any, marks: list[tuple[str, Any]]) -> None:
    fixed: set[str] = set()
    for node in model.get_ordered_ops():
        kind, sources = node.get_type_name(), [each.get_source_output().get_node().get_name() for each in node.inputs()]
        if kind == "Constant" or (sources and fixed.issuperset(sources)):
            fixed.add(node.get_name())
        elif kind == "Unsqueeze" and node.get_output_element_type(0).is_real():
            _expand_by_slice(node)
    rounded: set[str] = set()
    for node in model.get_ordered_ops():
        sources = [each.get_source_output() for each in node.inputs()]
        takes_rounded = any(
            source.get_element_type().is_real() and source.get_node().get_name() in rounded for source in sources
        )
        if takes_rounded or _PRODUCTS.fullmatch(node.get_type_name()):
            rounded.add(node.get_name())
        else:
            for key, value in marks:
                node.set_rt_info(value, key)
        for body in bodies(node):
            _mark(body, marks)


def _expand_by_slice(node: Any) -> None:
    """Say new axes as a slice: the plugin makes a reshape of the other, which loses the mark.

    Not for constants: of weights in half precision that become slices the plugin makes NaN.
    """
    axes, rank = node.input_value(1).get_node(), node.get_output_partial_shape(0).rank
    if axes.get_type_name() != "Constant" or rank.is_dynamic:
        return
    size = rank.get_length()
    new = np.isin(np.arange(size), np.asarray(axes.data) % size).astype(int).tolist()
    places = np.zeros(size, np.int64)
    slice_ = opset13.strided_slice(node.input_value(0), places, places, places + 1, [1] * size, [1] * size, new, [], [])
    slice_.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(slice_.output(0))
