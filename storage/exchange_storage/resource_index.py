"""Under what a clinical resource is found: the values of its search parameters (FHIR R4 3.1.1).

A parameter is named by resource type and code, as ``Observation.code``. Some stand for more than
their value, under a name of their own:

- ``Observation.code:text`` is a string: what a coding or concept says in words;
- ``Observation.subject:identifier`` is a token: the identifier by which a reference names its
  target;
- ``Patient.identifier:of-type`` is a token: the type's system, and ``<type code>|<value>``;
- ``QuestionnaireResponse.questionnaire:canonical`` is a reference that may be by name, as it was
  written: "" and the canonical URL, with its version or without. ``Questionnaire:canonical`` is a
  uri: what such a reference to the resource can say;
- ``Observation.value-quantity:ucum`` is a quantity in base units: the same in whatever unit it was
  written;
- ``DocumentReference.author::Practitioner.family`` is what stands inside the resource, where the
  reference leads; ``DocumentReference.author::`` is a token: its type;
- ``Observation.code-value-quantity$0`` and ``$1`` are the components of a composite; those that
  belong together have the same position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Insert, bindparam, case, delete, insert, select, update
from sqlalchemy.orm import Session

from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Resource,
    SearchDate,
    SearchQuantity,
    SearchReference,
    SearchString,
    SearchToken,
    SearchUri,
)
from exchange_storage.rows import as_rows, given_rows

LENGTH = 255
"""Characters of a text that are kept and compared; what is longer is found by its beginning."""


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A code in a system; "" for no system."""

    parameter: str
    code: str
    system: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True, order=True)
class String:
    """A text, folded for comparison (`exchange_storage.names.fold`) and as it was written."""

    parameter: str
    folded: str
    exact: str
    position: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A reference: type and logical id of its target, or "" and an absolute address."""

    parameter: str
    target_kind: str
    target: str
    position: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Date:
    """All the time from `low` up to, not including, `high`: microseconds since 1970, in UTC."""

    parameter: str
    low: int
    high: int
    position: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """All values from `low` to `high`, in a unit where there is one."""

    parameter: str
    low: float
    high: float
    code: str = ""
    system: str = ""
    unit: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Uri:
    """A URI."""

    parameter: str
    value: str
    position: int = 0


Value = Token | String | Reference | Date | Quantity | Uri

TABLES: Mapping[type[Any], Any] = {
    Token: SearchToken,
    String: SearchString,
    Reference: SearchReference,
    Date: SearchDate,
    Quantity: SearchQuantity,
    Uri: SearchUri,
}
_OF_VALUE = {kind: [one.name for one in fields(kind)] for kind in TABLES}
_COLUMNS = {
    kind: [*names, "resource_id", *(["patient_id"] if kind is Token else [])]
    for kind, names in _OF_VALUE.items()
}
_ADD = {
    kind: Prepared(insert(table), columns)
    for (kind, table), columns in zip(TABLES.items(), _COLUMNS.values(), strict=True)
}


def _given(kind: type[Any]) -> str:
    return str(TABLES[kind].__tablename__)


def _add_all() -> Insert:
    """The rows of all tables by one statement, which PostgreSQL is sent once and not six times."""
    *others, last = (_added(kind) for kind in TABLES)
    return last.add_cte(*(one.cte(f"added_{at}") for at, one in enumerate(others)))


def _added(kind: type[Any]) -> Insert:
    names = _COLUMNS[kind]
    rows = given_rows(TABLES[kind], names, _given(kind))
    return insert(TABLES[kind]).from_select(names, select(*(rows.c[name] for name in names)))


_ADD_ALL = Prepared(_add_all())
_REMOVE = [
    Prepared(delete(table).where(table.resource_id == bindparam("resource")))
    for table in TABLES.values()
]
_PLACE = Prepared(
    update(SearchToken)
    .where(SearchToken.resource_id == bindparam("resource"))
    .values(patient_id=bindparam("patient", type_=SearchToken.patient_id.type))
)


def kept(value: Value) -> Value:
    """A value as it is kept: its texts in their length."""
    told: dict[str, Any] = {
        name: one[:LENGTH]
        for name in _OF_VALUE[type(value)]
        if isinstance(one := getattr(value, name), str) and len(one) > LENGTH
    }
    return replace(value, **told) if told else value


def held(session: Session, resources: Iterable[int]) -> dict[int, set[Value]]:
    """Under what resources, by their row numbers, are found now."""
    wanted = list(resources)
    found: dict[int, set[Value]] = {}
    for kind, table in TABLES.items():
        columns = [getattr(table, name) for name in _OF_VALUE[kind]]
        rows = select(*columns, table.resource_id).where(table.resource_id.in_(wanted))
        for *told, resource in session.execute(rows):
            found.setdefault(resource, set()).add(kind(*told))
    return found


def misplaced(session: Session, resources: Iterable[int]) -> set[int]:
    """Those whose index rows say that somebody else is the one whom they are about."""
    alone = case((Resource.has_others, None), else_=Resource.patient_id)
    rows = (
        select(SearchToken.resource_id)
        .distinct()
        .join(Resource, Resource.id == SearchToken.resource_id)
        .where(
            SearchToken.resource_id.in_(list(resources)),
            SearchToken.patient_id.is_distinct_from(alone),
        )
    )
    return set(session.scalars(rows))


def rows(
    resource: int, values: Iterable[Value], patients: Sequence[int]
) -> dict[type[Any], list[dict[str, Any]]]:
    """The index rows of the resource with this row number, by the type of their values.

    `patients` are all whom it is about.
    """
    found: dict[type[Any], dict[tuple[Any, ...], dict[str, Any]]] = {}
    for value in values:
        kind = type(value)
        row = {
            name: one[:LENGTH] if isinstance(one := getattr(value, name), str) else one
            for name in _OF_VALUE[kind]
        }
        key = tuple(row.values())
        row["resource_id"] = resource
        if kind is Token:
            row["patient_id"] = _alone(patients)
        found.setdefault(kind, {})[key] = row
    return {kind: list(of_kind.values()) for kind, of_kind in found.items()}


def add(session: Session, resource: int, values: Iterable[Value], patients: Sequence[int]) -> None:
    """Have the resource with this row number found under `values`; repeated ones count once.

    `patients` are all whom it is about.
    """
    connection = session.connection()
    found = rows(resource, values, patients)
    if connection.dialect.name == "postgresql":
        _ADD_ALL.run(connection, {_given(kind): as_rows(found.get(kind, ())) for kind in TABLES})
        return
    for kind, of_kind in found.items():
        _ADD[kind].run_many(connection, of_kind)


def place(session: Session, resource: int, patients: Sequence[int]) -> None:
    """Have what the resource with this row number is found under say whom it is about now."""
    told = {"resource": resource, "patient": _alone(patients)}
    _PLACE.run(session.connection(), told)


def _alone(patients: Sequence[int]) -> int | None:
    return patients[0] if len(patients) == 1 else None


def remove(session: Session, resource: int) -> None:
    """Have the resource with this row number found under nothing."""
    connection = session.connection()
    for statement in _REMOVE:
        statement.run(connection, {"resource": resource})
