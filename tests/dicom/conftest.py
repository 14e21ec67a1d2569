"""The web door, empty, and an archive behind it that is only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from web_door import Door, empty, fill


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with empty(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """An archive that is only read, see `fill`."""
    with empty(tmp_path_factory.mktemp("archive")) as made:
        fill(made)
        yield made
