"""``python benchmark/launch_benchmark.py``: the same as ``python -m benchmark launch``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmark.__main__ import main

    main(["launch", *sys.argv[1:]])
