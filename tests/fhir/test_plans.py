"""However many resources there are, an index leads to what is asked for, in both databases."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, LiteralString

import psycopg
import pytest
from clinical import questions
from fhir_door import entries, opened
from psycopg import sql
from region import Region
from seed import number, seed
from seed_clinical import fill
from sqlalchemy import Connection

from exchange import stretches, ways
from exchange_storage.database import Database
from exchange_storage.prepared import Prepared

LARGE = re.compile(r"resource|revision|search_\w+|patient\w*|study|series|instance|audit_record")

Asked = tuple[Prepared, Mapping[str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """The statements that were run, and their parameters."""
    told: list[Asked] = []
    run = Prepared._execute

    def noted(self: Prepared, connection: Connection, given: Mapping[str, Any]) -> list[Any]:
        told.append((self, given))
        return run(self, connection, given)

    monkeypatch.setattr(Prepared, "_execute", noted)
    return told


def test_no_question_that_is_measured_looks_through_a_table(
    city: Region, asked: list[Asked]
) -> None:
    database = city.exchange.database
    patients = seed(database, 100)
    fill(database, patients)
    clinician = opened(city).clinician("beicheng")
    for make in questions(random.Random(5), patients).values():
        asked.clear()
        question = make()
        assert clinician.get(question).status_code == 200

        assert asked, question
        assert _through_a_table(database, asked) == [], question


def test_what_leads_through_few_looks_through_no_table(city: Region, asked: list[Asked]) -> None:
    database = city.exchange.database
    fill(database, seed(database, 100))
    clinician = opened(city).clinician("beicheng")
    for question in (
        "Patient?_has:Observation:patient:_id=o3-3",
        "Patient?_has:DiagnosticReport:patient:result=Observation/o7-2",
        "DiagnosticReport?result.performer:Practitioner.identifier=S3",
        "Observation?performer:Practitioner.name=医3",
        "Observation?encounter.subject:Patient.identifier=00000007",
    ):
        asked.clear()
        assert clinician.get(question).status_code == 200

        assert _through_a_table(database, asked) == [], question


def test_a_page_of_what_is_frequent_is_walked_whatever_the_database_takes_for_cheaper(
    city: Region, asked: list[Asked]
) -> None:
    database = city.exchange.database
    fill(database, seed(database, 300))
    clinician = opened(city).clinician("beicheng")

    assert clinician.get("Observation?status=final&_count=20").status_code == 200

    pages = [
        (_words(one, database), one._compiled[database.dialect].values(given))
        for one, given in asked
        if " AS key0" in _words(one, database)
    ]
    assert pages
    for words, values in pages:
        if database.dialect == "sqlite":
            plan = _sqlite(database, words, values)
        else:
            plan = _postgresql(database, words, values, "SET enable_nestloop = off")
        page = takewhile(lambda line: "SubPlan" not in line, plan)  # not what is decided of a row
        assert [line for line in page if _PUTS_IN_ORDER.search(line)] == []


def test_patients_to_whom_much_points_are_looked_at_until_the_page_is_full(
    city: Region, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = city.exchange.database
    patients = seed(database, 300)
    fill(database, patients)
    monkeypatch.setattr(stretches, "STRETCH", 50)
    clinician = opened(city).clinician("beicheng")
    pointed_at = "Patient?_has:Observation:patient:status=final&_count=20"

    first = clinician.bundle(pointed_at)

    assert len(entries(first)) == 20
    pages = [given for one, given in asked if "AS own_number" in _words(one, database)]
    assert [given["until"] - given["behind"] for given in pages] == [50]
    told = [one["resource"]["id"] for page in clinician.pages(pointed_at) for one in entries(page)]
    assert told == [str(number) for number in range(1, patients + 1)]


@pytest.mark.parametrize("many", [0, 1000])
def test_who_has_a_frequent_name_is_listed_once_where_they_are_not_too_many(
    city: Region, asked: list[Asked], monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    database = city.exchange.database
    fill(database, seed(database, 400))
    monkeypatch.setattr(ways, "LED", 1)
    monkeypatch.setattr(ways, "FEW", 2)
    monkeypatch.setattr(ways, "VERY_FEW", 1)
    monkeypatch.setattr(ways, "NAMED", many)
    clinician = opened(city).clinician("beicheng")
    named = set(clinician.ids("Patient?name=王&_count=99"))
    of_code: dict[str, list[str]] = {}
    observations = clinician.pages("Observation?_count=1000")
    for one in (one["resource"] for page in observations for one in entries(page)):
        theirs = of_code.setdefault(one["code"]["coding"][0]["code"], [])
        if one["subject"]["reference"] in named:
            theirs.append(f"Observation/{one['id']}")
    frequent = [code for code, theirs in of_code.items() if len(theirs) > 1][:9]
    assert frequent
    for code in frequent:
        asked.clear()

        told = clinician.pages(f"Observation?code={code}&patient.name=王&_count=1")

        found = [f"Observation/{one['resource']['id']}" for page in told for one in entries(page)]
        assert sorted(found) == sorted(of_code[code])
        walks = [words for one, _ in asked if " AS key0" in (words := _words(one, database))]
        assert walks
        assert all(("search_token_1.patient_id IN" in words) == (many > 0) for words in walks)


def test_a_patient_is_asked_of_a_server_with_all_that_is_told_of_them_by_one_statement(
    city: Region, asked: list[Asked]
) -> None:
    database = city.exchange.database
    fill(database, seed(database, 20))
    clinician = opened(city).clinician("beicheng")
    for question in ("Patient/3", f"Patient?identifier={number(3)}", "Patient?_id=3"):
        asked.clear()

        assert clinician.get(question).json()

        statements = [_words(one, database) for one, _ in asked]
        about_patients = [words for words in statements if "FROM patient" in words]
        whole = ["beside_written" in words for words in about_patients]
        if database.dialect == "postgresql":  # of a file they are quicker one by one
            assert whole == [True], question
        else:
            assert not any(whole)


def _words(statement: Prepared, database: Database) -> str:
    words: str = statement._compiled[database.dialect].words
    return words


@pytest.mark.parametrize("told", ["_lastUpdated=gt2026-01-01", "_id=o1-1"])
def test_what_is_asked_of_all_types_is_asked_of_each_in_the_same_words(
    city: Region, asked: list[Asked], told: str
) -> None:
    clinician = opened(city).clinician("beicheng")

    assert clinician.get(f"?{told}").status_code == 200

    types = {given["kind"] for _, given in asked if "kind" in given}
    assert {"Observation", "Encounter", "Condition", "DiagnosticReport"} <= types
    words = {_words(one, city.exchange.database) for one, _ in asked}
    assert len(words) < len(types) / 2


def _through_a_table(database: Database, asked: list[Asked]) -> list[str]:
    """The lines of all plans that are about the whole of a large table."""
    planned = _sqlite if database.dialect == "sqlite" else _postgresql
    found = []
    for statement, given in asked:
        compiled = statement._compiled[database.dialect]
        plan = planned(database, compiled.words, compiled.values(given))
        found += [line for line in plan if _looks_through(line)]
    return found


_PUTS_IN_ORDER = re.compile(r"Sort|Hash Join|Merge Join|TEMP B-TREE")


_SCANNED = re.compile(r"SCAN (\w+?)(?:_\d+)?(?! VIRTUAL)\b|Seq Scan on (\w+)")
_TOO_WIDE = re.compile(
    r"SEARCH search_\w+ USING .*\(parameter=\?\)|"
    r"Index Cond: \(\(?parameter\)?(?:::text)? = '[^']*'::text\)$"
)


def _looks_through(line: str) -> bool:
    """Whether a line of a plan is about all of a large table, or all values of a parameter."""
    scanned = _SCANNED.search(line)
    large = scanned is not None and LARGE.fullmatch(scanned[1] or scanned[2])
    return bool(large or _TOO_WIDE.search(line))


def _sqlite(database: Database, words: str, values: Any) -> list[str]:
    with database.engine.connect() as connection:
        cursor: Any = connection.connection.cursor()
        return [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {words}", values)]


def _postgresql(database: Database, words: str, values: Any, *more: LiteralString) -> list[str]:
    """The plan for whatever values, made as if looking through a table cost a fortune: of tables
    this small it would be the cheapest."""
    address = database.engine.url.set(drivername="postgresql")
    with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        for told in ("SET enable_seqscan = off", *more):
            connection.execute(told)
        connection.execute(b"PREPARE asked AS " + words.encode())
        given = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values)))
        explain = sql.SQL("EXPLAIN EXECUTE asked") + (given if values else sql.SQL(""))
        return [row[0] for row in connection.execute(explain)]
