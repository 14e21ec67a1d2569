"""As many links as are allowed lead from one resource to another, also where each leads to many.

And also in tables that were just filled, of which PostgreSQL has no figures yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from crowding import crowded
from fhir_door import Asker, Door, opened
from region import ID_CARD, region

from exchange_storage.database import Database

MANY = 17
"""They are looked up by name, but within the question where it is `crowded`."""


@pytest.fixture(scope="module")
def door(lasting_database_url: str) -> Iterator[Door]:
    """Wang's many stays in wards, rooms and beds of beicheng, and what was measured there."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD, study="1.2.1", instance="1.4.1")
        city.send("nanhu", patient="W2", card=ID_CARD, study="1.2.2", instance="1.4.2")
        city.identify()
        door = opened(city)
        with _nothing_known(city.exchange.database):
            for number in range(MANY):
                _stay(door.system("beicheng"), number)
            yield door


@contextmanager
def _nothing_known(database: Database) -> Iterator[None]:
    """Have no figures of the tables: PostgreSQL takes them by itself within a minute, or later."""
    of_all = (
        "DO $$ DECLARE one regclass; BEGIN FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = current_schema::regnamespace LOOP "
        "EXECUTE format('ALTER TABLE %%s {told}', one); "
        "DELETE FROM pg_statistic WHERE starelid = one; END LOOP; END $$"
    )
    if database.dialect != "postgresql":
        yield
        return
    with database.engine.begin() as connection:
        connection.exec_driver_sql(of_all.format(told="SET (autovacuum_enabled = off)"))
    yield
    with database.engine.begin() as connection:
        connection.exec_driver_sql(of_all.format(told="RESET (autovacuum_enabled)"))


def _stay(hospital: Asker, number: int) -> None:
    wang = {"reference": "Patient/1"}

    def stay(within: str = "", **more: Any) -> str:
        part = {"partOf": {"reference": f"Encounter/{within}"}} if within else {}
        made = {"resourceType": "Encounter", "status": "finished", "class": {"code": "IMP"}}
        return str(hospital.made({**made, "subject": wang, **part, **more})["id"])

    bed = stay(stay(stay(stay(identifier=[{"system": "http://visits", "value": "all"}]))))
    pulse = hospital.made(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": wang,
            "encounter": {"reference": f"Encounter/{bed}"},
            "effectiveDateTime": f"2026-11-{number + 1:02}",
        }
    )
    hospital.made(
        {
            "resourceType": "Provenance",
            "target": [{"reference": f"Observation/{pulse['id']}"}],
            "recorded": "2026-11-27T08:00:00Z",
            "agent": [{"who": {"identifier": {"value": "D1"}}, "type": {"text": "nurse"}}],
        }
    )


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("order", ["", "&_sort=_lastUpdated", "&_sort=_id"])
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Observation?encounter.part-of.part-of.part-of.identifier=http://visits|all", MANY),
        ("Observation?encounter.part-of.part-of.patient.identifier=W1", MANY),
        ("Observation?encounter.part-of.part-of.patient.name=wang", MANY),
        (
            "Encounter?_has:Encounter:part-of:_has:Encounter:part-of:_has:Observation:encounter:"
            "_has:Provenance:target:agent-type:text=nurse",
            MANY,
        ),
        ("Observation?encounter.part-of.part-of.part-of.class=IMP", MANY),
        ("Observation?code=8867-4&encounter.part-of.part-of.subject:Patient.name=wang", MANY),
        ("Encounter?part-of._has:Encounter:part-of:_has:Observation:encounter:code=8867-4", MANY),
        ("Patient?_has:Observation:patient:encounter.part-of.part-of.class=IMP", 1),
        (
            "Patient?_has:Encounter:patient:_has:Encounter:part-of:_has:Encounter:part-of:"
            "_has:Observation:encounter:code=8867-4",
            1,
        ),
        ("ImagingStudy?patient._has:Observation:patient:encounter.part-of.class=IMP", 1),
    ],
)
def test_every_link_is_followed(
    door: Door, asked: str, found: int, order: str, *, many: bool
) -> None:
    clinician = door.clinician("beicheng")
    with crowded() if many else nullcontext():
        bundle = clinician.bundle(f"{asked}&_total=accurate&_count=5{order}")

        assert bundle["total"] == found
        assert len(list(clinician.pages(f"{asked}&_count=5{order}"))) == -(-found // 5)
