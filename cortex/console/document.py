"""What `-o json` prints: the keys of Cortex 0.21 and 0.22, with our own beside them."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortex.endpoint import Summary
    from cortex.environments.base import API, Deployed
    from cortex.environments.processors import Processors
    from cortex.environments.registry import Configured

_STATUS_CODES = {
    "live": ("status_live", "ready"),
    "updating": ("status_updating", "initializing"),
    "error": ("status_error", "failed"),
    "error (out of memory)": ("status_oom", "killed_oom"),
}
"""Status as shown, to Cortex's code for it and to the count that the one replica is then in."""
_COUNTS = ("initializing", "ready", "failed", "killed_oom")


def line(document: object) -> str:
    """Return a document as compact JSON on one line."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def api(api: "API") -> dict[str, Any]:
    """Return one API: ``spec``, ``status``, ``metrics``, ``endpoint``; the rest is ours."""
    identity = {"id": api.api_id, "last_updated": int(api.last_updated)}
    return {
        "spec": api.spec.model_dump(mode="json") | identity,
        "status": _status(api),
        "metrics": {"api_name": api.spec.name, "network_stats": _network_stats(api)},
        "endpoint": api.endpoint,
        "front": api.front,
        "reason": api.reason,
        "notices": list(api.notices),
        "processes": [dataclasses.asdict(process) for process in api.processes],
    }


def runtime(summary: "Summary", processors: "Processors | None") -> dict[str, Any]:
    """Return what computes an API's models, and on which processor where that is known; empty where it is not."""
    processor = {} if processors is None else {"model": processors.model, "features": list(processors.features)}
    return {"running": {name: dict(facts) for name, facts in summary.running.items()}, "processor": processor}


def deployed(result: "Deployed") -> dict[str, Any]:
    """Return what came of one API's deployment."""
    return {"api": api(result.api) if result.api else None, "message": result.message, "error": result.error}


def environment(entry: "Configured") -> dict[str, Any]:
    return dataclasses.asdict(entry)


def listing(name: str, apis: Sequence["API"], error: str) -> dict[str, Any]:
    """Return the APIs of one environment, or why they are not known."""
    return {"env_name": name, "apis": [api(each) for each in apis], "error": error}


def answer(body: bytes) -> str:
    """Return an API's answer on one line: as it is when it is JSON, else as a JSON string."""
    try:
        return line(json.loads(body))
    except (ValueError, RecursionError):
        return line(body.decode(errors="replace"))


def _status(api: "API") -> dict[str, Any]:
    code, counted = _STATUS_CODES[api.status]
    stale = dict.fromkeys(_COUNTS, 0)
    return {
        "api_name": api.spec.name,
        "api_id": api.api_id,
        "status_code": code,
        "replica_counts": {"updated": stale | {counted: 1}, "stale": stale, "requested": 1},
    }


def _network_stats(api: "API") -> dict[str, Any]:
    stats = api.stats
    return {
        "latency": stats.latency_ms,
        "code_2xx": stats.code_2xx,
        "code_4xx": stats.code_4xx,
        "code_5xx": stats.code_5xx,
        "total": stats.total,
    }
