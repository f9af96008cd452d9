"""``python -m cortex.model_server``."""

import signal
import sys


def main() -> int:
    """Run the server. It may be asked to read its configuration again before it has read any."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from cortex.model_server import server  # this takes some tenths of a second

    return server.main()


if __name__ == "__main__":
    sys.exit(main())
