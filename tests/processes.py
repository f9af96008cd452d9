"""The processes that a test has started."""

import contextlib

import psutil


def children(word: str, parent: int | None = None) -> list[psutil.Process]:
    """Return the children of this process, or of another one, that live and have a word in their command."""
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that is about to go
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found
