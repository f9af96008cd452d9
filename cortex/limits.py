"""The system's limits, as far as a process that keeps others alive can do something about them."""

import asyncio
import os
import resource
import sys
from contextlib import suppress

_DESCRIPTORS = 2**16


def watch_without_threads() -> None:
    """Hear of a process's end by a descriptor, as Python 3.12 does by itself, where the kernel can.

    A thread for each would be one that there may be none left for, and then nobody looks after what has just started.
    """
    if sys.version_info < (3, 12):
        with suppress(OSError):
            os.close(os.pidfd_open(os.getpid()))
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def take_descriptors() -> None:
    """Allow this process, and those that it starts, more than the usual 1,024 descriptors: a connection is one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    if resource.RLIM_INFINITY != now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
