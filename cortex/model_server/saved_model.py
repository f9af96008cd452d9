"""The signatures of a SavedModel directory, read without TensorFlow."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import meta_graph_pb2, saved_model_pb2

SAVED_MODEL = "SavedModel"
DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
_INIT_OP = "__saved_model_init_op"  # TensorFlow 2 notes its initializer among the signatures

Signatures = Mapping[str, meta_graph_pb2.SignatureDef]


@dataclass(frozen=True)
class SavedModel:
    """One version directory: its path, the tags that chose its graph, and that graph's signatures by name."""

    format: ClassVar[str] = SAVED_MODEL
    directory: Path
    tags: frozenset[str]
    signatures: Signatures

    def graph(self) -> meta_graph_pb2.MetaGraphDef:
        """Read the whole graph again, which takes some milliseconds for each megabyte."""
        return next(each for each in parse(self.directory).meta_graphs if _has(each, self.tags))


def runnable(signatures: Signatures) -> Signatures:
    """Return the signatures that a request may name; TensorFlow's own initializer is not one."""
    return {name: signature for name, signature in signatures.items() if name != _INIT_OP}


def is_in(directory: Path) -> bool:
    """Say whether a directory holds a SavedModel, whole or not."""
    return (directory / "saved_model.pb").is_file() or (directory / "saved_model.pbtxt").is_file()


def read(directory: Path, tags: frozenset[str]) -> SavedModel:
    """Read the signatures of the graph that carries exactly these tags.

    Raises StatusError (NOT_FOUND or INVALID_ARGUMENT, in TensorFlow's words) for anything but a SavedModel.
    """
    proto = parse(directory)
    for graph in proto.meta_graphs:
        if _has(graph, tags):
            return SavedModel(directory, tags, {name: _plain(value) for name, value in graph.signature_def.items()})
    found = " ".join("{ " + ", ".join(graph.meta_info_def.tags) + " }" for graph in proto.meta_graphs)
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {', '.join(sorted(tags))} }}. "
        f"The SavedModel in {directory} has: {found or 'no graph at all'}",
    )


def parse(directory: Path) -> saved_model_pb2.SavedModel:
    """Return the whole message of ``saved_model.pb``, or of ``saved_model.pbtxt``."""
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    try:
        _look_into(directory / "variables")
        if binary.is_file():
            return saved_model_pb2.SavedModel.FromString(binary.read_bytes())
        if text.is_file():
            return text_format.Parse(text.read_text(), saved_model_pb2.SavedModel())
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise invalid(f"Can't parse {binary if binary.is_file() else text} as a SavedModel: {error}") from error
    except OSError as error:
        raise StatusError(Code.NOT_FOUND, f"Could not read the SavedModel in {directory}: {error}") from error
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}. "
        "Check that the directory exists and that you have the right permissions for accessing it.",
    )


def _look_into(variables: Path) -> None:
    """Raise OSError for a directory that cannot be entered: OpenVINO ends the process there."""
    with contextlib.suppress(FileNotFoundError):
        (variables / "variables.index").stat()


def copies(graph: meta_graph_pb2.MetaGraphDef) -> dict[str, str]:
    """Return, by name, the variables that are read but not restored, each with the copy that is restored in its place.

    `tf.saved_model.save` of anything with a model of Keras 3 in it writes such graphs: it initializes the copies from
    the variables. TF Serving answers "Could not find variable" then.
    """
    nodes = {node.name: node for node in graph.graph_def.node}
    restore = nodes.get(graph.saver_def.restore_op_name)
    restored = set(restore.input) if restore else set()
    assigned = {node.input[1]: node.input[0] for node in nodes.values() if node.op == "AssignVariableOp"}
    made = {nodes[value].input[0]: copy for value, copy in assigned.items() if value in nodes and copy in restored}
    used = {name for node in nodes.values() if node.op != "ReadVariableOp" for name in node.input}
    return {variable: copy for variable, copy in made.items() if variable in used - restored}


def read_copies(graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Let a graph read the copies that are restored in place of its variables."""
    restored = copies(graph)
    for node in graph.graph_def.node:
        if node.op != "ReadVariableOp":
            node.input[:] = [restored.get(name, name) for name in node.input]


def _has(graph: meta_graph_pb2.MetaGraphDef, tags: frozenset[str]) -> bool:
    return frozenset(graph.meta_info_def.tags) == tags


def _plain(signature: meta_graph_pb2.SignatureDef) -> meta_graph_pb2.SignatureDef:
    """Return a copy that does not keep the whole graph alive."""
    return meta_graph_pb2.SignatureDef.FromString(signature.SerializeToString())
