"""The FHIR door of three hospitals that share, on each kind of database."""

from __future__ import annotations

import pytest
from fhir_door import Door, opened
from region import Region


@pytest.fixture
def door(city: Region) -> Door:
    return opened(city)
