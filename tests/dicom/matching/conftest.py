"""Studies of three hospitals that a C-FIND is asked for, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matched import hospitals
from serving import Served


@pytest.fixture(scope="module")
def served(lasting_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with hospitals(tmp_path_factory.mktemp("matching"), lasting_database_url) as made:
        yield made
