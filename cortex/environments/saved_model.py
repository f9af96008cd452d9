"""What can be known about a SavedModel without an engine: whether it is one, and whether its parts are there."""

import re
from pathlib import Path
from typing import Any

from cortex.environments.tree import human_size, plainly
from cortex.errors import UserError

GRAPH = "saved_model.pb"
_LARGEST_MESSAGE = 2**31 - 1
"""The most bytes that a protobuf message can have."""
_FIRST_BYTES = (0x08, 0x12)
"""How the two fields of a SavedModel message begin: schema version and graphs."""
_VARIABLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")


def check(directory: Path, name: str) -> bool:
    """Read the graph of a SavedModel and return whether it has variables. ``name`` is what errors call the file.

    UserError, in one line, when the file is not a SavedModel message that can be served.
    """
    with plainly("cannot read"):
        graphs = _parse(directory / GRAPH, name).meta_graphs
    serving = [graph for graph in graphs if "serve" in graph.meta_info_def.tags]
    if not serving:
        tags = ", ".join(sorted({tag for graph in graphs for tag in graph.meta_info_def.tags})) or "no tag at all"
        raise UserError(f'{name} has no graph with the tag "serve" (it has: {tags}); export it for serving')
    return any(_has_variables(graph.graph_def) for graph in serving)


def missing_variables(directory: Path) -> str | None:
    """Return what a ``variables`` directory lacks of an index and every shard of its data; None when it is complete."""
    with plainly("cannot read the directory"):
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if not names:
        return "variables/"
    if "variables.index" not in names:
        return "variables/variables.index"
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    total = max((int(shard[2]) for shard in shards), default=1)
    wanted = (f"variables.data-{number:05}-of-{total:05}" for number in range(total))
    return next((f"variables/{name}" for name in wanted if name not in names), None)


def refuse_pointer(file: Path, name: str) -> None:
    """Raise UserError when a file is empty, or only the note that Git LFS leaves in a file's place."""
    with plainly("cannot read"), file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise UserError(f"{name} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{name} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")


def _parse(file: Path, name: str) -> Any:
    from google.protobuf.message import DecodeError

    from cortex.protos import saved_model_pb2  # 0.1 s that a deployment without a SavedModel need not pay

    refuse_pointer(file, name)
    size = file.stat().st_size
    if size > _LARGEST_MESSAGE:
        raise UserError(f"{name} is not a SavedModel: {human_size(size)} is more than a protobuf message can have")
    with file.open("rb") as stream:
        if stream.read(1)[0] not in _FIRST_BYTES:
            raise UserError(f"{name} is not a SavedModel: it does not begin like one")
    try:
        message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError:
        raise UserError(f"{name} is not a SavedModel: it is damaged or cut short; export or copy it again") from None
    if not message.meta_graphs:
        raise UserError(f"{name} is not a SavedModel: it has no graph")
    return message


def _has_variables(graph: Any) -> bool:
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return any(node.op in _VARIABLES for nodes in bodies for node in nodes)
