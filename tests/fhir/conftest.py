"""The FHIR door of three hospitals that share, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir_door import Door, opened
from real_parts import PostgreSQL
from region import ID_CARD, Region, region


@pytest.fixture
def door(city: Region) -> Door:
    return opened(city)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def hospital(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """Shared by a module's tests: Wang was at beicheng (Patient/1) and at nanhu (Patient/2)."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('hospital') / 'exchange.sqlite'}"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        url = server.create_schema()
    with region(url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.identify()
        yield opened(city)
