"""The `benchmark` package stands at the root of the project and is not installed."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _project_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def is_alive() -> Callable[[psutil.Process], bool]:
    """Tell whether a process runs. A zombie does not, and it is not ours to reap one that another has adopted."""

    def check(process: psutil.Process) -> bool:
        try:
            return bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return check
