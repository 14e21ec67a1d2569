"""Whatever is asked of resources, both databases find what a naive reading of it finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import ready
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ready import Lender
from resource_matching import Known, World
from sqlalchemy import ColumnElement, Select, and_, select
from sqlalchemy.orm import Session, aliased

from exchange_storage import resource_index, resource_leaders
from exchange_storage.criteria import Identifier, Level, NamePart, Values
from exchange_storage.database import Database
from exchange_storage.names import fold
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    NameKind,
    Organization,
    Patient,
    PatientIdentifier,
    PatientName,
    Resource,
)
from exchange_storage.resource_criteria import (
    Asked,
    Every,
    Holds,
    Ids,
    Indexed,
    IsExactly,
    Leads,
    Native,
    Present,
    ReferredBy,
    RefersTo,
    Selected,
    Some,
    StartsWith,
    Together,
    TokenIs,
    UriBelow,
    UriIs,
    Within,
    Without,
    form,
)
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri, Value
from exchange_storage.resource_search import Conditions
from exchange_storage.search import numbered, parameters

KINDS = ("A", "B")
IDS = ("1", "2", "x")
NAMED = {"wang": {"1"}, "li": {"1", "2"}, "zhao": set[str]()}
"""Which patients have a name."""
URIS = ("u:a", "u:a/b", "u:c")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class _Decided:
    """Directory entries may be seen, and no patient whose sex is O."""

    def resource(self, resource: type[Resource]) -> ColumnElement[bool]:
        return and_(resource.is_directory)

    def native(self, level: Level, column: Any, condition: ColumnElement[bool]) -> Select[Any]:
        assert level is Level.PATIENT
        return select(column).select_from(Patient).where(condition).correlate(None)


class _Undone(Exception):
    """Nothing of an example stays."""


CONDITIONS = Conditions(_Decided())
ONE_BY_ONE = Conditions(_Decided(), one_by_one=2)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    yield from _opened(ready.sqlite(tmp_path_factory.mktemp("index") / "index.sqlite"))


@pytest.fixture(scope="module")
def postgresql(lender: Lender) -> Iterator[Database]:
    with lender.lent() as url:
        yield from _opened(url)


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    with database.writing() as session:
        session.add(
            Organization(
                code="a",
                name="A",
                credit_code="C",
                issuer="1.2",
                registered=NOW,
            )
        )
        session.flush()
        for number in (1, 2):
            patient = Patient(
                organization_id=1, patient_id=f"P{number}", name="", birth_date="", sex="",
                address="", telephone="", mothers_birth_name="", created=NOW, changed=NOW,
            )  # fmt: skip
            session.add(patient)
            session.flush()
            card = PatientIdentifier(patient_id=patient.id, system="s", value=f"C{number}")
            session.add(card)
            session.add_all(
                PatientName(patient_id=patient.id, kind=NameKind.FAMILY, key=name)
                for name, of in NAMED.items()
                if str(number) in of
            )
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    opened: Database = request.getfixturevalue(request.param)
    return opened


def native(_: Level, criteria: Any) -> set[str]:
    (one,) = criteria
    if isinstance(one, NamePart) and isinstance(one.matching, Values):
        return NAMED[one.matching.values[0]]
    return {str(number) for number in (1, 2) if one.value == f"C{number}"}


texts = st.sampled_from(["王小东", "Wang", "wang x", "x_y", "5%"])
codes = st.sampled_from(["a", "b", ""])
systems = st.sampled_from(["", "s", "t"])
numbers = st.integers(0, 4)
spans = st.tuples(numbers, numbers).map(lambda one: (min(one), max(one) + 1))
positions = st.integers(0, 2)


@st.composite
def values(draw: st.DrawFn, kind: str) -> Value:
    position = draw(positions)
    match draw(st.sampled_from(["token", "part", "string", "reference", "date", "amount", "uri"])):
        case "token":
            return Token(f"{kind}.token", draw(codes), draw(systems), position)
        case "part":
            return Token(f"{kind}.pair$0", draw(codes), draw(systems), position)
        case "string":
            text = draw(texts)
            return String(f"{kind}.string", fold(text), text, position)
        case "reference":
            target_kind = draw(st.sampled_from([*KINDS, "Patient", ""]))
            name = draw(st.sampled_from([f"{kind}.reference", f"{kind}.other"]))
            targets = IDS if target_kind else URIS
            return Reference(name, target_kind, draw(st.sampled_from(targets)), position)
        case "date":
            return Date(f"{kind}.date", *draw(spans), position)
        case "amount":
            low, high = draw(spans)
            name = draw(st.sampled_from([f"{kind}.amount", f"{kind}.pair$1"]))
            return Quantity(name, low, high, draw(codes), draw(systems), draw(codes), position)
        case _:
            return Uri(f"{kind}.uri", draw(st.sampled_from(URIS)), position)


@st.composite
def indexed(draw: st.DrawFn, kind: str) -> Indexed:
    ends = st.none() | numbers
    name, type_ = draw(
        st.sampled_from(
            [
                ("token", "token"),
                ("string", "string"),
                ("reference", "reference"),
                ("date", "date"),
                ("amount", "quantity"),
                ("uri", "uri"),
            ]
        )
    )
    names = (f"{kind}.{name}", f"{kind}.other") if name == "reference" else (f"{kind}.{name}",)
    tests: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        match type_:
            case "token":
                tests.append(TokenIs(draw(codes | st.none()), draw(systems | st.none())))
            case "string":
                how = draw(st.sampled_from([StartsWith, Holds, IsExactly]))
                tests.append(how(draw(texts)))
            case "reference":
                targets = tuple(draw(st.lists(st.sampled_from(IDS), max_size=2)))
                tests.append(RefersTo(draw(st.sampled_from([*KINDS, "Patient"])), targets))
            case "uri":
                tests.append(draw(st.sampled_from([UriBelow("u:a"), UriIs(("u:a", "u:c"))])))
            case "date":
                tests.append(
                    Within(
                        low_from=draw(ends),
                        low_before=draw(ends),
                        high_after=draw(ends),
                        high_by=draw(ends),
                    )
                )
            case _:
                system = draw(systems | st.none())
                tests.append(Within(low_to=draw(ends), code=draw(codes), system=system))
    if draw(st.integers(0, 9)) == 0:
        tests = [Present(type_)]
    return Indexed(type_, names, tuple(tests))


@st.composite
def criteria(draw: st.DrawFn, kind: str, depth: int = 3) -> Asked:
    shapes = ["indexed", "indexed", "ids", "together", "card", "name"]
    if depth:
        shapes += ["every", "some", "without", "leads", "leads", "referred", "referred"]
    other = draw(st.sampled_from(KINDS))
    match draw(st.sampled_from(shapes)):
        case "indexed":
            return draw(indexed(kind))
        case "ids":
            return Ids(tuple(draw(st.lists(st.sampled_from(IDS), max_size=2))))
        case "together":
            token = Indexed("token", (f"{kind}.pair$0",), (TokenIs(draw(codes)),))
            amount = Within(low_from=draw(numbers))
            return Together((token, Indexed("quantity", (f"{kind}.pair$1",), (amount,))))
        case "card":
            card = Identifier(draw(st.sampled_from(["C1", "C2", "C3"])))
            return Leads((f"{kind}.reference",), Native(Level.PATIENT, (card,)))
        case "name":
            name = NamePart(NameKind.FAMILY, Values((draw(st.sampled_from(sorted(NAMED))),)))
            led = Native(Level.PATIENT, (name,))
            return Leads(
                (f"{kind}.reference",), led, in_compartment=True, named=draw(st.booleans())
            )
        case "without":
            return Without(draw(criteria(kind, depth - 1)))
        case "leads":
            names = (f"{kind}.reference", f"{kind}.other")
            inner = Selected(other, draw(criteria(other, depth - 1)))
            return Leads(names, inner, draw(st.sampled_from(["", f"{other}.uri"])))
        case "referred":
            inner = Selected(other, draw(criteria(other, depth - 1)))
            by_name = draw(st.sampled_from(["", f"{kind}.uri"]))
            return ReferredBy(kind, (f"{other}.reference",), inner, by_name)
        case shape:
            several = [draw(criteria(kind, depth - 1)) for _ in range(draw(st.integers(0, 3)))]
            return Every(tuple(several)) if shape == "every" else Some(tuple(several))


@st.composite
def resources(draw: st.DrawFn) -> list[Known]:
    names = [(kind, logical_id) for kind in KINDS for logical_id in IDS]
    return [
        Known(kind, logical_id, draw(st.lists(values(kind), max_size=6)), draw(st.booleans()))
        for kind, logical_id in draw(st.lists(st.sampled_from(names), unique=True, max_size=6))
    ]


def patients(one: Known) -> list[int]:
    """Whom a resource is about: whom it refers to in a manner that puts it in a compartment."""
    return sorted({
        int(value.target)
        for value in one.values
        if isinstance(value, Reference)
        and (value.parameter, value.target_kind) == (f"{one.kind}.reference", "Patient")
        and value.target != "x"
    })  # fmt: skip


def kept(session: Session, known: list[Known]) -> None:
    for one in known:
        about = patients(one)
        row = Resource(
            kind=one.kind, logical_id=one.logical_id, version=1, organization_id=1,
            patient_id=about[0] if about else None, changed=NOW, is_directory=one.visible,
            has_others=len(about) > 1,
        )  # fmt: skip
        session.add(row)
        session.flush()
        resource_index.add(session, row.id, one.values, about)


def found(
    session: Session, kind: str, criterion: Asked, leader: int | None, made: Conditions = CONDITIONS
) -> set[str]:
    wanted: list[Any] = []
    asked = form(criterion, wanted)
    one = aliased(Resource)
    condition = made.held(asked, one, numbered(), leader)
    statement = select(one.logical_id).where(one.kind == kind, condition, _Decided().resource(one))
    rows = Prepared(statement).all(session.connection(), parameters(wanted))
    ids = [row.logical_id for row in rows]
    assert len(ids) == len(set(ids))
    return set(ids)


def walked(
    session: Session, kind: str, criterion: Asked, leader: int, after: int | None = None
) -> list[tuple[int, str]]:
    """Row numbers and logical ids, in the order of the rows."""
    wanted: list[Any] = []
    asked = form(criterion, wanted)
    dialect = session.get_bind().dialect.name
    value, one, condition = ONE_BY_ONE.walked(asked, leader, numbered(), dialect, after)
    row = value.resource_id
    statement = select(one.id, one.logical_id).select_from(value).join(one, one.id == row)
    seen = statement.where(one.kind == kind, condition, _Decided().resource(one)).order_by(row)
    rows = Prepared(seen).all(session.connection(), parameters(wanted))
    return [(row.id, row.logical_id) for row in rows]


@given(known=resources(), kind=st.sampled_from(KINDS), data=st.data())
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_question_finds_what_a_naive_reading_finds(
    database: Database, known: list[Known], kind: str, data: st.DataObject
) -> None:
    several = [data.draw(criteria(kind)) for _ in range(data.draw(st.integers(1, 3)))]
    criterion = Every(tuple(several))
    expected = {one.logical_id for one in World(known, native).found(kind, criterion)}
    asked = form(criterion, [])
    with suppress(_Undone), database.writing() as session:
        kept(session, known)
        for leader in (None, -1, *resource_leaders.candidates(asked)):
            assert found(session, kind, criterion, leader) == expected
            assert found(session, kind, criterion, leader, ONE_BY_ONE) == expected
        for leader in resource_leaders.walkable(asked):
            rows = walked(session, kind, criterion, leader)
            assert [identity for _, identity in sorted(rows)] == [one for _, one in rows]
            assert {identity for _, identity in rows} == expected
            assert len(rows) == len(expected)
            for number, (row, _) in enumerate(rows):
                assert walked(session, kind, criterion, leader, row) == rows[number + 1 :]
        raise _Undone
