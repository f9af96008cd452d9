"""A project in an empty directory, and what the spec says about a yaml in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.errors import UserError
from cortex.spec import config

Read = Callable[[str | bytes], config.Config]
Complaints = Callable[[str | bytes], list[str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read a text as ``cortex.yaml``, beside ``predictor.py``, ``src/predictor.py`` and ``.hidden/predictor.py``."""
    for name in ("predictor.py", "src/predictor.py", ".hidden/predictor.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def read(text: str | bytes) -> config.Config:
        Path("cortex.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return config.read(Path("cortex.yaml"))

    return read


@pytest.fixture
def complaints(read: Read) -> Complaints:
    """Return the lines of the error that a text leads to; none when it is good."""

    def complaints(text: str | bytes) -> list[str]:
        try:
            read(text)
        except UserError as error:
            return str(error).split("\n")
        return []

    return complaints
