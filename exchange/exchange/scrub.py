"""Scrubbing: what is kept is read again, before somebody needs it, and must have its digest.

A walk through all that is kept is durable (`Scrub`): whoever goes on with it begins where it
stopped. What is damaged is on a list (`Damage`) until it is found whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.audit import Outcome
from exchange.policy import Action
from exchange_storage import records
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import Instance, Scrub

BATCH = 50
"""Instances that are read between two commits."""

SETTLING = timedelta(days=1)
"""How long after it came an instance is first read by a walk of the worker's."""

BETWEEN = timedelta(days=1)
"""From the beginning of one walk to that of the next."""


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is gone, or no longer what was received."""

    key: str
    what: str
    found: datetime


def scrub(access: Access, *, before: datetime, limit: int) -> Iterator[Damage | int]:
    """Read up to `limit` objects that were not verified since `before`, in the order they came.

    Yields each `Damage`, and how many were read now and then; what was found whole is noted, so
    that a scrub that was interrupted goes on where it stopped. Raises Refused, Unavailable.
    """
    access.require(Action.VERIFY)
    due = or_(Instance.verified.is_(None), Instance.verified < before)
    done = last = damaged = 0
    while done < limit:
        rows = _rows(access, last, due, min(BATCH, limit - done))
        if not rows:
            break
        last, done = rows[-1].id, done + len(rows)
        found = _read(access, rows)
        damaged += len(found)
        yield from found
        yield done
    access.note(Action.VERIFY, reason="scrubbed", detail={"read": done, "damaged": damaged})


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk went on, and when it may go on again."""

    again: datetime
    damaged: int = 0


def walk(access: Access, *, days: int, until: datetime) -> Walked:
    """Go on with the present walk until the moment `until`, or begin one when it is time.

    Reads what was not verified for so many `days`, and what was never verified once it has
    settled. Raises Refused, Unavailable.
    """
    access.require(Action.VERIFY)
    now = access.now
    with access.exchange.database.reading() as session:
        last = session.scalars(select(Scrub).order_by(Scrub.id.desc()).limit(1)).first()
    if last is not None and last.finished is not None and last.begun + BETWEEN > now:
        return Walked(last.begun + BETWEEN)
    number = last.id if last is not None and last.finished is None else access.write(_begun(access))
    position = last.position if last is not None and last.finished is None else 0
    due = or_(
        Instance.verified < now - timedelta(days=days),
        and_(Instance.verified.is_(None), Instance.received < now - SETTLING),
    )
    damaged = 0
    while datetime.now(UTC) < until:
        rows = _rows(access, position, due, BATCH)
        found = _read(access, rows)
        position = rows[-1].id if rows else position
        _advance(access, number, position, len(rows), len(found), finished=not rows)
        damaged += len(found)
        if not rows:
            break
    return Walked(datetime.now(UTC), damaged)


def damages(access: Access, limit: int = 1000) -> Sequence[Damage]:
    """What is known to be damaged, the oldest first. Raises Refused."""
    access.require_region()
    access.note(Action.ADMINISTER, reason="damages listed")
    rows = access.session.scalars(
        select(records.Damage).order_by(records.Damage.found).limit(limit)
    )
    return [Damage(one.key, one.what, one.found) for one in rows]


def known_damages(access: Access) -> int:
    """How much is known to be damaged. Raises Refused."""
    access.require(Action.VERIFY)
    return access.session.scalar(select(func.count()).select_from(records.Damage)) or 0


def walks(access: Access, limit: int = 10) -> Sequence[Scrub]:
    """The last walks, the newest first. Raises Refused."""
    access.require_region()
    access.note(Action.ADMINISTER, reason="scrubs listed")
    return access.session.scalars(select(Scrub).order_by(Scrub.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    key: str
    digest: str
    uid: str


def _rows(access: Access, last: int, due: ColumnElement[bool], count: int) -> list[_Row]:
    # In transactions of its own: reading takes hours, an open one keeps both databases from
    # clearing away what is outdated, and PostgreSQL ends one in which nothing is asked for 30 s.
    wanted = (
        select(Instance.id, Instance.key, Instance.digest, Instance.sop_instance_uid)
        .where(Instance.id > last, due)
        .order_by(Instance.id)
        .limit(count)
    )
    with access.exchange.database.reading() as session:
        return [_Row(*row) for row in session.execute(wanted)]


def _read(access: Access, rows: Sequence[_Row]) -> list[Damage]:
    """Read the objects again, and note what was found of each."""
    now = datetime.now(UTC)
    whole: list[int] = []
    damaged: dict[_Row, str] = {}
    for row in rows:
        try:
            digest = access.objects.digest(row.key)
            settled = access.objects.settled(row.key)
        except ObjectNotFound:
            damaged[row] = "missing"
            continue
        if digest != row.digest:
            damaged[row] = "not the bytes that were received"
        elif settled:  # what is still on its way is read again where it will stay
            whole.append(row.id)

    def unit(session: Session) -> None:
        session.execute(update(Instance).where(Instance.id.in_(whole)).values(verified=now))
        table = records.Damage
        session.execute(delete(table).where(table.instance_id.in_(whole)))
        for row, what in list(damaged.items()):
            if session.get(Instance, row.id) is None:
                del damaged[row]  # it was deleted meanwhile, as somebody wanted
                continue
            known = session.get(table, row.id)
            if known is None:
                session.add(table(instance_id=row.id, key=row.key, what=what, found=now))
            else:
                known.what = what
            access.note(
                Action.VERIFY,
                outcome=Outcome.FAILED,
                reason=f"damaged: {what}",
                detail={"instance": row.uid, "digest": row.digest},
            )

    if whole or damaged:
        access.write(unit)
    return [Damage(row.key, what, now) for row, what in damaged.items()]


def _begun(access: Access) -> Callable[[Session], int]:
    def unit(session: Session) -> int:
        made = Scrub(begun=access.now)
        session.add(made)
        session.flush()
        access.note(Action.VERIFY, reason="walk begun", detail={"scrub": made.id})
        return made.id

    return unit


def _advance(
    access: Access, number: int, position: int, read: int, damaged: int, *, finished: bool
) -> None:
    def unit(session: Session) -> None:
        walk = session.get_one(Scrub, number)
        walk.position, walk.read, walk.damaged = position, walk.read + read, walk.damaged + damaged
        if finished:
            walk.finished = datetime.now(UTC)
            detail = {"scrub": number, "read": walk.read, "damaged": walk.damaged}
            access.note(Action.VERIFY, reason="walk finished", detail=detail)

    access.write(unit)
