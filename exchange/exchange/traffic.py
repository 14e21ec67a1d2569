"""Traffic: what a hospital sent on a day, and what was fetched of it and by it, hour by hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, case, func, select

from exchange import organizations
from exchange.access import Access
from exchange.audit import Outcome
from exchange.policy import Action
from exchange_storage.records import AuditRecord, Change, Instance, Patient


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


def of_day(access: Access, day: date, code: str, *, timezone: ZoneInfo) -> tuple[Hour, ...]:
    """The 24 hours of a day of the hospital with this code. Raises Refused, NotFound."""
    access.require(Action.ADMINISTER, detail={"code": code})
    hospital = organizations.administered(access, code)
    midnight = datetime.combine(day, time(), timezone)
    ends = [midnight + timedelta(hours=hour) for hour in range(25)]

    def within(column: ColumnElement[datetime], hour: int) -> ColumnElement[bool]:
        return and_(column >= ends[hour], column < ends[hour + 1])

    came = Change.__table__.c.recorded
    counts = access.session.execute(
        select(
            *(func.count().filter(within(came, hour)) for hour in range(24)),
            *(
                func.coalesce(func.sum(case((within(came, hour), Instance.size), else_=0)), 0)
                for hour in range(24)
            ),
        )
        .select_from(Change)
        .join(
            Instance,
            and_(
                Instance.id == Change.instance_id,
                Instance.sop_instance_uid == Change.sop_instance_uid,
            ),
        )
        .where(
            came >= ends[0],
            came < ends[24],
            Change.action.in_(("create", "conflict")),
            Instance.organization_id == hospital.id,
        )
    ).one()
    at = AuditRecord.__table__.c.recorded
    mine = AuditRecord.organization_id == hospital.id
    others = and_(~mine, Patient.organization_id == hospital.id)
    fetched = access.session.execute(
        select(
            *(func.count().filter(and_(mine, within(at, hour))) for hour in range(24)),
            *(func.count().filter(and_(others, within(at, hour))) for hour in range(24)),
        )
        .select_from(AuditRecord)
        .outerjoin(Patient, Patient.id == AuditRecord.patient_id)
        .where(
            at >= ends[0],
            at < ends[24],
            AuditRecord.action == Action.RETRIEVE,
            AuditRecord.outcome == Outcome.SUCCESS,
        )
    ).one()
    access.note(Action.ADMINISTER, reason="traffic looked at", detail={"code": code})
    return tuple(
        Hour(hour, counts[hour], int(counts[24 + hour]), fetched[hour], fetched[24 + hour])
        for hour in range(24)
    )
