"""Which engines can run models on this machine, and why the others cannot. Each is asked in a process of its own:
importing one can take seconds, and a broken one must not take the command with it."""

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata

from cortex.environments.tool import Refused, ask

_SECONDS = 60.0
"""The longest that an engine may take to say what it has; TensorFlow on a slow disk takes ten."""


@dataclass(frozen=True)
class EngineStatus:
    """One engine: ``providers`` are the devices it would compute on; ``problem`` says why it cannot run."""

    name: str
    version: str = ""
    providers: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Wheel:
    """An engine that a package brings: names of the packages, the first being the one to install, and a question."""

    packages: tuple[str, ...]
    question: str
    """Python that leaves a list of names in ``found``."""

    def status(self, name: str, seconds: float) -> EngineStatus:
        version = next(filter(None, map(_version, self.packages)), "")
        if not version:
            return EngineStatus(name, problem=f"not installed: pip install {self.packages[0]}")
        script = f"import json\n{self.question}\nprint(json.dumps(list(found)))"
        try:
            answer = ask([sys.executable, "-P", "-c", script], seconds).strip().splitlines()[-1]
            return EngineStatus(name, version, tuple(map(str, json.loads(answer))))
        except (Refused, ValueError, IndexError) as error:
            return EngineStatus(name, version, problem=f"installed, but cannot be imported: {error}")


@dataclass(frozen=True)
class Program:
    """An engine that is a program of somebody else's, with the flags of TF Serving."""

    what: str

    def status(self, name: str, seconds: float) -> EngineStatus:
        """Ask the program that a plan would start: CORTEX_TENSORFLOW_MODEL_SERVER, or the one on the PATH."""
        command = os.environ.get("CORTEX_TENSORFLOW_MODEL_SERVER") or name
        try:
            answer = ask([command, "--version"], seconds)
        except Refused as error:
            return EngineStatus(name, problem=f"{error} ({self.what})")
        first = answer.strip().splitlines()[:1]
        return EngineStatus(name, (first[0] if first else "").rpartition(": ")[2], (command,))


ENGINES: Mapping[str, Wheel | Program] = {
    "openvino": Wheel(
        ("openvino",),
        "from cortex import bare_openvino\nbare_openvino.arrange()\nimport openvino\n"
        "found = openvino.Core().available_devices",
    ),
    "tensorflow": Wheel(
        ("tensorflow", "tensorflow-cpu"),
        "import tensorflow\nfound = [d.device_type for d in tensorflow.config.list_physical_devices()]",
    ),
    "onnxruntime": Wheel(
        ("onnxruntime", "onnxruntime-gpu"), "import onnxruntime\nfound = onnxruntime.get_available_providers()"
    ),
    "tflite": Wheel(("ai-edge-litert",), "import ai_edge_litert.interpreter\nfound = ['CPU']"),
    "tensorflow_model_server": Program("TensorFlow Serving; for predictor.model_server: tensorflow_model_server"),
    "tensorflow_model_server_neuron": Program("TensorFlow Serving of AWS Neuron; for compute.inf"),
}


def statuses() -> tuple[EngineStatus, ...]:
    """Ask every engine at the same time, and return what each said, in a fixed order."""
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        return tuple(pool.map(lambda row: row[1].status(row[0], _SECONDS), ENGINES.items()))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
