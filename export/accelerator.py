"""An artifact for AWS Inferentia: the SavedModel compiled for NeuronCores by AWS's own tool chain.

The tool chain wants a Python and a TensorFlow of its own time, so it runs in an environment of its own. It is handed
the graph in a form that every TensorFlow since 1.15 reads: frozen, without functions, with version 1 signatures.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import CortexError, UserError
from export import accelerator_compiler, accelerator_graph, answers, model_card, recorded_requests
from export import source as sources
from export.accelerator_compiler import Compiled
from export.answers import Recorded
from export.model_card import Tolerance
from export.progress import Step
from export.source import Source
from export.staging import new_version

NEAR_ALL = 0.95
"""The share of the graph below which the report warns: what is not compiled runs on the CPU, with a copy each way."""

CORES = 4
"""NeuronCores of an Inferentia chip; cortex_accelerator.yaml gives each of four processes one."""


@dataclass(frozen=True)
class Order:
    """One export: ``version`` is the source's, the newest if None; ``output`` is SOURCE_neuron if None.

    ``python`` is the interpreter with the tool chain; ``chip`` is inf1 or inf2; ``cast`` is bf16 or none.
    """

    source: Path
    output: Path | None = None
    version: int | None = None
    force: bool = False
    chip: str = "inf1"
    python: str = sys.executable
    cores: int = 1
    batch_size: int = 1
    static_weights: bool = True
    cast: str = "bf16"

    @property
    def arguments(self) -> list[str]:
        """The compiler's own arguments, in the spelling of the chip's compiler."""
        bf16 = self.cast == "bf16"
        if self.chip == "inf2":
            return ["--auto-cast", "matmult" if bf16 else "none", "--auto-cast-type", "bf16"]
        arguments = ["--fp32-cast", "all" if bf16 else "matmult-fp16", "--num-neuroncores", str(self.cores)]
        return [*arguments, "--static-weights"] if self.static_weights else arguments


def export(order: Order, step: Step) -> tuple[Path, Compiled]:
    """Write the artifact; return its version directory and what was compiled.

    Raises UserError for a source, an output or a tool chain that cannot be used, CortexError when it compiles nothing.
    """
    _check(order)
    source = sources.find_images(order.source, order.version)
    recorded = answers.read(source.directory)
    output = source.beside("neuron", order.output)
    accelerator_compiler.check(order.chip, order.python)
    with new_version(output, source.version, force=order.force) as directory, tempfile.TemporaryDirectory() as room:
        frozen, made = Path(room) / "frozen", Path(room) / "compiled"
        step("freezing the graph for the TensorFlow of the tool chain")
        accelerator_graph.freeze(source.directory, frozen)
        step(f"compiling for {order.chip}, which takes minutes")
        compiled = accelerator_compiler.compile(
            order.chip, order.python, frozen, made, order.batch_size, order.arguments
        )
        if not compiled.share:
            raise CortexError("nothing of the graph was compiled for the device: see what the compiler says above")
        step(_placement(compiled))
        shutil.copytree(made, directory, dirs_exist_ok=True)
        _add_proof(source, order, recorded, compiled, directory)
        step(f"moving it to {output / str(source.version)}")
    return output / str(source.version), compiled


def _check(order: Order) -> None:
    if order.chip == "inf2" and order.cores != 1:
        raise UserError("--num-neuroncores is for inf1: on inf2 a graph runs on one NeuronCore")
    if order.cores not in (1, 2, CORES):
        raise UserError(f"--num-neuroncores must be 1, 2 or 4, so that groups share a chip evenly, not {order.cores}")


def _placement(compiled: Compiled) -> str:
    said = f"{compiled.share:.1%} of the graph's operations run on the device"
    return said if compiled.share >= NEAR_ALL else f"{said}: the rest runs on the CPU, and will set the pace"


def _add_proof(source: Source, order: Order, recorded: Recorded, compiled: Compiled, directory: Path) -> None:
    """Put the recorded requests, the card, and what else the source keeps beside it into the artifact.

    Its answers only the device itself can check.
    """
    model_card.copy_extra(source.directory, directory)
    recorded_requests.copy(source.directory, directory)
    model_card.write(directory, _card(source, order, recorded, compiled))


def _tolerance(cast: str, recorded: Recorded) -> Tolerance:
    """Return how far an answer may be off: bf16 has 8 significant bits, over some fifty layers."""
    if cast == "bf16":
        return Tolerance(0.05, 0.03 * recorded.largest)
    return Tolerance(0.01, 0.001 * recorded.largest)


def _card(source: Source, order: Order, recorded: Recorded, compiled: Compiled) -> dict[str, Any]:
    precision = "bf16" if order.cast == "bf16" else "fp32"
    allowed = _tolerance(order.cast, recorded)
    return model_card.derived(source.card, source.made_from(), "accelerator", precision, allowed, compiled.tools) | {
        "agreement": "not measured: it takes the device; a model server compares the recorded answers when it loads",
        "placement": {"chip": order.chip, "share_on_device": compiled.share},
        "compiler": {
            "arguments": order.arguments,
            "batch_size": order.batch_size,
            "neuroncores": order.cores,
        },
    }
