"""Kubernetes' quantities."""

from decimal import Decimal

import pytest

from cortex.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("200m", "0.2"), ("0.5", "0.5"), (".5", "0.5"), ("1.", 1), ("+2", 2), ("-1", -1),
        ("1n", "1e-9"), ("1u", "1e-6"), ("1k", 10**3), ("1M", 10**6), ("4G", 4 * 10**9), ("1T", 10**12), ("1P", 10**15),
        ("1E", 10**18), ("1Ki", 2**10), ("500Mi", 500 * 2**20), ("4Gi", 4 * 2**30), ("1Ti", 2**40), ("1Pi", 2**50),
        ("1Ei", 2**60), ("1e3", 1000), ("1E3", 1000), ("1e+3", 1000), ("1e-3", "0.001"),
        ("100Ei", 2**63 - 1), ("9e999", 2**63 - 1), ("-9e999", 1 - 2**63),
    ],
)  # fmt: skip
def test_a_quantity(text: str, value: int | str) -> None:
    """Every suffix of the grammar, exactly; nothing beyond 64 bits."""
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "1K",
        "1ki",
        "1 Gi",
        "1GB",
        "1e",
        "1e1000",
        ".",
        "--1",
        "1,5",
        "1Mi2",
        "٣",
        "1\n",
        "nan",
        "inf",
        "9" * 41,
    ],
)
def test_no_quantity(text: str) -> None:
    """Anything else is refused with examples of what would be right."""
    with pytest.raises(ValueError, match="some valid examples are 1, 200m, 500Mi, 2G"):
        parse_quantity(text)
