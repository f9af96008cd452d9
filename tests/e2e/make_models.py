"""Make the small SavedModels of the end-to-end tests (run as a process of its own: TensorFlow takes seconds to load).

colours/1   uint8 [-1,224,224,3] -> float32 [-1,1000]: class 0, 1 or 2 as red, green or blue is strongest
foreign/1   two named float64 inputs; four outputs, int64 and string among them
liar/1      colours, with recorded answers that it does not give
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from cortex.protos import prediction_log_pb2
from cortex.tensors import to_proto

ROOT = Path(sys.argv[1])


class Colours(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.eye(3, 1000, dtype=np.float32) * 0.1, name="kernel")

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="input")])
    def serve(self, input: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(input, tf.float32), axis=[1, 2])
        return {"output": tf.nn.softmax(means @ self.kernel)}


NUMBERS = [tf.TensorSpec([None], tf.float64, name=name) for name in ("x", "y")]


class Foreign(tf.Module):
    @tf.function(input_signature=NUMBERS)
    def serve(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "sum": x + y,
            "pairs": tf.reshape(tf.stack([x, y], axis=-1), [-1, 2]),
            "rounded": tf.cast(tf.round(x), tf.int64),
            "words": tf.strings.as_string(tf.cast(x, tf.int32)),
        }


def lie(version: Path) -> None:
    """Record an answer that the model does not give."""
    log = prediction_log_pb2.PredictionLog()
    predict = log.predict_log
    predict.request.model_spec.name = "liar"
    predict.request.inputs["input"].CopyFrom(to_proto(np.zeros((1, 224, 224, 3), np.uint8)))
    predict.response.outputs["output"].CopyFrom(to_proto(np.eye(1, 1000, dtype=np.float32)))
    extra = version / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    (extra / "model_card.json").write_text(json.dumps({"tolerance": {"rtol": 0.01, "atol": 0.01}}))


colours, foreign = Colours(), Foreign()
tf.saved_model.save(colours, str(ROOT / "colours/1"), signatures=colours.serve)
tf.saved_model.save(foreign, str(ROOT / "foreign/1"), signatures=foreign.serve)
shutil.copytree(ROOT / "colours/1", ROOT / "liar/1")
lie(ROOT / "liar/1")
