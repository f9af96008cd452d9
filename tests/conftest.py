"""A temporary directory of the run's own, in which nothing is to be left; and the order of tests that workers share."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

LONG = ("e2e", "notebooks", "export", "benchmark", "model_server")
"""Folders whose files take longest. They come first, so that no worker is left alone with one of them at the end."""
SECONDS_TO_END = 15.0

_temporary = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Have the tests, and every process that they start, use one new temporary directory (its name has to be short)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, it ends what the tests have started
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script in the background has it ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and what the tests start would, too
    if not hasattr(config, "workerinput"):
        config.stash[_temporary] = directory = Path(tempfile.mkdtemp(prefix="ct-"))
        directory.chmod(0o711)  # some tests become another user
        os.environ["TMPDIR"] = str(directory)
        tempfile.tempdir = None


@pytest.hookimpl(wrapper=True, trylast=True)  # before the summary, which comes last
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail the run when a process is left; keep the directory when a test failed."""
    yield
    directory = session.config.stash.get(_temporary, None)
    if directory is None:
        return
    end = time.monotonic() + SECONDS_TO_END
    while (left := _left(directory)) and time.monotonic() < end:
        time.sleep(0.2)
    for process in left:
        print(f"\nleft behind by the tests: {process.pid} {' '.join(process.cmdline())}")
        process.kill()
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
        del session.config.stash[_temporary]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the directory."""
    if directory := config.stash.get(_temporary, None):
        shutil.rmtree(directory, ignore_errors=True)


def _left(directory: Path) -> list[psutil.Process]:
    """Return the processes that were started with this temporary directory, but for this one and what it runs."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get("TMPDIR") == str(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long folders first, and leave the order otherwise as it is."""
    root = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(root).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)
