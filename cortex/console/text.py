"""What the commands print for people. Every function returns text without its last line end."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cortex.console import document
from cortex.console.table import age, bold, count, latency, table

if TYPE_CHECKING:
    from cortex.endpoint import ModelInput, Summary
    from cortex.environments.base import API, Deployed, ProcessStatus
    from cortex.environments.processors import Processors
    from cortex.environments.registry import Configured

NO_APIS = "no apis are deployed"
NO_SCHEMA_YET = "the model's input schema will be available when the api is live"


def none_served(name: str) -> str:
    """Say that an API runs, and no version of its models does."""
    return f"no version of its models is served any more; `cortex logs {name}` says why"


def message(text: str, output: str) -> str:
    """Return a command's one message as ``output`` asks for it: ``pretty`` or ``json``."""
    return document.line({"message": text}) if output == "json" else bold(text)


def about(name: str, text: str) -> str:
    """Say what a text is about, unless it begins with that, or with a place in a yaml that names it."""
    return text if text.startswith((f"{name} ", f"{name}:")) or f": {name}: " in text else f"{name}: {text}"


def listing(apis: Sequence[tuple[str, "API"]], now: float) -> str:
    """Return the table of `cortex get`: one row for each pair of environment and API, then what is to know of each."""
    if not apis:
        return bold(NO_APIS)
    ordered = sorted(apis, key=lambda pair: (pair[0], pair[1].spec.name))
    shown = [each for _, each in ordered]
    cells = _status_cells(shown, now)
    rows = [[env, each.spec.name, *row] for (env, each), row in zip(ordered, cells[1:], strict=True)]
    several = len({env for env, _ in ordered}) > 1
    remarks = [
        f"{env}: " * several + about(each.spec.name, remark) for env, each in ordered for remark in _remarks(each)
    ]
    return blocks([table(["env", "realtime api", *cells[0]], rows), "\n".join(remarks)])


def single(api: "API", models: str, configuration: str, now: float) -> str:
    """Return all that `cortex get NAME` shows; ``models`` and ``configuration`` are texts of their own."""
    cells = _status_cells([api], now)
    return blocks(
        [
            table(cells[0], cells[1:]),
            "\n".join(_remarks(api)),
            address(api),
            models,
            _processes(api.processes),
            f"{bold('configuration')}\n{configuration}",
        ]
    )


def address(api: "API") -> str:
    """Return where an API is, and a command that asks it."""
    curl = f'curl {api.endpoint} -X POST -H "Content-Type: application/json" -d @sample.json'
    front = f"{bold('front:')} {api.front}\n" if api.front else ""
    return f"{bold('endpoint:')} {api.endpoint}\n{front}{bold('example curl:')} {curl}"


def running(summary: "Summary", processors: "Processors | None") -> str:
    """Return a line for each version of a model that runs: what computes it; then the processor, where it is known."""
    several = len(summary.running) > 1
    lines = [
        f"{bold('running:')} {f'{name}: ' if several else ''}{_computed(facts)}"
        for name, facts in summary.running.items()
    ]
    if lines and processors is not None:
        features = f" ({', '.join(processors.features)})" if processors.features else ""
        lines.append(f"{bold('processor:')} {processors.model}{features}")
    return "\n".join(lines)


def schema(inputs: Sequence["ModelInput"]) -> str:
    """Return the table of model inputs, with the models' names when there are several; empty without inputs."""
    if not inputs:
        return ""
    rows = [[each.name, each.type, _shape(each.shape)] for each in inputs]
    if len({each.model for each in inputs}) == 1:
        return table(["model input", "type", "shape"], rows)
    named = [[each.model, *row] for each, row in zip(inputs, rows, strict=True)]
    return table(["model name", "model input", "type", "shape"], named)


def deployed(results: Sequence["Deployed"], flags: str) -> str:
    """Return the messages of deployments, the commands to go on with, and where each live API is.

    ``flags`` is appended to the commands: `` --env NAME``, or nothing. Empty when every deployment failed.
    """
    good = [result for result in results if not result.error]
    if not good:
        return ""
    name = good[0].name if len(results) == 1 else "API_NAME"
    live = [result.api for result in good if result.api and result.api.status == "live"]
    addresses = [address(api) if len(results) == 1 else f"{bold(api.spec.name)}\n{address(api)}" for api in live]
    return blocks([bold("\n".join(result.message for result in good)), _next_commands(name, flags), *addresses])


def failures(results: Sequence["Deployed"]) -> str:
    """Return what went wrong, a line for each deployment that failed; empty when none did."""
    return "\n".join(about(result.name, result.error) for result in results if result.error)


def warnings(results: Sequence["Deployed"]) -> str:
    """Return what the owners of APIs must know although their deployment succeeded, a line each."""
    apis = [result.api for result in results if result.api and not result.error]
    return "\n".join(f"warning: {about(api.spec.name, notice)}" for api in apis for notice in api.notices)


def environments(entries: Sequence["Configured"]) -> str:
    return blocks(
        "\n".join(
            [
                f"name: {entry.name}{' (default)' if entry.default else ''}",
                f"provider: {entry.provider}",
                *(f"{key}: {value}" for key, value in entry.settings.items()),
            ]
        )
        for entry in entries
    )


def answer(body: bytes) -> bytes:
    """Return an answer indented when it is JSON, and as it is when not."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return body


def _status_cells(apis: Sequence["API"], now: float) -> list[list[str]]:
    """Return header and rows of what `cortex get` says of APIs; 4XX and 5XX only when there are any."""
    header = ["status", "last update", "avg request", "2XX"]
    rows = [
        [each.status, _updated(each, now), latency(each.stats.latency_ms), count(each.stats.code_2xx)] for each in apis
    ]
    for title, counts in (
        ("4XX", [each.stats.code_4xx for each in apis]),
        ("5XX", [each.stats.code_5xx for each in apis]),
    ):
        if any(counts):
            header.append(title)
            rows = [[*row, count(number)] for row, number in zip(rows, counts, strict=True)]
    return [header, *rows]


def _updated(api: "API", now: float) -> str:
    return age(now - api.last_updated) if api.last_updated else "-"  # it has never been live


def _remarks(api: "API") -> list[str]:
    reason = [api.reason] if api.reason and api.status != "live" else []
    return reason + [f"warning: {notice}" for notice in api.notices]


def _processes(processes: Sequence["ProcessStatus"]) -> str:
    if not processes:
        return ""
    rows = [[each.name, str(each.pid or "-"), each.state, count(each.restarts)] for each in processes]
    return table(["process", "pid", "state", "restarts"], rows)


def _computed(facts: Mapping[str, Any]) -> str:
    """Return what computes a model: ``openvino, bf16, 2 threads (2 streams under load)``, then what else is told."""
    facts = dict(facts)
    engine, precision = facts.pop("engine", ""), facts.pop("precision", "")
    threads, streams = facts.pop("threads", 0), facts.pop("streams", 1)
    told = f"{threads} thread{'' if threads == 1 else 's'}" if threads else ""
    told += f" ({streams} streams under load)" if told and streams != 1 else ""
    return ", ".join(str(each) for each in [engine, precision, told, *facts.values()] if each)


def _shape(shape: Sequence[int | str]) -> str:
    if len(shape) == 1 and isinstance(shape[0], str):
        return shape[0]  # "scalar" or "unknown"
    return f"({', '.join(map(str, shape))})"


def _next_commands(name: str, flags: str) -> str:
    commands = {
        f"cortex get{flags}": "(show api statuses)",
        f"cortex get {name}{flags}": "(show api info)",
        f"cortex logs {name}{flags}": "(stream api logs)",
    }
    width = max(map(len, commands))
    return "\n".join(f"{command.ljust(width)}  {purpose}" for command, purpose in commands.items())


def blocks(texts: Iterable[str]) -> str:
    """Set texts apart by a blank line; an empty one leaves no gap."""
    return "\n\n".join(text for text in texts if text)
