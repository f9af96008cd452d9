"""The logs of an API: one file per process, read as one."""

import contextlib
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
    for raw in _gained(path, ends, unfinished=unfinished):
        line = raw.decode(errors="replace").rstrip("\r\n")
        found = _TIMESTAMP.match(line)
        stamp = found.group().replace("T", " ").replace(",", ".") if found else stamp
        yield stamp, line


def _gained(path: Path, ends: dict[Path, int], *, unfinished: bool) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        end = ends.get(path, 0)
        if file.seek(0, 2) < end:  # what was in it is aside (`cortex.rotation`), with what nobody has read yet
            ends[path] = 0
            with path.with_suffix(".log.1").open("rb") as aside:
                aside.seek(end)
                yield from aside
        file.seek(ends.get(path, 0))
        for raw in file:
            if not raw.endswith(b"\n") and not unfinished:
                break
            ends[path] = ends.get(path, 0) + len(raw)
            yield raw
