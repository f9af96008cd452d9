"""Whether a pid still names the process that it once named."""

import psutil


def since_boot(process: psutil.Process) -> float:
    """Return how many seconds after the machine a process was started: that stays so when somebody sets the clock."""
    return process.create_time() - psutil.boot_time()


def lives(process: psutil.Process) -> bool:
    """Tell whether any thread of a process still runs; while one does, its ports and its files are open.

    A process that has ended keeps its pid until its parent asks for it, and is a zombie for so long; but so is one
    whose first thread has ended before the others.
    """
    try:
        if not process.is_running():
            return False
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False
