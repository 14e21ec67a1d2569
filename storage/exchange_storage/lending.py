"""Connections to the index between two transactions, and the sessions that work within one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session

AT_HAND = 8
"""Connections that are ready for the next to read, and as many for the next to write, at most."""


class Within(Session):
    """A session within a transaction that is begun and ended outside of it.

    What works on its connection alone, as each instance that arrives does, never wakes the unit of
    work: that takes longer than the statements.
    """

    def __init__(self, connection: Connection, **options: Any) -> None:
        super().__init__(connection, join_transaction_mode="rollback_only", **options)
        self._connection = connection
        self.woken = False
        """Whether it has known records, which the next one to work must not take for current."""

    def connection(self, *_: Any, **__: Any) -> Connection:
        return self._connection


@event.listens_for(Within, "after_transaction_create")
def _wake(session: Session, _: object) -> None:
    if isinstance(session, Within):
        session.woken = True


class Reading(Within):
    """One that nobody changes anything by."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, autoflush=False)


class Writing(Within):
    """One whose records are still good when it was committed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, expire_on_commit=False)

    def rollback(self) -> None:
        super().rollback()
        if (begun := self._connection.get_transaction()) is not None:
            begun.rollback()


@dataclass(slots=True, eq=False)
class Lent:
    """A connection between two transactions, or in one, and the session that works on it."""

    connection: Connection
    session: Within


class AtHand:
    """Connections for one kind of transaction, some of which are ready for the next one.

    To take one out of SQLAlchemy's pool, with all that it does about that, and to put it back takes
    longer than most of what is asked through it.
    """

    def __init__(self, engine: Engine, make: Callable[[Connection], Within], most: int) -> None:
        """Keep up to `most` of the engine's connections out of its pool."""
        self._engine = engine
        self._make = make
        self._most = most
        self._idle: list[Lent] = []

    def __len__(self) -> int:
        return len(self._idle)

    @contextmanager
    def lent(self) -> Iterator[Lent]:
        """A connection, outside of any transaction. Raises what SQLAlchemy's `connect` does."""
        lent = self._taken()
        try:
            yield lent
        finally:
            connection = lent.connection
            spent = connection.invalidated or connection.in_transaction()
            if spent or len(self._idle) >= self._most:
                connection.close()
            else:
                if lent.session.woken:
                    lent.session = self._make(connection)
                self._idle.append(lent)

    def close(self) -> None:
        """Put those at hand back."""
        while self._idle:
            self._idle.pop().connection.close()

    def _taken(self) -> Lent:
        # The one used last, since what it has read is still in its cache.
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._engine.connect()
            return Lent(connection, self._make(connection))
