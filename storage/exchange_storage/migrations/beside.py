"""Changes that PostgreSQL makes beside those who write: a hospital can send while they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

TOGETHER = 50_000
"""Rows that are changed together."""


def index_made(table: str, columns: Sequence[str]) -> None:
    """Make an index, anew where an attempt was broken off: what that left is not valid."""
    name = _name(table, columns)
    with _beside() as concurrently:
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=concurrently)
        op.create_index(name, table, list(columns), postgresql_concurrently=concurrently)


def index_replaced(table: str, columns: Sequence[str], include: Sequence[str] = ()) -> None:
    """Have PostgreSQL's index of these columns hold `include` too; there is one at any moment.

    SQLite's stays as it is.
    """
    name = _name(table, columns)
    with _beside() as concurrently:
        if not concurrently:
            return
        op.drop_index(f"{name}_new", table_name=table, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            f"{name}_new",
            table,
            list(columns),
            postgresql_include=list(include),
            postgresql_concurrently=True,
        )
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
        op.execute(f"ALTER INDEX {name}_new RENAME TO {name}")


def key_ordered(table: str, columns: Sequence[str], include: Sequence[str] = ()) -> None:
    """Have PostgreSQL keep a primary key in the order of these columns, which holds `include` too;
    there is one at any moment.

    Of SQLite the table has to be made anew.
    """
    with _beside() as concurrently:
        if not concurrently:
            return
        name = op.f(f"pk_{table}")
        op.drop_index(f"{name}_new", table_name=table, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            f"{name}_new",
            table,
            list(columns),
            unique=True,
            postgresql_include=list(include),
            postgresql_concurrently=True,
        )
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}_new"
        )


def rows_changed(statement: str, last: int) -> None:
    """Run a statement for the rows behind ``:behind`` and until ``:until``, up to the `last` one.

    PostgreSQL commits what was done to some before it goes on to the next.
    """
    told = sa.text(statement)
    with _beside():
        for behind in range(0, last, TOGETHER):
            op.get_bind().execute(told, {"behind": behind, "until": behind + TOGETHER})


def index_removed(table: str, columns: Sequence[str]) -> None:
    """Remove an index, if it is there still."""
    with _beside() as concurrently:
        op.drop_index(
            _name(table, columns),
            table_name=table,
            if_exists=True,
            postgresql_concurrently=concurrently,
        )


@contextmanager
def _beside() -> Iterator[bool]:
    """Outside of any transaction, which is where PostgreSQL does it; so it may be done twice."""
    if op.get_context().dialect.name != "postgresql":
        yield False
        return
    with op.get_context().autocommit_block():
        # It waits for whoever has a transaction open; they end within their own timeouts.
        op.execute("SET lock_timeout = 0")
        try:
            yield True
        finally:
            op.execute("RESET lock_timeout")


def _name(table: str, columns: Sequence[str]) -> str:
    return op.f(f"ix_{table}_{'_'.join(columns)}")
