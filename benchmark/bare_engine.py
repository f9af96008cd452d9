"""OpenVINO alone: one model in one process, asked by several threads, with nothing of this project around it.

It is compiled for one picture, and in the way that suits the number of threads best: all cores for one, a stream on
each core for several. Its channels are reversed as in the model server, so that nobody gains by another graph.
Run as a process, it is an asker (`benchmark.asker`).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmark.asker import answer_orders
from cortex.model_server.engines.openvino_reversal import reverse_by_gathers
from cortex.threads import available


def main(directory: Path, precision: str, threads: int) -> None:
    model = compiled(directory, precision, threads)
    (port,) = model.inputs
    picture = np.random.default_rng(0).integers(0, 256, list(port.shape)).astype(port.element_type.to_dtype())
    asks = [_asking(model.create_infer_request(), picture) for _ in range(threads)]
    for once in asks:
        once()
    answer_orders(asks)


def compiled(directory: Path, precision: str, threads: int) -> Any:
    """Return the model of a directory, compiled for pictures that come one by one from one thread or from several."""
    core = ov.Core()
    files = sorted(directory.glob("*.xml"))
    graph = core.read_model(files[0] if files else directory)
    reverse_by_gathers(graph)
    graph.reshape([1, *(dim.get_length() for dim in list(graph.inputs[0].partial_shape)[1:])])
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": (cores := available()),
        "NUM_STREAMS": cores if threads > 1 else 1,
    }
    return core.compile_model(graph, "CPU", config)


def _asking(request: Any, picture: Any) -> Callable[[], object]:
    def once() -> object:
        request.set_input_tensor(0, ov.Tensor(picture, shared_memory=True))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    return once


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
