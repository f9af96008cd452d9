"""Go's durations."""

import pytest

from cortex.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("60s", 60), ("5m", 300), ("1h30m", 5400), ("100ms", 0.1), ("1.5s", 1.5), (".5s", 0.5), ("1.s", 1),
        ("10us", 1e-5), ("10µs", 1e-5), ("10μs", 1e-5), ("1ns", 1e-9), ("-1m", -60), ("+1m", 60), ("1h1h", 7200),
        ("2m3.5s", 123.5), ("2562047h", 2562047 * 3600),
    ],
)  # fmt: skip
def test_a_duration(text: str, seconds: float) -> None:
    """Every unit of the grammar, alone and in a row."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "1d", "1 s", "1s ", "1s\n", "1sm", "--1s", "1e3s", "1S", "٣s", "9" * 30 + "h", "2562048h", "0.0"],
)
def test_no_duration(text: str) -> None:
    """Anything else, and what is longer than Go can count, is refused with examples of what would be right."""
    with pytest.raises(ValueError, match="some valid examples are 100ms, 60s, 5m, 1h30m"):
        parse_duration(text)
