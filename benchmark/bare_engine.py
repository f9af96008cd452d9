"""OpenVINO alone: one model in one process, asked by several threads, with nothing of this project around it.

It is compiled in the way that suits the number of threads best: all cores for one, a stream on each core for several.
Run as a process: it says ``ready``, then answers every line with a number of seconds by the count of requests that its
threads finished in that time.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from cortex.threads import available


def main(directory: Path, precision: str, threads: int) -> None:
    core = ov.Core()
    files = sorted(directory.glob("*.xml"))
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": (cores := available()),
        "NUM_STREAMS": cores if threads > 1 else 1,
    }
    model = core.compile_model(core.read_model(files[0] if files else directory), "CPU", config)
    shape = [1, *(dim.get_length() for dim in list(model.inputs[0].partial_shape)[1:])]
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(model.inputs[0].element_type.to_dtype())
    requests = [model.create_infer_request() for _ in range(threads)]
    for request in requests:
        request.infer([picture])
    print("ready", flush=True)
    for line in sys.stdin:
        print(_count(requests, picture, float(line)), flush=True)


def _count(requests: list[Any], picture: Any, seconds: float) -> int:
    done = [0] * len(requests)
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        while time.monotonic() < end:
            requests[number].set_input_tensor(0, ov.Tensor(picture, shared_memory=True))
            requests[number].infer()
            requests[number].get_output_tensor(0).data.copy()
            done[number] += 1

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    return sum(done)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
