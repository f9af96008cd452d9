"""The order of the tests when several workers share them."""

from pathlib import Path

import pytest

LONG = ("e2e", "notebooks", "export", "benchmark", "model_server")
"""Folders whose files take longest. They come first, so that no worker is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long folders first, and leave the order otherwise as it is."""
    root = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(root).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)
