"""What an API answered so far, read from the files that its workers count in."""

from pathlib import Path

from cortex import metrics_files
from cortex.environments.base import NetworkStats


def network_stats(directory: Path) -> NetworkStats:
    """Sum the workers' counts in a ``PROMETHEUS_MULTIPROC_DIR``; nothing is counted where there is none."""
    if not directory.is_dir():
        return NetworkStats()
    samples = (row for metric in metrics_files.counted(directory) for row in metric.samples)
    return NetworkStats.of({(row.name, row.labels.get("status", "")): float(row.value) for row in samples})
