"""The model server with an interpreter that changes threads as often as it can.

``python -m tests.model_server.switching_server FLAGS``: what goes wrong only between two steps of a thread does so
here, nearly every time.
"""

import sys

from cortex.model_server.server import main

if __name__ == "__main__":
    sys.setswitchinterval(1e-6)
    sys.exit(main())
