"""Log rotation, on files that are large only on paper."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from cortex.rotation import LIMIT, rotate


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "api-0.log"
    path.write_bytes(b"first")
    os.truncate(path, LIMIT + 1)  # sparse
    return path


def test_a_large_log_is_moved_aside(log: Path) -> None:
    """One older part is kept, and whoever appends goes on at the new end."""
    with log.open("ab") as writer:
        rotate(log.parent)
        writer.write(b"next")
    assert log.read_bytes() == b"next"
    assert log.with_suffix(".log.1").stat().st_size == LIMIT + 1


def test_a_small_log_is_left_alone(log: Path) -> None:
    """Nothing happens up to the limit."""
    os.truncate(log, LIMIT)
    rotate(log.parent)
    assert log.stat().st_size == LIMIT
    assert not log.with_suffix(".log.1").exists()


def test_a_log_that_cannot_be_kept_still_ends(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When there is no room for the older part it is lost, and said, and the other logs are rotated all the same."""
    log.with_suffix(".log.1").mkdir()
    other = log.with_name("api-1.log")
    other.touch()
    os.truncate(other, LIMIT + 1)
    rotate(log.parent)
    assert (log.stat().st_size, other.stat().st_size) == (0, 0)
    assert "cannot rotate" in caplog.text


def test_two_that_rotate_one_log_lose_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every supervisor of a home looks after the logs of its front: the second finds that there is nothing to do."""
    copy, second = shutil.copyfile, threading.Thread(target=rotate, args=(log.parent,))
    begins = iter([second.start])

    def copy_late(source: Path, target: Path) -> None:
        next(begins, lambda: None)()
        second.join(0.5)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_late)
    rotate(log.parent)
    second.join()
    assert (log.stat().st_size, log.with_suffix(".log.1").stat().st_size) == (0, LIMIT + 1)
