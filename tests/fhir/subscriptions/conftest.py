"""A hospital's desk where one subscribes, and an endpoint that is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir_door import opened
from region import ID_CARD, region
from subscribed import CONDUCT, Desk, Endpoint, endpoint


@pytest.fixture(scope="module")
def desk(lasting_database_url: str) -> Iterator[Desk]:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2), Li at beicheng (Patient/3)."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.send("beicheng", patient="L1", study="1.2.3", instance="1.4.3", PatientName="Li^Na")
        city.identify()
        made = Desk(opened(city, CONDUCT))
        made.door.refresh()
        yield made


@pytest.fixture
def hook(desk: Desk) -> Iterator[Endpoint]:
    with endpoint() as made:
        desk.allow("beicheng", made)
        desk.allow("nanhu", made)
        yield made
