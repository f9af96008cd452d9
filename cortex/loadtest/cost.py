"""What the measured rate costs, and what another rate would take."""

import math

from cortex.loadtest.results import Cost, Result


def cost(result: Result, price_per_hour: float | None, target_rate: float | None) -> Cost | None:
    """Return the cost of a million inferences, and the servers like the measured one that a target rate takes.

    The rate is in inferences/s. None when neither is asked for.
    """
    if price_per_hour is None and target_rate is None:
        return None
    rate = result.inferences_per_second
    million = price_per_hour * 1e6 / (rate * 3600) if price_per_hour is not None and rate else None
    replicas = math.ceil(target_rate / rate) if target_rate is not None and rate else None
    together = replicas * price_per_hour if replicas is not None and price_per_hour is not None else None
    return Cost(price_per_hour, million, target_rate, replicas, together)
