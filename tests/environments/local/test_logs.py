"""What `cortex logs` shows of the files of an API while they are moved aside."""

from pathlib import Path

import pytest

from cortex import rotation
from cortex.environments.local.logs import lines


@pytest.mark.timeout(20)
def test_what_nobody_had_read_before_a_rotation_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows a log sees every line once, in order, also those that came right before the log began anew."""
    monkeypatch.setattr(rotation, "LIMIT", 0)
    log = tmp_path / "api-0.log"
    long = "one" * 100
    log.write_text(f"{long}\n")
    shown = lines(tmp_path, follow=True)
    assert next(shown) == long
    with log.open("a", buffering=1) as writer:
        writer.write("two\nthree\n")
        rotation.rotate(tmp_path)
        writer.write("four\n")
        assert [next(shown) for _ in range(3)] == ["two", "three", "four"]


@pytest.mark.timeout(20)
def test_a_log_goes_on_where_what_was_in_it_is_lost(tmp_path: Path) -> None:
    """A disk too full for the older part costs what was in it, and nothing after it."""
    log = tmp_path / "api-0.log"
    log.write_text("one\n")
    shown = lines(tmp_path, follow=True)
    assert next(shown) == "one"
    log.write_text("2\n")
    assert next(shown) == "2"
