"""The gate: carries who asks, decides, audits success and refusal, and owns the transaction.

    with exchange.on_behalf_of(requester) as access:
        held = retrieval.study(access, study_instance_uid)

Verbs read through `access.session` and change things through `access.write`. When the block ends
its audit records are durable; a door begins its answer only then. If they cannot be made durable
the block raises Unavailable, and there is no answer. See `commits` for how they become so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlalchemy.orm import Session

from exchange import audit, policy, sealing
from exchange.audit import Entry, Outcome
from exchange.commits import Commits, Notes
from exchange.errors import ExchangeError, Invalid, NoRoom, NotFound, Refused, Unavailable
from exchange.policy import Action, Clinical, Deny, Facts, Requester, Role
from exchange_storage import prepared
from exchange_storage.carried import CarryingStore
from exchange_storage.database import Database, full, timed_out, unavailable
from exchange_storage.journal import Journal
from exchange_storage.objects import (
    ObjectNotFound,
    ObjectStore,
    ObjectStoreError,
    StoreFull,
    StoreUnavailable,
)
from exchange_storage.prepared import Prepared

log = logging.getLogger(__name__)

T = TypeVar("T")

WRITERS = 32
"""Rows that one process writes at a time while their objects become durable, at most."""


class Exchange:
    """An index database, an object store and the key that signs the audit trail, as one."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        signing_key: Ed25519PrivateKey,
        journal: Journal | None = None,
        *,
        gathers: bool = False,
    ) -> None:
        """`journal` lies where the index lies, so that whoever has the one has the other too.

        With one, or where it `gathers` on PostgreSQL, audit records wait a moment for their place
        in the trail, durable: `catch_up` before you read it. Else each has its place at once.
        """
        self.database = database
        self.objects = CarryingStore(objects, database)
        self.signing_key = signing_key
        self.writing = ThreadPoolExecutor(WRITERS, thread_name_prefix="writing")
        """Threads on which rows are written while their objects become durable."""
        self._commits = Commits(database, signing_key, journal, gathers)

    def prepare(self) -> None:
        """Bring the database to this release, and begin the audit trail if there is none."""
        self.database.migrate()
        with self.database.writing() as session:
            audit.begin(session, self.signing_key)
            if not audit.is_ours(session, self.signing_key):
                log.warning(
                    "the audit trail of this index was signed with another key: whoever opens one "
                    "index needs the same keys/, or `exchange audit verify` will fail"
                )
            sealing.seal(session, self.signing_key)
        self.catch_up()

    def catch_up(self) -> bool:
        """Bring to the trail what waits in the journals of this machine, of all processes.

        False where nothing waited. Raises Unavailable.
        """
        with translated():
            return self._commits.catch_up()

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
        self.writing.shutdown()  # what is being written is still committed
        self._commits.close()
        self.objects.close()
        self.database.close()


class Access:
    """What one requester does in one request. Used by one thread at a time."""

    def __init__(self, exchange: Exchange, requester: Requester, stack: ExitStack) -> None:
        self.exchange = exchange
        self.requester = requester
        self.now = datetime.now(UTC)
        self._stack = stack
        self._session: Session | None = None
        self._notes = Notes()
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
        """For reading, one consistent view until something is written; it keeps no change."""
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

    def catch_up(self) -> None:
        """Have the trail that `session` shows hold whatever was answered on this machine so far."""
        self.exchange.catch_up()
        self.renew()  # also where nothing waited: others may have brought it since our view began

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
        self._notes.add(
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
        self.renew()  # many who wait held all connections that their commit waits for
        with translated():
            return self.exchange._commits.run(self._notes, unit, after)

    def failed(self, error: ExchangeError) -> None:
        """Record that the request ended in `error`; refusals have been recorded where they fell."""
        if isinstance(error.__cause__, Refused):
            return  # what may not be seen: see `unseen`
        if not isinstance(error, Refused | Unavailable):
            self.note(self._asked_for, outcome=Outcome.FAILED, reason=str(error), **self._about)

    def finish(self) -> None:
        """Make the audit records durable that no unit of work took along."""
        if self._notes.all and not self.requester.rehearses:
            with translated():
                self.exchange._commits.record(self._notes)


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
                no_room = "the index has no room: its disk is full"
                told = too_long if timed_out(error) else no_room if full(error) else away
            case _:
                return
        raise Unavailable(told) from error


_TRANSLATION = _Translation()


def translated() -> AbstractContextManager[None]:
    """Errors of the storage floor as errors of the exchange; the cause stays attached."""
    return _TRANSLATION
