"""Ratios of a comparison."""

import pytest

from cortex.errors import UserError
from cortex.loadtest import Payload


def test_ratios_say_how_much_better() -> None:
    """Throughput is divided by the reference's, latency and memory the other way round: above 1 is always better."""
    from benchmark.compare import Comparison, Figures
    from benchmark.processes import Memory

    measured = Figures("ours", {1: 50.0, 8: 60.0}, {1: 0.02, 8: 0.1}, {1: [50.0], 8: [60.0]}, Memory(800, 600))
    reference = Figures("theirs", {1: 10.0, 8: 12.0}, {1: 0.1, 8: 0.6}, {1: [10.0], 8: [12.0]}, Memory(2400, 1200))
    comparison = Comparison(measured, reference)
    assert [(what, pytest.approx(ratio), a, b) for what, ratio, a, b in comparison.rows()] == [
        ("throughput, 1 client", 5, "50.0 req/s", "10.0 req/s"),
        ("throughput, 8 clients", 5, "60.0 req/s", "12.0 req/s"),
        ("median latency, 1 client", 5, "20.0 ms", "100.0 ms"),
        ("median latency, 8 clients", 6, "100.0 ms", "600.0 ms"),
        ("memory, RSS", 3, "800 MB", "2400 MB"),
        ("memory, PSS", 2, "600 MB", "1200 MB"),
    ]
    assert comparison.table().row_count == 6


def test_errors_are_no_figures() -> None:
    """A system whose requests fail has no throughput: the comparison ends with the reason."""
    from benchmark.compare import compare
    from benchmark.processes import free_port

    class Down:
        name = "down"
        url = f"http://127.0.0.1:{free_port()}"

        def processes(self) -> list[object]:
            return []

    with pytest.raises(UserError, match=r"down: requests failed: .*connection refused"):
        compare(Down(), Down(), Payload(b"", "text/plain"), [1], 0.1, 1, lambda step: None)
