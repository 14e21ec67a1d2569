"""Traffic: what hospitals sent on a day, and what was fetched of them and by them, hour by hour.

The worker counts the change feed and the audit trail into quarters of an hour; what came since is
counted when somebody looks, so that a day of half a million instances is a few rows, and exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, select
from sqlalchemy.orm import Session

from exchange import organizations
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import Refused
from exchange.policy import Action, Role
from exchange_storage.records import (
    AuditRecord,
    Change,
    Destroyed,
    Instance,
    Patient,
    Traffic,
    TrafficCounted,
)

BATCH = 20_000
"""Entries of the feed, and of the trail, that are counted in one step."""

LOOKED_AT = 5 * BATCH
"""Entries that are not counted yet and are looked at for a page, of each, at most: a worker that is
behind by more, as after an upgrade, tells of them later."""


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of a hospital's day."""

    hour: int
    """0 to 23, local time; a day without a change of clocks is meant."""
    received: int
    """Instances that came from the hospital."""
    size: int
    """Their bytes."""
    fetched: int
    """Retrievals by its own people and systems."""
    fetched_by_others: int
    """Retrievals of its patients' records by other hospitals'."""


@dataclass(frozen=True, slots=True)
class Grown:
    """What came on a day, from all hospitals."""

    day: date
    instances: int
    size: int
    """Bytes."""


@dataclass(slots=True)
class _Tally:
    received: int = 0
    size: int = 0
    fetched: int = 0
    fetched_by_others: int = 0

    def add(self, other: _Tally | Traffic) -> None:
        self.received += other.received
        self.size += other.size
        self.fetched += other.fetched
        self.fetched_by_others += other.fetched_by_others


_Tallies = Mapping[tuple[int, datetime], _Tally]
"""By hospital and quarter of an hour."""


def of_day(access: Access, day: date, code: str, *, timezone: ZoneInfo) -> tuple[Hour, ...]:
    """The 24 hours of a day of the hospital with this code. Raises Refused, NotFound."""
    access.require(Action.ADMINISTER, detail={"code": code})
    hospital = organizations.administered(access, code)
    midnight = datetime.combine(day, time(), timezone)
    ends = midnight + timedelta(hours=24)
    hours = [_Tally() for _ in range(24)]
    counted = access.session.scalars(
        select(Traffic).where(
            Traffic.organization_id == hospital.id,
            Traffic.begins >= midnight,
            Traffic.begins < ends,
        )
    )
    for one in counted:
        hours[(one.begins - midnight) // timedelta(hours=1)].add(one)
    for (organization, begins), tally in _since(access.session, midnight).items():
        if organization == hospital.id and midnight <= begins < ends:
            hours[(begins - midnight) // timedelta(hours=1)].add(tally)
    access.note(Action.ADMINISTER, reason="traffic looked at", detail={"code": code})
    return tuple(
        Hour(hour, one.received, one.size, one.fetched, one.fetched_by_others)
        for hour, one in enumerate(hours)
    )


def grown(session: Session, first: date, days: int, *, timezone: ZoneInfo) -> tuple[Grown, ...]:
    """What came from all hospitals on each of so many days; the caller has been permitted that."""
    found = {first + timedelta(days=ago): _Tally() for ago in range(days)}
    midnight = datetime.combine(first, time(), timezone)
    rows = session.execute(
        select(
            Traffic.begins,
            func.sum(Traffic.received).label("received"),
            func.sum(Traffic.size).label("size"),
        )
        .where(Traffic.begins >= midnight)
        .group_by(Traffic.begins)
    )
    came = [(row.begins, _Tally(int(row.received), int(row.size))) for row in rows]
    came += [(begins, tally) for (_, begins), tally in _since(session, midnight).items()]
    for begins, tally in came:
        if (one := found.get(begins.astimezone(timezone).date())) is not None:
            one.add(tally)
    return tuple(Grown(day, one.received, one.size) for day, one in found.items())


def count(access: Access) -> bool:
    """Count the next of what has come since; whether that was all. Raises Refused.

    Only the exchange itself counts.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself counts traffic")
    at = _counted(access.session)
    last_change = access.session.scalar(select(func.max(Change.sequence))) or 0
    last_record = access.session.scalar(select(func.max(AuditRecord.sequence))) or 0
    change, record = min(at[0] + BATCH, last_change), min(at[1] + BATCH, last_record)
    if (change, record) == at:
        return True
    tallies = _tallies(
        access.session,
        _came(Change.sequence > at[0], Change.sequence <= change),
        _fetched(AuditRecord.sequence > at[1], AuditRecord.sequence <= record),
    )

    def unit(session: Session) -> None:
        if _counted(session) != at:
            return  # another worker was quicker
        for (organization, begins), tally in tallies.items():
            held = session.get(Traffic, (organization, begins))
            if held is None:
                held = Traffic(organization_id=organization, begins=begins)
                session.add(held)
                session.flush()
            held.received += tally.received
            held.size += tally.size
            held.fetched += tally.fetched
            held.fetched_by_others += tally.fetched_by_others
        session.merge(TrafficCounted(id=1, change=change, record=record))

    access.write(unit)
    return (change, record) == (last_change, last_record)


def _counted(session: Session) -> tuple[int, int]:
    row = session.execute(select(TrafficCounted.change, TrafficCounted.record)).one_or_none()
    return (0, 0) if row is None else (row.change, row.record)


def _since(session: Session, midnight: datetime) -> _Tallies:
    """What of that day on is not counted yet: a minute's feed and trail, where a worker runs."""
    change, record = _counted(session)
    came = _came(Change.sequence > change, Change.recorded >= midnight)
    fetched = _fetched(AuditRecord.sequence > record, AuditRecord.recorded >= midnight)
    return _tallies(session, came.limit(LOOKED_AT), fetched.limit(LOOKED_AT))


def _tallies(
    session: Session,
    came: Select[*tuple[datetime, int | None, int]],
    fetched: Select[*tuple[datetime, int | None, int | None]],
) -> _Tallies:
    found: dict[tuple[int, datetime], _Tally] = defaultdict(_Tally)
    for at, organization, size in session.execute(came):
        if organization is None:
            continue
        tally = found[organization, _slot(at)]
        tally.received += 1
        tally.size += size
    for at, by, of in session.execute(fetched):
        if by is None:
            continue  # such as the exchange itself
        found[by, _slot(at)].fetched += 1
        if of is not None and of != by:
            found[of, _slot(at)].fetched_by_others += 1
    return found


def _came(*where: ColumnElement[bool]) -> Select[*tuple[datetime, int | None, int]]:
    """Of the change feed: when an instance came, from whom, and its bytes; of one that was deleted
    meanwhile nobody knows how many."""
    deleted = (
        select(Destroyed.organization_id)
        .where(
            Destroyed.sop_instance_uid == Change.sop_instance_uid,
            Destroyed.decided >= Change.recorded,
        )
        .order_by(Destroyed.id)
        .limit(1)
        .correlate(Change)
        .scalar_subquery()
    )
    sender = func.coalesce(Instance.organization_id, deleted)
    return (
        select(Change.recorded, sender, func.coalesce(Instance.size, 0))
        .outerjoin(
            Instance,
            and_(
                Instance.id == Change.instance_id,
                Instance.sop_instance_uid == Change.sop_instance_uid,
            ),
        )
        .where(Change.action.in_(("create", "conflict")), *where)
        .order_by(Change.sequence)
    )


def _fetched(*where: ColumnElement[bool]) -> Select[*tuple[datetime, int | None, int | None]]:
    """Of the trail: when something was fetched, by which hospital, and of which."""
    return (
        select(AuditRecord.recorded, AuditRecord.organization_id, Patient.organization_id)
        .outerjoin(Patient, Patient.id == AuditRecord.patient_id)
        .where(
            AuditRecord.action == Action.RETRIEVE,
            AuditRecord.outcome == literal_column(f"'{Outcome.SUCCESS}'"),
            *where,
        )
        .order_by(AuditRecord.sequence)
    )


def _slot(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
