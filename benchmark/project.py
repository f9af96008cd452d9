"""This project's API as a project of its own, with another model or other settings."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_ROOT = Path(__file__).parents[1]
_FILES = ("predictor.py", "download.py", "export/imagenet_class_index.json")

Changes = Mapping[str, Mapping[str, Any]]
"""By section of the yaml, then by key."""


def write(folder: Path, changes: Changes) -> Path:
    """Write the API of `cortex_cpu.yaml` with some keys changed, and return the yaml."""
    for name in _FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, folder / name)
    api = yaml.safe_load((_ROOT / "cortex_cpu.yaml").read_text())[0]
    for section, keys in changes.items():
        api[section] = {**api.get(section, {}), **keys}
    path = folder / "cortex.yaml"
    path.write_text(yaml.safe_dump([api]))
    return path
