"""One client of a model server, on one connection: over gRPC, or over the line that an API's workers use.

Run as a process, ``model_server_client SOCKET MODEL grpc|line``, it is an asker (`benchmark.asker`).
"""

import sys

import grpc
import numpy as np

from benchmark.asker import answer_orders
from benchmark.cells import LINE
from cortex import tensors
from cortex.errors import UserError
from cortex.model_client.line import Line
from cortex.protos import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

_SECONDS = 300.0


def main(target: str, model: str, form: str) -> None:
    channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = _request(stub, model)
    predict = _line(target).predict if form == LINE else stub.Predict

    def once() -> None:
        if predict(request) is None:
            raise UserError(f"nobody listens on the line of {target} any more")

    once()
    answer_orders([once])


def _line(target: str) -> Line:
    found = Line.beside(target, _SECONDS)
    if found is None:
        raise UserError(f"the model server at {target} has no line")
    return found


def _request(stub: prediction_service_pb2_grpc.PredictionServiceStub, model: str) -> predict_pb2.PredictRequest:
    """Return a request with one random picture, in the form that the model's signature asks for."""
    ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name = model
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(ask).metadata["signature_def"].Unpack(signatures)
    ((alias, info),) = signatures.signature_def["serving_default"].inputs.items()
    shape = [1, *(dim.size for dim in info.tensor_shape.dim[1:])]
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(tensors.dtype_of(info.dtype))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs[alias].CopyFrom(tensors.to_proto(picture))
    return request


if __name__ == "__main__":
    main(*sys.argv[1:])
