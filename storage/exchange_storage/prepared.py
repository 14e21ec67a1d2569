"""Statements put into words once, and run by the driver itself.

What is asked for every instance and every question is asked thousands of times a second. There
SQLAlchemy's way from a statement to its rows costs several times what the database does. A
`Prepared` statement is still SQLAlchemy's: built from the records, compiled by its dialect, its
values converted by the column types. It is compiled once for each dialect, and from then on goes
to the driver's cursor directly, on the connection and in the transaction of a Session.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import BindParameter, Connection, Dialect, Executable
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import ExternallyTraversible

from exchange_storage.database import translated
from exchange_storage.records.record import Moment

Given = Mapping[str, Any]

_NOTHING = object()

_PLACEHOLDER = re.compile(r"%%|%\((.+?)\)s")
"""psycopg's, or what it takes for a sign of per cent."""

_KNOWN: WeakSet[Prepared] = WeakSet()
"""All that there are."""


def put_into_words(connection: Connection) -> None:
    """Compile all that there are for this dialect now, and not when each is first asked for."""
    for one in list(_KNOWN):
        one._of(connection)


class Prepared:
    """One statement; its parameters are the names of its `bindparam`s, or of inserted columns.

    `built` is the statement, or a function that builds it for the name of a dialect. An INSERT
    lists the columns that will be given in `columns`. Lists that expand (`IN`) are not supported:
    the words must not depend on the values.
    """

    def __init__(
        self,
        built: Executable | Callable[[str], Executable],
        columns: Sequence[str] | None = None,
    ) -> None:
        self._build = built if callable(built) else lambda _: built
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}
        _KNOWN.add(self)

    def run(self, connection: Connection, given: Given) -> None:
        """Execute it for its effect. Raises what SQLAlchemy would: DBAPIError and its heirs."""
        self._execute(connection, given)

    def run_many(self, connection: Connection, rows: Sequence[Given]) -> None:
        """Execute it once for each row of values."""
        if len(rows) == 1:  # for which the driver need not make ready to send many
            self.run(connection, rows[0])
            return
        compiled = self._of(connection)
        cursor = compiled.cursor(connection)
        try:
            cursor.executemany(compiled.sent, list(map(compiled.values, rows)))
        except compiled.error as error:
            raise translated(connection, error) from error
        finally:
            cursor.close()

    def all(self, connection: Connection, given: Given) -> list[Any]:
        """Its rows, as named tuples."""
        return self._execute(connection, given)

    def first(self, connection: Connection, given: Given) -> Any:
        """Its first row, or None."""
        rows = self._execute(connection, given)
        return rows[0] if rows else None

    def number(self, connection: Connection, given: Given) -> int:
        """The one value of its one row: an inserted key, a count."""
        value: int = self._execute(connection, given)[0][0]
        return value

    def _of(self, connection: Connection) -> _Compiled:
        dialect = connection.dialect
        try:
            return self._compiled[dialect.name]
        except KeyError:
            found = _Compiled(self._build(dialect.name), dialect, self._columns)
            self._compiled[dialect.name] = found
            return found

    def _execute(self, connection: Connection, given: Given) -> list[Any]:
        compiled = self._of(connection)
        cursor = compiled.cursor(connection)
        try:
            cursor.execute(compiled.sent, compiled.values(given), **compiled.options)
            return compiled.rows(cursor.fetchall()) if compiled.returns else []
        except compiled.error as error:
            raise translated(connection, error) from error
        finally:
            cursor.close()


class _Compiled:
    """A statement in the words of one dialect, with what converts its values and rows."""

    def __init__(self, built: Executable, dialect: Dialect, columns: Sequence[str] | None) -> None:
        compiled = built.compile(  # type: ignore[attr-defined]
            dialect=dialect, column_keys=list(columns) if columns else None
        )
        if not isinstance(compiled, SQLCompiler) or compiled.post_compile_params:
            raise TypeError("a prepared statement cannot have parts that depend on its values")
        _of_one_type(built)
        self.words, names = str(compiled), compiled.positiontup or []
        self.sent: str | bytes = self.words
        self.options: Mapping[str, Any] = {}
        self._cursor: Callable[[Any], Any] | None = None
        if dialect.name == "postgresql":
            self.words, names = _numbered(self.words)
            self.sent = self.words.encode()
            # psycopg would have the server plan it anew the first few times.
            self.options = {"prepare": True}
            self._cursor = dialect.loaded_dbapi.RawCursor
        self.error = dialect.loaded_dbapi.Error
        self._fixed: dict[str, Any] = {}
        keys: list[str] = []
        self._binds: list[tuple[int, Callable[[Any], Any]]] = []
        for at, name in enumerate(names):
            bind = compiled.binds[name]
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if not bind.required and bind.key not in (columns or ()):
                value = bind.effective_value
                self._fixed[name] = convert(value) if convert else value
                keys.append(name)
                continue
            keys.append(bind.key)
            if convert is not None:
                self._binds.append((at, convert))
        self._take = _taken(keys)
        result = compiled._result_columns  # the only place that has labels and types together
        self.returns = bool(result)
        row: Any = namedtuple("Row", [entry.keyname for entry in result], rename=True)  # type: ignore[misc]
        self._make = row._make
        converts = [
            entry.type.dialect_impl(dialect).result_processor(dialect, None) for entry in result
        ]
        self._converts = [
            (at, convert, isinstance(entry.type, Moment))
            for at, (entry, convert) in enumerate(zip(result, converts, strict=True))
            if convert
        ]

    def cursor(self, connection: Connection) -> Any:
        """A cursor of the driver's own connection, which takes the words as they are."""
        held: Any = connection.connection.dbapi_connection
        return held.cursor() if self._cursor is None else self._cursor(held)

    def values(self, given: Given) -> list[Any]:
        """The values as the driver takes them."""
        found = self._take({**given, **self._fixed} if self._fixed else given)
        for at, convert in self._binds:
            found[at] = convert(found[at])
        return found

    def rows(self, fetched: Sequence[Sequence[Any]]) -> list[Any]:
        """What the driver fetched, as named tuples of converted values."""
        if not self._converts:
            return list(map(self._make, fetched))
        made = [list(row) for row in fetched]
        for at, convert, moments in self._converts:
            known = converted = _NOTHING
            for row in made:
                # Rows of one answer share their patient and study, with all their moments.
                if not moments or row[at] != known:
                    known = row[at]
                    converted = convert(known)
                row[at] = converted
        return [self._make(row) for row in made]


def _numbered(words: str) -> tuple[str, list[str]]:
    """A statement with the server's own placeholders, and what stands for each.

    In one with its own psycopg looks for them each time, where it is a long one: that takes longer
    than all else that it does.
    """
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${numbers.setdefault(name, len(numbers) + 1)}"

    return _PLACEHOLDER.sub(number, words), list(numbers)


def _of_one_type(built: Executable) -> None:
    """Raises TypeError where a value stands in two places as two types: only one would convert it,
    and a moment, say, would be kept as the driver writes it."""
    types: dict[str, object] = {}
    for part in visitors.iterate(cast(ExternallyTraversible, built)):
        if isinstance(part, BindParameter) and not part.unique:
            kind = type(part.type)
            if types.setdefault(part.key, kind) is not kind:
                raise TypeError(f"the value {part.key} of a prepared statement is of two types")


def _taken(keys: Sequence[str]) -> Callable[[Given], list[Any]]:
    """What takes the values of `keys` out of a mapping, in this order."""
    match keys:
        case []:
            return lambda _: []
        case [key]:
            return lambda given: [given[key]]
        case _:
            take = itemgetter(*keys)
            return lambda given: list(take(given))
