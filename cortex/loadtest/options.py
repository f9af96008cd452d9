"""What can be asked of a load test, as one value, and the door and the payloads that it comes to."""

from dataclasses import dataclass, replace
from pathlib import Path

from cortex.errors import UserError
from cortex.loadtest.doors import DEFAULT_TLS, TLS, Door
from cortex.loadtest.expect import TOLERANCE, expecting
from cortex.loadtest.http import HTTP
from cortex.loadtest.payloads import Form, Payload, as_form, as_json, as_raw, batches, pictures, ready
from cortex.loadtest.schedules import CONSTANT
from cortex.loadtest.sweep import CONNECTIONS

PREDICTOR, REST, GRPC = "predictor", "tfserving-rest", "tfserving-grpc"
PROTOCOLS = (PREDICTOR, REST, GRPC)
FORMS: dict[str, Form] = {"json": as_json, "multipart": as_form, "raw": as_raw}
READY, RECORDED = "ready", "recorded"
"""The second is what ``--expect`` says for the answers recorded with the requests, too."""
FORMATS = (*FORMS, READY, RECORDED)
_WARMUP_FILE = "tf_serving_warmup_requests"


@dataclass(frozen=True)
class Options:
    """All of it. None stands for what was not asked for, or is to be found out."""

    image: str
    endpoint: str
    workers: int = 1
    threads: int | None = None
    samples: int = 10
    seconds: float | None = None
    batch_size: int = 1
    think_time: float = 0.0
    rate: float | None = None
    arrivals: str = CONSTANT
    schedule: str | None = None
    warmup: float | None = None
    payload_format: str | None = None
    shuffle: bool = False
    protocol: str | None = None
    model: str | None = None
    signature: str = "serving_default"
    headers: tuple[str, ...] = ()
    api_key: str | None = None
    timeout: float = 60.0
    keep_alive: bool = True
    tls: TLS = DEFAULT_TLS
    sweep: str | None = None
    over: str = CONNECTIONS
    slo: str | None = None
    compare: Path | None = None
    expect: str | None = None
    tolerance: float = TOLERANCE
    metrics: tuple[str, ...] = ()
    price_per_hour: float | None = None
    target_rate: float | None = None
    conditions: str | None = None
    scenario: str | None = None
    loadgen_logs: Path = Path("loadgen-logs")

    @property
    def protocol_used(self) -> str:
        """The protocol asked for, or the one that the endpoint looks like."""
        if self.protocol:
            return self.protocol
        if self.endpoint.startswith(("grpc://", "grpcs://", "unix:")):
            return GRPC
        return REST if "/v1/models/" in self.endpoint.partition("?")[0] else PREDICTOR

    @property
    def format_used(self) -> str:
        """The format asked for, or the one that the name of the file stands for."""
        if self.payload_format:
            return self.payload_format
        name = self.image.rpartition("/")[2]
        if name.startswith(_WARMUP_FILE) or name.endswith((".tfrecord", ".tfrecords")):
            return RECORDED
        return READY if name.endswith(".json") else "json"


def door(options: Options) -> Door:
    """Return where requests go. Raises UserError for an endpoint, header or file that cannot be used."""
    headers = tuple(_header(each) for each in options.headers)
    if options.api_key:
        headers += (("Authorization", f"Bearer {options.api_key}"),)
    rest = (options.timeout, headers, options.keep_alive, options.tls)
    if options.protocol_used == GRPC:
        from cortex.loadtest import tfserving  # only who asks for it waits for grpcio

        return tfserving.GRPC(options.endpoint, *rest)
    http = HTTP(options.endpoint, *rest)  # raises for what is no URL
    if options.protocol_used == REST:
        from cortex.loadtest.tfserving import rest_url

        return replace(http, url=rest_url(options.endpoint, options.model))
    return http


def payloads(options: Options, to: Door) -> list[Payload]:
    """Return what is sent. Asks a model server for its signature when pictures go there. Raises UserError."""
    if options.batch_size > 1 and options.format_used in (READY, RECORDED):
        raise UserError(f"{options.image}: requests that are sent as they are; leave --batch-size at 1")
    check = options.expect == RECORDED
    found = _recorded(options, check) if options.format_used == RECORDED else _made(options, to)
    if check and options.format_used != RECORDED:
        raise UserError("--expect recorded needs recorded requests: a PredictionLog file in place of the picture")
    return expecting(found, Path(options.expect), options.tolerance) if options.expect and not check else found


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UserError(f"{text}: not a header; it looks like 'Name: value'")
    return name.strip(), value.strip()


def _recorded(options: Options, check: bool) -> list[Payload]:
    from cortex.loadtest.recorded import recorded

    if options.protocol_used == PREDICTOR:
        raise UserError(
            f"{options.image}: recorded requests go to a model server; choose --protocol {REST} or --protocol {GRPC}"
        )
    path = Path(options.image)
    return recorded(path, options.model, rest=options.protocol_used == REST, check=check, tolerance=options.tolerance)


def _made(options: Options, to: Door) -> list[Payload]:
    if options.format_used == READY:
        if options.protocol_used == GRPC:
            raise UserError(f"{options.image}: a JSON file cannot be sent by gRPC; give a picture or a PredictionLog")
        return [ready(Path(options.image))]
    return batches(pictures(options.image), options.batch_size, _form(options, to))


def _form(options: Options, to: Door) -> Form:
    if options.protocol_used == PREDICTOR:
        return FORMS[options.format_used]
    from cortex.loadtest import tfserving

    if isinstance(to, tfserving.GRPC):
        if not options.model:
            raise UserError(f"{options.endpoint}: name the model with --model")
        return tfserving.grpc_signature(to, options.model, options.signature).grpc
    assert isinstance(to, HTTP)
    return tfserving.rest_signature(to, options.signature).rest
