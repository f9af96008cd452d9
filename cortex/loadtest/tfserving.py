"""TF Serving's two doors: REST, which is HTTP with bodies of its own, and gRPC."""

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image

from cortex.errors import UserError
from cortex.loadtest import pages
from cortex.loadtest.doors import DEFAULT_TLS, TLS, Connection, Failed
from cortex.loadtest.http import HTTP
from cortex.loadtest.payloads import Payload
from cortex.protos import get_model_metadata_pb2, predict_pb2, types_pb2
from cortex.tensors import Array, dtype_of, fill

PROTOBUF = "application/x-protobuf"
_ASK_SECONDS = 10
_SERVICE = "/tensorflow.serving.PredictionService/"
_SIDE = 224  # pixels, where a model leaves it open
_NAME = re.compile(r"[a-z0-9_.-]+")
"""What gRPC takes for the name of a header."""


@dataclass(frozen=True)
class Signature:
    """The input of a model's signature that takes pictures, and the requests that it makes of them."""

    model: str
    name: str
    input: str
    dtype: int
    """A number of ``DataType``."""
    height: int = _SIDE
    width: int = _SIDE

    def array(self, images: Sequence[bytes]) -> Array:
        """Return pictures as the input takes them: RGB [n, height, width, 3], or, for strings, as they are [n]."""
        if self.dtype == types_pb2.DT_STRING:
            return np.array(list(images), dtype=object)
        return np.stack([self._pixels(image) for image in images]).astype(dtype_of(self.dtype))

    def rest(self, images: Sequence[bytes]) -> Payload:
        """Return a request for REST, in row format."""
        rows: list[Any]
        if self.dtype == types_pb2.DT_STRING:
            rows = [{"b64": base64.b64encode(image).decode()} for image in images]
        else:
            rows = self.array(images).tolist()
        body = json.dumps({"signature_name": self.name, "instances": rows}, separators=(",", ":")).encode()
        return Payload(body, "application/json", len(images))

    def grpc(self, images: Sequence[bytes]) -> Payload:
        """Return a PredictRequest."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self.model, self.name
        fill(request.inputs[self.input], self.array(images))
        return Payload(request.SerializeToString(), PROTOBUF, len(images))

    def _pixels(self, image: bytes) -> Array:
        with Image.open(io.BytesIO(image)) as opened:
            return np.asarray(opened.convert("RGB").resize((self.width, self.height)))


@dataclass(frozen=True)
class GRPC:
    """TF Serving's Predict at ``host:port``, ``grpc://host:port``, ``grpcs://host:port`` or ``unix:/path``.

    The body of a payload is a serialized PredictRequest. ``headers`` go as metadata.
    """

    url: str
    timeout: float = 60.0
    headers: tuple[tuple[str, str], ...] = ()
    keep_alive: bool = True
    tls: TLS = DEFAULT_TLS

    def __post_init__(self) -> None:
        if not self.target.startswith("unix:") and not self.target.rpartition(":")[2].isdigit():
            raise UserError(f"{self.url}: not an endpoint of gRPC; it looks like grpc://localhost:8500")
        for name, value in self.metadata:
            if not _NAME.fullmatch(name) or name.endswith("-bin") or not (value.isascii() and value.isprintable()):
                raise UserError(
                    f"--header {name}: gRPC takes names of letters, digits, '_', '-' and '.' that do not end in -bin, "
                    "and values of printable ASCII"
                )
        if self.url.startswith("grpcs://"):
            self.tls.context()  # raises for files that cannot be used
            if not self.tls.verify:
                raise UserError("gRPC cannot leave a certificate unchecked: name its authority with --ca-file")

    @property
    def target(self) -> str:
        return self.url.removeprefix("grpcs://").removeprefix("grpc://").rstrip("/")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers, in lower case as gRPC wants them."""
        return tuple((name.lower(), value) for name, value in self.headers)

    @property
    def address(self) -> tuple[str, int] | None:
        host, _, port = self.target.rpartition(":")
        return None if self.target.startswith("unix:") else (host.strip("[]"), int(port))

    def connect(self) -> Connection:
        return _Connection(self)

    def channel(self) -> grpc.Channel:
        """Open a connection of its own: threads of one process do not share one."""
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.enable_http_proxy", 0),  # as over HTTP: a proxy would be measured with it
        ]
        if not self.url.startswith("grpcs://"):
            return grpc.insecure_channel(self.target, options)
        read = [
            path.read_bytes() if path else None for path in (self.tls.authorities, self.tls.key, self.tls.certificate)
        ]
        return grpc.secure_channel(self.target, grpc.ssl_channel_credentials(*read), options)


class _Connection:
    def __init__(self, door: GRPC) -> None:
        self._door = door
        self._channel: grpc.Channel | None = None
        self._predict: Callable[..., bytes] | None = None

    def call(self, payload: Payload) -> bytes:
        predict = self._predict or self._open()
        try:
            return predict(payload.body, timeout=self._door.timeout, metadata=self._door.metadata)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Failed("timeout") from error
            raise Failed(f"gRPC {code.name}", unreachable=code is grpc.StatusCode.UNAVAILABLE) from error
        finally:
            if not self._door.keep_alive:
                self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = self._predict = None

    def _open(self) -> Callable[..., bytes]:
        self._channel = self._door.channel()
        predict: Callable[..., bytes] = self._channel.unary_unary(_SERVICE + "Predict")
        self._predict = predict
        return predict


def rest_url(endpoint: str, model: str | None) -> str:
    """Return where REST predicts. An endpoint without a path of its own gets that of the model; its query stays."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/") or f"/v1/models/{model or 'NAME'}"
    url = endpoint if ":" in parts.path else parts._replace(path=f"{path}:predict").geturl()
    if not (model or parts.path.strip("/")):
        raise UserError(f"{endpoint}: name the model with --model, or give {url}")
    return url


def rest_signature(door: HTTP, name: str) -> Signature:
    """Ask a REST endpoint which input its signature has. Raises UserError when it does not tell."""
    parts = urlsplit(door.url)
    base = parts.path.partition(":predict")[0]
    model = base.rpartition("/models/")[2].partition("/")[0]
    page = parts._replace(path=f"{base}/metadata").geturl()
    try:
        metadata = json.loads(pages.read(page, door, _ASK_SECONDS))["metadata"]
        found = metadata["signature_def"]["signature_def"]
        inputs = {
            alias: (
                types_pb2.DataType.Value(each["dtype"]),
                [int(dim["size"]) for dim in each["tensor_shape"].get("dim", ())],
            )
            for alias, each in found.get(name, {}).get("inputs", {}).items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{page}: does not tell what the model takes ({error})") from error
    return _signature(model, name, inputs, sorted(found))


def grpc_signature(door: GRPC, model: str, name: str) -> Signature:
    """Ask a gRPC endpoint which input its signature has. Raises UserError when it does not tell."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    with door.channel() as channel:
        ask = channel.unary_unary(
            _SERVICE + "GetModelMetadata",
            response_deserializer=get_model_metadata_pb2.GetModelMetadataResponse.FromString,
        )
        try:
            response = ask(request.SerializeToString(), timeout=_ASK_SECONDS, metadata=door.metadata)
        except grpc.RpcError as error:
            raise UserError(f"{door.url}: does not tell what the model takes ({error.details()})") from error
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    known = sorted(found.signature_def)  # before the look below, which adds a name that is not there
    inputs = {
        alias: (info.dtype, [dim.size for dim in info.tensor_shape.dim])
        for alias, info in found.signature_def[name].inputs.items()
    }
    return _signature(model, name, inputs, known)


def _signature(model: str, name: str, inputs: dict[str, tuple[int, list[int]]], known: list[str]) -> Signature:
    if len(inputs) != 1:
        raise UserError(
            f"model {model}, signature {name}: {len(inputs)} inputs, and one that takes pictures is needed "
            f"(signatures: {', '.join(known)}); send recorded requests instead: a .json file or a PredictionLog"
        )
    [(alias, (dtype, shape))] = inputs.items()
    sides = [size if size > 0 else _SIDE for size in shape[1:3]]
    if dtype != types_pb2.DT_STRING and (len(shape) != 4 or shape[3] not in (3, -1)):
        raise UserError(f"model {model}: input {alias} is {shape}, which is no batch of RGB pictures [-1, 224, 224, 3]")
    return Signature(model, name, alias, dtype, *sides) if len(sides) == 2 else Signature(model, name, alias, dtype)


def answered(body: bytes) -> predict_pb2.PredictResponse | None:
    """Read the body of an answer; None for one that is malformed."""
    try:
        return predict_pb2.PredictResponse.FromString(body)
    except DecodeError:
        return None
