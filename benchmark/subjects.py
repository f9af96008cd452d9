"""The models that are measured. What is missing is made, once."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cells import BF16, INT8
from cortex.errors import UserError
from cortex.model_server import base_paths
from export.progress import Step

_ROOT = Path(__file__).parents[1]
_SAMPLES = 32  # of noise: the scales of an int8 model change its answers, and no duration


@dataclass(frozen=True)
class Subject:
    """A model under the name of its precision: its base path, and the precision that the processor computes in."""

    precision: str
    base_path: Path
    computed_in: str

    @property
    def directory(self) -> Path:
        """The newest version."""
        return _newest(self.base_path)


def resnet50(step: Step) -> Path:
    """Return where ResNet-50 is, exported with random weights when it is missing. UserError when it cannot be."""
    path = _ROOT / "models" / "resnet50"
    if not path.exists():
        step(f"exporting {path}")
        _export("savedmodel", "--weights", "random", "--output", str(path))
    return path


def subjects(base_path: Path, precisions: Sequence[str], step: Step) -> dict[str, Subject]:
    """Return a model for each precision that this processor has, made from the SavedModel at ``base_path``.

    The int8 artifact lies in the user's cache. Raises UserError when it cannot be made, and when no precision is left.
    """
    from export import inference

    best = inference.precisions()[-1]
    found = {}
    for each in precisions:
        if each == BF16 and best != BF16:
            step("leaving out bf16: the processor does not compute in it")
        elif each == INT8:
            found[each] = Subject(each, _quantized(base_path, step), best)
        else:
            found[each] = Subject(each, base_path, each)
    if not found:
        raise UserError(f"--precision {BF16}: the processor does not compute in it")
    return found


def _quantized(base_path: Path, step: Step) -> Path:
    """Return the base path of the int8 artifact of a model, which is known by its content."""
    from export import source

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = caches / "cortex-benchmark" / f"int8-{source.digest(_newest(base_path))[:16]}"
    if not path.exists():
        step("making the int8 artifact")
        arguments = ("--calibration", "random", "--subset-size", str(_SAMPLES), "--output", str(path))
        _export("cpu", str(base_path.resolve()), "--precision", INT8, *arguments)
    return path


def _export(*arguments: str) -> None:
    command = [sys.executable, "-m", "export", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(['python', *command[1:]])} failed: {done.stderr.strip()[-2000:]}")


def _newest(base_path: Path) -> Path:
    versions = base_paths.find(base_path)
    if not versions:
        raise UserError(f"{base_path} has no version directory")
    return versions[max(versions)]
