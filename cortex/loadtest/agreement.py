"""Which options of throughput_test.py go together."""

from collections.abc import Mapping
from typing import Any

import click

from cortex.loadtest.scenarios import RATED, SERVER
from cortex.loadtest.schedules import CONSTANT
from cortex.loadtest.sweep import RATE

_ALONE = ("sweep", "slo", "schedule", "scenario")
"""Options that say what to run, of which there can be one."""


def check(chosen: Mapping[str, Any]) -> None:
    """Raise UsageError for options that say different things, or of which one has no effect beside another."""
    named = [f"--{name}" for name in _ALONE if chosen[name]]
    if len(named) > 1 and set(named) != {"--slo", "--scenario"}:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")
    if chosen["rate"] and named and not chosen["scenario"]:
        raise click.UsageError(f"{named[0]} chooses its own rates: leave out --rate")
    if chosen["think_time"] and not _is_closed_loop(chosen):
        raise click.UsageError("--think-time is of a closed loop: leave it out")
    if chosen["arrivals"] != CONSTANT and _is_closed_loop(chosen):
        raise click.UsageError("--arrivals is of an open loop: give --rate or --schedule")
    if chosen["schedule"] and chosen["seconds"]:
        raise click.UsageError("--schedule says how long it lasts: leave out -i")
    if chosen["scenario"]:
        _check_scenario(chosen)
    if chosen["client_key"] and not chosen["client_cert"]:
        raise click.UsageError("--client-key belongs to a --client-cert")


def _is_closed_loop(chosen: Mapping[str, Any]) -> bool:
    open_sweep = chosen["sweep"] and chosen["over"] == RATE
    return not (chosen["rate"] or chosen["schedule"] or chosen["slo"] or chosen["scenario"] or open_sweep)


def _check_scenario(chosen: Mapping[str, Any]) -> None:
    name = chosen["scenario"]
    if chosen["warmup"]:
        raise click.UsageError("LoadGen counts from its first request: leave out --warmup")
    if chosen["rate"] and name not in RATED:
        raise click.UsageError(f"the scenario {name} has no rate: leave out --rate")
    if chosen["slo"] and name != SERVER:
        raise click.UsageError(f"the scenario {name} has no bound: leave out --slo")
