"""What is measured is what hospitals write: a seeded index has the rows that the verbs make."""

from __future__ import annotations

import random
from typing import Any

import orjson
from region import Region
from seed_clinical import PLACE, doctors, resources, written
from sqlalchemy import select

from exchange import recording
from exchange.recording import Create
from exchange_fhir import writing
from exchange_storage import resource_index
from exchange_storage.database import Database
from exchange_storage.records import Compartment, Record, Resource, Revision

TABLES: tuple[type[Record], ...] = (
    Resource,
    Compartment,
    Revision,
    *resource_index.TABLES.values(),
)


def test_a_seeded_index_has_the_rows_that_a_hospital_makes_by_writing(city: Region) -> None:
    told = [*resources(random.Random(3), 1), *resources(random.Random(4), 2), next(doctors())]
    told.append(
        {
            "resourceType": "Appointment", "id": "a1", "status": "proposed",
            "participant": [
                {"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}
                for patient in (1, 2)
            ],
        }
    )  # fmt: skip
    drafts = [writing.draft(one, PLACE, one["id"]) for one in told]
    for number in (1, 2):
        city.send("beicheng", patient=f"P{number}", study=f"1.2.{number}", instance=f"1.4.{number}")
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        recording.several(access, [Create(one) for one in drafts])
    by_writing = rows(city.exchange.database)
    empty(city.exchange.database)

    written(city.exchange.database, [(city.ids["beicheng"], one) for one in drafts])

    assert rows(city.exchange.database) == by_writing
    assert len(by_writing["resource"]) == len(told)
    assert by_writing["compartment"]


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of the tables, without their moments."""
    found: dict[str, list[dict[str, Any]]] = {}
    with database.reading() as session:
        for record in TABLES:
            table = record.__table__
            told = session.execute(select(*table.columns).order_by(*table.primary_key)).mappings()
            found[table.name] = [  # type: ignore[attr-defined]
                {name: _timeless(value) for name, value in row.items() if name not in _MOMENTS}
                for row in told
            ]
    return found


_MOMENTS = {"changed", "recorded"}


def _timeless(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    content = orjson.loads(value)
    assert content["meta"].pop("lastUpdated")
    return list(content.items())  # in the same order


def empty(database: Database) -> None:
    """Take out of the tables what was written, and begin again to count."""
    with database.writing() as session:
        connection = session.connection()
        for record in reversed(TABLES):
            connection.execute(record.__table__.delete())  # type: ignore[attr-defined]
