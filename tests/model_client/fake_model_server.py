"""A stand-in for a TF Serving model server: it answers every Predict with its own inputs.

``fake_model_server.py SOCKET CONFIG.json [typed|content]``. CONFIG maps a model to ``versions`` (a number to
``AVAILABLE``, ``LOADING:0.5`` for half a second, ``END:why``, or ``UNTIL:PATH`` for available until that file is there)
and to ``signatures``, each with its inputs as ``{name: [dtype number, shape]}``, where null is the shape of unknown
rank, perhaps to ``other_signatures``, by version, and perhaps ``runtime``, the text that it sends beside them.
Three input names do something: ``sleep`` (seconds), ``crash`` (ends the process), ``fail`` (an error).
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from cortex.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from cortex.tensors import to_array, to_proto

STARTED = time.monotonic()


def state_of(text):
    """Return the state of a version now, and what is told of it."""
    state, _, detail = text.partition(":")
    if state == "LOADING" and time.monotonic() - STARTED > float(detail):
        state = "AVAILABLE"
    if state == "UNTIL":
        state = "END" if Path(detail).exists() else "AVAILABLE"
    return state, detail


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, config):
        self.config = config

    def GetModelStatus(self, request, context):  # noqa: N802  # the protocol's name
        if request.model_spec.name not in self.config:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {request.model_spec.name}")
        answer = get_model_status_pb2.GetModelStatusResponse()
        for version, text in self.config[request.model_spec.name]["versions"].items():
            state, detail = state_of(text)
            row = answer.model_version_status.add(version=int(version))
            row.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
            if state == "END":
                row.status.error_code = 2
                row.status.error_message = detail
        return answer


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, config, typed):
        self.config = config
        self.typed = typed

    def GetModelMetadata(self, request, context):  # noqa: N802  # the protocol's name
        found = get_model_metadata_pb2.SignatureDefMap()
        model, version = self.config[request.model_spec.name], str(request.model_spec.version.value)
        signatures = model.get("other_signatures", {}).get(version, model["signatures"])
        for key, inputs in signatures.items():
            definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
            for name, (dtype, shape) in inputs.items():
                info = definition.inputs[name]
                info.dtype = dtype
                info.tensor_shape.unknown_rank = shape is None
                for size in shape or []:
                    info.tensor_shape.dim.add(size=size)
            found.signature_def[key].CopyFrom(definition)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(found)
        if runtime := model.get("runtime"):
            context.set_trailing_metadata((("cortex-runtime", runtime),))
        return answer

    def Predict(self, request, context):  # noqa: N802  # the protocol's name
        answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
        name, version = request.model_spec.name, request.model_spec.version.value
        if version and state_of(self.config[name]["versions"][str(version)])[0] != "AVAILABLE":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        for name, proto in request.inputs.items():
            array = to_array(proto)
            if name == "sleep":
                time.sleep(float(array.ravel()[0]))
            if name == "crash":
                os._exit(9)
            if name == "fail":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the model said no")
            answer.outputs[name].CopyFrom(to_proto(array, typed=self.typed))
        answer.outputs["asked_version"].CopyFrom(to_proto(np.array([version], np.int32), typed=True))
        return answer


def main(socket, config, encoding="typed"):
    config = json.loads(Path(config).read_text())
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=unlimited)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(config), server)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(config, encoding == "typed"), server
    )
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
