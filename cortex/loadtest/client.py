"""What the tester itself did while it measured, and whether that got in the way."""

from collections.abc import Sequence

from cortex.loadtest.loads import Load
from cortex.loadtest.results import Client
from cortex.loadtest.statistics import Journal, Tally

_BUSY = 0.9  # of a core, from which on a process is not to be trusted with more
_SHORT = 0.5  # seconds, in which a process that starts its threads and ends is busy with that
_OFTEN = 0.05  # of the requests, from which on lateness is worth a word


def client(load: Load, journal: Journal, whole: Tally, cpu: Sequence[float]) -> Client:
    """Sum up, from the processor seconds of each process."""
    busiest = max(cpu, default=0.0) / journal.seconds if journal.seconds else 0.0
    sent, effort = whole.requests + whole.failed, journal.effort
    judged = busiest if journal.seconds >= _SHORT else 0.0
    return Client(
        processes=load.workers,
        threads=load.threads,
        cpu_seconds=sum(cpu),
        busiest=busiest,
        cpu_per_request=sum(cpu) / sent if sent else 0.0,
        late=effort.late,
        late_share=effort.late / sent if sent else 0.0,
        worst_lateness=effort.worst_lateness,
        warning=_warning(load, judged, effort.late - effort.overslept, effort.overslept, sent),
    )


def _warning(load: Load, busiest: float, held_up: int, overslept: int, sent: int) -> str | None:
    if busiest > _BUSY:
        return (
            f"The tester is the bottleneck: a process of it used {busiest:.0%} of a core. "
            f"Give it more processes (-w {load.workers * 2}) or a machine of its own."
        )
    if sent and overslept > _OFTEN * sent:
        return (
            f"The tester was late by itself with {overslept / sent:.0%} of the requests: this machine is too busy for "
            "exact times. Give the tester a machine of its own, or a lower rate."
        )
    if sent and held_up > _OFTEN * sent:
        connections = load.workers * load.threads
        return (
            f"{held_up / sent:.0%} of the requests were sent late, because all {connections} connections waited for "
            f"answers: the server does not keep up, or needs more connections (-t {load.threads * 2})."
        )
    return None
