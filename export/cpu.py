"""The artifact of the CPU target, made from a SavedModel: an OpenVINO IR that is served in its place.

What the precision of an artifact says is how its weights are stored; in which precision a processor computes is chosen
where it runs (``predictor.precision``; ``auto`` takes bf16 where the hardware has it, else fp32):

- fp32 keeps the weights to the bit. It loads without a conversion, and that is all it gains over the SavedModel.
- bf16 rounds kernels and matrices to bf16, in half the space. Computed in bf16 it answers as the SavedModel does in
  bf16, which rounds the same weights when it loads. Computed in fp32 it answers with rounded weights on every machine.
  It is not fp16, whose range a weight can leave.
- int8 computes convolutions and matrix products in 8 bits, with scales chosen by showing the model samples of its use;
  the rest computes as above.

TensorFlow is not needed: OpenVINO reads the SavedModel, and what its source recorded tells whether it understood it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cortex.errors import CortexError, UserError
from cortex.model_server.engines.base import BF16, FP32
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.model_file import ModelFile
from cortex.model_server.status import StatusError
from cortex.protos import predict_pb2
from export import calibration, cpu_card, ir, model_card, noise, proof, quantization, recorded_requests
from export import source as sources
from export.agreement import measure
from export.calibration import Calibration
from export.inference import Answer, Inputs, answer_of, opened, precisions
from export.model_card import Tolerance
from export.progress import Step
from export.signature import SIGNATURE
from export.source import Source
from export.staging import new_version

INT8 = "int8"
_EXPECTED = {FP32: 1.0, BF16: 0.995, INT8: 0.98}
"""The share of samples whose first class should be the one of fp32; below it, the export says so."""


@dataclass(frozen=True)
class Order:
    """One export of a version of ``source`` into ``output/version``; by default the newest, into ``SOURCE_cpu``.

    ``calibration`` is a folder, a file, ``random`` or None; int8 needs one.
    """

    source: Path
    precision: str
    calibration: str | None
    subset_size: int
    output: Path | None
    version: int | None
    force: bool


@dataclass(frozen=True)
class _Job:
    """An order with its source found."""

    source: Source
    precision: str
    output: Path
    step: Step


def export(order: Order, step: Step) -> Path:
    """Write the artifact with its recorded requests and model card, and return its version directory.

    ``step`` is told what happens next. Nothing is seen under the final name before all of it is on disk. Raises
    UserError for a source, a calibration or an output that cannot be used, CortexError when the artifact does not
    answer as recorded.
    """
    _check(order)
    source = sources.find(order.source, order.version)
    output = source.beside("cpu", order.output)
    job = _Job(source, order.precision, output, step)
    with new_version(output, source.version, force=order.force) as directory:
        shown = _gathered(order, source, step)
        artifact = _write(job, shown, directory)
        _prove(job, shown, artifact)
        step(f"moving it to {output / str(source.version)}")
    return output / str(source.version)


def _check(order: Order) -> None:
    if order.precision != INT8:
        return
    if order.calibration is None:
        raise UserError(
            "--precision int8 needs --calibration DIR or FILE: pictures or TFRecords of what the model will see "
            "(--calibration random only tries the commands: its answers are of no use)"
        )
    quantization.check()


def _gathered(order: Order, source: Source, step: Step) -> Calibration | None:
    """Read the samples. Where nothing is calibrated, as many as would be are held out to measure."""
    if order.calibration is None:
        return None
    shown = calibration.gather(order.calibration, source.signature, order.subset_size, step)
    if order.precision == INT8:
        return shown
    return replace(shown, samples=(), held_out=(shown.held_out + shown.samples)[: order.subset_size])


def _write(job: _Job, shown: Calibration | None, directory: Path) -> ModelFile:
    """Convert the source, bring it to the precision, and write it."""
    job.step(f"reading {job.source.directory}")
    if job.source.left_out:
        job.step(f"leaving out signature {', '.join(job.source.left_out)}: an IR holds one")
    model = ir.convert(job.source.model)
    if job.precision == BF16:
        job.step("rounding the weights to bf16")
        ir.round_weights(model)
    if job.precision == INT8 and shown is not None:
        job.step(f"quantizing to int8: showing the model {len(shown.samples)} samples")
        model = quantization.quantize(model, shown.samples, job.step)
    return ir.save(model, directory)


def _prove(job: _Job, shown: Calibration | None, artifact: ModelFile) -> None:
    """Record requests with answers, measure the agreement with the source, and write both beside the artifact."""
    with opened(job.source.model, FP32) as reference, opened(artifact, FP32) as engine:
        _compare_signatures(job.source, engine)
        _check_source(job, reference)
        requests = _requests(job.source, shown, answer_of(reference))
        job.step(f"recording the answers to {len(requests)} requests")
        logs = proof.record(engine, requests, recorded_requests.model_name(job.output), job.source.version)
        asked = [proof.inputs_of(request, engine) for request in requests]
        with opened(artifact, FP32 if job.precision == FP32 else precisions()[-1]) as best:
            tolerance = _tolerance(job.precision, engine, best, asked)
            agreement = _agreement(job, best, reference, shown, asked)
        recorded_requests.write(artifact.directory, logs)
        facts = None if shown is None else shown.document()
        digest = sources.digest(job.source.directory)
        content = cpu_card.card(job.source, digest, job.precision, tolerance, agreement, facts)
        model_card.copy_extra(job.source.directory, artifact.directory)
        model_card.write(artifact.directory, content)
        _replay(job, artifact, engine)


def _compare_signatures(source: Source, engine: OpenVINO) -> None:
    want, got = (cpu_card.signature(each) for each in (source.signature, engine.signatures[SIGNATURE]))
    for side in ("inputs", "outputs"):
        kinds = [{alias: info["dtype"] for alias, info in each[side].items()} for each in (want, got)]
        if kinds[0] != kinds[1]:
            reason = f"an IR cannot keep its {side}: {kinds[0]} become {kinds[1]}"
            raise UserError(f"{source.directory}: {reason}; {ir.INSTEAD}")


def _check_source(job: _Job, reference: OpenVINO) -> None:
    """Hold what OpenVINO makes of the source against the answers recorded in it, by whatever made it."""
    try:
        count = proof.replay(job.source.directory, reference, FP32)
    except StatusError as error:
        raise UserError(f"{job.source.directory}: does not answer as recorded in it: {error.message}") from error
    if count:
        job.step(f"the source answers as recorded in it ({count} requests)")


def _requests(source: Source, shown: Calibration | None, answer: Answer) -> list[predict_pb2.PredictRequest]:
    recorded = proof.requests_of(source.directory)
    if shown is not None:
        return recorded + proof.telling(shown.held_out, answer)
    return recorded or proof.telling(noise.samples(source.signature), answer)


def _tolerance(precision: str, engine: OpenVINO, best: OpenVINO, asked: Sequence[Inputs]) -> Tolerance:
    fp32, in_best = ([answer_of(each)(inputs) for inputs in asked] for each in (engine, best))
    return proof.tolerance(precision, fp32, in_best)


def _agreement(
    job: _Job, best: OpenVINO, reference: OpenVINO, shown: Calibration | None, asked: Sequence[Inputs]
) -> dict[str, Any]:
    """Measure as ``auto`` would compute here; an artifact in fp32 as it computes in fp32."""
    samples, over = (shown.held_out, shown.measured_over) if shown else (asked, _asked_over(job.source))
    job.step(f"comparing with fp32 over {len(samples)} {over}")
    measured = measure(answer_of(best), answer_of(reference), samples, "fp32", over)
    job.step(f"agreement with fp32: {measured}")
    expected = _EXPECTED[job.precision]
    if measured.top1 is not None and measured.top1 < expected:
        job.step(f"warning: {measured.top1:.1%} is less than {expected:.1%}; {_REMEDY[job.precision]}")
    return measured.document() | {"computed_in": best.describe().precision, "top1": measured.top1}


def _asked_over(source: Source) -> str:
    return "recorded requests" if proof.requests_of(source.directory) else "samples of noise"


_REMEDY = {
    FP32: "OpenVINO computes this model differently from one time to the next",
    BF16: "use --precision fp32, or samples that are more like those in use",
    INT8: "calibrate on more samples, on samples more like those in use, or use --precision bf16",
}


def _replay(job: _Job, artifact: ModelFile, engine: OpenVINO) -> None:
    """Do the self-check of a model server, in every precision that this processor has."""
    try:
        proof.replay(artifact.directory, engine, FP32)
    except StatusError as error:
        raise CortexError(f"the artifact does not answer as recorded a moment ago: {error.message}") from error
    for precision in precisions()[1:]:
        with opened(artifact, precision) as other:
            try:
                proof.replay(artifact.directory, other, precision)
            except StatusError as error:
                job.step(f"warning: computed in {precision} it is out of tolerance, so {precision} will not serve it:")
                job.step(error.message)
