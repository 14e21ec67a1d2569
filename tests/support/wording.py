"""Statements put into words once for all databases of a run: SQLAlchemy does so once for each
engine, and here nearly every test makes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

STATEMENTS = 4000


@contextmanager
def once() -> Iterator[None]:
    """All databases that are opened meanwhile."""
    known: LRUCache[Any, Any] = LRUCache(STATEMENTS)

    def created(*arguments: Any, **options: Any) -> Engine:
        engine = create_engine(*arguments, **options)
        engine._compiled_cache = known
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exchange_storage.database.create_engine", created)
        # What a statement is known by holds the dialect, of which each engine has its own.
        for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
            patch.setattr(dialect, "__hash__", lambda one: hash(type(one)))
            patch.setattr(dialect, "__eq__", lambda one, other: type(one) is type(other))
        yield
