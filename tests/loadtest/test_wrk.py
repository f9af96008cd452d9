"""The tester beside wrk, and beside a server that does nothing."""

import shutil

import pytest
from click.testing import CliRunner

from cortex.errors import CortexError
from cortex.loadtest import Payload, speed
from cortex.loadtest.wrk import Figures, by_tester, by_wrk, ratios
from tests.loadtest.servers import Seen

PAYLOAD = Payload(b'{"imgs": []}', "application/json")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk")
def test_both_say_the_same(endpoint: str, seen: Seen) -> None:
    """Both say the rate at which the server answered, whatever else this machine does; failures are in neither rate."""
    for measured in (by_wrk, by_tester):
        seen.capacity.clear()
        said = measured(endpoint + "/capacity", PAYLOAD, 8, 1).rate
        answered = len(seen.capacity) / (max(seen.capacity) - min(seen.capacity))
        assert said == pytest.approx(answered, rel=0.2)
    failing = by_wrk(endpoint + "/503", PAYLOAD, 2, 1)
    assert (failing.rate, failing.failed > 0) == (0, True)
    with pytest.raises(CortexError, match=r"nothing was answered.*HTTP 503"):
        by_tester(endpoint + "/503", PAYLOAD, 2, 0.2)


def test_ratios() -> None:
    """A ratio is the tester's figure over wrk's, and the median of the turns is told."""
    wrk = Figures(100, 0.01, 0.02, 0)
    pairs = [(Figures(rate, 0.01, 0.03, 0), wrk) for rate in (90, 99, 104)]
    assert ratios(pairs) == {"rate": 0.99, "p50": 1, "p99": pytest.approx(1.5)}


@pytest.mark.parametrize(
    ("arguments", "message"), [(["none.jpg"], "none.jpg: No such file"), (["a", "0"], "0 is not in")]
)
def test_speed_of_what_cannot_be_sent(arguments: list[str], message: str) -> None:
    """What is wrong with an argument is one line."""
    done = CliRunner().invoke(speed.main, arguments)
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)
