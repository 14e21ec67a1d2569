"""SQL that each database is told in its own words."""

from __future__ import annotations

from typing import Any, Self

from sqlalchemy import BigInteger, Boolean, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class row_number(FunctionElement[int]):  # noqa: N801 - named as functions of SQL are
    """A logical id as the row number that it is, -1 where it is none: compared by an index."""

    type = BigInteger()
    inherit_cache = True


@compiles(row_number, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    number = f"CAST({text} AS INTEGER)"
    return f"CASE WHEN CAST({number} AS TEXT) = {text} THEN {number} ELSE -1 END"


@compiles(row_number, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    number = f"CAST({text} AS BIGINT)"
    return f"CASE WHEN {text} ~ '^[1-9][0-9]{{0,17}}$' THEN {number} ELSE -1 END"


class listed(FunctionElement[bool]):  # noqa: N801 - named as functions of SQL are
    """Whether a value is one of a list that is made by itself, once and first.

    PostgreSQL would look for each row of the statement around it whether it is one of them, where
    it takes them for many and a page for soon full: of a rare name it looks through a whole table.
    """

    type = Boolean()
    inherit_cache = True


class looked_up(FunctionElement[bool]):  # noqa: N801 - named as functions of SQL are
    """Whether a key is one of a list: rows are looked up by it in its order, until they are enough.

    PostgreSQL would look up all of them, where it takes them for few, to put them in order then.
    """

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Self:  # noqa: ARG002 - SQLAlchemy's own name
        """As it is: compared with 1, as SQLite has it, it would be looked up by no index."""
        return self


@compiles(looked_up, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    value, rows = element.clauses
    found = compiler.process(rows, **options)
    return f"{compiler.process(value, **options)} IN {found}"


@compiles(looked_up, "postgresql")
@compiles(listed, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    value, rows = element.clauses
    found = compiler.process(rows, **options)
    return f"{compiler.process(value, **options)} = ANY (ARRAY{found})"


class unindexed(FunctionElement[Any]):  # noqa: N801 - named as functions of SQL are
    """A text column as it is, without its index: SQLite, which knows no figures, would prefer that
    of the type to the rows that a condition looks up, and so would PostgreSQL where it takes them
    for many."""

    inherit_cache = True


@compiles(unindexed)
def _(element: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} || '')"


@compiles(unindexed, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "+" + str(compiler.process(element.clauses, **options))


class among(FunctionElement[bool]):  # noqa: N801 - named as functions of SQL are
    """Whether a value is one of a list that knows nothing of the statement in which it stands.

    The list stands before the statement. SQLite reads only so many levels of a statement one within
    another (YYSTACKDEPTH, 100 symbols of its grammar), and puts it in its place as a view is.
    PostgreSQL makes it once: each link of a chain is planned by itself, and what it costs is added
    to that of the others. Put together, of a table that it knows no figures of, it would go through
    all of a link for each row of the one before.
    """

    type = Boolean()
    inherit_cache = True


class found_among(among):  # noqa: N801 - named as functions of SQL are
    """The same, where the list is few, or leads to the rows: an index is used for its values."""

    inherit_cache = True

    def self_group(self, against: Any = None) -> Self:  # noqa: ARG002 - SQLAlchemy's own name
        """As it is: compared with 1, as SQLite has it, it would be looked up by no index."""
        return self


@compiles(among)
@compiles(found_among)
@compiles(listed, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    value, rows = element.clauses
    before = rows.element.cte().prefix_with("MATERIALIZED", dialect="postgresql")
    found = compiler.process(select(*before.c).scalar_subquery(), **options)
    return f"{compiler.process(value, **options)} IN {found}"
