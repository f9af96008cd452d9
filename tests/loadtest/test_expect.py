"""Which answers are right."""

import json
from pathlib import Path
from typing import Any

import pytest

from cortex.errors import UserError
from cortex.loadtest.expect import Expected, expecting
from cortex.loadtest.payloads import Payload


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


@pytest.mark.parametrize("answer", [b"", b"{", b"[" * 100_000, b"\xff", b"[1e999]", b"[1%s]" % (b"0" * 400)])
def test_an_answer_that_cannot_be_read_is_wrong(answer: bytes) -> None:
    """It is one of the answers that are counted, and no end of the run."""
    assert not Expected([1.0]).accepts(answer)


def test_answers_of_several_requests(tmp_path: Path) -> None:
    """Each has its own by its name; one without is told before anything is sent."""
    payloads = [Payload(b"{}", "application/json", name=name) for name in ("a.json", "b.json")]
    (tmp_path / "answers.json").write_text('{"b.json": [2], "a.json": [1]}')
    assert [each.expected for each in expecting(payloads, tmp_path / "answers.json")] == [Expected([1]), Expected([2])]
    for text in ('{"a.json": [1]}', "[1, 2]", "1"):
        (tmp_path / "answers.json").write_text(text)
        with pytest.raises(UserError, match=r"answers\.json: no answer for [ab]\.json; with several requests it is"):
            expecting(payloads, tmp_path / "answers.json")
