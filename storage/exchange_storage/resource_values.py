"""What is asked of one index row of a resource, as SQL (see `resource_search`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, String, and_, false, literal_column, or_, true

from exchange_storage.records import (
    SearchDate,
    SearchQuantity,
    SearchReference,
    SearchString,
    SearchToken,
    SearchUri,
)
from exchange_storage.search import Binds

TABLES: Mapping[str, Any] = {
    "token": SearchToken,
    "string": SearchString,
    "reference": SearchReference,
    "date": SearchDate,
    "quantity": SearchQuantity,
    "number": SearchQuantity,
    "uri": SearchUri,
}

_NAME = re.compile(r"[A-Za-z_.:$0-9-]*")


def word(name: str) -> ColumnElement[str]:
    """A name of the standard as it is: the database plans better for what it knows."""
    if not _NAME.fullmatch(name):
        raise ValueError("not a name of the standard")
    return literal_column(f"'{name}'", String())


def of_parameters(value: Any, parameters: Sequence[str]) -> ColumnElement[bool]:
    """Whether an index row is of one of the parameters."""
    return among_words(value.parameter, parameters)


def among_words(column: Any, names: Sequence[str]) -> ColumnElement[bool]:
    """Whether a column has one of some names of the standard."""
    words = [word(name) for name in names]
    found: ColumnElement[bool] = column == words[0] if len(words) == 1 else column.in_(words)
    return found


def one_of_binds(column: Any, size: int, binds: Binds) -> ColumnElement[bool]:
    """Whether a column has one of the next so many binds."""
    if not size:
        return false()
    if size == 1:
        one: ColumnElement[bool] = column == next(binds)
        return one
    many: ColumnElement[bool] = column.in_([next(binds) for _ in range(size)])
    return many


def passes(value: Any, tests: Sequence[Any], binds: Binds) -> ColumnElement[bool]:
    """Whether an index row passes one of the tests of a form."""
    found = [_test(value, test, binds) for test in tests]
    return found[0] if len(found) == 1 else or_(false(), *found)


def _test(value: Any, test: Any, binds: Binds) -> ColumnElement[bool]:
    match test:
        case ("present",):
            return true()
        case ("codes", of_system, size):
            codes = one_of_binds(value.code, size, binds)
            return and_(codes, value.system == next(binds)) if of_system else codes
        case ("system",):
            return and_(value.system == next(binds))
        case ("starts", starts):
            return _starting(value.folded, binds) if starts else true()
        case ("holds",):
            return and_(value.folded.like(next(binds), escape="\\"))
        case ("exactly",):
            return and_(value.folded == next(binds), value.exact == next(binds))
        case ("targets", kind, size):
            return and_(value.target_kind == word(kind), one_of_binds(value.target, size, binds))
        case ("kind", kind):
            return and_(value.target_kind == word(kind))
        case ("uris", size):
            return one_of_binds(value.value, size, binds)
        case ("below", starts):
            return _starting(value.value, binds) if starts else true()
        case ("refers below", starts):
            begins = _starting(value.target, binds) if starts else true()
            return and_(value.target_kind == word(""), begins)
        case ("within", ends, of_code, of_system):
            return _within(value, ends, of_code, of_system, binds)
    raise TypeError("not a form of a test")


def _starting(column: Any, binds: Binds) -> ColumnElement[bool]:
    return and_(column >= next(binds), column < next(binds))


_COMPARED: Mapping[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "low_from": ("low", lambda end, bind: end >= bind),
    "low_before": ("low", lambda end, bind: end < bind),
    "low_to": ("low", lambda end, bind: end <= bind),
    "low_after": ("low", lambda end, bind: end > bind),
    "high_from": ("high", lambda end, bind: end >= bind),
    "high_after": ("high", lambda end, bind: end > bind),
    "high_by": ("high", lambda end, bind: end <= bind),
    "high_before": ("high", lambda end, bind: end < bind),
}


def _within(
    value: Any, ends: Sequence[str], of_code: bool, of_system: bool, binds: Binds
) -> ColumnElement[bool]:
    found: list[ColumnElement[bool]] = []
    for name in ends:
        column, compare = _COMPARED[name]
        found.append(compare(getattr(value, column), next(binds)))
    if of_code:
        found.append(or_(value.code == next(binds), value.unit == next(binds)))
    if of_system:
        found.append(value.system == next(binds))
    return and_(true(), *found)
