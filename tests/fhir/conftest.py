"""The FHIR door of three hospitals that share, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir_door import Door, opened
from region import ID_CARD, Region, region


@pytest.fixture
def door(city: Region) -> Door:
    return opened(city)


@pytest.fixture(scope="module")
def hospital(lasting_database_url: str) -> Iterator[Door]:
    """Shared by a module's tests: Wang was at beicheng (Patient/1) and at nanhu (Patient/2)."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.identify()
        yield opened(city)
