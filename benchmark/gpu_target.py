"""``python -m benchmark gpu_target``: the GPU target, run for real; its rows of docs/targets.md are what it prints.

For each precision it exports the artifact, which builds the engines, starts a model server on it, and asks it: how well
its answers agree with those in fp32, and how many images a second it answers, by batch size, over gRPC and HTTP.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import requests
from numpy.typing import NDArray

from benchmark.machine import this_machine
from benchmark.processes import end_child, free_port
from cortex import tensors
from cortex.errors import NotStarted, UserError
from cortex.loadtest import files
from cortex.model_server.engines import onnxruntime_gpu, onnxruntime_providers
from cortex.model_server.engines.onnxruntime_gpu import NoGPU
from cortex.model_server.engines.onnxruntime_recipe import CUDA, TENSORRT
from cortex.protos import predict_pb2, prediction_service_pb2_grpc
from export import answers, source
from export.signature import INPUT, OUTPUT

_ROOT = Path(__file__).parents[1]
_NAME = "model"
_PRECISIONS = ("fp32", "fp16", "int8")
_SECONDS_TO_START = 1200.0  # an engine that was not built takes minutes
_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Images = NDArray[np.uint8]
Ask = Callable[[Images], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One line of the table: throughput in images a second, latency of a request in milliseconds."""

    precision: str
    device: str
    door: str
    batch: int
    clients: int
    rate: float
    p50_ms: float
    p99_ms: float
    same_first_class: str
    max_difference: float

    def __str__(self) -> str:
        return (
            f"| {self.precision} | {self.door} | {self.batch} | {self.clients} | {self.rate:.0f} | {self.p50_ms:.1f} | "
            f"{self.p99_ms:.1f} | {self.same_first_class} | {self.max_difference:.1e} |"
        )


HEADER = """\
| precision | door | batch | clients | images/s | p50 ms | p99 ms | first class as in fp32 | largest difference |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Server:
    """A model server with one artifact: both doors, and what its log says that it runs on."""

    grpc_port: int
    rest_port: int
    runs: str

    @contextmanager
    def grpc(self) -> Iterator[Ask]:
        """Yield what asks over gRPC, on a connection of its own."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=_UNBOUNDED) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

            def ask(images: Images) -> NDArray[np.float32]:
                request = predict_pb2.PredictRequest(inputs={INPUT: tensors.to_proto(images)})
                request.model_spec.name = _NAME
                return tensors.to_array(stub.Predict(request).outputs[OUTPUT])

            yield ask

    @contextmanager
    def http(self) -> Iterator[Ask]:
        """Yield what asks over HTTP, with JSON, on a connection of its own."""
        with requests.Session() as session:

            def ask(images: Images) -> NDArray[np.float32]:
                url = f"http://127.0.0.1:{self.rest_port}/v1/models/{_NAME}:predict"
                answer = session.post(url, json={"instances": images.tolist()}, timeout=120)
                answer.raise_for_status()
                return np.asarray(answer.json()["predictions"], np.float32)

            yield ask


@click.command("gpu_target")
@click.argument("source_path", metavar="[SOURCE]", type=click.Path(path_type=Path), default=Path("models/resnet50"))
@click.option("--provider", type=click.Choice(["tensorrt", "cuda", "cpu"]), default="tensorrt", show_default=True)
@click.option(
    "--precision", "precisions", type=click.Choice(_PRECISIONS), multiple=True, default=_PRECISIONS, show_default=True
)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 8, 32, 128), show_default=True)
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True, help="Connections at a time.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long each figure is measured.",
)
@click.option("--calibration", default="random", show_default=True, help="For int8: pictures or TFRecords.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write everything to this file.")
def gpu_target(
    source_path: Path,
    provider: str,
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    clients: int,
    seconds: float,
    calibration: str,
    json_path: Path | None,
) -> None:
    """Run the GPU target on this machine, and print its rows for docs/targets.md.

    Exit code 3 says that there is no GPU, and that nothing was measured.
    """
    machine = _machine(provider)
    if json_path:
        files.check(json_path)
    sample = _sample(source.find(source_path, None).directory)
    reference: NDArray[np.float32] | None = None
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as room:
        for precision in dict.fromkeys(("fp32", *precisions)):
            made = Path(room) / precision
            _export(source_path, made, precision, provider, max(batches), calibration)
            with _served(made) as server:
                with server.grpc() as ask:
                    got = np.concatenate([ask(images) for images in sample])
                reference = got if reference is None else reference
                if precision in precisions:
                    rows += _measured(server, precision, (got, reference), batches, clients, seconds)
    click.echo(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {rows[0].device}\n\n{HEADER}")
    for row in rows:
        click.echo(str(row))
    if json_path:
        json_path.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def _machine(provider: str) -> str:
    """Describe the machine. Raises NotStarted where the provider cannot run."""
    if provider == "cpu":
        return f"no GPU (--provider cpu: these rows try the script, and say nothing about the target); {this_machine()}"
    try:
        gpu, _ = onnxruntime_providers.reach([TENSORRT if provider == "tensorrt" else CUDA])
    except NoGPU as reason:
        raise NotStarted(f"the GPU target cannot run here: {reason}. Nothing was measured") from reason
    tensorrt = onnxruntime_gpu.tensorrt_version()
    return f"{gpu.name} ({gpu.memory / 1e9:.0f} GB), driver {gpu.driver}, TensorRT {tensorrt}; {this_machine()}"


def _sample(directory: Path) -> list[Images]:
    """Return what the agreement is measured on: the recorded requests, and each of them moved, mirrored and dimmed."""
    recorded = answers.read(directory).requests
    changes: list[Callable[[Images], Images]] = [
        lambda images: images,
        lambda images: images[:, :, ::-1],
        lambda images: images[:, ::-1],
        lambda images: images // 2,
        lambda images: np.roll(images, 24, axis=1),
        lambda images: np.roll(images, -24, axis=2),
    ]
    return [np.ascontiguousarray(change(images)) for change in changes for images in recorded]


def _export(path: Path, made: Path, precision: str, provider: str, most: int, calibration: str) -> None:
    argv = [sys.executable, "-m", "export", "gpu", str(path), "--output", str(made), "--precision", precision]
    argv += ["--provider", provider]
    if provider == "tensorrt":
        argv += ["--best-batch", str(min(32, most)), "--max-batch", str(most)]
    if precision == "int8":
        argv += ["--calibration", calibration, "--subset-size", "64"]
    if subprocess.run(argv, stdout=sys.stderr, check=False).returncode:
        raise UserError(f"the export in {precision} failed, see above")


@contextmanager
def _served(base_path: Path) -> Iterator[Server]:
    """Yield a model server that has loaded the artifact, on ports of its own; it ends with the block."""
    grpc_port, rest_port = free_port(), free_port()
    argv = [sys.executable, "-m", "cortex.model_server", f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    argv += [f"--model_name={_NAME}", f"--model_base_path={base_path.absolute()}", "--engine=onnxruntime"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(argv, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            _await(process, f"http://127.0.0.1:{rest_port}/readyz")
            log.seek(0)
            runs = next((line.partition("runs with ")[2].strip() for line in log if "runs with " in line), "")
            yield Server(grpc_port, rest_port, runs)
        except UserError as error:
            log.seek(0)
            raise UserError(f"{error}:\n{log.read()[-2000:]}") from error
        finally:
            end_child(process)


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UserError(f"the model server ended with {process.returncode}")
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise UserError("the model server did not become ready")


def _measured(
    server: Server,
    precision: str,
    compared: tuple[NDArray[np.float32], NDArray[np.float32]],
    batches: Sequence[int],
    clients: int,
    seconds: float,
) -> Iterator[Row]:
    """Yield a row for each batch size over gRPC, and one over HTTP, where a picture is 150,000 numbers in JSON."""
    got, want = compared
    same = f"{int((got.argmax(1) == want.argmax(1)).sum())} of {len(want)}"
    difference = float(np.abs(got - want).max())
    device = server.runs.partition("device=")[2] or "cpu"
    for door, connect, batch in [*(("gRPC", server.grpc, batch) for batch in batches), ("HTTP", server.http, 1)]:
        images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
        times = _times(connect, images, clients, seconds)
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        rate = len(times) * batch / seconds
        yield Row(precision, device, door, batch, clients, rate, float(p50), float(p99), same, difference)


def _times(connect: Callable[[], Any], images: Images, clients: int, seconds: float) -> list[float]:
    """Return the time of every request that ends within ``seconds``, after one for each connection to warm up."""
    times: list[float] = []
    failed: list[Exception] = []
    ready = threading.Barrier(clients)

    def client() -> None:
        try:
            with connect() as ask:
                ask(images)
                ready.wait()
                end = time.monotonic() + seconds
                while (start := time.monotonic()) < end:
                    ask(images)
                    if time.monotonic() <= end or not times:
                        times.append(time.monotonic() - start)
        except Exception as error:  # noqa: BLE001 - gRPC's, requests' and the barrier's: the first is told below
            failed.append(error)
            ready.abort()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise UserError(f"a request failed: {failed[0]}") from failed[0]
    return times
