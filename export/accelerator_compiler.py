"""AWS's compilers for Inferentia, in the Python environment that has them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex.errors import CortexError, UserError

INDEX = "https://pip.repos.neuron.amazonaws.com"
"""AWS's package index, as its documentation names it."""

_SCRIPTS = {"inf1": "accelerator_inf1.py", "inf2": "accelerator_inf2.py"}
_INSTALL = {
    "inf1": "pip install -r requirements-neuron.txt (Python 3.6 or 3.7)",
    "inf2": f'pip install --extra-index-url {INDEX} "neuronx-cc==2.*" tensorflow-neuronx (Python 3.8 to 3.10)',
}
_MISSING = 3  # the scripts' exit code when a part of the tool chain is not there


@dataclass(frozen=True)
class Compiled:
    """What came out: the share of operations on the device, 0 to 1, and the versions of the tools."""

    share: float
    tools: Mapping[str, str]


def check(chip: str, python: str) -> None:
    """Raise UserError when ``python`` is no program, or does not have the chip's tool chain: with how to install it."""
    try:
        done = _run(python, chip, "--check")
    except OSError as error:
        raise UserError(f"--python {python}: is no program that can be run ({error.strerror})") from error
    if done.returncode == _MISSING:
        raise UserError(
            f"{python} cannot compile for {chip} ({_last_line(done.stderr)}): {_INSTALL[chip]} in an environment of "
            "its own, and name its interpreter with --python"
        )
    if done.returncode:
        raise UserError(f"{python} cannot run the tool chain of {chip}: {_last_line(done.stderr)}")


def compile(chip: str, python: str, graph: Path, target: Path, batch_size: int, arguments: Sequence[str]) -> Compiled:
    """Compile a frozen SavedModel into ``target``, which must not exist, by the tools of ``python``.

    ``arguments`` are the compiler's own; what it says goes to the standard error stream. Raises CortexError when it
    fails or leaves no SavedModel.
    """
    told = {"model": str(graph), "target": str(target), "batch_size": batch_size, "compiler_args": arguments}
    done = _run(python, chip, json.dumps(told), shown=True)
    if done.returncode or not (target / "saved_model.pb").is_file():
        raise CortexError(f"the compiler of {chip} ended with {done.returncode}, and left no SavedModel")
    try:
        report = json.loads(done.stdout.splitlines()[-1])
        return Compiled(float(report["share"]), dict(report["tools"]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CortexError(f"the compiler's report cannot be read: {done.stdout[-200:]!r}") from error


def _run(python: str, chip: str, argument: str, *, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the chip's script, with the programs beside its interpreter on the path.

    neuron-cc is one, and tensorflow-neuron starts it in another directory.
    """
    script = Path(__file__).with_name(_SCRIPTS[chip])
    beside = Path(shutil.which(python) or python).absolute().parent
    path = os.pathsep.join([str(beside), os.environ.get("PATH", "")])
    kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
    return subprocess.run(
        [python, str(script), argument],
        stdout=subprocess.PIPE,
        stderr=None if shown else subprocess.PIPE,
        text=True,
        env=kept | {"PATH": path},
        check=False,
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"
