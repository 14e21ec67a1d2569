"""In whose order resources are put: keys of the order, and what comes after a place in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal_column, or_, select, type_coerce
from sqlalchemy.orm import aliased
from sqlalchemy.types import NullType

from exchange_storage.records import Resource
from exchange_storage.resource_leaders import walkable
from exchange_storage.resource_values import TABLES, of_parameters

FIRST, LAST = -(1 << 62), 1 << 62
"""Moments before and after all others."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A key in whose order resources are put: by a parameter's values, or a column.

    `type` is a parameter's, or ``id``, ``changed`` or ``row``.
    """

    type: str
    parameters: tuple[str, ...] = ()
    descending: bool = False


def usual(form: Any) -> tuple[Sort, ...]:
    """The order where none is asked for: that in which the index has them at hand.

    It depends on the question alone: pages of one are in one order, whatever happens between.
    """
    return () if walkable(form) else (Sort("changed"),)


def keys(sort: Sequence[Sort], resource: type[Resource]) -> list[ColumnElement[Any]]:
    """What resources are put in order of, one after another; never null: what lacks it is last."""
    return [_key(one, resource) for one in sort]


def order(sort: Sequence[Sort], by: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """`by`, descending where that was asked."""
    return [key.desc() if one.descending else key.asc() for one, key in zip(sort, by, strict=True)]


def after(
    sort: Sequence[Sort], by: Sequence[ColumnElement[Any]], last: Sequence[Any]
) -> ColumnElement[bool]:
    """What comes after the row in which `by` has the values `last`."""
    found: list[ColumnElement[bool]] = []
    for number, (one, key) in enumerate(zip(sort, by, strict=True)):
        same = [by[before] == last[before] for before in range(number)]
        further = key < last[number] if one.descending else key > last[number]
        found.append(and_(*same, further))
    return or_(*found)


def _key(sort: Sort, resource: type[Resource]) -> ColumnElement[Any]:
    match sort.type:
        case "row":
            return resource.id  # type: ignore[return-value]
        case "id":
            return resource.logical_id  # type: ignore[return-value]
        case "changed":
            return resource.changed  # type: ignore[return-value]
    value = aliased(TABLES[sort.type])
    column = {
        "token": "code",
        "string": "folded",
        "reference": "target",
        "date": "low",
        "quantity": "low",
        "number": "low",
        "uri": "value",
    }[sort.type]
    one = getattr(value, column)
    of_resource = select(func.max(one) if sort.descending else func.min(one)).where(
        value.resource_id == resource.id, of_parameters(value, sort.parameters)
    )
    if sort.type == "string":  # not the spellings that were added to what was written
        of_resource = of_resource.where(value.exact != "")
    absent: Any = {"date": FIRST if sort.descending else LAST}.get(sort.type)
    if sort.type in {"quantity", "number"}:
        absent = literal_column("-1e308" if sort.descending else "1e308")
    elif absent is None:
        absent = literal_column("''" if sort.descending else f"'{chr(0x10FFFF)}'")
    else:
        absent = literal_column(str(absent))
    key = func.coalesce(of_resource.correlate(resource).scalar_subquery(), absent)
    # psycopg gives a double as a float: there is nothing to be converted.
    return type_coerce(key, NullType()) if sort.type in {"quantity", "number"} else key
