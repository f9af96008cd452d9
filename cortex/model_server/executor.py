"""A pool of threads that takes its work at any time, also where the system has no thread to spare."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class PatientExecutor(ThreadPoolExecutor):
    """Have work wait for a thread of those that there are, or for the next try, where another cannot be started.

    gRPC's door stays shut for good once `submit` has raised; nobody else takes what comes through it.
    """

    def _adjust_thread_count(self) -> None:
        with suppress(RuntimeError):  # the work is in the queue already
            super()._adjust_thread_count()
