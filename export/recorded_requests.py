"""Requests and their answers, kept inside an artifact so that it can prove itself wherever it is loaded.

The file is TF Serving's warm-up file, ``assets.extra/tf_serving_warmup_requests``: a TFRecord of ``PredictionLog``. TF
Serving replays the requests; a model server that also reads the responses can tell whether it computes the same.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cortex.errors import UserError
from cortex.protos import predict_pb2, prediction_log_pb2
from cortex.tensors import to_array, to_proto
from cortex.tfrecord import CorruptedRecord, encode, read_records
from export.signature import IMAGE_SIZE, INPUT, OUTPUT, SIGNATURE

FILE = "assets.extra/tf_serving_warmup_requests"
CAT = Path(__file__).with_name("cat.jpg")

Images = NDArray[np.uint8]  # [n, 224, 224, 3], RGB
Answers = NDArray[np.float32]  # [n, 1000]


def requests() -> list[Images]:
    """Return the requests: a cat, noise, the cat in a mirror, and half as bright; one image each, as most clients send.

    A tensor is 150 KB, so they are few. None has several images: a server gets ready for what is recorded, and a model
    compiled for any number of images takes memory beside the one for a single image.
    """
    cat = _cat()
    noise = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    return [image[np.newaxis] for image in (cat, noise, cat[:, ::-1], cat // 2)]


def record(answer: Callable[[Images], Answers], name: str, version: int) -> list[prediction_log_pb2.PredictionLog]:
    """Return every request with the answer to it, as model ``name``, ``version`` would have served it."""
    return [
        log_of(predict_pb2.PredictRequest(inputs={INPUT: to_proto(images)}), {OUTPUT: answer(images)}, name, version)
        for images in requests()
    ]


def log_of(
    request: predict_pb2.PredictRequest, outputs: Mapping[str, NDArray[Any]], name: str, version: int
) -> prediction_log_pb2.PredictionLog:
    """Return a request with the answer to it, as model ``name``, ``version`` would have served it."""
    asked = predict_pb2.PredictRequest(inputs=request.inputs, output_filter=request.output_filter)
    asked.model_spec.name = name
    asked.model_spec.signature_name = SIGNATURE
    answer = {alias: to_proto(array) for alias, array in outputs.items()}
    response = predict_pb2.PredictResponse(model_spec=asked.model_spec, outputs=answer)
    response.model_spec.version.value = version
    return prediction_log_pb2.PredictionLog(predict_log={"request": asked, "response": response})


def model_name(output: Path) -> str:
    """Return the name of the model in a directory, for messages, which hold nothing but text."""
    return output.resolve().name.encode(errors="replace").decode()


def images_of(log: prediction_log_pb2.PredictionLog) -> Images:
    """Return the images that a recorded request asks about."""
    return to_array(log.predict_log.request.inputs[INPUT])


def answers_of(log: prediction_log_pb2.PredictionLog) -> Answers:
    """Return the answers that are recorded for them."""
    return to_array(log.predict_log.response.outputs[OUTPUT])


def read(directory: Path) -> list[prediction_log_pb2.PredictionLog]:
    """Return the records of the artifact in ``directory``, none without the file. Raises UserError for a broken one."""
    path = directory / FILE
    try:
        return [prediction_log_pb2.PredictionLog.FromString(record) for record in read_records(path)]
    except FileNotFoundError:
        return []
    except (OSError, CorruptedRecord, ValueError, DecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def is_ours(log: prediction_log_pb2.PredictionLog) -> bool:
    """Tell whether a record asks the signature that is exported, ``serving_default``, to predict."""
    is_predict = log.WhichOneof("log_type") == "predict_log"
    return is_predict and log.predict_log.request.model_spec.signature_name in ("", SIGNATURE)


def write(directory: Path, logs: Iterable[prediction_log_pb2.PredictionLog]) -> None:
    """Write the records into the artifact in ``directory``."""
    path = directory / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(encode(log.SerializeToString()) for log in logs))


def copy(source: Path, target: Path) -> None:
    """Put the records of the artifact in ``source`` that `is_ours` keeps into the one in ``target``, to the byte."""
    path = target / FILE
    path.parent.mkdir(exist_ok=True)
    records = read_records(source / FILE)
    path.write_bytes(
        b"".join(encode(each) for each in records if is_ours(prediction_log_pb2.PredictionLog.FromString(each)))
    )


def _cat() -> Images:
    """Return the center of the photo, which is small enough that nothing is gained by resizing it first."""
    import tensorflow as tf

    pixels = tf.io.decode_jpeg(CAT.read_bytes(), channels=3).numpy()
    top, left = ((side - IMAGE_SIZE) // 2 for side in pixels.shape[:2])
    return np.asarray(pixels[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE])
