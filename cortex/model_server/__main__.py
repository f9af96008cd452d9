"""``python -m cortex.model_server``."""

import sys

from cortex.model_server.server import main

sys.exit(main())
