"""Connections to the index between two transactions, and the sessions that work within one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

AT_HAND = 8
"""Connections that are ready for the next transaction of a kind, at most."""

RESTED_SECONDS = 1.0
"""After how long without use a connection is asked first whether the server is still there."""


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
    since: float = 0.0
    """When it was used last."""


class Lending:
    """The connections of one pool, of which each kind of transaction has some at hand.

    Nobody waits for the pool while a connection lies idle at some other kind's hand.
    """

    def __init__(self, engine: Engine, answers: Callable[[Connection], bool], most: int) -> None:
        """Each kind has up to `most` at hand; one that has rested is used if it still `answers`."""
        self._engine = engine
        self._answers = answers
        self._most = most
        self._kinds: list[AtHand] = []
        self._turn = threading.Lock()
        self._waiting = 0

    def __len__(self) -> int:
        return sum(map(len, self._kinds))

    def at_hand(self, engine: Engine, make: Callable[[Connection], Within]) -> AtHand:
        """Those for one kind of transaction: `engine` is the pool's, with the kind's options."""
        self._kinds.append(AtHand(self, engine, make))
        return self._kinds[-1]

    def connect(self, engine: Engine) -> Connection:
        """One from the pool. Raises what SQLAlchemy's `connect` does."""
        with self._turn:
            self._waiting += 1
            idle = self._idle() if self._exhausted() else None
        try:
            if idle is not None:
                idle.connection.close()
            return engine.connect()
        finally:
            with self._turn:
                self._waiting -= 1

    def put_back(self, lent: Lent, idle: list[Lent]) -> None:
        """Have it at hand again, unless there are enough, or somebody waits for the pool."""
        connection = lent.connection
        kept = False
        if not connection.invalidated and not connection.in_transaction():
            lent.since = time.monotonic()
            with self._turn:
                if kept := not self._waiting and len(idle) < self._most:
                    idle.append(lent)
        if not kept:
            connection.close()

    def usable(self, lent: Lent) -> bool:
        """Whether its server is still there, as far as is known; else it is gone now."""
        rested = time.monotonic() - lent.since >= RESTED_SECONDS
        if not rested or self._answers(lent.connection):
            return True
        lent.connection.invalidate()
        lent.connection.close()
        return False

    def close(self) -> None:
        """Put those at hand back."""
        while (lent := self._idle()) is not None:
            lent.connection.close()

    def _exhausted(self) -> bool:
        pool = self._engine.pool
        return isinstance(pool, QueuePool) and pool.checkedout() + self._waiting > pool.size()

    def _idle(self) -> Lent | None:
        for kind in self._kinds:
            if (lent := kind.taken()) is not None:
                return lent
        return None


class AtHand:
    """Connections for one kind of transaction, some of which are ready for the next one.

    To take one out of SQLAlchemy's pool, with all that it does about that, and to put it back takes
    longer than most of what is asked through it.
    """

    def __init__(
        self, lending: Lending, engine: Engine, make: Callable[[Connection], Within]
    ) -> None:
        self._lending = lending
        self._engine = engine
        self._make = make
        self._idle: list[Lent] = []

    def __len__(self) -> int:
        return len(self._idle)

    @contextmanager
    def lent(self) -> Iterator[Lent]:
        """A connection, outside of any transaction. Raises what SQLAlchemy's `connect` does."""
        lent = self._ready()
        try:
            yield lent
        finally:
            if lent.session.woken:
                lent.session = self._make(lent.connection)
            self._lending.put_back(lent, self._idle)

    def taken(self) -> Lent | None:
        """One of those at hand: the one used last, since what it has read is in its cache."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _ready(self) -> Lent:
        while (lent := self.taken()) is not None:
            if self._lending.usable(lent):
                return lent
        connection = self._lending.connect(self._engine)
        return Lent(connection, self._make(connection))
