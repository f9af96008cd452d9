"""MLPerf's scenarios, through LoadGen itself."""

import sys
from pathlib import Path
from typing import Any

import pytest

from cortex.errors import UserError
from cortex.loadtest import HTTP, Payload, scenarios
from cortex.loadtest.findings import Objective
from cortex.loadtest.scenarios import Scenario, measure

PAYLOAD = Payload(b"{}", "application/json")
loadgen = pytest.mark.skipif(
    not any((Path(each) / "mlcommons_loadgen").is_dir() for each in sys.path),
    reason="mlcommons-loadgen is not installed: pip install mlcommons-loadgen",
)


@loadgen
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_scenarios(endpoint: str, seen: Any, tmp_path: Path, name: str) -> None:
    """Each scenario runs to LoadGen's verdict and keeps its logs; its requests are counted as any others are."""
    scenario = Scenario(name, tmp_path / "logs", threads=8, seconds=0.5, rate=20, bound=Objective(90, 0.5))
    result = measure(scenario, HTTP(endpoint), [PAYLOAD, PAYLOAD])
    summary = (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()
    verdict = str(result.settings["LoadGen"])
    assert verdict.split(",")[0] in ("VALID", "INVALID")
    assert f"Result is : {verdict.split(',')[0]}" in summary
    assert result.requests == len(seen.requests) > 1
    assert result.errors == {}
    assert f"Scenario : {name}" in summary
    if name == scenarios.SERVER:
        detail = (tmp_path / "logs" / "mlperf_log_detail.txt").read_text()
        assert '"requested_server_target_latency_percentile", "value": 0.9,' in detail


@loadgen
def test_a_server_that_does_not_keep_up(endpoint: str, tmp_path: Path) -> None:
    """All that LoadGen issues is sent, however late; what waited for a connection was not held up by the tester."""
    result = measure(Scenario("Server", tmp_path, threads=1, seconds=1, rate=100), HTTP(endpoint + "/slow"), [PAYLOAD])
    assert result.errors == {}
    assert result.client
    assert "sent late, because all 1 connections waited for answers" in str(result.client.warning)


@loadgen
def test_failures(endpoint: str, tmp_path: Path) -> None:
    """LoadGen knows nothing of failed requests, so a run that has any is called invalid here."""
    result = measure(Scenario("SingleStream", tmp_path, threads=1, seconds=0.2), HTTP(endpoint + "/503"), [PAYLOAD])
    assert result.requests == 0
    assert result.settings["LoadGen"].startswith("INVALID: ")


def test_rates(tmp_path: Path) -> None:
    """A scenario whose rate LoadGen sets needs one; without its wheel one sentence says how to get it."""
    with pytest.raises(UserError, match=r"needs --rate|pip install mlcommons-loadgen"):
        measure(Scenario("Server", tmp_path, threads=1), HTTP("http://127.0.0.1:1"), [PAYLOAD])


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel it is one sentence."""
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(UserError, match=r"^MLPerf's scenarios need LoadGen: pip install mlcommons-loadgen$"):
        measure(Scenario("Offline", tmp_path, threads=1), HTTP("http://127.0.0.1:1"), [PAYLOAD])
