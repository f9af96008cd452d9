"""The least that Python's gRPC can make of Predict: grpcio and OpenVINO in one process, asked as the model server is.

It answers Predict for one tensor, and GetModelMetadata with what its clients need for that. It has no versions, no
deadlines, no metrics and no warm-up, and checks nothing.

    python -m benchmark.one_process_grpc DIRECTORY PRECISION ADDRESS
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import openvino as ov

from benchmark.bare_engine import compiled
from cortex import tensors
from cortex.protos import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc
from cortex.threads import available

_AHEAD = 2  # requests to the engine beyond those that it computes, as in the model server
_THREADS = 8  # as in the model server of an API


class OneProcess(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # generated, untyped
    """A model with one input and one output."""

    def __init__(self, model: Any) -> None:
        self._input = model.inputs[0]
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(available() + _AHEAD):
            self._idle.put(model.create_infer_request())

    def Predict(self, request: Any, _: grpc.ServicerContext) -> Any:  # noqa: N802 - the proto's name
        response = predict_pb2.PredictResponse()
        inference = self._idle.get()
        inference.set_input_tensor(ov.Tensor(tensors.to_array(request.inputs["image"])))
        inference.infer()
        response.outputs["scores"].CopyFrom(tensors.to_proto(inference.get_output_tensor().data, typed=True))
        self._idle.put(inference)
        return response

    def GetModelMetadata(self, _: Any, __: grpc.ServicerContext) -> Any:  # noqa: N802
        signatures = get_model_metadata_pb2.SignatureDefMap()
        info = signatures.signature_def["serving_default"].inputs["image"]
        info.dtype = tensors.enum_of(self._input.element_type.to_dtype())
        for size in self._input.shape:
            info.tensor_shape.dim.add(size=size)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response


def main(directory: Path, precision: str, address: str) -> None:
    """Serve until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=[("grpc.max_receive_message_length", -1)])
    model = OneProcess(compiled(directory, precision, _THREADS))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(model, server)
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
