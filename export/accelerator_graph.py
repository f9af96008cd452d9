"""A SavedModel in the form of TensorFlow 1.15: one frozen graph, no functions, and nothing that 1.15 does not know."""

from __future__ import annotations

from pathlib import Path

from cortex.errors import UserError
from export import keras_backend
from export.signature import SIGNATURE


def freeze(saved_model: Path, target: Path) -> None:
    """Write signature ``serving_default`` of a SavedModel into ``target``; variables become constants.

    Attributes with default values are left out: those that newer versions added would be unknown to an old one.
    Raises UserError for a model whose functions cannot be resolved.
    """
    keras_backend.prepare()
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(saved_model))  # owns the variables: without it they are gone
    serve = loaded.signatures[SIGNATURE]
    frozen = convert_variables_to_constants_v2(serve)
    definition = frozen.graph.as_graph_def()
    calls = {node.op for node in definition.node if node.op.endswith("PartitionedCall")}
    if calls or definition.library.function:
        raise UserError(f"{saved_model}: its graph keeps functions when it is frozen, which TensorFlow 1.15 cannot run")
    del definition.versions.bad_consumers[:]
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        tf.import_graph_def(definition, name="")
        tensors = session.graph.get_tensor_by_name
        inputs = {
            alias: v1.saved_model.build_tensor_info(tensors(frozen_input.name))
            for alias, frozen_input in zip(_aliases(serve), frozen.inputs, strict=True)
        }
        outputs = {
            alias: v1.saved_model.build_tensor_info(tensors(output.name))
            for alias, output in zip(sorted(serve.structured_outputs), frozen.outputs, strict=True)
        }
        signature = v1.saved_model.build_signature_def(inputs, outputs, v1.saved_model.PREDICT_METHOD_NAME)
        builder = v1.saved_model.Builder(str(target))
        builder.add_meta_graph_and_variables(
            session, [v1.saved_model.SERVING], {SIGNATURE: signature}, strip_default_attrs=True
        )
        builder.save()


def _aliases(serve: object) -> list[str]:
    """Return the names of a signature's inputs, in the order of its graph's."""
    names: list[str] = list(serve.structured_input_signature[1])  # type: ignore[attr-defined]
    return names
