"""The check names every object that is not as it must be, and takes nothing else for damaged."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from region import ADMINISTRATOR, Region
from sqlalchemy import delete, select

from exchange import check
from exchange.check import Finding, Progress
from exchange.errors import Refused
from exchange_storage.objects import MemoryStore
from exchange_storage.records import AuditRecord, Instance


def run(city: Region, *, read: bool = True) -> list[Finding | Progress]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return list(check.check(access, read=read))


def findings(city: Region, *, read: bool = True) -> list[Finding]:
    return [one for one in run(city, read=read) if isinstance(one, Finding)]


@pytest.fixture
def filled(city: Region) -> Region:
    """Three instances, one of them in conflict."""
    city.send("beicheng", instance="1.4.1", body=b"first")
    city.send("beicheng", instance="1.4.1", body=b"other")
    city.send("nanhu", study=".1.2", instance=".1.4", body=b"odd names")
    city.exchange.objects.put_down()
    return city


def key_of(city: Region, body: bytes) -> str:
    return next(
        stored.key
        for stored in city.exchange.objects.list("studies/")
        if city.exchange.objects.get(stored.key) == body
    )


def store(city: Region) -> MemoryStore:
    store = city.exchange.objects.store
    assert isinstance(store, MemoryStore)
    return store


def age(city: Region, key: str, by: timedelta) -> None:
    """As if the object had been kept so long ago."""
    stored, content = store(city)._objects[key]
    store(city)._objects[key] = replace(stored, kept=stored.kept - by), content


def damage(city: Region, key: str, content: bytes) -> None:
    stored, _ = store(city)._objects[key]
    store(city)._objects[key] = replace(stored, size=len(content)), content


def test_a_whole_store_has_no_findings_and_tells_how_far_it_has_come(filled: Region) -> None:
    for stored in list(store(filled).list("studies/")):
        age(filled, stored.key, 2 * check.SETTLED)

    assert run(filled) == [Progress(1, 3), Progress(2, 3), Progress(3, 3)]


def test_a_missing_object_is_named(filled: Region) -> None:
    key = key_of(filled, b"first")
    store(filled).delete(key)

    assert findings(filled, read=False) == [Finding(key, "the object is missing")]


def test_an_object_of_another_size_is_named_without_reading_it(filled: Region) -> None:
    key = key_of(filled, b"other")
    damage(filled, key, b"oth")

    assert findings(filled, read=False) == [Finding(key, "has 3 bytes, not 5")]


def test_a_changed_byte_is_found_by_reading(filled: Region) -> None:
    key = key_of(filled, b"odd names")
    damage(filled, key, b"odd Names")

    assert findings(filled, read=False) == []
    (finding,) = findings(filled)
    assert (finding.key, finding.harmless) == (key, False)
    assert "digest" in finding.what


@pytest.mark.parametrize(
    "key", ["studies/1/2/3." + "0" * 64 + ".dcm", "studies/README", "studies/1/2/3/4.x.dcm"]
)
def test_an_object_without_a_row_is_named_once_it_is_old_and_is_harmless(
    filled: Region, key: str
) -> None:
    store(filled).put(key, b"never acknowledged")
    assert findings(filled) == []  # it may be on its way into the index

    age(filled, key, 2 * check.SETTLED)
    (finding,) = findings(filled)
    assert (finding.key, finding.harmless) == (key, True)


def test_an_old_object_that_is_sent_again_during_the_check_is_not_called_an_orphan(
    filled: Region,
) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        walk = check.check(access)
        assert next(walk) == Progress(1, 3)
        filled.send("beicheng", instance="1.4.9", body=b"again")
        filled.exchange.objects.put_down()
        age(filled, key_of(filled, b"again"), 2 * check.SETTLED)

        assert [one for one in walk if isinstance(one, Finding)] == []


def test_other_objects_than_those_of_studies_are_nobodys_orphans(filled: Region) -> None:
    store(filled).put("audit/1.json", b"{}")
    age(filled, "audit/1.json", 2 * check.SETTLED)

    assert findings(filled) == []


def test_a_clinician_does_not_check_the_store_and_the_check_is_audited(filled: Region) -> None:
    findings(filled)
    with (
        pytest.raises(Refused),
        filled.exchange.on_behalf_of(filled.clinician("nanhu")) as access,
    ):
        next(check.check(access))

    with filled.exchange.database.reading() as session:
        newest = select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(2)
        refused, success = session.scalars(newest)
    assert (refused.action, refused.outcome) == ("administer", "refused")
    assert "check of the store" in success.content


def test_a_row_that_somebody_removed_is_missed_because_the_trail_acknowledged_it(
    filled: Region,
) -> None:
    key = key_of(filled, b"first")
    with filled.exchange.database.writing() as session:
        session.execute(delete(Instance).where(Instance.key == key))
    age(filled, key, timedelta(days=1))

    (finding,) = findings(filled)

    assert (finding.key, finding.harmless) == (key, False)
    assert "acknowledged" in finding.what
