"""Fill an index with studies of a made-up region, without their images: what questions are put to.

    python tests/benchmarks/seed.py sqlite:////tmp/index.sqlite 1000000

The database must be an exchange's, with hospitals registered (see `find.py`). Rows go in directly,
as many as a bulk load takes; names, dates and persons are skewed as they are in a region: a few
surnames and given names are everybody's, most studies are recent, a fifth of the patients is known
to more than one hospital. The same arguments make the same rows.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Table, select

from exchange_storage import names
from exchange_storage.database import Database, unlimited
from exchange_storage.records import (
    Instance,
    NameKind,
    Organization,
    Patient,
    PatientIdentifier,
    PatientName,
    Person,
    Record,
    Series,
    Study,
)

SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高梁郑谢宋唐许韩邓冯曹彭曾肖田董袁潘蔡蒋余"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建国小东雨欣宇轩浩然子涵梓萱一诺思"
MODALITIES = ("CT", "DX", "US", "MR", "CR", "MG", "XA", "NM", "PT", "ES")
SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
LAST_DAY = date(2026, 11, 1)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
STUDIES_A_PATIENT = 2.5
"""How many, on average, of each record of a patient."""
BATCH = 20_000
"""Studies whose rows go in together."""
PREFIX = "2.25.777"


def number(patient: int) -> str:
    """The hospital's number of the patient with this row."""
    return f"{patient:08d}"


def accession(study: int) -> str:
    """The accession number of the study with this row."""
    return f"A{study:09d}"


def seed(database: Database, studies: int, *, seed: int = 7) -> int:
    """Add so many studies to an empty index, shared out among its hospitals; returns how many
    patient records they belong to."""
    chance = random.Random(seed)
    with database.writing() as session:
        hospitals = list(session.scalars(select(Organization.id).order_by(Organization.id)))
        connection = session.connection()
        _prepare(connection)
        patients = max(1, int(studies / STUDIES_A_PATIENT))
        persons = patients * 7 // 10
        for first in range(1, persons + 1, BATCH):
            rows = range(first, min(first + BATCH, persons + 1))
            _add(connection, Person, ((row, f"C{row:017d}", NOW) for row in rows))
        for first in range(1, patients + 1, BATCH):
            rows = range(first, min(first + BATCH, patients + 1))
            _add_patients(connection, chance, hospitals, rows, persons)
        for first in range(1, studies + 1, BATCH):
            rows = range(first, min(first + BATCH, studies + 1))
            _add_studies(connection, chance, hospitals, rows, patients)
        _finish(connection)
    if database.dialect == "postgresql":  # which would see to it by itself, some time later
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("VACUUM ANALYZE")
    return patients


def _prepare(connection: Connection) -> None:
    unlimited(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def _finish(connection: Connection) -> None:
    """Rows were given their numbers: what counts them goes on from there."""
    if connection.dialect.name == "postgresql":
        for record in (Person, Patient, Study, Series, Instance):
            table = record.__tablename__
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
                f"(SELECT max(id) FROM {table}))"
            )


def _add_patients(
    connection: Connection,
    chance: random.Random,
    hospitals: Sequence[int],
    rows: Iterable[int],
    persons: int,
) -> None:
    patients, keys, cards = [], [], []
    for row in rows:
        # Rows beyond the persons are second records of some of them, or of nobody who is known.
        person = row if row <= persons else row - persons
        known = row % 20 != 19
        who = random.Random(person)
        name = _name(who)
        born = LAST_DAY - timedelta(days=int(365 * 100 * who.betavariate(2.2, 1.8)))
        patients.append(
            {
                "id": row,
                "organization_id": hospitals[_skewed(chance, len(hospitals))],
                "patient_id": number(row),
                "name": name,
                "birth_date": f"{born:%Y%m%d}",
                "sex": "FM"[person % 2],
                "address": "",
                "telephone": "",
                "mothers_birth_name": "",
                "created": NOW,
                "changed": NOW,
                "person_id": person if known and person <= persons else None,
                "replaced_by_id": None,
                "withdrawn": False,
            }
        )
        keys += [(row, kind, key) for kind, key in _keys(name)]
        if known:
            cards.append((row, "1.2.156.112604.1.2.1", f"C{person:017d}"))
    columns = [column.key for column in Patient.__table__.columns]
    _add(connection, Patient, ([one[column] for column in columns] for one in patients))
    _add(connection, PatientName, keys)
    _add(connection, PatientIdentifier, cards)


def _add_studies(
    connection: Connection,
    chance: random.Random,
    hospitals: Sequence[int],
    rows: Iterable[int],
    patients: int,
) -> None:
    studies: list[dict[str, Any]] = []
    series: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for row in rows:
        modality = MODALITIES[_skewed(chance, len(MODALITIES))]
        day = LAST_DAY - timedelta(days=int(min(chance.expovariate(1 / 900), 7300)))
        uid = f"{PREFIX}.{row}"
        told = {
            "study_date": f"{day:%Y%m%d}",
            "study_time": f"{chance.randrange(7, 19):02}{chance.randrange(60):02}00",
            "study_description": f"{modality} 检查",
            "accession_number": accession(row),
            "study_id": str(row),
        }
        studies.append(
            told
            | {
                "id": row,
                "study_instance_uid": uid,
                # The most ill have the most studies.
                "patient_id": 1 + int(patients * chance.random() ** 1.5),
                "received": NOW,
                "changed": NOW,
                "revision": 1,
            }
        )
        series.append(
            {
                "id": row,
                "series_instance_uid": f"{uid}.1",
                "study_id": row,
                "modality": modality,
                "series_number": "1",
                "body_part_examined": "CHEST",
                "series_date": told["study_date"],
                "series_time": told["study_time"],
                "received": NOW,
            }
        )
        instances.append(
            {
                "id": row,
                "sop_instance_uid": f"{uid}.1.1",
                "sop_class_uid": SOP_CLASSES.get(modality, DIGITAL_X_RAY),
                "series_id": row,
                "organization_id": hospitals[0],
                "is_primary": True,
                "key": f"{uid}/1.dcm",
                "digest": f"{row:064x}",
                "size": 526_000,
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "instance_number": "1",
                "rows": 512,
                "columns": 512,
                "bits_allocated": 16,
                "received": NOW,
            }
        )
    for record, made in ((Study, studies), (Series, series), (Instance, instances)):
        columns = list(record.__table__.columns)
        _add(connection, record, ([_value(column, one) for column in columns] for one in made))


def _value(column: Any, one: dict[str, Any]) -> Any:
    if column.key in one or column.nullable:
        return one.get(column.key)
    return ""


def _add(connection: Connection, record: type[Record], rows: Iterable[Sequence[Any]]) -> None:
    """Rows with a value for every column of the record's table, in its order."""
    table = record.__table__
    assert isinstance(table, Table)
    columns = list(table.columns)
    listed = ", ".join(f'"{column.name}"' for column in columns)
    cursor: Any = connection.connection.cursor()
    if connection.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table.name} ({listed}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    converts = [c.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
                for c in columns]  # fmt: skip
    places = ", ".join("?" * len(columns))
    cursor.executemany(
        f"INSERT INTO {table.name} ({listed}) VALUES ({places})",
        (
            [v if convert is None else convert(v) for convert, v in zip(converts, row, strict=True)]
            for row in rows
        ),
    )


def copied(connection: Connection, record: type[Record], rows: Sequence[dict[str, Any]]) -> None:
    """Rows by the names of their columns, every one of the record's table."""
    columns = [column.key for column in record.__table__.columns]
    _add(connection, record, ([one[column] for column in columns] for one in rows))


def _skewed(chance: random.Random, count: int) -> int:
    """One of so many, each half as likely again as the next."""
    weights = list(accumulate(1.5**-place for place in range(count)))
    return bisect(weights, chance.random() * weights[-1])


def _name(chance: random.Random) -> str:
    family = SURNAMES[int(len(SURNAMES) * chance.random() ** 2)]
    given = "".join(
        GIVEN[int(len(GIVEN) * chance.random() ** 1.3)] for _ in range(chance.choice((1, 2, 2, 2)))
    )
    latin = names.pinyin(family, given)
    return f"{latin[0].capitalize()}^{latin[1].capitalize()}={family}^{given}"


@lru_cache(200_000)
def _keys(name: str) -> tuple[tuple[str, str], ...]:
    found = names.keys(name)
    return tuple(_each((NameKind.FULL, found.full), (NameKind.FAMILY, found.family),
                       (NameKind.GIVEN, found.given)))  # fmt: skip


def _each(*kinds: tuple[NameKind, frozenset[str]]) -> Iterator[tuple[str, str]]:
    for kind, keys in kinds:
        yield from ((kind.value, key) for key in sorted(keys))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the SQLAlchemy URL of the index")
    parser.add_argument("studies", type=int)
    given = parser.parse_args()
    made = Database(given.url)
    print(f"{seed(made, given.studies)} patient records")
    made.close()
