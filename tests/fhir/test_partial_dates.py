"""Of many a patient only the year of birth is known, or year and month (R4 2.24.0.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir_door import SHANGHAI, Door, opened
from region import region

from exchange_fhir import moments
from exchange_fhir.prefixes import in_time
from exchange_storage.resource_criteria import Test, Within

BORN = (
    *("1961", "1962", "1963", "1962-01", "1962-06", "1962-07", "1962-08", "1962-12"),
    *("1961-12-31", "1962-01-01", "1962-06-30", "1962-07-01", "1962-07-15", "1962-07-31"),
    *("1962-08-01", "1962-12-31", "1963-01-01"),
)
ASKED = (
    *("1962", "1962-01", "1962-07", "1962-01-01", "1962-07-01", "1962-07-15", "1962-07-31"),
    *("1962-12-31", "1962-07-15T10:00:00+08:00", "1962-07-01T00:00:00+08:00"),
    *("1962-07-01T10:00+08:00", "1962-01-01T23:59:59+08:00"),
)


@pytest.fixture(scope="module")
def told(lasting_database_url: str) -> Iterator[Door]:
    """Patients by the numbers of their dates of birth."""
    with region(lasting_database_url) as city:
        door = opened(city)
        system = door.system("beicheng")
        for number, date in enumerate(BORN):
            identifier = {"system": "urn:oid:2.25.101", "value": str(number)}
            system.made({"resourceType": "Patient", "identifier": [identifier], "birthDate": date})
        yield door


def _passes(test: Test, low: int, high: int) -> bool:
    assert isinstance(test, Within)
    return (
        (test.low_from is None or low >= test.low_from)
        and (test.low_before is None or low < test.low_before)
        and (test.high_after is None or high > test.high_after)
        and (test.high_by is None or high <= test.high_by)
    )


@pytest.mark.parametrize("prefix", ["", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
def test_what_is_known_of_a_birth_is_a_span_of_time(told: Door, prefix: str) -> None:
    """As spans of any other resource are compared, those of Patients are."""
    doctor = told.clinician("beicheng")
    spans = {date: span for date in BORN if (span := moments.span(date, SHANGHAI))}
    wrong = []
    for asked in ASKED:
        meant = moments.span(asked, SHANGHAI)
        assert meant is not None
        tests = in_time(prefix or "eq", *meant)
        wanted = {date for date, held in spans.items() if any(_passes(one, *held) for one in tests)}
        bundle = doctor.bundle(f"Patient?birthdate={prefix}{asked.replace('+', '%2B')}")
        found = {one["resource"]["birthDate"] for one in bundle.get("entry", ())}
        if found != wanted:
            wrong.append((asked, sorted(found - wanted), sorted(wanted - found)))
    assert wrong == []
