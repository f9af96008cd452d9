"""A pool of threads that takes its work at any time, also where the system has no thread to spare."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class PatientExecutor(ThreadPoolExecutor):
    """Have work wait for a thread of those that there are, or for the next try, where another cannot be started.

    Otherwise gRPC's door stays shut for good, whose one thread ends with what `submit` raises.
    """

    def _adjust_thread_count(self) -> None:
        with suppress(RuntimeError):  # the work is in the queue already
            super()._adjust_thread_count()
