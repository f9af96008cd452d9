"""The logs of an API: one file per process, read as one."""

import heapq
import re
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.2
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]?\d*")


def lines(directory: Path, *, follow: bool) -> Iterator[str]:
    """Yield every line of every log file, in the order of their timestamps, without line ends.

    When following, go on with what is added to them, and to files that appear, until the directory is gone.
    """
    ends: dict[Path, int] = {}
    files = sorted(directory.glob("*.log"))
    for _, line in heapq.merge(*(_stamped(path, ends, unfinished=not follow) for path in files)):
        yield line
    while follow and directory.exists():
        time.sleep(_POLL_SECONDS)
        for path in sorted(directory.glob("*.log")):
            for _, line in _stamped(path, ends):
                yield line


def _stamped(path: Path, ends: dict[Path, int], *, unfinished: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the lines that a file has gained since its end was noted, each with the last timestamp up to it.

    A last line without a line end is still being written, and is left for later unless ``unfinished`` asks for it.
    """
    stamp = ""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < ends.get(path, 0):
                ends[path] = 0  # the file was moved aside and begun anew
            file.seek(ends.get(path, 0))
            for raw in file:
                if not raw.endswith(b"\n") and not unfinished:
                    break
                ends[path] = ends.get(path, 0) + len(raw)
                line = raw.decode(errors="replace").rstrip("\r\n")
                found = _TIMESTAMP.match(line)
                stamp = found.group().replace("T", " ").replace(",", ".") if found else stamp
                yield stamp, line
    except FileNotFoundError:
        return
