"""What is to be known of an ONNX file before ONNX Runtime runs it."""

import mmap
import re
from pathlib import Path

_GATES = re.compile(rb"\x22.\w*(?:LSTM|GRU)", re.DOTALL)
"""A layer with gates in a file: the tag of a node's type, its length, and the type."""


def why_not_empty(path: Path) -> str:
    """Return why no input of a model may be empty, or nothing where one may: it would end the process (1.31)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        has_gates = _GATES.search(content) is not None
    return "an input is empty, over which ONNX Runtime ends the process in a recurrent layer" if has_gates else ""
