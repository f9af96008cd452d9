"""The graphs inside a graph of OpenVINO's."""

from typing import Any


def bodies(node: Any) -> tuple[Any, ...]:
    """Return the graphs inside a node: those of a loop or a branch; of any other there are none."""
    kind = node.get_type_name()
    if kind == "If":
        return node.get_function(0), node.get_function(1)
    return (node.get_function(),) if kind in ("Loop", "TensorIterator") else ()
