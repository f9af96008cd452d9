"""A SavedModel in the form of TensorFlow 1.15: one frozen graph, no functions, and nothing that 1.15 does not know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.model_server.engines.base import one_line
from export import keras_backend
from export.signature import SIGNATURE


def freeze(saved_model: Path, target: Path) -> None:
    """Write signature ``serving_default`` of a SavedModel into ``target``; variables become constants.

    Raises UserError for a model that TensorFlow cannot load, or whose functions cannot be resolved, and for a target
    that cannot be written.
    """
    keras_backend.prepare()
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        loaded = tf.saved_model.load(str(saved_model))  # owns the variables: without it they are gone
    except Exception as error:  # TensorFlow has a class for every cause
        raise UserError(f"{saved_model}: TensorFlow cannot load it: {one_line(error)}") from error
    serve = loaded.signatures[SIGNATURE]
    frozen = convert_variables_to_constants_v2(serve)
    definition = frozen.graph.as_graph_def()
    calls = {node.op for node in definition.node if node.op.endswith("PartitionedCall")}
    if calls or definition.library.function:
        raise UserError(f"{saved_model}: its graph keeps functions when it is frozen, which TensorFlow 1.15 cannot run")
    del definition.versions.bad_consumers[:]
    inputs = {alias: tensor.name for alias, tensor in zip(_aliases(serve), frozen.inputs, strict=True)}
    outputs = {
        alias: tensor.name for alias, tensor in zip(sorted(serve.structured_outputs), frozen.outputs, strict=True)
    }
    with keras_backend.writing(target):
        _write(definition, inputs, outputs, target)


def _write(definition: Any, inputs: Mapping[str, str], outputs: Mapping[str, str], target: Path) -> None:
    """Write a graph and its signature, whose aliases stand for names of tensors, as TensorFlow 1 does.

    Attributes with default values are left out: those that newer versions added would be unknown to an old one.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        tf.import_graph_def(definition, name="")

        def described(names: Mapping[str, str]) -> dict[str, Any]:
            tensor = session.graph.get_tensor_by_name
            return {alias: v1.saved_model.build_tensor_info(tensor(name)) for alias, name in names.items()}

        signature = v1.saved_model.build_signature_def(
            described(inputs), described(outputs), v1.saved_model.PREDICT_METHOD_NAME
        )
        builder = v1.saved_model.Builder(str(target))
        builder.add_meta_graph_and_variables(
            session, [v1.saved_model.SERVING], {SIGNATURE: signature}, strip_default_attrs=True
        )
        builder.save()


def _aliases(serve: object) -> list[str]:
    """Return the names of a signature's inputs, in the order of its graph's."""
    names: list[str] = list(serve.structured_input_signature[1])  # type: ignore[attr-defined]
    return names
