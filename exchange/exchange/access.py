"""The gate: carries who asks, decides, audits success and refusal, and owns the transaction.

    with exchange.on_behalf_of(requester) as access:
        held = retrieval.study(access, study_instance_uid)

Verbs read through `access.session` and change things through `access.write`. When the block ends
its audit records are durable; a door begins its answer only then. If they cannot be made durable
the block raises Unavailable, and there is no answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlalchemy.orm import Session

from exchange import audit, policy, sealing
from exchange.audit import Entry, Outcome
from exchange.errors import ExchangeError, Invalid, NoRoom, NotFound, Refused, Unavailable
from exchange.policy import Action, Clinical, Deny, Facts, Requester, Role
from exchange_storage import prepared
from exchange_storage.carried import CarryingStore
from exchange_storage.database import Database, timed_out, unavailable
from exchange_storage.objects import (
    ObjectNotFound,
    ObjectStore,
    ObjectStoreError,
    StoreFull,
    StoreUnavailable,
)
from exchange_storage.prepared import Prepared

T = TypeVar("T")

GROUP = 256
"""Units of work in one commit, at most: what bounds the time that a writer holds the chain."""

KEEPERS = 32
"""Objects that one process makes durable at a time, at most."""


class Exchange:
    """An index database, an object store and the key that signs the audit trail, as one."""

    def __init__(
        self, database: Database, objects: ObjectStore, signing_key: Ed25519PrivateKey
    ) -> None:
        self.database = database
        self.objects = CarryingStore(objects, database)
        self.signing_key = signing_key
        self.keeping = ThreadPoolExecutor(KEEPERS, thread_name_prefix="keeping")
        """Threads on which objects become durable while their rows are written."""
        self._commits = _GroupCommit(database, signing_key)

    def prepare(self) -> None:
        """Bring the database to this release, and begin the audit trail if there is none."""
        self.database.migrate()
        with self.database.writing() as session:
            audit.begin(session, self.signing_key)
            sealing.seal(session, self.signing_key)

    @property
    def committing(self) -> bool:
        """Whether a commit is under way, for which who writes now would wait."""
        return self._commits.busy

    def put_into_words(self) -> None:
        """Have the statements ready that are known by now; none is run. Raises Unavailable."""
        with translated(), self.database.reading() as session:
            prepared.put_into_words(session.connection())

    @contextmanager
    def on_behalf_of(self, requester: Requester) -> Iterator[Access]:
        """Everything done inside is `requester`'s: decided, and recorded under that name.

        Raises Unavailable when the database or the object store does not answer, NoRoom when the
        store is full, and whatever a verb raised; its audit records are durable all the same.
        """
        with ExitStack() as stack:
            access = Access(self, requester, stack)
            try:
                with translated():
                    yield access
            except ExchangeError as error:
                access.failed(error)
                raise
            finally:
                with translated():
                    try:
                        stack.close()
                    finally:  # a reader whose connection broke was refused all the same
                        access.finish()

    def close(self) -> None:
        """Let go of the database and the store."""
        self.keeping.shutdown()
        self.objects.close()
        self.database.close()


class Access:
    """What one requester does in one request. Not shared between threads."""

    def __init__(self, exchange: Exchange, requester: Requester, stack: ExitStack) -> None:
        self.exchange = exchange
        self.requester = requester
        self.now = datetime.now(UTC)
        self._stack = stack
        self._session: Session | None = None
        self._entries: list[Entry] = []
        self._asked_for = Action.SEARCH
        self._about: dict[str, Any] = {}

    @property
    def objects(self) -> CarryingStore:
        """The object store."""
        return self.exchange.objects

    @property
    def organization(self) -> int:
        """The organization for which the requester acts. Raises Refused when it has none."""
        if self.requester.organization is None:
            raise Refused("this can only be done on behalf of an organization")
        return self.requester.organization

    @property
    def session(self) -> Session:
        """For reading, one consistent view for the whole request; it keeps no change."""
        if self._session is None:
            self._session = self._stack.enter_context(self.exchange.database.reading())
        return self._session

    def glance(self, statement: Prepared, given: Mapping[str, Any]) -> list[Any]:
        """The rows of one statement for reading, where that is all that a question takes.

        They are of one moment by themselves, so that no transaction has to be begun and ended;
        once something was read by `session`, of its moment.
        """
        if self._session is not None:
            return statement.all(self._session.connection(), given)
        with self.exchange.database.at_once() as connection:
            return statement.all(connection, given)

    def renew(self) -> None:
        """Have `session` be a view of what is there now."""
        self._stack.close()
        self._session = None

    def require(
        self,
        action: Action,
        facts: Facts | Clinical | None = None,
        *,
        narrowed: bool = False,
        **about: Any,
    ) -> None:
        """Raise Refused, and record the refusal, unless the policy permits `action`.

        Before there are `facts` a guest is refused, unless what follows is `narrowed` to what
        their link leads to. `about` says what a refusal, or a later failure, was about: `patient`,
        `study`, `detail` (see `note`).
        """
        self._asked_for, self._about = action, about
        match facts:
            case None:
                decision = policy.may(self.requester, action)
                if self.requester.role is Role.GUEST and not narrowed:
                    decision = policy.ASTRAY
            case Clinical():
                decision = policy.decide_clinical(self.requester, action, facts)
            case Facts():
                decision = policy.decide(self.requester, action, facts)
        if isinstance(decision, Deny):
            self.note(action, outcome=Outcome.REFUSED, reason=decision.reason, **about)
            raise Refused(decision.reason)

    def require_region(self, **about: Any) -> None:
        """Raise Refused, and record it, unless the requester administers the whole region.

        A hospital's own administers that hospital: see `organizations.administered`.
        """
        self.require(Action.ADMINISTER, **about)
        if self.requester.organization is not None:
            reason = "only the region's own administrators do this"
            self.note(Action.ADMINISTER, outcome=Outcome.REFUSED, reason=reason, **about)
            raise Refused(reason)

    @contextmanager
    def unseen(self, told: str) -> Iterator[None]:
        """A refusal inside is recorded as such, and answered as if there were nothing: NotFound.

        For what goes by a name of its writer's choice: else who guesses names learns which are
        taken.
        """
        try:
            yield
        except Refused as refused:
            raise NotFound(told) from refused

    def note(
        self,
        action: Action,
        *,
        outcome: Outcome = Outcome.SUCCESS,
        reason: str = "",
        patient: int | None = None,
        study: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an act; durable with the unit of work around it, or when the block ends."""
        self._entries.append(
            Entry(
                requester=self.requester,
                action=action,
                outcome=outcome,
                reason=reason,
                at=self.now,
                patient=patient,
                study=study,
                detail=detail or {},
            )
        )

    def write(
        self, unit: Callable[[Session], T], *, after: Callable[[], object] | None = None
    ) -> T:
        """Run `unit` in a transaction, with the audit records noted so far and inside it.

        Units of many requests share a commit; when this returns, it is durable. A unit that raises
        undoes its own changes and its own notes, and no one else's. It may run twice: all it does
        must be done through its session and `note`. It commits only when `after`, which waits for
        something that the unit relies on, has returned; what `after` raises undoes the unit.
        Raises Refused where nobody asks, see `policy.REHEARSAL`.
        """
        if self.requester.rehearses:
            raise Refused("a rehearsal changes nothing")
        with translated():
            return self.exchange._commits.run(self, unit, after)

    def failed(self, error: ExchangeError) -> None:
        """Record that the request ended in `error`; refusals have been recorded where they fell."""
        if isinstance(error.__cause__, Refused):
            return  # what may not be seen: see `unseen`
        if not isinstance(error, Refused | Unavailable):
            self.note(self._asked_for, outcome=Outcome.FAILED, reason=str(error), **self._about)

    def finish(self) -> None:
        """Make the audit records durable that no unit of work took along."""
        if self._entries and not self.requester.rehearses:
            with translated():
                self.exchange._commits.run(self, None, None)

    def _take(self) -> list[Entry]:
        return list(self._entries)

    def _forget(self, count: int) -> None:
        del self._entries[:count]

    def _rewind(self, count: int, *, final: bool) -> None:
        """Undo the notes of a failed unit; its refusals stay, once it will not run again."""
        self._entries[count:] = [
            entry for entry in self._entries[count:] if final and entry.outcome is Outcome.REFUSED
        ]


def _locked() -> threading.Lock:
    """What wakes one thread, once: several times as fast as a Semaphore or an Event."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Submission(Generic[T]):
    """A unit of work that waits for its commit; None: only what was noted."""

    access: Access
    unit: Callable[[Session], T] | None
    noted: int
    after: Callable[[], object] | None
    result: T | None = None
    error: BaseException | None = None
    done: bool = False
    leads: bool = False
    """It is its thread's turn to commit."""
    woken: threading.Lock = field(default_factory=_locked)
    """Released, once, when it is done or leads."""


class _GroupCommit:
    """Commits what many threads submit together: the first to come commits for all who wait.

    Nobody waits for company. While one commit is on its way to the disk the next group gathers,
    so the group is as large as the load asks, and a lone request pays for one commit only.

    As long as no other process writes to the trail, its end is known here: audit records alone are
    then added behind it by one statement, one way to the server and back instead of five. Whether
    that is still the end is for the statement to see.
    """

    def __init__(self, database: Database, key: Ed25519PrivateKey) -> None:
        self._database = database
        self._key = key
        self._waiting: deque[_Submission[Any]] = deque()
        self._committing = False
        self._queue = threading.Lock()
        self._left: audit.Head | None = None
        """Where this process has left the trail."""
        self._alone = False
        """Whether the trail went on from there the last time."""

    @property
    def busy(self) -> bool:
        """Whether a group is on its way to the disk."""
        return self._committing

    def run(
        self,
        access: Access,
        unit: Callable[[Session], T] | None,
        after: Callable[[], object] | None,
    ) -> T:
        mine = _Submission(access, unit, len(access._entries), after)
        with self._queue:
            self._waiting.append(mine)
            mine.leads, self._committing = not self._committing, True
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
        with self._queue:
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        try:
            self._commit(group)
        finally:
            for submission in group:
                if not submission.done:  # what stopped this thread does not stop the others
                    submission.error = Unavailable("the commit was interrupted; try again")
                    submission.done = True
            with self._queue:
                self._pass_on()
            for submission in group:
                if submission is not mine:
                    submission.woken.release()

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
            if not self._followed(group):
                self._run(group)
        except BaseException as error:
            self._alone = False  # or it was committed, and the answer was lost
            for submission in group:
                submission.access._rewind(submission.noted, final=len(group) == 1)
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
                submission.access._forget(len(submission.access._entries))
                submission.done = True

    def _followed(self, group: Sequence[_Submission[Any]]) -> bool:
        """Whether all there was to do were audit records, and they are durable."""
        if not self._alone or self._left is None or any(one.unit is not None for one in group):
            return False
        entries = [entry for one in group for entry in one.access._take()]
        with self._database.at_once() as connection:
            moved = audit.follow(connection, self._key, self._left, entries)
        self._alone = moved is not None
        self._left = moved or self._left
        return self._alone

    def _run(self, group: Sequence[_Submission[Any]]) -> None:
        with self._database.writing() as session:
            head = audit.lock(session)
            entries: list[Entry] = []
            for submission in group:
                if submission.unit is not None:
                    submission.result = submission.unit(session)
                entries += submission.access._take()
            session.flush()
            moved = audit.append(session, self._key, head, entries)
            for submission in group:
                if submission.after is not None:
                    submission.after()
        self._alone = head == self._left and self._database.dialect == "postgresql"
        self._left = moved


class _Translation:
    """Leaves errors of the exchange's own as they are."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        match error:
            case None | ExchangeError():
                return
            case StoreFull():
                raise NoRoom("the object store is full; nothing was kept") from error
            case StoreUnavailable():
                told = "the object store does not answer; try again later"
            case ObjectNotFound():  # a row has led here, so that it is lost rather than not found
                told = "an object is missing from the store; the operators must look"
            case ObjectStoreError():
                told = "the object store failed; the operators' log has details"
            case DataError() | UnicodeEncodeError():  # such as NUL, or half of a surrogate pair
                told = "a value holds what the index cannot keep or compare"
                raise Invalid(told) from error
            case SQLAlchemyError() if unavailable(error):
                too_long = "the question takes too long: ask for less of it"
                away = "the index does not answer; try again later"
                told = too_long if timed_out(error) else away
            case _:
                return
        raise Unavailable(told) from error


_TRANSLATION = _Translation()


def translated() -> AbstractContextManager[None]:
    """Errors of the storage floor as errors of the exchange; the cause stays attached."""
    return _TRANSLATION
