"""The run-time settings that a launch uses, each with where it comes from.

They are the recommendations of Intel's tutorial for ResNet-50 on CPUs. A flag overrules them, and for what has no flag
an environment variable of the same name does. docs/launcher.md says what each is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.configuration import ACCURACY, Configuration
from cortex.errors import UserError
from cortex.topology import Core, Topology

_BATCH_SIZE, _STEPS, _WARMUP_STEPS = 128, 50, 10
ALL_SOCKETS = -1


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    source: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}  ({self.source})"


@dataclass(frozen=True)
class Settings:
    """Everything that was decided, and what of it the measured process is told.

    ``steps`` 0 is for as long as there are pictures. ``processors`` is empty where the process is not bound.
    """

    shown: tuple[Setting, ...]
    batch_size: int
    steps: int
    warmup_steps: int
    intra_threads: int
    inter_threads: int
    processors: tuple[int, ...]
    environment: Mapping[str, str]
    prefix: tuple[str, ...]


def decide(
    asked: Configuration,
    topology: Topology,
    origins: Mapping[str, str],
    environ: Mapping[str, str],
    numactl: str | None,
) -> Settings:
    """Return the settings of a launch.

    ``origins`` says where an option that was given comes from, by name; ``numactl`` is where that program lies.
    Raises UserError for a socket or a number of cores that this machine does not have.
    """
    shown = _Shown(asked, origins)
    accuracy = asked.measure == ACCURACY
    batch_size = shown.choose("batch_size", _BATCH_SIZE, "recommended for throughput; 1 is for latency")
    steps = shown.choose("steps", 0, "0: every picture") if accuracy else shown.choose("steps", _STEPS, "default")
    warmup_steps = 0 if accuracy else shown.choose("warmup_steps", _WARMUP_STEPS, "default")
    socket, cores = _bound(asked, topology, shown)
    intra = shown.choose("num_intra_threads", len(cores), "recommended: one for each physical core")
    inter = 0
    if asked.framework == "tensorflow":
        inter = shown.choose("num_inter_threads", 1, "recommended")
    elif asked.num_inter_threads:
        raise UserError(f"--num-inter-threads: {asked.framework} has none; --num-intra-threads are all its threads")
    environment = _environment(asked, intra, shown, environ)
    is_part = len(cores) < len(topology.cores())
    processors = tuple(sorted(number for core in cores for number in core)) if is_part else ()
    if processors:
        shown.add(
            "PROCESSORS", ",".join(map(str, processors)), "those of the cores above; the process is bound to them"
        )
    prefix = _prefix(socket, topology, shown, numactl)
    return Settings(
        tuple(shown.settings), batch_size, steps, warmup_steps, intra, inter, processors, environment, prefix
    )


class _Shown:
    """The settings so far, in the order in which they were decided."""

    def __init__(self, asked: Configuration, origins: Mapping[str, str]) -> None:
        self.settings: list[Setting] = []
        self._asked = asked
        self._origins = origins
        for name in ("model_name", "framework", "mode", "precision", "measure", "in_graph"):
            self.add(name.upper(), str(getattr(asked, name)), origins.get(name, "default"))
        data = asked.data_location
        self.add(
            "DATA_LOCATION", str(data or "synthetic"), origins.get("data_location", "default") if data else "default"
        )

    def add(self, name: str, value: str, source: str) -> None:
        self.settings.append(Setting(name, value, source))

    def choose(self, option: str, recommended: int, why: str) -> int:
        """Return what was asked for, or what is recommended."""
        said: int | None = getattr(self._asked, option)
        value = recommended if said is None else said
        self.add(option.upper(), str(value), why if said is None else self._origins.get(option, "given"))
        return value


def _bound(asked: Configuration, topology: Topology, shown: _Shown) -> tuple[int | None, tuple[Core, ...]]:
    """Return the socket to stay on, or None for all, and the cores to compute on."""
    sockets = topology.sockets
    first, enough = min(sockets), asked.num_cores is None or asked.num_cores <= len(topology.cores(min(sockets)))
    recommended, why = (first, "recommended: one socket") if len(sockets) > 1 and enough else (ALL_SOCKETS, "all")
    socket = shown.choose("socket_id", recommended, why if len(sockets) > 1 else "there is one socket")
    if socket != ALL_SOCKETS and socket not in sockets:
        known = ", ".join(map(str, sockets))
        raise UserError(f"--socket-id {socket}: this machine has {known} (and {ALL_SOCKETS} for all)")
    chosen = None if socket == ALL_SOCKETS else socket
    cores = topology.cores(chosen)
    count = shown.choose("num_cores", len(cores), "physical cores that this process may use")
    if count > len(cores):
        raise UserError(f"--num-cores {count}: there are {len(cores)} to be had here")
    return chosen, cores[:count]


def _environment(asked: Configuration, intra: int, shown: _Shown, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables of the measured process that are not there yet. Only TensorFlow reads any."""
    if asked.framework != "tensorflow":
        return {}
    loud = "verbose," if asked.verbose else ""
    recommended = {
        "OMP_NUM_THREADS": str(intra),
        "KMP_AFFINITY": f"granularity=fine,{loud}compact,1,0",
        "KMP_BLOCKTIME": "1",
        "KMP_SETTINGS": "1" if asked.verbose else "0",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }
    for name, value in recommended.items():
        shown.add(name, environ.get(name, value), "environment" if name in environ else "recommended")
    return {name: value for name, value in recommended.items() if name not in environ}


def _prefix(socket: int | None, topology: Topology, shown: _Shown, numactl: str | None) -> tuple[str, ...]:
    """Return the command that binds processors and memory to one socket of several."""
    if socket is None or len(topology.sockets) == 1:
        return ()
    if numactl is None:
        shown.add("NUMACTL", "none", "not on PATH: memory is not bound to the socket; install numactl")
        return ()
    prefix = (numactl, f"--cpunodebind={socket}", f"--membind={socket}")
    shown.add("NUMACTL", " ".join(prefix[1:]), "recommended: memory of the same socket")
    return prefix
