"""Scrubbing: what is kept is read again, before somebody needs it, and must have its digest.

Images are read first, then what is attached to clinical resources.

A walk through all that is kept is durable (`Scrub`): whoever goes on with it begins where it
stopped. What is damaged is on a list (`Damage`) until it is found whole. An object that cannot be
read while others can is damaged; where none can be, the walk stops, and goes on another time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from exchange import attachments, destruction, settling, subject
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange.settling import SETTLING
from exchange_storage import records
from exchange_storage.objects import ObjectNotFound, StoreUnavailable
from exchange_storage.records import (
    Attached,
    Conflict,
    Instance,
    Resource,
    Scrub,
    Series,
    Study,
)

log = logging.getLogger(__name__)

BATCH = 50
"""Objects that are read between two commits."""

OTHERS = 3
"""Objects that are tried, at most, before it is taken for the store that does not answer."""

UNREADABLE = "cannot be read"

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
    that a scrub that was interrupted goes on where it stopped. What is not there and may still be
    on its way (`settling`) is left for later. Raises Refused, Unavailable.
    """
    access.require(Action.VERIFY)
    done = damaged = 0
    for kept in _KEPT:
        last, due = 0, kept.due(before)
        while done < limit and (rows := _rows(access, kept, last, due, min(BATCH, limit - done))):
            last, done = rows[-1].id, done + len(rows)
            found = _read(access, kept, rows)
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

    Reads what was not verified for so many `days`, what was never verified once it has settled,
    and what is on the list of what is damaged: it may be whole again. Raises Refused, Unavailable.
    """
    access.require(Action.VERIFY)
    now = access.now
    with access.exchange.database.reading() as session:
        last = session.scalars(select(Scrub).order_by(Scrub.id.desc()).limit(1)).first()
    if last is not None and last.finished is not None and last.begun + BETWEEN > now:
        return Walked(last.begun + BETWEEN)
    number = last.id if last is not None and last.finished is None else access.write(_begun(access))
    with access.exchange.database.reading() as session:
        standing = session.get_one(Scrub, number)
        positions = {kept.position: getattr(standing, kept.position) for kept in _KEPT}
    damaged = 0
    for kept in _KEPT:
        position, due = positions[kept.position], kept.due(now - timedelta(days=days), settled=now)
        while datetime.now(UTC) < until:
            rows = _rows(access, kept, position, due, BATCH)
            if not rows:
                break
            found = _read(access, kept, rows)
            position, damaged = rows[-1].id, damaged + len(found)
            _advance(access, number, kept, position, len(rows), len(found))
        else:
            return Walked(datetime.now(UTC), damaged)
    _finish(access, number)
    return Walked(datetime.now(UTC), damaged)


def damages(access: Access, limit: int = 1000) -> Sequence[Damage]:
    """What is known to be damaged, the oldest first. Raises Refused."""
    access.require_region()
    access.note(Action.ADMINISTER, reason="damages listed")
    found: list[Damage] = []
    for kept in _KEPT:
        table = kept.damage
        rows = access.session.scalars(select(table).order_by(table.found).limit(limit))
        found += [Damage(one.key, one.what, one.found) for one in rows]
    return sorted(found, key=lambda one: one.found)[:limit]


def discard(access: Access, key: str) -> None:
    """Nobody has the bytes of this damaged object any more, and it is not in use: its row goes now,
    what is left of it by a job. What is in use is its hospital's to send again, or to reject.

    Raises Refused, NotFound, Invalid, also while the study is under a legal hold.
    """
    access.require_region(detail={"key": key})

    def unit(session: Session) -> None:
        row = session.execute(
            select(Instance, Series.series_instance_uid, Study.study_instance_uid, Conflict.claimed)
            .join(records.Damage, records.Damage.instance_id == Instance.id)
            .outerjoin(Series, Series.id == Instance.series_id)
            .outerjoin(Study, Study.id == Series.study_id)
            .outerjoin(Conflict, Conflict.instance_id == Instance.id)
            .where(Instance.key == key)
            .with_for_update(of=Instance)
        ).one_or_none()
        if row is None:
            raise NotFound("no image of this key is known to be damaged; `exchange scrub --list`")
        instance, series, study, claimed = row
        if instance.is_primary:
            raise Invalid("it is in use: its hospital sends it again, or it is rejected")
        study = study or str(claimed["StudyInstanceUID"])[:64]
        series = series or str(claimed["SeriesInstanceUID"])[:64]
        destruction.require_no_hold(session, study)
        access.note(
            Action.ADMINISTER,
            reason="damaged object discarded",
            **subject.of_instance(session, instance.id),
            detail={"instance": instance.sop_instance_uid, "digest": instance.digest},
        )
        destruction.destroy(
            session, study, [(instance, series)], reason="damaged, discarded", at=access.now
        )

    access.write(unit)


def known_damages(access: Access) -> int:
    """How much is known to be damaged. Raises Refused."""
    access.require(Action.VERIFY)
    counts = (select(func.count()).select_from(kept.damage) for kept in _KEPT)
    return sum(access.session.scalar(one) or 0 for one in counts)


def walks(access: Access, limit: int = 10) -> Sequence[Scrub]:
    """The last walks, the newest first. Raises Refused."""
    access.require_region()
    access.note(Action.ADMINISTER, reason="scrubs listed")
    return access.session.scalars(select(Scrub).order_by(Scrub.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class _Kept:
    """Rows that name objects, and where it is noted what was found of those."""

    record: Any
    """`Instance` or `Attached`."""
    damage: Any
    """The record of what is damaged of those."""
    of: str
    """The column of `damage` that says which row it is of."""
    position: str
    """The column of `Scrub` that says how far a walk is."""

    def due(self, before: datetime, settled: datetime | None = None) -> ColumnElement[bool]:
        """Which rows are to be read: those not verified since `before`; of those that were never
        verified, by the moment `settled` only what has settled."""
        never: ColumnElement[bool] = self.record.verified.is_(None)
        if settled is not None and self.record is Instance:
            never = and_(never, Instance.received < settled - SETTLING)
        damaged = self.record.id.in_(select(getattr(self.damage, self.of)))
        return or_(self.record.verified < before, never, damaged)


_INSTANCES = _Kept(Instance, records.Damage, "instance_id", "position")
_ATTACHED = _Kept(Attached, records.AttachedDamage, "attached_id", "attached_position")
_KEPT = (_INSTANCES, _ATTACHED)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    key: str
    digest: str
    received: datetime
    told: Mapping[str, Any]
    """What the trail says of it."""


def _rows(
    access: Access, kept: _Kept, last: int, due: ColumnElement[bool], count: int
) -> list[_Row]:
    # In transactions of its own: reading takes hours, an open one keeps both databases from
    # clearing away what is outdated, and PostgreSQL ends one in which nothing is asked for 30 s.
    record = kept.record
    wanted = select(record).where(record.id > last, due).order_by(record.id).limit(count)
    with access.exchange.database.reading() as session:
        rows = session.scalars(wanted).all()
        return [_row(session, one) for one in rows]


def _row(session: Session, row: Instance | Attached) -> _Row:
    told: dict[str, Any]
    if isinstance(row, Instance):
        told, received = {"instance": row.sop_instance_uid}, row.received
    else:
        of = session.get_one(Resource, row.resource_id)
        told = {"what": f"{of.kind}/{of.logical_id}", "version": row.version}
        received = attachments.recorded(session, row.id)
    return _Row(row.id, row.key, row.digest, received, told | {"digest": row.digest})


def _about(session: Session, kept: _Kept, row: _Row) -> Mapping[str, Any]:
    """Whose what is damaged is, for the trail."""
    if kept is _INSTANCES:
        return subject.of_instance(session, row.id)
    of = session.get_one(Resource, session.get_one(Attached, row.id).resource_id)
    return {"patient": of.patient_id}


def _read(access: Access, kept: _Kept, rows: Sequence[_Row]) -> list[Damage]:
    """Read the objects again, and note what was found of each."""
    now = datetime.now(UTC)
    whole: list[int] = []
    damaged: dict[int, tuple[_Row, str]] = {}
    for row in rows:
        try:
            digest = access.objects.digest(row.key)
            settled = access.objects.settled(row.key)
        except ObjectNotFound:
            if not settling.may_come(access.objects, row.received):
                damaged[row.id] = row, "missing"
            continue
        except StoreUnavailable as error:
            if not unreadable(access, row.key):
                raise
            log.warning("an object cannot be read: %s", error)
            damaged[row.id] = row, UNREADABLE
            continue
        if digest != row.digest:
            damaged[row.id] = row, "not the bytes that were received"
        elif settled:  # what is still on its way is read again where it will stay
            whole.append(row.id)

    def unit(session: Session) -> None:
        record, table = kept.record, kept.damage
        _note_whole(session, kept, whole, now)
        for row, what in list(damaged.values()):
            if session.get(record, row.id) is None:
                del damaged[row.id]  # it was deleted meanwhile, as somebody wanted
                continue
            known = session.get(table, row.id)
            if known is None:
                session.add(table(**{kept.of: row.id}, key=row.key, what=what, found=now))
            else:
                known.what = what
            access.note(
                Action.VERIFY,
                outcome=Outcome.FAILED,
                reason=f"damaged: {what}",
                **_about(session, kept, row),
                detail=row.told,
            )

    if whole or damaged:
        access.write(unit)
    return [Damage(row.key, what, now) for row, what in damaged.values()]


def unreadable(access: Access, key: str) -> bool:
    """Whether it is this object that cannot be read, as where it lies on a bad sector, and not the
    store that does not answer: another, that lies where it will stay, can be read, and this one
    still cannot. What waits on this machine tells nothing of a store elsewhere."""
    others = (
        select(Instance.key)
        .where(Instance.key != key, Instance.id.not_in(select(records.Damage.instance_id)))
        .order_by(Instance.verified.desc().nulls_last(), Instance.id.desc())
        .limit(OTHERS)
    )
    with access.exchange.database.reading() as session:
        found = session.scalars(others).all()
    return any(_is_read(access, one, settled=True) for one in found) and not _is_read(access, key)


def _is_read(access: Access, key: str, *, settled: bool = False) -> bool:
    with suppress(ObjectNotFound, StoreUnavailable):
        access.objects.digest(key)
        return not settled or access.objects.settled(key)
    return False


def note_whole(session: Session, instances: Sequence[int], now: datetime) -> None:
    """Instances, by row numbers, were read back from where they stay, and had their digests."""
    _note_whole(session, _INSTANCES, instances, now)


def _note_whole(session: Session, kept: _Kept, rows: Sequence[int], now: datetime) -> None:
    record, table = kept.record, kept.damage
    session.execute(update(record).where(record.id.in_(rows)).values(verified=now))
    session.execute(delete(table).where(getattr(table, kept.of).in_(rows)))


def _begun(access: Access) -> Callable[[Session], int]:
    def unit(session: Session) -> int:
        made = Scrub(begun=access.now)
        session.add(made)
        session.flush()
        access.note(Action.VERIFY, reason="walk begun", detail={"scrub": made.id})
        return made.id

    return unit


def _advance(
    access: Access, number: int, kept: _Kept, position: int, read: int, damaged: int
) -> None:
    def unit(session: Session) -> None:
        walk = session.get_one(Scrub, number)
        setattr(walk, kept.position, position)
        walk.read, walk.damaged = walk.read + read, walk.damaged + damaged

    access.write(unit)


def _finish(access: Access, number: int) -> None:
    def unit(session: Session) -> None:
        walk = session.get_one(Scrub, number)
        walk.finished = datetime.now(UTC)
        detail = {"scrub": number, "read": walk.read, "damaged": walk.damaged}
        access.note(Action.VERIFY, reason="walk finished", detail=detail)

    access.write(unit)
