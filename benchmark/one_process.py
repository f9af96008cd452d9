"""The least that Python can make of it: uvicorn and OpenVINO in one process, asked over HTTP as the API is.

It has no predictor or model server of its own process, no limits, metrics or log, and takes nothing but the request of
`sample.json`. What the API of this project costs beyond that is what it does beyond that. The model is compiled in the
way that suits the number of clients best, as `benchmark.bare_engine` compiles it.

    python -m benchmark.one_process DIRECTORY PRECISION CLIENTS PORT
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import uvicorn
from starlette.types import Receive, Scope, Send

from benchmark.bare_engine import compiled
from cortex.threads import available
from predictor import HERE, TOP, decoded, pixels

_AHEAD = 2  # requests to the engine beyond those that it computes, as in the model server
_LABELS = HERE / "export" / "imagenet_class_index.json"


class OneProcess:
    """An ASGI app that classifies a picture."""

    def __init__(self, model: Any) -> None:
        index = json.loads(_LABELS.read_text())
        self._labels = [index[str(k)][1] for k in range(len(index))]
        self._idle: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(available() + _AHEAD):
            request = model.create_infer_request()
            request.set_callback(_done, None)
            self._idle.put_nowait(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        answer = json.dumps(await self._labels_of(json.loads(body)["imgs"][0])).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _labels_of(self, image: str) -> list[str]:
        picture = pixels("imgs[0]", decoded("imgs[0]", image))[np.newaxis]
        request = await self._idle.get()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        request.set_input_tensor(ov.Tensor(picture, shared_memory=True))
        request.start_async(userdata=(loop, done))
        await done
        best = np.argsort(request.get_output_tensor().data[0])[: -TOP - 1 : -1]
        self._idle.put_nowait(request)
        return [self._labels[k] for k in best]


def _done(asked: tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]) -> None:
    loop, future = asked
    loop.call_soon_threadsafe(future.set_result, None)


def main(directory: Path, precision: str, clients: int, port: int) -> None:
    """Serve on loopback until SIGTERM."""
    app = OneProcess(compiled(directory, precision, clients))
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
