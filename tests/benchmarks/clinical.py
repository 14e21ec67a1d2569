"""How long the FHIR door takes among many resources: read, search, includes, chains, transactions.

    python tests/benchmarks/clinical.py --patients 100000 --databases sqlite postgresql

Patients and studies are seeded as in `seed.py`, and ten resources for each patient go into the
index directly: Observations, DiagnosticReports, Conditions, Encounters. Then a clinician asks, with
policy and audit on, through the whole door but the socket; for each question the median and the
95th percentile. The same arguments make the same rows.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

import orjson  # noqa: E402
from fhir_door import Asker, opened  # noqa: E402
from real_parts import postgresql  # noqa: E402
from region import Region, region  # noqa: E402
from seed import number, seed  # noqa: E402
from sqlalchemy import insert, select  # noqa: E402

from exchange_fhir import indexing  # noqa: E402
from exchange_storage.records import Organization, Patient, Resource, Revision  # noqa: E402
from exchange_storage.resource_search import TABLES  # noqa: E402

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BATCH = 2000
"""Patients whose resources go in together."""
CODES = tuple(f"{code}-{code % 10}" for code in range(10000, 10200))
DOCTORS = 500
LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10"


def resources(chance: random.Random, patient: int) -> Iterator[dict[str, Any]]:
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
            "valueQuantity": {"value": chance.randrange(1, 999) / 10, "unit": "mmol/L",
                              "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        }  # fmt: skip
    yield {
        "resourceType": "DiagnosticReport", "id": f"r{patient}", "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "24627-2"}]}, "subject": subject,
        "encounter": seen, "resultsInterpreter": [doctor], "issued": day.isoformat(),
        "result": [{"reference": f"Observation/o{patient}-{at}"} for at in range(7)],
    }  # fmt: skip


def doctors() -> Iterator[dict[str, Any]]:
    """Who performs and interprets."""
    for at in range(DOCTORS):
        yield {
            "resourceType": "Practitioner", "id": f"d{at}",
            "identifier": [{"system": "urn:staff", "value": f"S{at}"}],
            "name": [{"family": "王李张刘陈"[at % 5], "given": [f"医{at}"]}],
        }  # fmt: skip


def fill(city: Region, patients: int) -> int:
    """Put the resources of all patients into the index; returns how many."""
    chance = random.Random(11)
    database = city.exchange.database
    with database.reading() as session:
        rows = session.execute(select(Patient.id, Patient.organization_id))
        owners: dict[int, int] = dict(rows.all())
        hospital = session.scalars(select(Organization.id).limit(1)).one()
    row = _insert(city, ((hospital, None, one) for one in doctors()), 0)
    for first in range(1, patients + 1, BATCH):
        told = (
            (owners[patient], patient, one)
            for patient in range(first, min(first + BATCH, patients + 1))
            for one in resources(chance, patient)
        )
        row = _insert(city, told, row)
    if database.dialect == "postgresql":
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            sequence = "pg_get_serial_sequence('resource', 'id')"
            connection.exec_driver_sql(f"SELECT setval({sequence}, {row})")
            connection.exec_driver_sql("VACUUM ANALYZE")
    return row


def _insert(city: Region, told: Iterator[tuple[int, int | None, dict[str, Any]]], row: int) -> int:
    """Rows of resources after `row`; returns the last."""
    kept: list[dict[str, Any]] = []
    revisions: list[dict[str, Any]] = []
    values: dict[Any, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for owner, patient, one in told:
        row += 1
        kind = one["resourceType"]
        stamp = {"meta": {"versionId": "1", "lastUpdated": NOW.isoformat()}}
        kept.append({
            "id": row, "kind": kind, "logical_id": one["id"], "version": 1,
            "organization_id": owner, "patient_id": patient, "is_directory": patient is None,
            "changed": NOW + timedelta(milliseconds=row), "has_others": False, "deleted": False,
        })  # fmt: skip
        revisions.append({
            "resource_id": row, "kind": kind, "version": 1, "interaction": "create",
            "content": orjson.dumps(one | stamp), "recorded": NOW, "elsewhere": False,
        })  # fmt: skip
        for value in indexing.values(one, ZONE):
            table = TABLES[type(value).__name__.lower()]
            found = asdict(value) | {"resource_id": row}
            values.setdefault(table, {})[tuple(found.values())] = found
    with city.exchange.database.writing() as session:
        connection = session.connection()
        connection.execute(insert(Resource), kept)
        connection.execute(insert(Revision), revisions)
        for table, found_rows in values.items():
            connection.execute(insert(table), list(found_rows.values()))
    return row


def questions(chance: random.Random, patients: int) -> dict[str, Callable[[], str]]:
    """What is asked, each as what makes one question."""

    def one() -> int:
        return chance.randrange(1, patients + 1)

    return {
        "read": lambda: f"Observation/o{one()}-3",
        "Patient by identifier": lambda: f"Patient?identifier={number(one())}",
        "Patient by name": lambda: f"Patient?name=王{chance.choice('伟芳娜敏')}&_count=20",
        "ImagingStudy by patient, include": lambda: (
            f"ImagingStudy?patient={one()}&_include=ImagingStudy:endpoint"
        ),
        "Observation by patient and code": lambda: (
            f"Observation?patient={one()}&code={chance.choice(CODES)}"
        ),
        "chain: by the patient's number": lambda: (
            f"Observation?patient.identifier={number(one())}&status=final"
        ),
        "chain: code and patient's name": lambda: (
            f"Observation?code={chance.choice(CODES)}&patient.name=王伟&_count=20"
        ),
        "chain: performer's name and code": lambda: (
            f"Observation?performer:Practitioner.identifier=S{chance.randrange(DOCTORS)}"
            f"&code={chance.choice(CODES)}&_count=20"
        ),
        "_has: patients of a diagnosis": lambda: (
            f"Patient?_has:Condition:patient:code=J{chance.randrange(90)}&birthdate=1960&_count=20"
        ),
        "broad: newest final": lambda: "Observation?status=final&_count=50",
        "report with its results": lambda: (
            f"DiagnosticReport?patient={one()}&_include=DiagnosticReport:result"
        ),
    }


def transaction(chance: random.Random, patient: int) -> bytes:
    """Fifty Observations of a patient."""
    entries: list[dict[str, Any]] = []
    while len(entries) < 50:
        for told in resources(chance, patient):
            if told["resourceType"] == "Observation" and len(entries) < 50:
                for name in ("id", "encounter", "performer"):
                    del told[name]
                request = {"method": "POST", "url": "Observation"}
                entries.append({"resource": told, "request": request})
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def timed(act: Callable[[], Any], times: int) -> tuple[float, float]:
    """Median and 95th percentile in ms, after a few that are not counted."""
    for _ in range(8):
        act()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken), sorted(taken)[int(len(taken) * 0.95)]


def run(url: str, patients: int, times: int) -> None:
    """Seed, ask and print."""
    with region(url) as city:
        start = time.perf_counter()
        held = seed(city.exchange.database, int(patients * 2.5))
        count = fill(city, held)
        print(f"{url.partition(':')[0]}: {held} patients, {count} resources, "
              f"made in {time.perf_counter() - start:.0f} s")  # fmt: skip
        door = opened(city)
        asker, chance = door.clinician("beicheng"), random.Random(5)
        for told, make in questions(chance, held).items():
            show(told, partial(_ask, asker, make), times)
        with city.exchange.database.reading() as session:
            own = session.scalars(select(Patient.id).where(Patient.organization_id == 1)).all()
        system = door.system("beicheng")

        def send() -> None:
            content = transaction(chance, chance.choice(own))
            answer = system.post("", content, "application/fhir+json")
            assert answer.status_code == 200, answer.text

        show("transaction of 50 Observations", send, max(5, times // 10))


def show(told: str, act: Callable[[], Any], times: int) -> None:
    """Print how long something takes."""
    median, most = timed(act, times)
    print(f"  {told:36s} p50 {median:6.1f} ms  p95 {most:6.1f} ms", flush=True)


def _ask(asker: Asker, make: Callable[[], str]) -> None:
    answer = asker.get(make())
    assert answer.status_code == 200, answer.text


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    asked = parser.parse_args()
    for database in asked.databases:
        if database == "sqlite":
            with tempfile.TemporaryDirectory() as place:
                run(f"sqlite:///{place}/index.sqlite", asked.patients, asked.times)
        else:
            with postgresql() as server:
                run(server.create_schema(), asked.patients, asked.times)


if __name__ == "__main__":
    main()
