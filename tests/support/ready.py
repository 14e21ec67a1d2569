"""Databases that are at this release already: to migrate one takes longer than most tests do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql
from real_parts import PostgreSQL

from exchange_storage.database import Database


def sqlite(path: Path) -> str:
    """The SQLAlchemy URL of a new database at `path`, without a row in it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


def postgresql(server: PostgreSQL) -> str:
    """The SQLAlchemy URL of a new database of that server, without a row in it."""
    return server.create_database(_template(server))


@cache
def _template(server: PostgreSQL) -> str:
    url = server.create_database()
    database = Database(url)
    database.migrate()
    database.close()
    return url.rpartition("/")[2]


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "index.sqlite"
        database = Database(f"sqlite:///{path}")
        database.migrate()
        database.close()
        return path.read_bytes()


class Lender:
    """Databases of one PostgreSQL, lent to one test after another."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._free: list[str] = []

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The SQLAlchemy URL of a database without a row in it."""
        url = self._free.pop() if self._free else postgresql(self._server)
        yield url
        _empty(url)
        self._free.append(url)  # not after a failure: a new one is made then


def _empty(url: str) -> None:
    """Take every row out, and let numbers begin anew."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET lock_timeout = '20s'")
        tables = _names(
            connection,
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = current_schema AND tablename <> 'alembic_version'",
        )
        of_each = [
            sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(
                sql.Literal(name), sql.Identifier(name)
            )
            for name in tables
        ]
        filled = _names(connection, sql.SQL(" UNION ALL ").join(of_each))
        if filled:
            named = sql.SQL(", ").join(map(sql.Identifier, filled))
            connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(named))
        for name in _names(
            connection,
            "SELECT sequencename FROM pg_sequences"
            " WHERE schemaname = current_schema AND last_value IS NOT NULL",
        ):
            connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(sql.Identifier(name)))


def _names(connection: psycopg.Connection, query: str | sql.Composed) -> list[str]:
    return [name for (name,) in connection.execute(query)]
