"""docs/cortex.yaml tells the truth, and the three targets differ in what differs."""

import copy
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cortex.duration import parse_duration
from cortex.errors import UserError
from cortex.spec import APISpec, keys
from cortex.spec.config import read
from cortex.spec.document import Document

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "cortex.yaml"
TARGETS = ("cortex_cpu.yaml", "cortex_gpu.yaml", "cortex_accelerator.yaml")
FREE = ("predictor.config", "predictor.env")
"""Maps whose keys are the user's own."""
SECTIONS = ("networking", "autoscaling", "update_strategy")
DEPENDING = {
    "networking.endpoint": "the name, after a slash",
    "autoscaling.init_replicas": "min_replicas",
    "autoscaling.target_replica_concurrency": "processes_per_replica times threads_per_process",
}
"""Defaults that other keys decide."""


def _schema(steps: tuple[str | int, ...] = ()) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that the spec knows, once, with its field; models are the same in a list and in a map."""
    for key, info in keys.below(steps).items():
        way = (*steps, key)
        yield _name(way), info
        if "models" not in steps:
            yield from _schema(way)
            yield from _schema((*way, 0))


def _name(steps: tuple[str | int, ...]) -> str:
    """Return ``predictor.models.name`` for the name of a model, in whichever list it is."""
    return ".".join(str(step) for step in steps if not isinstance(step, int)).replace("models.paths.", "models.")


def _documented() -> Iterator[tuple[str, str]]:
    """Yield every key of the reference with the comment above it, at its first place."""
    document = Document.read(REFERENCE)
    lines = REFERENCE.read_text().split("\n")
    seen = set()
    for steps, line in document.lines.items():
        name = _name(steps)
        if isinstance(steps[-1], str) and name not in seen and not name.startswith(tuple(f"{free}." for free in FREE)):
            seen.add(name)
            yield name, _comment(lines[: line - 1])


def _comment(lines: list[str]) -> str:
    words: list[str] = []
    while lines and lines[-1].strip().startswith("#"):
        words.insert(0, lines.pop().strip().lstrip("# "))
    return " ".join(words)


SCHEMA = dict(_schema())
DOCUMENTED = dict(_documented())


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    """The reference has the keys of the spec, no more and no fewer."""
    assert set(DOCUMENTED) == set(SCHEMA)


@pytest.mark.parametrize("name", SCHEMA)
def test_the_default(name: str) -> None:
    """The comment of a key states its default, or that it is required, as the spec has it."""
    comment, info = DOCUMENTED[name], SCHEMA[name]
    if info.is_required():
        assert comment.startswith("Required. ")
        return
    [stated] = re.findall(r"^Default: (.+?)(?: \(null is allowed\))?\.\s", comment)
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        assert stated == "every default below"
    elif default is None:
        assert stated == DEPENDING.get(name, "none")
    else:
        assert default in (yaml.safe_load(stated), _seconds(stated))


def _seconds(text: str) -> float | None:
    try:
        return parse_duration(text)
    except ValueError:
        return None


@pytest.mark.parametrize("name", SCHEMA)
def test_who_uses_it_and_in_which_range(name: str) -> None:
    """The comment of every single value says who uses it, and its range when it is a number with bounds."""
    comment = DOCUMENTED[name]
    if not keys.below(tuple(name.split("."))):
        assert "Used by: " in comment
    bounds = [str(number) for item in SCHEMA[name].metadata for number in re.findall(r"[gl][te]=([\d.]+)", repr(item))]
    for bound in bounds:
        assert re.search(rf"Range: .*\b{bound.removesuffix('.0')}\b", comment), bound


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory with what the reference and the targets name."""
    (tmp_path / "predictor.py").touch()
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_reference_can_be_deployed(project: Path) -> None:
    """The reference has no mistake itself."""
    (project / "cortex.yaml").write_text(REFERENCE.read_text())
    assert len(read(project / "cortex.yaml").apis) == 6


def test_what_may_be_null(project: Path) -> None:
    """A key may be null exactly where its comment says so."""
    document = Document.read(REFERENCE)
    for steps in document.lines:
        name = _name(steps)
        if name in DOCUMENTED and isinstance(steps[-1], str):
            data = copy.deepcopy(document.data)
            _put(data, steps, None)
            (project / "cortex.yaml").write_text(yaml.safe_dump([data[steps[0]]], sort_keys=False))
            refused = any(f"{steps[-1]}: cannot be null" in line for line in _complaints(project / "cortex.yaml"))
            assert refused != ("null is" in DOCUMENTED[name]), name


def _put(data: Any, steps: tuple[str | int, ...], value: object) -> None:
    for step in steps[:-1]:
        data = data[step]
    data[steps[-1]] = value


def _complaints(path: Path) -> list[str]:
    try:
        read(path)
    except UserError as error:
        return str(error).split("\n")
    return []


def _target(project: Path, name: str) -> APISpec:
    (project / name).write_text((ROOT / name).read_text())
    [api] = read(project / name).apis
    return api


@pytest.mark.parametrize("name", TARGETS)
def test_a_target(project: Path, name: str) -> None:
    """Each target has the one API, with the predictor of this repository and a directory for its model."""
    api = _target(project, name)
    assert api.name == "image-classifier-resnet50"
    assert (api.predictor.type, api.predictor.path) == ("tensorflow", "predictor.py")
    assert (ROOT / api.predictor.path).is_file()
    assert [model.signature_key for model in api.predictor.models] == ["serving_default"]


def test_the_error_of_the_readme(project: Path) -> None:
    """What the README shows of an error is what the yaml of the repository gives, with its line."""
    text = (ROOT / "cortex_cpu.yaml").read_text()
    (project / "cortex_cpu.yaml").write_text(text.replace("processes_per_replica: 1", "processes_per_replica: 200"))
    [error] = _complaints(Path("cortex_cpu.yaml"))
    assert f"    error: {error}\n" in (ROOT / "README.md").read_text()


def test_the_targets_differ_in_what_differs(project: Path) -> None:
    """From target to target only the model, the device, and how many requests it is given change."""
    cpu, gpu, accelerator = (_target(project, name) for name in TARGETS)
    assert (cpu.compute.gpu, cpu.compute.inf) == (0, 0)
    assert (gpu.compute.gpu, gpu.compute.inf) == (1, 0)
    assert (accelerator.compute.gpu, accelerator.compute.inf) == (0, 1)
    paths = [api.predictor.models[0].path for api in (cpu, gpu, accelerator)]
    assert paths == ["models/resnet50", "models/resnet50", "models/resnet50_neuron"]
    assert "models/resnet50_gpu" in (ROOT / "cortex_gpu.yaml").read_text()
    per_target = {"models", "processes_per_replica", "threads_per_process", "server_side_batching"}
    same = [api.predictor.model_dump(exclude=per_target) for api in (cpu, gpu, accelerator)]
    assert same[0] == same[1] == same[2]


@pytest.mark.parametrize("provider", ["docker", "kubernetes"])
def test_every_setting_of_an_environment_is_documented(provider: str) -> None:
    """In the section of its provider, and no other."""
    from cortex.environments.docker.environment import SETTINGS
    from cortex.environments.kubernetes.settings import Settings

    known = {"docker": set(SETTINGS), "kubernetes": {field.name for field in dataclasses.fields(Settings)}}
    text = (ROOT / "docs/environments.md").read_text().partition(f"\n## {provider.capitalize()}\n")[2]
    table = text.partition("\n## ")[0].partition("| setting | default | |\n|---|---|---|\n")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(known[provider])


@pytest.mark.parametrize("name", ["local", "docker"])
def test_the_reference_says_what_an_environment_uses(name: str) -> None:
    """As the environment does, which tells its user of every key of these sections that it does not use."""
    from cortex.environments.docker import revision
    from cortex.environments.local import notices

    used = {"local": notices.USED, "docker": revision.USED}[name]
    keys = [("predictor", "image"), ("predictor", "tensorflow_serving_image"), ("compute", "mem")]
    told = dict(_documented())
    keys += [(section, key) for way in told for section, _, key in [way.partition(".")] if section in SECTIONS and key]
    for section, key in keys:
        found = re.search(r"Used by: ([a-z, ]+)\.", told[f"{section}.{key}"])
        assert found, key
        users = found[1].split(", ")
        assert (name in users or "every environment" in users) == (f"{section}.{key}" in used), f"{section}.{key}"
