"""What is made once in a run of the tests, by whichever of its workers needs it first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a directory that ``make`` has filled; read it, never write to it.

    The workers of a run share it, and wait for the one that fills it. Where that fails, the next one tries.
    """
    own = factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    root.mkdir(exist_ok=True)
    made = root / name
    with (root / f"{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if not lock.read():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
            lock.write("made")
    return made
