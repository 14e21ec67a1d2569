"""How rows of clinical resources, and their index rows, are come by (see `resource_search`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, bindparam, cast, inspect, select
from sqlalchemy.orm import aliased

from exchange_storage import records
from exchange_storage.constructs import among, found_among, row_number, unindexed
from exchange_storage.criteria import Level
from exchange_storage.records import Patient, Resource, SearchReference, Study
from exchange_storage.resource_leaders import leads_by_row
from exchange_storage.resource_values import TABLES, word

KEYS: Mapping[Level, Any] = {
    Level.PATIENT: cast(Patient.id, String()),
    Level.STUDY: Study.study_instance_uid,
}
"""The logical ids of what has tables of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row into which is looked: of a resource, or an index row of one."""

    holder: Any
    number: Any
    """The column that has the resource's row number."""
    in_order: bool = False
    """Whether the rows come in the order of the resources' row numbers."""

    @classmethod
    def of(cls, resource: type[Resource]) -> Row:
        """A resource itself."""
        return cls(resource, resource.id)


def key_and_target(level: Level, reference: Any) -> tuple[Any, Any]:
    """A column of the records of a level, and what a reference to one has for it."""
    if level is Level.PATIENT:
        return Patient.id, row_number(reference.target)
    return Study.study_instance_uid, reference.target


def whose_it_is(one: Any) -> tuple[Any, ColumnElement[bool]] | None:
    """Of a resource, or an index row of one, the column that says whose it is, and whether it does
    not say all; None where it says nothing."""
    match inspect(one).mapper.class_:
        case records.SearchToken:
            return one.patient_id, one.patient_id.is_(None)
        case records.Resource:
            return one.patient_id, one.has_others
    return None


def looked_up_by(number: Any, dialect: str) -> type[Resource]:
    """The resources that have the numbers of a column of the statement around them, as an alias to
    be joined by them: each looked up when it is its turn.

    PostgreSQL would put all resources in order first where it takes that for cheaper: it does not
    know that a page is full long before the end, nor how frequent a value is.
    """
    if dialect != "postgresql":
        return aliased(Resource)
    rows: Select[Any] = select(Resource).where(Resource.id == number)
    return aliased(Resource, rows.suffix_with("OFFSET 0").lateral())


def listed_apart(column: Any, rows: Select[Any], *, leads: bool = False) -> ColumnElement[bool]:
    """Whether a value is among those that a SELECT lists by itself, see `among`.

    Where that `leads`, each of them is looked up; else the rows come otherwise.
    """
    of_list = found_among if leads else among
    return and_(of_list(column, rows.correlate(None).scalar_subquery()))


def within_a_resource(value: Any) -> list[Any]:
    """What tells the index rows of one resource under one value apart, in their order."""
    return [value.system, value.position] if hasattr(value, "system") else [value.position]


def table_of(form: Any) -> Any:
    """The table that a form of `LISTS_ROWS` looks up first."""
    match form:
        case ("indexed", table, _, _):
            return TABLES[table]
        case ("together", ((_, table, _, _), *_)):
            return TABLES[table]
    return SearchReference


def of_kind(
    resource: type[Resource], kind: str, form: Any, leader: int | None = None
) -> ColumnElement[bool]:
    """Whether a resource is of a type, beside the condition of a form (see `Conditions.held`).

    Of the type that is given as ``kind``, where none is said: the same words for all of them.
    """
    column: Any = unindexed(resource.kind) if leads_by_row(form, leader) else resource.kind
    wanted = word(kind) if kind else bindparam("kind", type_=Resource.kind.type)
    same: ColumnElement[bool] = column == wanted
    return same
