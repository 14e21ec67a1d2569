"""Fill an index with what hospitals wrote by FHIR, ten resources for each patient that `seed` made.

The rows are those that the verbs would write: resources go through the door's own drafts, without
their validation, and into the tables as many at a time as a bulk load takes. Of more than `WRITTEN`
patients the others' are copies that the database makes itself: found under numbers of their own,
with the content of the first. The same arguments make the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from seed import copied
from sqlalchemy import Connection, select

from exchange.recording import Draft
from exchange_fhir import writing
from exchange_fhir.writing import Place
from exchange_storage import resource_index
from exchange_storage.database import Database, unlimited
from exchange_storage.records import Compartment, Organization, Patient, Resource, Revision

Json = dict[str, Any]

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PLACE = Place(base="https://exchange.example/fhir", timezone=ZoneInfo("Asia/Shanghai"))
BATCH = 20_000
"""Resources whose rows go in together."""
WRITTEN = 100_000
"""Patients whose resources are written out; those of more are copies of theirs."""
CODES = tuple(f"{code}-{code % 10}" for code in range(10000, 10200))
DOCTORS = 500
PER_PATIENT = 10
"""Resources."""
LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10"

FOUND = tuple(table.__tablename__ for table in resource_index.TABLES.values())
"""The tables under whose rows resources are found."""


def resources(chance: random.Random, patient: int) -> Iterator[Json]:
    """Ten resources of a patient."""
    subject = {"reference": f"Patient/{patient}"}
    day = NOW - timedelta(days=chance.randrange(2000))
    seen = {"reference": f"Encounter/e{patient}"}
    doctor = {"reference": f"Practitioner/d{chance.randrange(DOCTORS)}"}
    yield {
        "resourceType": "Encounter", "id": f"e{patient}", "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": subject, "period": {"start": day.isoformat()},
    }  # fmt: skip
    yield {
        "resourceType": "Condition", "id": f"c{patient}", "subject": subject, "encounter": seen,
        "code": {"coding": [{"system": ICD, "code": f"J{chance.randrange(90)}"}]},
        "recordedDate": day.date().isoformat(),
    }  # fmt: skip
    for at in range(7):
        code = chance.choice(CODES)
        yield {
            "resourceType": "Observation", "id": f"o{patient}-{at}", "status": "final",
            "code": {"coding": [{"system": LOINC, "code": code, "display": f"Test {code}"}]},
            "subject": subject, "encounter": seen, "performer": [doctor],
            "effectiveDateTime": (day + timedelta(hours=at)).isoformat(),
            "valueQuantity": {"value": Decimal(chance.randrange(1, 999)) / 10, "unit": "mmol/L",
                              "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        }  # fmt: skip
    yield {
        "resourceType": "DiagnosticReport", "id": f"r{patient}", "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "24627-2"}]}, "subject": subject,
        "encounter": seen, "resultsInterpreter": [doctor], "issued": day.isoformat(),
        "result": [{"reference": f"Observation/o{patient}-{at}"} for at in range(7)],
    }  # fmt: skip


def doctors() -> Iterator[Json]:
    """Who performs and interprets."""
    for at in range(DOCTORS):
        yield {
            "resourceType": "Practitioner", "id": f"d{at}",
            "identifier": [{"system": "urn:staff", "value": f"S{at}"}],
            "name": [{"family": "王李张刘陈"[at % 5], "given": [f"医{at}"]}],
        }  # fmt: skip


def fill(database: Database, patients: int, *, seed: int = 11) -> int:
    """Put the resources of all patients into the index, which has none; returns how many."""
    chance = random.Random(seed)
    with database.reading() as session:
        rows = session.execute(select(Patient.id, Patient.organization_id))
        owners: dict[int, int] = dict(rows.all())
        hospital = session.scalars(select(Organization.id).limit(1)).one()

    made = min(patients, WRITTEN)

    def told() -> Iterator[tuple[int, Draft]]:
        for one in doctors():
            yield hospital, writing.validated(one, PLACE, one["id"])
        for patient in range(1, made + 1):
            for one in resources(chance, patient):
                yield owners[patient], writing.validated(one, PLACE, one["id"])

    with _in_bulk(database) as connection:
        _all_written(connection, told())
        for moves in _moves(database.dialect, range(made, patients, made)):
            for statement in _copies(moves, made, patients):
                connection.exec_driver_sql(statement)
                connection.commit()
        (count,) = connection.exec_driver_sql("SELECT count(*) FROM resource").one()
    return int(count)


def written(database: Database, told: Iterable[tuple[int, Draft]]) -> int:
    """Keep new resources, each with the hospital that writes it; returns how many."""
    with _in_bulk(database) as connection:
        return _all_written(connection, told)


def _all_written(connection: Connection, told: Iterable[tuple[int, Draft]]) -> int:
    row = 0
    drafts = iter(told)
    while batch := list(islice(drafts, BATCH)):
        row = _written(connection, batch, row)
        connection.commit()
    return row


def _written(connection: Connection, batch: list[tuple[int, Draft]], row: int) -> int:
    resources: list[dict[str, Any]] = []
    revisions: list[dict[str, Any]] = []
    compartments: list[dict[str, Any]] = []
    values: dict[type[Any], list[dict[str, Any]]] = {kind: [] for kind in resource_index.TABLES}
    for owner, draft in batch:
        row += 1
        changed = NOW + timedelta(milliseconds=row)
        resources.append({
            "id": row, "kind": draft.kind, "logical_id": draft.logical_id, "version": 1,
            "organization_id": owner, "patient_id": next(iter(draft.patients), None),
            "changed": changed, "is_directory": draft.is_directory,
            "has_others": len(draft.patients) > 1, "deleted": False, "whose": "",
        })  # fmt: skip
        compartments += (
            {"resource_id": row, "patient_id": patient} for patient in draft.patients[1:]
        )
        revisions.append({
            "id": row, "resource_id": row, "kind": draft.kind, "version": 1,
            "interaction": "create", "content": draft.render(draft.logical_id, 1, changed),
            "recorded": changed, "elsewhere": False,
        })  # fmt: skip
        for kind, found in resource_index.rows(row, draft.values, draft.patients).items():
            values[kind] += found
    copied(connection, Resource, resources)
    copied(connection, Compartment, compartments)
    copied(connection, Revision, revisions)
    for kind, table in resource_index.TABLES.items():
        keys = [column.key for column in table.__table__.primary_key]
        copied(connection, table, sorted(values[kind], key=lambda one: [one[key] for key in keys]))
    return row


def _moves(dialect: str, moves: Sequence[int]) -> Iterator[Sequence[int]]:
    """How far the first patients' resources are moved, with all that is put in at once.

    SQLite keeps rows by their keys: put in by one walk in their order, since every walk writes all
    pages anew. PostgreSQL appends them.
    """
    if dialect == "sqlite" and moves:
        yield moves
    else:
        yield from ([moved] for moved in moves)


def _copies(moves: Sequence[int], made: int, patients: int) -> Iterator[str]:
    """What copies the resources of the first patients, who were `made`, to others.

    Patient 7 becomes patient 7 + each of `moves`; what is theirs goes along.
    """
    shift = f"m.moved * {PER_PATIENT}"
    each = "(" + " UNION ALL ".join(f"SELECT {moved} AS moved" for moved in moves) + ") AS m"
    copied = (
        f"BETWEEN {DOCTORS + 1} AND {DOCTORS + PER_PATIENT * made} "
        f"AND {{row}} + {shift} <= {DOCTORS + PER_PATIENT * patients}"
    )
    yield f"""
        INSERT INTO resource (id, kind, logical_id, version, organization_id, patient_id, changed,
                              is_directory, has_others, deleted, whose)
        SELECT r.id + {shift}, r.kind,
               substr(r.logical_id, 1, 1) || CAST(p.id AS TEXT) || CASE r.kind
               WHEN 'Observation' THEN substr(r.logical_id, length(r.logical_id) - 1) ELSE '' END,
               r.version, p.organization_id, p.id, r.changed, r.is_directory, r.has_others,
               r.deleted, r.whose
        FROM {each} CROSS JOIN resource AS r JOIN patient AS p ON p.id = r.patient_id + m.moved
        WHERE r.id {copied.format(row="r.id")} ORDER BY 1"""
    yield f"""
        INSERT INTO revision (id, resource_id, kind, version, interaction, content, recorded,
                              elsewhere)
        SELECT r.id + {shift}, r.resource_id + {shift}, r.kind, r.version, r.interaction, r.content,
               r.recorded, r.elsewhere
        FROM {each} CROSS JOIN revision AS r
        WHERE r.resource_id {copied.format(row="r.resource_id")} ORDER BY 1"""
    for table in resource_index.TABLES.values():
        columns = [column.key for column in table.__table__.columns]
        told = [_COPIED.get(name, "r." + name).format(shift=shift) for name in columns]
        yield f"""
            INSERT INTO {table.__tablename__} ({", ".join(columns)})
            SELECT {", ".join(told)} FROM {each} CROSS JOIN {table.__tablename__} AS r
            WHERE r.resource_id {copied.format(row="r.resource_id")}
            ORDER BY {", ".join(str(number + 1) for number in range(len(columns)))}"""


_COPIED = {
    "resource_id": "r.resource_id + {shift}",
    "patient_id": "r.patient_id + m.moved",
    "target": "CASE r.target_kind WHEN 'Practitioner' THEN r.target "
    "WHEN 'Patient' THEN CAST(CAST(r.target AS BIGINT) + m.moved AS TEXT) "
    "WHEN 'Encounter' THEN 'e' || CAST(CAST(substr(r.target, 2) AS BIGINT) + m.moved AS TEXT) "
    "ELSE 'o' || CAST(CAST(substr(r.target, 2, length(r.target) - 3) AS BIGINT) + m.moved AS TEXT) "
    "|| substr(r.target, length(r.target) - 1) END",
}
"""What is another in a copy."""


@contextmanager
def _in_bulk(database: Database) -> Iterator[Connection]:
    """A connection to fill the tables over: what is to be looked up by is made afterwards."""
    with database.engine.connect() as connection:
        prepare, finish = _ABOUT[database.dialect]
        prepare(connection)
        listed = ", ".join(f"'{table}'" for table in FOUND)
        if database.dialect == "postgresql":
            keys = connection.exec_driver_sql(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
                f"FROM pg_constraint WHERE contype = 'p' AND conrelid = ANY (ARRAY[{listed}]"
                "::regclass[])"
            ).all()
            for table, name, _ in keys:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            indexes = connection.exec_driver_sql(
                "SELECT indexname, indexdef FROM pg_indexes "
                f"WHERE schemaname = current_schema() AND tablename IN ({listed})"
            ).all()
        else:
            keys = []
            listed += ", 'resource', 'revision'"
            indexes = connection.exec_driver_sql(
                f"SELECT name, sql FROM sqlite_master WHERE tbl_name IN ({listed}) "
                "AND type = 'index' AND sql IS NOT NULL"
            ).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
        yield connection
        for _, definition in indexes:
            connection.exec_driver_sql(definition)
        for table, name, definition in keys:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        connection.commit()
        finish(connection)
        connection.invalidate()  # what was set goes with the session


def _prepare_sqlite(connection: Connection) -> None:
    unlimited(connection)
    cursor: Any = connection.connection.cursor()
    for told in ("synchronous=OFF", "foreign_keys=OFF", "temp_store=FILE", "cache_size=-2000000"):
        cursor.execute(f"PRAGMA {told}")


def _prepare_postgresql(connection: Connection) -> None:
    for told in (
        "statement_timeout = 0",
        "idle_in_transaction_session_timeout = 0",
        "synchronous_commit = off",
        "session_replication_role = replica",
        "maintenance_work_mem = '1GB'",
    ):
        connection.exec_driver_sql(f"SET {told}")
    connection.commit()


def _finish_sqlite(connection: Connection) -> None:
    cursor: Any = connection.connection.cursor()
    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _finish_postgresql(connection: Connection) -> None:
    """Rows were given their numbers: what counts them goes on from there."""
    for table in ("resource", "revision"):
        sequence = f"pg_get_serial_sequence('{table}', 'id')"
        connection.exec_driver_sql(f"SELECT setval({sequence}, (SELECT max(id) FROM {table}))")
    connection.commit()
    # The server would see to it by itself, some time later.
    raw: Any = connection.connection.dbapi_connection
    raw.autocommit = True
    raw.execute("VACUUM ANALYZE")


_ABOUT = {
    "sqlite": (_prepare_sqlite, _finish_sqlite),
    "postgresql": (_prepare_postgresql, _finish_postgresql),
}
