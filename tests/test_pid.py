"""Which process has ended."""

import os
import subprocess
import sys

import psutil
import pytest

from cortex.pid import lives
from tests.waiting import until

FIRST_THREAD_ENDS = """
import ctypes, threading
threading.Thread(target=input).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.parametrize("code", ["input()", FIRST_THREAD_ENDS], ids=["one thread", "first of two threads ended"])
def test_a_process_lives_as_long_as_any_thread_of_it(code: str) -> None:
    """Its ports are in use for so long; and it has ended before anybody asks what came of it."""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    if code == FIRST_THREAD_ENDS:
        until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert lives(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.status() == psutil.STATUS_ZOMBIE
    assert not lives(process)
    child.communicate()
    assert not lives(process)
