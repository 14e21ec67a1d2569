"""The registry: who takes part, and whether who is registered has changed since somebody looked.

Whoever goes on for long on what was true at its beginning, such as an association, remembers the
revision of the registry, and looks again who is at the other end once that has moved. A process
reads the revision every few seconds, whatever the number of its associations and of their messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, or_, select, update
from sqlalchemy.orm import Session, aliased

from exchange.access import Exchange, translated
from exchange.errors import ExchangeError
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, Registry, User
from exchange_storage.rows import there_is

SECONDS = 2.0
"""For so long what a process has read of the revision holds: nobody who was removed is served for
longer."""

_REVISION = Prepared(select(Registry.revision))


def takes_part(
    organization: SQLColumnExpression[int] | SQLColumnExpression[int | None],
) -> ColumnElement[bool]:
    """Whether the hospital of this row number is active."""
    hospital = aliased(Organization)
    return there_is(select(hospital.id).where(hospital.id == organization, hospital.active))


MAY_SIGN_IN = and_(
    User.active, or_(User.organization_id.is_(None), takes_part(User.organization_id))
)
"""Whether a user is active, and their hospital, if they have one."""


def changed(session: Session) -> None:
    """Who is registered has changed, as of the commit of `session`."""
    moved = update(Registry).values(revision=Registry.revision + 1).returning(Registry.id)
    if session.execute(moved).first() is None:
        session.add(Registry(revision=1))


class Watch:
    """The revision of the registry, as one process knows it. Safe for many threads."""

    def __init__(self, exchange: Exchange, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchange = exchange
        self._clock = clock
        self._reading = threading.Lock()
        self._known = -1
        self._due = clock()

    def revision(self) -> int:
        """The revision as it was at most `SECONDS` ago, and the time it takes to read it.

        While the index does not answer, what was known before: nothing is served without it.
        """
        if self._clock() >= self._due and self._reading.acquire(blocking=False):
            try:
                self._known = self._read()
            except ExchangeError:
                pass
            finally:
                self._due = self._clock() + SECONDS
                self._reading.release()
        return self._known

    def _read(self) -> int:
        with translated(), self._exchange.database.at_once() as connection:
            row = _REVISION.first(connection, {})
        return int(row.revision) if row is not None else 0
