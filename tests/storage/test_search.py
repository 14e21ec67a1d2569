"""Matching in SQL is the matching of PS3.4 section C.2.2.2, and the same in both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, func, insert, literal, select
from sqlalchemy.dialects import sqlite

from exchange_storage import names
from exchange_storage.database import Database
from exchange_storage.records import (
    Instance,
    Job,
    NameKind,
    Organization,
    Patient,
    PatientName,
    Series,
    Study,
)
from exchange_storage.search import (
    ATTRIBUTES,
    Alike,
    AllOf,
    AnyOf,
    Contains,
    Exact,
    Holds,
    Kind,
    Level,
    Match,
    Matching,
    NamePart,
    Pattern,
    Prefix,
    Range,
    Values,
    compare,
    where,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(lasting_database_url: str) -> Iterator[Database]:
    """One database of each kind for the whole module: every test takes back what it adds."""
    made = Database(lasting_database_url, connections=4)
    yield made
    made.close()


def found(database: Database, values: list[str], condition: ColumnElement[bool]) -> list[str]:
    """Those of `values` for which the condition on `Job.subject` holds, sorted."""
    told = {"kind": "", "due": NOW, "asked": 1, "attempts": 0, "dead": False, "last_error": ""}
    with database.writing() as session:
        session.execute(insert(Job), [told | {"subject": value} for value in values])
        answered = session.scalars(select(Job.subject).where(condition)).all()
        session.rollback()
    return sorted(answered)


def matches(value: str, matching: Matching) -> bool:
    """What PS3.4 C.2.2.2 says of one value: the oracle."""
    match matching:
        case Values(values):
            return value in values
        case Pattern(pattern):
            parts = {"*": ".*", "?": "."}
            form = "".join(parts.get(c) or re.escape(c) for c in pattern)
            return re.fullmatch(form, value, re.DOTALL) is not None
        case Prefix(text):
            return value.startswith(text)
        case Contains(text):
            return text.encode().lower() in value.encode().lower()  # bytes: ASCII letters alone
        case Exact(text):
            return value == text
        case Alike():
            return False  # of names alone: see test_names
        case Range(low, high):
            at = value.encode()
            return (
                value != ""
                and (low is None or low.encode() <= at)
                and (high is None or at <= high.encode())
            )


texts = st.text(st.sampled_from("aAbB%_\\/*?^'\"éÉ王 -😀"), max_size=6)
plain = st.text(st.sampled_from("aAbB%_\\/^'\"éÉ王 -😀"), max_size=6)
matchings = st.one_of(
    st.builds(Pattern, texts),
    st.builds(Values, st.lists(texts, max_size=3).map(tuple)),
    st.builds(Prefix, plain),
    st.builds(Contains, plain),
    st.builds(Exact, texts),
    st.builds(Range, st.none() | texts, st.none() | texts),
)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(texts, min_size=1, max_size=12, unique=True), matching=matchings)
@example(values=["CT", "ct"], matching=Pattern("C*"))
@example(values=["100%", "100", "1000"], matching=Pattern("100%"))
@example(values=["a_b", "aXb"], matching=Pattern("a_?"))
@example(values=["a\\b", "a\\*"], matching=Pattern("a\\*"))
@example(values=["É", "é"], matching=Contains("É"))
def test_sql_matches_what_the_standard_says(
    database: Database, values: list[str], matching: Matching
) -> None:
    expected = sorted(value for value in values if matches(value, matching))
    assert found(database, values, compare(Job.subject, matching)) == expected


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        (Range("10", "10"), ["100000", "103059.5"]),
        (Range("1030", None), ["103059.5", "235959"]),
        (Range(None, "1030"), ["000000", "100000", "103059.5"]),
        (Range("103059", "103059"), ["103059.5"]),
        (Range(None, None), ["000000", "100000", "103059.5", "235959"]),
    ],
)
def test_a_time_in_less_detail_stands_for_its_whole_span(
    database: Database, asked: Range, spans: list[str]
) -> None:
    times = ["000000", "100000", "103059.5", "235959", ""]
    assert found(database, times, compare(Job.subject, asked, Kind.TIME)) == spans


@pytest.mark.parametrize(
    ("asked", "is_found"),
    [
        (Values(("512",)), True),
        (Values(("+0512",)), True),
        (Values(("511", " 512 ")), True),
        (Values(("51",)), False),
        (Values(("+-512", "--5", "x", "", "9" * 5000)), False),
        (Pattern("5*2"), True),
        (Pattern("5?"), False),
        (Range("1", "2"), False),
    ],
)
def test_a_number_is_matched_as_a_number_and_nonsense_finds_nothing(
    database: Database, asked: Matching, is_found: bool
) -> None:
    with database.reading() as session:
        condition = compare(literal(512), asked, Kind.NUMBER)
        assert bool(session.execute(select(condition)).scalar_one()) is is_found


@pytest.mark.parametrize(
    "matching",
    [
        Pattern("*" * 100_000 + "x"),
        Pattern("a" * 100_000 + "*"),
        Pattern("?*" * 2_000),
        Pattern("%" * 4_096 + "*"),
        Contains("王" * 100_000),
        Contains("%" * 4_096),
        Values(("王" * 100_000,)),
        Prefix("a" * 100_000),
    ],
)
def test_a_question_however_long_finds_nothing_and_fails_nothing(
    database: Database, matching: Matching
) -> None:
    assert found(database, ["CT"], compare(Job.subject, matching)) == []


@pytest.mark.parametrize("evil", ["' OR '1'='1", "x'; DROP TABLE study; --", "%' --", "\\' OR 1=1"])
@pytest.mark.parametrize("form", [Pattern, Prefix, Contains, Exact, lambda text: Values((text,))])
def test_no_text_becomes_sql(evil: str, form: type[Pattern]) -> None:
    criteria = [Match(keyword, form(evil)) for keyword in ATTRIBUTES]
    statement = select(Patient).where(where([*criteria, NamePart(NameKind.FULL, form(evil))]))

    assert evil not in str(statement.compile(dialect=sqlite.dialect()))


def test_every_attribute_is_kept_in_a_column_of_its_level() -> None:
    kept = {
        Level.PATIENT: Patient,
        Level.STUDY: Study,
        Level.SERIES: Series,
        Level.IMAGE: Instance,
    }
    for attribute in ATTRIBUTES.values():
        assert attribute.column.class_ is kept[attribute.level]


@pytest.fixture(scope="module")
def with_names(database: Database) -> Database:
    """Three patients: Wang XiaoDong, Wang Wei and Zhang Wei."""
    known = ["Wang^XiaoDong=王^小东", "Wang^Wei=王^伟", "Zhang^Wei=张^伟"]
    with database.writing() as session:
        hospital = Organization(code="a", name="A", credit_code="", issuer="2.25.1", registered=NOW)
        session.add(hospital)
        session.flush()
        for number, name in enumerate(known):
            patient = Patient(
                organization_id=hospital.id,
                patient_id=str(number),
                name=name,
                birth_date="",
                sex="",
                address="",
                telephone="",
                mothers_birth_name="",
                created=NOW,
                changed=NOW,
            )
            session.add(patient)
            session.flush()
            keys = names.keys(name)
            for kind in NameKind:
                for key in getattr(keys, kind):
                    session.add(PatientName(patient_id=patient.id, kind=kind, key=key))
    return database


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        (NamePart(NameKind.FULL, Pattern("Wang^*")), "01"),
        (NamePart(NameKind.FULL, Pattern("*伟")), "12"),
        (NamePart(NameKind.FULL, Pattern("WANG^W?I")), "1"),
        (NamePart(NameKind.FULL, Pattern("W_ng^*")), ""),
        (NamePart(NameKind.FULL, Values(("王小东",))), "0"),
        (NamePart(NameKind.FULL, Values(("Wei Zhang",))), "2"),
        (NamePart(NameKind.FULL, Values(("Wei^Zhang",))), ""),
        (NamePart(NameKind.FULL, Alike("Zang^Wei")), "2"),
        (NamePart(NameKind.FULL, Alike("Wei^Zang")), ""),
        (NamePart(NameKind.FULL, Values(("",))), ""),
        (NamePart(NameKind.FULL, Values(("王^小东", "张^伟"))), "02"),
        (NamePart(NameKind.FAMILY, Prefix("WÁ")), "01"),
        (NamePart(NameKind.GIVEN, Prefix("wei")), "12"),
        (NamePart(NameKind.FAMILY, Prefix("wei")), ""),
        (NamePart(None, Prefix("wei")), "12"),
        (NamePart(None, Contains("ao-dong")), "0"),
        (NamePart(NameKind.FAMILY, Exact("Wang")), "01"),
        (NamePart(NameKind.FAMILY, Exact("wang")), ""),
        (NamePart(NameKind.FULL, Exact("Wang Wei")), "1"),
        (Match("PatientName", Pattern("Zhang*")), "2"),
        (AnyOf(()), ""),
        (AllOf(()), "012"),
        (
            AnyOf((Match("PatientName", Pattern("Zhang*")), Match("PatientID", Values(("0",))))),
            "02",
        ),
    ],
)
def test_a_name_is_found_by_its_parts(
    with_names: Database, asked: NamePart | Match | AnyOf | AllOf, numbers: str
) -> None:
    with with_names.reading() as session:
        patients = session.scalars(select(Patient.patient_id).where(where([asked]))).all()
    assert "".join(sorted(patients)) == numbers


def test_no_criteria_match_everything_and_conditions_on_contents_need_contents(
    with_names: Database,
) -> None:
    with with_names.reading() as session:
        assert session.execute(select(func.count()).where(where([]))).scalar_one() == 1
        studies = select(Study.id).where(where([Holds((Match("Modality", Values(("CT",))),))]))
        assert session.scalars(studies).all() == []
