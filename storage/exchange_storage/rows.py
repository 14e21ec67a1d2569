"""Records made of rows that a prepared statement fetched: what is only read needs no session."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Select,
    SQLColumnExpression,
    String,
    Text,
    any_,
    bindparam,
    cast,
    column,
    exists,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import TableValuedAlias

from exchange_storage.records import Record

R = TypeVar("R", bound=Record)


def shared(record: type[R]) -> type[R]:
    """An alias for statements of many threads, all of whose columns are known from the start.

    SQLAlchemy looks for a column when it is first asked for; of two threads that ask at once one
    may be given the column of the table itself, and a condition on it is one on any row.
    """
    one = aliased(record)
    for each in record.__mapper__.column_attrs:
        getattr(one, each.key).__clause_element__()
    return one


class Columns:
    """The columns of several records, one after another, as a statement selects them."""

    def __init__(self, *records: type[Record]) -> None:
        self.selected: list[ColumnElement[Any]] = []
        self._parts: list[tuple[type[Record], tuple[str, ...], int, int]] = []
        for record in records:
            (key,) = record.__mapper__.primary_key
            names = [attribute.key for attribute in record.__mapper__.column_attrs]
            names.sort(key=lambda name: name != key.key)  # first, what tells one from another
            start = len(self.selected)
            for name in names:
                labelled = getattr(record, name).label(f"{record.__tablename__}__{name}")
                self.selected.append(labelled)
            self._parts.append((record, tuple(names), start, start + len(names)))

    def records(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The records of a row that begins with these columns: in no session, never written."""
        return self.all([row])[0]

    def all(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """The same for the rows of one answer: what the same row of a table tells is one record."""
        made: dict[tuple[int, Any], Any] = {}
        found = []
        for row in rows:
            records = []
            for record, names, start, end in self._parts:
                one = made.get((start, row[start]))
                if one is None:
                    one = record.__mapper__.class_manager.new_instance()
                    one.__dict__.update(zip(names, row[start:end], strict=True))
                    made[start, row[start]] = one
                records.append(one)
            found.append(tuple(records))
        return found


def as_list(numbers: Iterable[int]) -> str:
    """A list as `one_of` takes it."""
    return f"[{','.join(map(str, numbers))}]"


def one_of(
    number: SQLColumnExpression[int] | SQLColumnExpression[int | None], parameter: str, dialect: str
) -> ColumnElement[bool]:
    """Whether `number` is in a list that is given as JSON: a prepared statement's words are the
    same for a list of any length."""
    given = bindparam(parameter, type_=String())
    if dialect == "postgresql":
        return number == any_(cast(func.translate(given, "[]", "{}"), ARRAY(BigInteger())))
    return number.in_(select(func.json_each(given).table_valued("value").c.value))


def one_of_texts(
    text: SQLColumnExpression[str], parameter: str, dialect: str
) -> ColumnElement[bool]:
    """Whether `text` is in a list that is given as JSON, see `one_of`."""
    given = bindparam(parameter, type_=String())
    if dialect == "postgresql":
        listed = func.json_array_elements_text(cast(given, JSON())).column_valued("value")
        return text == any_(func.array(select(listed).scalar_subquery(), type_=ARRAY(String())))
    return text.in_(select(func.json_each(given).table_valued("value").c.value))


def listed(dialect: str, *columns: SQLColumnExpression[Any]) -> ColumnElement[str | None]:
    """All rows of a statement as one value: JSON, in no order, or NULL; each row an array."""
    if dialect == "postgresql":
        return cast(func.json_agg(func.json_build_array(*columns)), Text())
    return func.json_group_array(func.json_array(*columns), type_=Text())


def there_is(rows: Select[Any]) -> ColumnElement[bool]:
    """Whether there is one of `rows`, looked for anew at each row of the statement around it.

    PostgreSQL would make a list of all of them first where it takes that for cheaper: it does not
    know that a page is full long before the end, nor, in a plan for any value, how frequent one is.
    """
    return exists(rows.suffix_with("OFFSET 0", dialect="postgresql"))


def given_rows(record: type[Record], columns: Sequence[str], name: str) -> TableValuedAlias:
    """Rows for a table as PostgreSQL takes them out of one value: `name`, made by `as_rows`.

    To have the driver send a list for each column takes several times as long.
    """
    known = record.__table__.columns
    types = [
        # A type with a length would shorten without a word what is too long.
        column(one, Text() if known[one].type.python_type is str else known[one].type)
        for one in columns
    ]
    given = func.json_to_recordset(cast(bindparam(name, type_=Text()), JSON()))
    return given.table_valued(*types).render_derived(f"{name}_rows", with_types=True)


def as_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of numbers, texts and moments as `given_rows` takes them."""
    return json.dumps(
        [
            # Numbers that are not whole as text, since there are infinite ones.
            {name: str(one) if isinstance(one, float) else one for name, one in row.items()}
            for row in rows
        ],
        default=datetime.isoformat,
    )
