"""What a launch was asked for, as it is kept for the next one."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cortex.errors import UserError

LAST, REPEATED = "last.json", "repeated.json"
"""The files in the output directory: the last configuration, and the last repetition that a shell or an image got."""

ACCURACY, BENCHMARK = "accuracy", "benchmark"


@dataclass(frozen=True)
class Configuration:
    """The options of ``launch``; None stands for what nobody said, for which there is a recommendation."""

    in_graph: Path
    output_dir: Path
    model_name: str = "resnet50"
    framework: str = "tensorflow"
    precision: str = "fp32"
    mode: str = "inference"
    measure: str = BENCHMARK
    batch_size: int | None = None
    data_location: Path | None = None
    steps: int | None = None
    warmup_steps: int | None = None
    num_cores: int | None = None
    socket_id: int | None = None
    num_intra_threads: int | None = None
    num_inter_threads: int | None = None
    pixels: str | None = None
    label_offset: int | None = None
    input_node: str | None = None
    output_node: str | None = None
    docker_image: str | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.model_name):
            raise UserError(f"--model-name {self.model_name}: expected letters, digits, dots and dashes")
        for name in ("in_graph", "data_location", "output_dir"):
            try:
                str(getattr(self, name)).encode()
            except UnicodeEncodeError:
                message = f"--{name.replace('_', '-')} {getattr(self, name)}: the path has to be UTF-8"
                raise UserError(message) from None
        for flag, path in (("--in-graph", self.in_graph), ("--data-location", self.data_location)):
            try:
                if path:
                    path.stat()
            except OSError as error:
                raise UserError(f"{flag} {path}: {error.strerror}") from error
        if self.measure == ACCURACY and not self.data_location:
            raise UserError("--accuracy-only needs labelled pictures: --data-location with TFRecords")


def write(configuration: Configuration, name: str = LAST) -> Path:
    """Keep the configuration in its output directory, which is made. Raises UserError where that cannot be."""
    path = configuration.output_dir / name
    defaults = {field.name: field.default for field in fields(configuration)}
    said = {name: value for name, value in asdict(configuration).items() if value != defaults[name]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".unfinished")  # a disk that is full leaves the last one as it was
        whole.write_text(json.dumps(said, indent=2, default=str) + "\n")
        whole.replace(path)
    except OSError as error:
        raise UserError(f"--output-dir {configuration.output_dir}: {error.strerror}") from error
    return path


def read(path: Path) -> Mapping[str, Any]:
    """Return the options that a configuration file holds, by name. Raises UserError for anything else."""
    try:
        said = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no configuration yet; python -m benchmark launch writes it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a configuration ({error})") from error
    if not isinstance(said, dict):
        raise UserError(f"{path}: not a configuration (expected an object)")
    if unknown := sorted(said.keys() - {field.name for field in fields(Configuration)}):
        raise UserError(f"{path}: unknown option {unknown[0]!r}")
    return said
