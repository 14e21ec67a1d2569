"""The outbox: later work, asked for in the transaction that makes it necessary, done by a worker.

A job is durable, stands once per kind and subject, is retried with growing pauses, and ends on
the dead-letter list that `exchange job list` shows. Its work must be repeatable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    SQLColumnExpression,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from exchange import turns
from exchange_storage.database import Database, Lock
from exchange_storage.prepared import Prepared
from exchange_storage.records import Change, Job
from exchange_storage.rows import one_of_texts

IDENTIFY = "identify"
"""Link a patient record (its number) to a person."""
REFRESH = "refresh"
"""Derive again what is kept ready of a study (its number): FHIR resources."""
DESCRIBE = "describe"
"""Make the metadata documents of a study (its number), once no more of it comes."""
COMMIT = "commit"
"""Check a storage commitment (its number) and report it."""
FORWARD = "forward"
"""Send a delivery (its number) to where its route leads."""
NOTIFY = "notify"
"""Tell a node (its number, a colon, the study's) what of a study can be fetched."""
PRIORS = "priors"
"""Find what the performing hospital should have of an order's patient (the order's number)."""
REQUEST = "request"
"""Tell in FHIR of an order (its number): as ServiceRequest and Task."""
DESTROY = "destroy"
"""Remove the objects of a study (its UID) of which `Destroyed` rows say so."""
SCRUB = "scrub"
"""Go on with the walk that reads again what is kept."""
RETAIN = "retain"
"""Delete what no retention rule keeps any more, where that is to happen by itself."""
TIDY = "tidy"
"""Delete workitems that ended long ago, and event reports that nobody has fetched."""
BULK = "bulk"
"""Go on with an export or import of many resources (its number), or remove what is left of it."""
REINDEX = "reindex"
"""Go on with the walk that has all resources found under what the definitions say now."""
HAPPENED = "happened"
"""See who is to be told of what has happened, and what of it (all that waits)."""
TELL = "tell"
"""Notify a subscriber (the number of the subscription)."""
CHECKPOINT = "checkpoint"
"""Keep the signed head of the audit trail in the object store."""
COUNT = "count"
"""Count what has come and was fetched since the last time."""

ATTEMPTS = 12
ATTEMPTS_AT_OTHERS = 96
"""Of what somebody else's node has to take: the last ones an hour apart, four days in all, so that
a PACS that is down over a long weekend gets everything when it is up again."""
CALLED: Mapping[str, turns.Calling] = {
    FORWARD: turns.TO_NODES,
    COMMIT: turns.TO_ASKERS,
    NOTIFY: turns.TO_WATCHERS,
}
"""Kinds of which each job calls somebody else's node or service."""
PAUSE = timedelta(seconds=30)
"""For so long after a job that was not answered is tried again no other is tried there."""
LONGEST_PUT_OFF = timedelta(minutes=15)
"""After so long another job finds out whether there is an answer, whenever the last one is tried
again: it may be why there is none."""
LEASE = timedelta(minutes=1)
"""How long a worker has for one job before another takes it over: short, since what a worker had
that was killed waits for so long; a living one renews it."""


class Patience(NamedTuple):
    """How long work waits for its turn while images arrive, for which disk and processor are."""

    coming: timedelta
    """For so long after an image more are taken to come."""
    longest: timedelta
    """How long the work may have been due."""


PUT_OFF: Mapping[str, Patience] = {
    # Of a study that still comes it would be done again, and many together cost less than each.
    REFRESH: Patience(timedelta(seconds=0.5), timedelta(seconds=5)),
    # Nobody waits for it: who is quicker makes the same for himself.
    DESCRIBE: Patience(timedelta(seconds=2), timedelta(seconds=15)),
}
"""Kinds of work that are put off while images arrive."""


class Later(Exception):
    """Raised by the work of a job that cannot go on now, though nothing is wrong."""

    def __init__(self, seconds: float) -> None:
        """It may go on after so many seconds."""
        super().__init__(f"goes on in {seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Claim:
    """A job as one worker has it."""

    id: int
    kind: str
    subject: str
    asked: int
    attempts: int


def _ask(upsert: postgresql.Insert | sqlite.Insert) -> Executable:
    return upsert.on_conflict_do_update(
        index_elements=[Job.kind, Job.subject],
        set_={
            "asked": Job.asked + 1,
            "attempts": case((Job.dead, 0), else_=Job.attempts),
            "due": case((Job.dead, upsert.excluded.due), else_=Job.due),
            "dead": False,
        },
    )


_ASK_AGAIN = Prepared(
    # Touches no index, where an upsert touches each whose columns it names.
    update(Job)
    .where(Job.kind == bindparam("of"), Job.subject == bindparam("about"), ~Job.dead)
    .values(asked=Job.asked + 1)
    .returning(Job.id)
)
_ASK = Prepared(
    lambda dialect: _ask({"postgresql": postgresql, "sqlite": sqlite}[dialect].insert(Job)),
    ["kind", "subject", "due", "asked", "attempts", "dead", "last_error", "put_off"],
)


_REMOVE = Prepared(
    delete(Job).where(Job.id == bindparam("number"), Job.asked == bindparam("as_asked"))
)
_FREE = Prepared(
    update(Job)
    .where(Job.id == bindparam("number"))
    .values(leased_until=None, attempts=0, due=bindparam("again"), put_off=False)
)


def ask(session: Session, kind: str, subject: str, due: datetime) -> None:
    """Ask for work, in the transaction of `session`.

    One that waits already keeps its earlier due time, so that a stream of reasons cannot put the
    work off for ever; one that was given up begins anew.
    """
    connection = session.connection()
    if _ASK_AGAIN.first(connection, {"of": kind, "about": subject}) is not None:
        return
    _ASK.run(
        connection,
        {
            "kind": kind,
            "subject": subject,
            "due": due,
            "asked": 1,
            "attempts": 0,
            "dead": False,
            "last_error": "",
            "put_off": False,
        },
    )


def hasten(session: Session, kind: str, subject: str, due: datetime) -> None:
    """Ask for work as `ask` does, that is due at `due` though it was put off until later.

    Nor is it put off for images that arrive: it is as if it had waited for long already.
    """
    if kind in PUT_OFF:
        due -= PUT_OFF[kind].longest
    ask(session, kind, subject, due)
    session.execute(
        update(Job).where(Job.kind == kind, Job.subject == subject, Job.due > due).values(due=due)
    )


def of(kind: str, number: SQLColumnExpression[int]) -> ColumnElement[bool]:
    """Whether a job is of this kind and about the row with this number, in SQL."""
    return and_(Job.kind == kind, Job.subject == cast(number, String))


def about(kind: str) -> ColumnElement[int]:
    """The row number that a job of the kind is about, in SQL; 0 of another kind's."""
    # By a CASE, since the subjects of other kinds are no numbers, whatever is looked at first.
    return cast(case((Job.kind == kind, Job.subject), else_="0"), Job.id.type)


def claim(
    database: Database, kinds: Sequence[str], limit: int = 16, *, patient: bool = False
) -> list[Claim]:
    """Take up to `limit` jobs that are due, the most overdue first, for `LEASE`.

    Who is `patient` leaves those for later that can be `PUT_OFF`, as long as images arrive.
    Who is called is called when it is their turn (`turns`); several jobs that are taken together
    are done one after the other.
    """
    now = datetime.now(UTC)
    with database.reading() as session:
        connection = session.connection()
        if _due(connection, kinds, now) and patient:
            kinds = [kind for kind in kinds if not _better_later(connection, kind, now)]
        if not _due(connection, kinds, now):
            return []  # no write transaction for an idle worker
        called = [kind for kind in kinds if kind in CALLED]
        free = or_(Job.leased_until.is_(None), Job.leased_until < now)
        due = and_(Job.kind.in_(kinds), ~Job.dead, Job.due <= now, free)
        if called:  # nor where all that are due wait for somebody
            these = _turns(session, called, now)
            anything = or_(*(one.newcomers() for one in these), and_(*map(turns.Turn.comes, these)))
            if session.scalar(select(Job.id).where(due, anything).limit(1)) is None:
                return []
    with database.writing() as session:
        wanted = select(Job).where(due)
        if called:
            database.one_at_a_time(session, Lock.CALLING)  # what two see free, both would take
            these = _turns(session, called, now)
            for one in these:
                _wait_for_the_silent(session, one, due, now)
            wanted = wanted.where(*map(turns.Turn.comes, these))
        if TELL in kinds:
            wanted = wanted.where(~turns.waits(TELL, now))
        wanted = wanted.order_by(Job.due, Job.id).limit(limit).with_for_update(skip_locked=True)
        jobs = session.scalars(wanted).all()
        for job in jobs:
            job.leased_until = now + LEASE
        return [Claim(job.id, job.kind, job.subject, job.asked, job.attempts) for job in jobs]


def _turns(session: Session, called: Sequence[str], now: datetime) -> list[turns.Turn]:
    return [turns.turn(session, kind, CALLED[kind], now) for kind in called]


def _wait_for_the_silent(
    session: Session, turn: turns.Turn, due: ColumnElement[bool], now: datetime
) -> None:
    """What has come for who was silent the last time waits as what came before does (`put_off`)."""
    if not turn.silent:
        return
    soon = {
        peer: min(max(first, now) + PAUSE, now + LONGEST_PUT_OFF)
        for peer, first in turn.silent.items()
    }
    session.execute(
        update(Job)
        .where(due, turn.newcomers())
        .values(due=turn.by_peer(soon), put_off=True)
        .execution_options(synchronize_session=False)
    )


_NOW = bindparam("now", type_=Job.due.type)
_DUE = Prepared(
    # Asked by each thread of a worker again and again.
    lambda dialect: (
        select(Job.id)
        .where(
            one_of_texts(Job.kind, "kinds", dialect),
            ~Job.dead,
            Job.due <= _NOW,
            or_(Job.leased_until.is_(None), Job.leased_until < _NOW),
        )
        .limit(1)
    )
)


def _due(connection: Connection, kinds: Sequence[str], now: datetime) -> bool:
    given = {"kinds": json.dumps(list(kinds)), "now": now}
    return bool(kinds and _DUE.all(connection, given))


def _better_later(connection: Connection, kind: str, now: datetime) -> bool:
    """Whether jobs of the kind are put off now: images arrive, and none has been due for long."""
    patience = PUT_OFF.get(kind)
    if patience is None:
        return False
    row = _BUSY.first(connection, {"of": kind})
    arriving = row.newest is not None and row.newest > now - patience.coming
    return bool(arriving and (row.first is None or row.first > now - patience.longest))


_BUSY = Prepared(
    select(
        select(func.max(Change.recorded)).scalar_subquery().label("newest"),
        select(func.min(Job.due))
        .where(Job.kind == bindparam("of"), ~Job.dead)
        .scalar_subquery()
        .label("first"),
    )
)


def renew(database: Database, claimed: Sequence[int]) -> None:
    """The jobs with these row numbers take longer than a lease: nobody else may take them yet."""
    with database.writing() as session:
        session.execute(
            update(Job)
            .where(Job.id.in_(claimed), Job.leased_until.is_not(None))
            .values(leased_until=datetime.now(UTC) + LEASE)
        )


def finish(database: Database, done: Sequence[Claim]) -> None:
    """The work is done: remove the jobs, or free those that somebody asked for again meanwhile."""
    if not done:
        return
    with database.writing() as session:
        connection = session.connection()
        again = datetime.now(UTC) + timedelta(seconds=1)
        for one in done:
            _REMOVE.run(connection, {"number": one.id, "as_asked": one.asked})
            _FREE.run(connection, {"number": one.id, "again": again})


def postpone(database: Database, claimed: Claim, seconds: float) -> None:
    """The work goes on after so many seconds; that is no failure.

    Sooner, where somebody asked meanwhile: what came with that may not wait.
    """
    now = datetime.now(UTC)
    sooner = min(seconds, 1.0)
    with database.writing() as session:
        session.execute(
            update(Job)
            .where(Job.id == claimed.id)
            .values(
                leased_until=None,
                put_off=False,  # what it waits for is something else
                due=case(
                    (Job.asked == claimed.asked, _moment(now + timedelta(seconds=seconds))),
                    else_=_moment(now + timedelta(seconds=sooner)),
                ),
            )
        )


def _moment(at: datetime) -> ColumnElement[datetime]:
    return literal(at, Job.due.type)


def after(attempts: int) -> timedelta:
    """The pause before a job is tried again that has failed so many times."""
    return timedelta(seconds=min(2**attempts, 3600))


def put_off(
    session: Session, kind: str, subject: str, others: ColumnElement[bool], now: datetime
) -> None:
    """Somebody did not answer a job: the `others` that call there wait until it is tried again,
    though not for longer than `LONGEST_PUT_OFF`. Those go first then that were tried least often.

    So who hangs holds one thread of a worker, and not all of them; and a job at which they hang
    keeps no other from them. In the transaction of `session`, before the job has failed (`fail`).
    """
    this = and_(Job.kind == kind, Job.subject == subject)
    waiting = and_(others, Job.kind == kind, Job.subject != subject, _WAITS)
    found_out = or_(this, and_(waiting, Job.put_off))
    # Whose turn it is now goes on in the pauses of the ones before: nobody has answered since.
    tried = (session.scalar(select(func.max(Job.attempts)).where(found_out)) or 0) + 1
    session.execute(update(Job).where(this).values(put_off=True, due=now + after(tried)))
    fewest = session.scalar(select(func.min(Job.attempts)).where(waiting))
    again = now + min(after(tried) + PAUSE, LONGEST_PUT_OFF)
    due = case((Job.attempts == fewest, _moment(again)), else_=_moment(again + PAUSE))
    session.execute(
        update(Job).where(waiting, Job.due < due).values(due=due, put_off=True),
    )


def bring_on(session: Session, kind: str, others: ColumnElement[bool], now: datetime) -> None:
    """Who did not answer answers again: the `others` that wait for that are due, and one that finds
    out is among them. See `put_off`.

    Not those that were refused, which wait for something else: each would bring on the next. Nor
    those at which there was no answer so often that they may be why: they have their own pauses.
    """
    session.execute(
        update(Job)
        .where(others, Job.kind == kind, ~Job.dead, Job.put_off)
        .values(
            due=case(
                (and_(_WAITS, Job.due > now, Job.attempts < _OFTEN), _moment(now)), else_=Job.due
            ),
            put_off=False,
        )
    )


_WAITS = and_(~Job.dead, Job.leased_until.is_(None))
_OFTEN = 10
"""Attempts after which a job's own pause is longer than it puts others off."""


def fail(database: Database, claimed: Claim, error: str) -> None:
    """The work failed: again after a pause that doubles, up to an hour; then to the dead letters.

    `error` is kept for operators; it must not hold patient data.
    """
    attempts = claimed.attempts + 1
    again = _moment(datetime.now(UTC) + after(attempts))
    most = ATTEMPTS_AT_OTHERS if claimed.kind in CALLED else ATTEMPTS
    with database.writing() as session:
        session.execute(
            update(Job)
            .where(Job.id == claimed.id)
            .values(
                attempts=attempts,
                # Whoever asked meanwhile may have brought what the work was lacking.
                dead=Job.asked == claimed.asked if attempts >= most else False,
                due=case((Job.due > again, Job.due), else_=again),  # `put_off` may be longer
                leased_until=None,
                last_error=error[:4000],
            )
        )


def backlog(session: Session) -> dict[tuple[str, bool], int]:
    """How many jobs there are, by kind and whether they were given up."""
    counted = select(Job.kind, Job.dead, func.count()).group_by(Job.kind, Job.dead)
    return {(kind, dead): count for kind, dead, count in session.execute(counted)}


def dead_letters(session: Session, limit: int = 100) -> Sequence[Job]:
    """The jobs that were given up, oldest first."""
    return session.scalars(select(Job).where(Job.dead).order_by(Job.id).limit(limit)).all()


def retry(session: Session, number: int | None = None) -> int:
    """Try again, from now on, the given-up job with this row number, or all; returns how many."""
    given_up = Job.dead if number is None else and_(Job.dead, Job.id == number)
    jobs = session.scalars(select(Job).where(given_up)).all()
    for job in jobs:
        job.dead, job.attempts, job.due = False, 0, datetime.now(UTC)
    return len(jobs)
