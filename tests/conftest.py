"""Which tests the default run leaves out, so that it stays below a quarter of an hour on two cores."""

import os
from pathlib import Path

import pytest

SLOW = ("notebooks", "export/cpu", "export/targets", "benchmark")
"""Folders of a minute or more each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the slow folders unless CORTEX_TEST_SLOW is set, or the whole run is about one of them."""
    if os.environ.get("CORTEX_TEST_SLOW"):
        return
    root = Path(__file__).parent
    slow = [item for item in items if str(item.path.relative_to(root)).startswith(SLOW)]
    if len(slow) == len(items):
        return
    for item in slow:
        item.add_marker(pytest.mark.skip(reason="slow: set CORTEX_TEST_SLOW=1, or name its folder"))
