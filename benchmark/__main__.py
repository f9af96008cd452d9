"""``python -m benchmark``, from its first moment: its commands are imported where Ctrl-C is caught."""

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run a command, and end with its exit code; no child is left, wherever a signal came upon it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then, too
    try:
        from benchmark.commands import commands

        commands(arguments, prog_name="python -m benchmark")
    except KeyboardInterrupt:
        sys.exit(1)
    finally:
        from benchmark.processes import end, family

        end(family(os.getpid())[1:])  # a child that was just being started: nobody was there yet to end it


if __name__ == "__main__":
    main(sys.argv[1:])
