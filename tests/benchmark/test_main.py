"""``python -m benchmark``: what holds for every command."""

import subprocess
import sys
from pathlib import Path

import psutil

from cortex.pid import lives

ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import subprocess, sys
from benchmark import __main__, commands

quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

def start(arguments, **_):
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **quiet).pid)
    sys.exit(143)

commands.commands = start
__main__.main([])
"""


def test_a_signal_while_a_process_is_started() -> None:
    """That process is ended all the same: SIGTERM may come before whoever started it can end it."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert not psutil.pid_exists(int(done.stdout)) or not lives(psutil.Process(int(done.stdout)))
