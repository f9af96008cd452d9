"""Which answers are right."""

import json
from typing import Any

import pytest

from cortex.loadtest.expect import Expected


@pytest.mark.parametrize(
    ("want", "got", "right"),
    [
        ({"label": "cat"}, {"label": "cat", "more": 1}, True),
        ({"label": "cat"}, {"more": 1}, False),
        ({"label": "cat"}, ["cat"], False),
        (["cat", "dog"], ["cat"], False),
        ([100.0], [110], True),
        ([100.0], [110.5], False),  # though it is less than a tenth of 110.5
        ([100.0], [89.5], False),
        ([-100.0], [-110], True),
        ([0.0], [1e-7], True),
        ([0.0], [1e-3], False),
        ([float("inf")], [1.0], False),
        ([1], [True], False),
        ([True], [1], False),
        (["1"], [1], False),
        ([None], [None], True),
    ],
)
def test_right_answers(want: Any, got: Any, right: bool) -> None:
    """Objects may hold more, lists not; a number may be off by a share of what is expected, and is no boolean."""
    assert Expected(want, tolerance=0.1).accepts(json.dumps(got).encode()) == right
