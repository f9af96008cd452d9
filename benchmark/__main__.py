"""``python -m benchmark``, from its first moment: its commands are imported where Ctrl-C is caught."""

import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run a command, and end with its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then, too
    try:
        from benchmark.commands import commands

        commands(arguments, prog_name="python -m benchmark")
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
