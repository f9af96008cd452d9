"""Whatever stands in a file, the answer is a spec or one error of clear lines."""

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex.spec import APISpec

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(25)
ROUNDS = 12
HOSTILE: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**18, float("nan"), float("inf"), "", " ", "a", "@a", "a\nb", "\x00", "\ud800",
    "😀", "../..", "/", ".", "~", "x" * 5000, "1e3", "60s", "0s", "99999h", "1Gi", "100%", "{}", "null",
    [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, {"name": 1}, [{"name": "a", "model_path": "m"}],
    {"paths": [{"name": "a"}]}, {"dir": "m", "paths": None}, "BatchAPI",
]  # fmt: skip
BYTES = [
    *(bytes([n]) for n in (0, 9, 10, 32, 45, 58, 91, 93, 123, 125, 38, 42, 33, 34, 39, 64, 96, 255)),
    b"<<: *a",
    b"&a ",
]
LINE = re.compile(r"cortex\.yaml(:\d+)?: \S.*")


def _places(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value."""
    for step, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*way, step)
        yield from _places(value, (*way, step))


def _mutated(data: Any, chance: random.Random) -> Any:
    """Put hostile values in place of some, rename some keys, and take some away."""
    data = copy.deepcopy(data)
    for _ in range(chance.randint(1, 4)):
        *way, last = chance.choice(list(_places(data)))
        parent = data
        for step in way:
            parent = parent[step]
        match chance.randrange(4):
            case 0:
                del parent[last]
            case 1 if isinstance(parent, dict):
                parent[chance.choice(["foo", "name", "inf", "accelerator", "model", "@x", ""])] = parent.pop(last)
            case _:
                parent[last] = copy.deepcopy(chance.choice(HOSTILE))
        if not data:
            break
    return data


def _check(lines: list[str]) -> None:
    for line in lines:
        assert LINE.fullmatch(line), line
        assert line.isprintable(), line
        assert not re.search(r"Input should|Extra inputs|Field required|validation error|unable to", line), line


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_values(read, complaints, seed: int) -> None:
    """Any value, anywhere, is either good, and then survives JSON, or leads to lines in Cortex's words."""
    chance = random.Random(seed)
    reference = yaml.safe_load((ROOT / "docs" / "cortex.yaml").read_text())
    for _ in range(ROUNDS):
        text = yaml.dump(_mutated(reference[:2], chance), Dumper=yaml.SafeDumper, allow_unicode=False)
        lines = complaints(text)
        _check(lines)
        for api in () if lines else read(text).apis:
            assert APISpec.model_validate_json(api.model_dump_json()).model_dump_json() == api.model_dump_json()


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_text(complaints, seed: int) -> None:
    """Any bytes lead to a spec or to clear lines."""
    chance = random.Random(seed)
    good = (ROOT / "cortex_gpu.yaml").read_bytes()
    for _ in range(ROUNDS):
        content = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(content))
            content[place : place + chance.randrange(4)] = chance.choice(BYTES)
        _check(complaints(bytes(content)))
