"""How what was done becomes durable: units of work and audit records, many in one commit.

Units of work of many requests share a commit (`Commits.run`). Where records gather, those of what
changed nothing take no part in it (`Commits.record`): they are durable in a journal, if there is
one on the disk on which the index lies, or else in the index, by a statement of their own. There
the records of units of work wait too, durable with what they tell of. One commit takes all that
waits into the chain, within `GATHERING`, in the order of their moments. So no question waits until
the images before it are committed, and no image until the trail is written; whoever reads the trail
has it caught up first.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from exchange import audit
from exchange.audit import Entry, Outcome, Waited
from exchange.errors import Unavailable
from exchange_storage.database import Database, unavailable
from exchange_storage.journal import Journal

log = logging.getLogger(__name__)

T = TypeVar("T")

GROUP = 256
"""Units of work in one commit, at most: what bounds the time that a writer holds the chain."""

GATHERING = 0.05
"""Seconds for which records wait for more of them, before a commit comes for them."""

COMPANY = 0.001
"""Seconds for which a commit waits, at most, for as many as came to the one before it."""

GROUPS_UNASKED = 63
"""Groups that are not waited for, at most, after one was waited for in vain."""

AGAIN = 1.0
"""Seconds until that is tried again where the index does not answer."""


class Notes:
    """The audit records that one request has noted, and that are not durable yet."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Note another."""
        self.all.append(entry)

    def forget(self, count: int) -> None:
        """The first `count` are durable."""
        del self.all[:count]

    def rewind(self, count: int, *, final: bool) -> None:
        """Undo the notes of a failed unit; its refusals stay, once it will not run again."""
        self.all[count:] = [
            entry for entry in self.all[count:] if final and entry.outcome is Outcome.REFUSED
        ]


def _locked() -> threading.Lock:
    """What wakes one thread, once: several times as fast as a Semaphore or an Event."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Submission(Generic[T]):
    """A unit of work that waits for its commit; None: only what was noted."""

    notes: Notes
    unit: Callable[[Session], T] | None
    noted: int
    after: Callable[[], object] | None
    result: T | None = None
    error: BaseException | None = None
    done: bool = False
    leads: bool = False
    """It is its thread's turn to commit."""
    catches_up: bool = False
    """It brings what waits in other processes' journals too."""
    woken: threading.Lock = field(default_factory=_locked)
    """Released, once, when it is done or leads."""


class _Company:
    """Whether a commit waits a moment for more units of work, and for how many.

    Who has written writes again soon, where images arrive: as many are expected as were in the
    group before, and came while it was committed. Where they do not come within `COMPANY`, because
    their images are large, the next groups are not waited for; each time in vain for twice as many.
    """

    def __init__(self) -> None:
        self.expected = 1
        self._awaited = 0
        self._enough = _locked()
        self._vain = 0
        self._unasked = 0
        """Groups that are still not waited for."""

    def wait(self, queue: threading.Lock, waiting: Sequence[_Submission[Any]]) -> None:
        """Until as many are `waiting` as are expected, or for `COMPANY`."""
        with queue:
            if _units(waiting) >= self.expected:
                return
            if self._unasked:
                self._unasked -= 1
                return
            self._awaited = self.expected
        came = False
        try:
            came = self._enough.acquire(timeout=COMPANY)
        finally:
            with queue:
                if not came and not self._awaited:  # they came after all, just now
                    came = self._enough.acquire(blocking=False)
                self._awaited = 0
        self._vain = 0 if came else min(2 * self._vain + 1, GROUPS_UNASKED)
        self._unasked = self._vain

    def came(self, waiting: Sequence[_Submission[Any]]) -> None:
        """These are waiting now; called by whoever holds the queue."""
        if self._awaited and _units(waiting) >= self._awaited:
            self._awaited = 0
            self._enough.release()


def _units(submissions: Iterable[_Submission[Any]]) -> int:
    return sum(one.unit is not None for one in submissions)


class Commits:
    """Commits what many threads submit together: the first to come commits for all who wait.

    While one commit is on its way to the disk the next group gathers, so the group is as large as
    the load asks, and a lone request pays for one commit only. Where several write one thing after
    another, a commit waits a moment for those who came to the one before: two halves that take
    turns would have twice the commits, and hold the interpreter up for one another.
    """

    def __init__(
        self, database: Database, key: Ed25519PrivateKey, journal: Journal | None, gathers: bool
    ) -> None:
        self._database = database
        self._key = key
        self._journal = journal
        in_index = gathers and database.dialect == "postgresql"  # SQLite has one writer at a time
        self._gathers = in_index or journal is not None
        self._bringing: threading.Thread | None = None
        self._waits = threading.Event()
        self._closing = threading.Event()
        self._waiting: deque[_Submission[Any]] = deque()
        self._committing = False
        self._queue = threading.Lock()
        self._company = _Company()
        self._kept = False
        """Whether this process has left records that wait for the chain."""

    @property
    def busy(self) -> bool:
        """Whether a group is on its way to the disk."""
        return self._committing

    def run(
        self,
        notes: Notes,
        unit: Callable[[Session], T] | None,
        after: Callable[[], object] | None,
    ) -> T:
        """Commit `unit` and what was noted; it is durable when this returns."""
        return self._submit(_Submission(notes, unit, len(notes.all), after))

    def record(self, notes: Notes) -> None:
        """Make what was noted durable: in the journal, if there is one, or in the index."""
        if self._journal is not None:
            if not self._waited(self._journal, notes):
                self.run(notes, None, None)
        elif self._gathers:
            entries = list(notes.all)
            try:
                self._wait(entries)
            except SQLAlchemyError as error:
                if not (isinstance(error, DBAPIError) and error.connection_invalidated):
                    raise
                # It had rested while the server was started anew. If it broke behind the commit the
                # records come twice: better than not at all.
                self._wait(entries)
            notes.forget(len(entries))
            self._bring_soon()
        else:
            self.run(notes, None, None)

    def _wait(self, entries: Sequence[Entry]) -> None:
        with self._database.at_once() as connection:
            audit.wait(connection, entries)

    def catch_up(self) -> bool:
        """Add what waits to the trail, of all processes; False where nothing waited."""
        if not self._gathers:
            return False
        with self._database.reading() as session:
            connection = session.connection()
            times = -(-audit.waiting(connection) // audit.TOGETHER)
            if not times and self._journal is not None:
                times = int(self._journal.behind(connection))
        for _ in range(times):
            self._submit(_Submission(Notes(), None, 0, None, catches_up=True))
        return times > 0

    def close(self) -> None:
        """Bring what waits to the trail; where that cannot be done, it waits for the next start."""
        if not self._gathers:
            return
        self._closing.set()
        self._waits.set()
        if self._bringing is not None:
            self._bringing.join()
        with suppress(SQLAlchemyError, Unavailable):
            self._bring()
        if self._journal is not None:
            self._journal.close()

    def _waited(self, journal: Journal, notes: Notes) -> bool:
        """Whether what was noted is durable in the journal now."""
        entries = list(notes.all)
        try:
            journal.append([entry.line() for entry in entries])
        except OSError as error:  # such as a full disk; perhaps the index still has room
            log.error("the journal of the audit trail cannot be written: %s", error.strerror)
            return False
        notes.forget(len(entries))
        self._bring_soon()
        return True

    def _bring_soon(self) -> None:
        self._kept = True
        if self._bringing is None:
            with self._queue:
                if self._bringing is None:
                    self._bringing = threading.Thread(
                        target=self._bring_on, name="audit trail", daemon=True
                    )
                    self._bringing.start()
        self._waits.set()

    def _bring_on(self) -> None:
        """Bring what waits to the trail, again and again, each time after it has gathered."""
        while not self._closing.is_set():
            self._waits.wait()
            self._waits.clear()
            self._closing.wait(GATHERING)
            try:
                self._bring()
            except Exception as error:
                log.warning("records wait for the audit trail: %s", type(error).__name__)
                self._closing.wait(AGAIN)
                self._waits.set()

    def _bring(self) -> None:
        if self._kept:
            self._kept = False
            try:
                self.run(Notes(), None, None)
            except BaseException:
                self._kept = True
                raise

    def _submit(self, mine: _Submission[T]) -> T:
        with self._queue:
            self._waiting.append(mine)
            mine.leads, self._committing = not self._committing, True
            self._company.came(self._waiting)
        try:
            if not mine.leads:
                mine.woken.acquire()
        except BaseException:
            self._give_up(mine)
            raise
        if not mine.done:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]

    def _lead(self, mine: _Submission[Any]) -> None:
        """Commit for all who wait by now, `mine` first, and wake them and who leads next.

        Nobody else is woken: of many who wait, each would only see that it is not its turn.
        """
        try:
            group = self._group(mine)
        except BaseException:
            self._give_up(mine)
            raise
        try:
            self._commit(group)
        finally:
            for submission in group:
                if not submission.done:  # what stopped this thread does not stop the others
                    submission.error = Unavailable("the commit was interrupted; try again")
                    submission.done = True
            with self._queue:
                self._company.expected = min(_units(group) + _units(self._waiting), GROUP)
                self._pass_on()
            for submission in group:
                if submission is not mine:
                    submission.woken.release()

    def _group(self, mine: _Submission[Any]) -> list[_Submission[Any]]:
        """Those who wait, after as many as are expected had a moment to come."""
        if mine.unit is not None:
            self._company.wait(self._queue, self._waiting)
        with self._queue:
            return [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]

    def _pass_on(self) -> None:
        """Have the first of those who wait lead, if there is one."""
        self._committing = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].woken.release()

    def _give_up(self, mine: _Submission[Any]) -> None:
        """Its thread was interrupted while it waited: it will neither commit nor lead."""
        with self._queue:
            if mine in self._waiting:
                self._waiting.remove(mine)
                if mine.leads:
                    self._pass_on()

    def _commit(self, group: list[_Submission[Any]]) -> None:
        try:
            self._run(group)
        except BaseException as error:
            for submission in group:
                submission.notes.rewind(submission.noted, final=len(group) == 1)
            if not isinstance(error, Exception):
                raise
            lost = isinstance(error, SQLAlchemyError) and unavailable(error)
            if len(group) == 1 or lost:
                for submission in group:
                    submission.error, submission.done = error, True
            else:  # one of them is at fault: each on its own, so that only that one fails
                for submission in group:
                    self._commit([submission])
        else:
            for submission in group:
                submission.notes.forget(len(submission.notes.all))
                submission.done = True

    def _run(self, group: Sequence[_Submission[Any]]) -> None:
        later = self._gathers and all(one.unit is not None for one in group)
        with self._database.writing() as session:
            head = audit.lock(session)
            entries: list[Entry | Waited] = []
            taken, more = None, False
            if self._gathers and not later:
                waited, more = audit.taken(session)
                if self._journal is not None:
                    everything = any(one.catches_up for one in group)
                    taken = self._journal.take(
                        session.connection(), everything=everything, read=audit.waited
                    )
                    waited += taken.lines
                entries += audit.in_order(waited)
            for submission in group:
                if submission.unit is not None:
                    submission.result = submission.unit(session)
                entries += submission.notes.all
            session.flush()
            if later:
                audit.wait(session.connection(), entries)
            else:
                audit.append(session, self._key, head, entries)
            for submission in group:
                if submission.after is not None:
                    submission.after()
        if self._journal is not None and taken is not None:
            self._journal.settle(taken)
        if more or (later and entries):
            self._bring_soon()
