"""What the kernel says of the processors of this machine."""

import platform
from pathlib import Path

_ROOT = Path("/")
_MODEL_KEYS = ("model name", "cpu model", "Model", "Hardware")


def model(root: Path = _ROOT) -> str:
    """Return what the processors are called; the platform's name for them where the kernel has none."""
    info = cpuinfo(root)
    return next((info[key] for key in _MODEL_KEYS if info.get(key)), platform.processor() or platform.machine())


def cpuinfo(root: Path = _ROOT) -> dict[str, str]:
    """Return the keys of the first processor in ``proc/cpuinfo`` below ``root``; none when it cannot be read."""
    try:
        first = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
