"""The completeness ledger: what each hospital should have sent, against what came and is safe.

Expected is what performed procedure steps have announced, instance by instance; what was scheduled
and not begun; and what the hospital counts itself as sent. A day is the hospitals' local day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.errors import Invalid
from exchange.policy import Action, Role
from exchange_storage.records import (
    Change,
    ExpectedInstance,
    Instance,
    Order,
    Organization,
    PerformedStep,
    Tally,
)

DAYS = 366
"""Days that one question may span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One hospital's day."""

    organization: str
    day: str
    """YYYYMMDD."""
    scheduled: int
    """Orders of the day."""
    not_begun: int
    """Orders of the day for which no step was begun, and that were not cancelled."""
    expected: int
    """Instances that performed steps of the day have announced."""
    received: int
    """Those of them that have come."""
    committed: int
    """Those of them that were read back from where they will stay."""
    arrived: int
    """Instances that came on the day, announced or not."""
    counted: int | None
    """Instances that the hospital itself counts as sent; None when it did not say."""

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        short = self.counted is not None and self.counted > self.arrived
        return not self.not_begun and self.received == self.expected and not short


@dataclass(frozen=True, slots=True)
class Gap:
    """An instance that was announced and has not come."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    station_ae_title: str


def lines(
    access: Access,
    first: date,
    last: date,
    *,
    timezone: ZoneInfo,
    organization: str | None = None,
) -> Sequence[Line]:
    """The ledger from `first` to `last`, of one hospital or, for an administrator, of all.

    Raises Refused, and Invalid for more than `DAYS` days.
    """
    access.require(Action.PERFORM, detail={"code": organization})
    if not 0 <= (last - first).days < DAYS:
        raise Invalid(f"a ledger spans 1 to {DAYS} days")
    hospitals = _hospitals(access, organization)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    told = [_line(access.session, one, day, timezone) for one in hospitals for day in days]
    access.note(Action.PERFORM, reason="ledger", detail={"first": f"{first}", "last": f"{last}"})
    return told


def gaps(
    access: Access, day: date, *, organization: str | None = None, limit: int = 1000
) -> Sequence[tuple[str, Gap]]:
    """What was announced on the day and has not come, as (hospital's code, gap).

    Raises Refused.
    """
    access.require(Action.PERFORM, detail={"code": organization})
    found: list[tuple[str, Gap]] = []
    for one in _hospitals(access, organization):
        rows = access.session.execute(
            select(
                PerformedStep.study_instance_uid,
                ExpectedInstance.series_instance_uid,
                ExpectedInstance.sop_instance_uid,
                PerformedStep.station_ae_title,
            )
            .join(PerformedStep, PerformedStep.id == ExpectedInstance.performed_step_id)
            .outerjoin(Instance, _came())
            .where(*_performed(one.id, f"{day:%Y%m%d}"), Instance.id.is_(None))
            .order_by(PerformedStep.id, ExpectedInstance.sop_instance_uid)
            .limit(limit - len(found))
        )
        found += [(one.code, Gap(*row)) for row in rows]
        if len(found) >= limit:
            break
    access.note(Action.PERFORM, reason="ledger: gaps", detail={"day": f"{day}"})
    return found


def tell(
    access: Access,
    day: date,
    source: str,
    *,
    studies: int | None,
    instances: int | None,
    organization: str | None = None,
) -> None:
    """A hospital's own count of what `source` has sent on a day; told again, it is replaced.

    Raises Refused, Invalid.
    """
    access.require(Action.PERFORM, detail={"code": organization})
    if not source.strip() or len(source) > 64:
        raise Invalid("a source has 1 to 64 characters")
    if any(count is not None and not 0 <= count < 2**31 for count in (studies, instances)):
        raise Invalid("a count is a number from 0 on")
    (hospital,) = _hospitals(access, organization)

    def unit(session: Session) -> None:
        session.merge(
            Tally(
                organization_id=hospital.id,
                day=f"{day:%Y%m%d}",
                source=source,
                studies=studies,
                instances=instances,
                told=access.now,
            )
        )
        access.note(
            Action.PERFORM, reason="counts told", detail={"day": f"{day}", "source": source}
        )

    access.write(unit)


def _hospitals(access: Access, code: str | None) -> Sequence[Organization]:
    wanted = select(Organization).order_by(Organization.code)
    if access.requester.role is not Role.ADMINISTRATOR:
        wanted = wanted.where(Organization.id == access.organization)
    if code is not None:
        wanted = wanted.where(Organization.code == code)
    found = access.session.scalars(wanted).all()
    if code is not None and not found:
        raise Invalid("no organization of yours has this code")
    return found


def _performed(organization: int, day: str) -> tuple[ColumnElement[bool], ...]:
    return (
        PerformedStep.organization_id == organization,
        PerformedStep.started >= day,
        PerformedStep.started < day + "~",
    )


def _came() -> ColumnElement[bool]:
    return and_(
        Instance.sop_instance_uid == ExpectedInstance.sop_instance_uid,
        Instance.organization_id == PerformedStep.organization_id,
    )


def _line(session: Session, hospital: Organization, day: date, timezone: ZoneInfo) -> Line:
    written = f"{day:%Y%m%d}"
    statuses = dict(
        session.execute(
            select(Order.status, func.count())
            .where(Order.organization_id == hospital.id, Order.scheduled_date == written)
            .group_by(Order.status)
        ).all()
    )
    expected, received, committed = session.execute(
        select(
            func.count(ExpectedInstance.sop_instance_uid.distinct()),
            func.count(Instance.sop_instance_uid.distinct()),
            func.count(Instance.sop_instance_uid.distinct()).filter(Instance.verified.is_not(None)),
        )
        .select_from(ExpectedInstance)
        .join(PerformedStep, PerformedStep.id == ExpectedInstance.performed_step_id)
        .outerjoin(Instance, _came())
        .where(*_performed(hospital.id, written))
    ).one()
    since = datetime.combine(day, time(), timezone)
    arrived = session.scalar(
        select(func.count())
        .select_from(Change)
        .join(Instance, Instance.id == Change.instance_id)
        .where(
            Change.recorded >= since,
            Change.recorded < datetime.combine(day + timedelta(days=1), time(), timezone),
            Change.action.in_(("create", "conflict")),
            Instance.organization_id == hospital.id,
        )
    )
    counted = session.scalar(
        select(func.sum(Tally.instances)).where(
            Tally.organization_id == hospital.id, Tally.day == written
        )
    )
    return Line(
        organization=hospital.code,
        day=written,
        scheduled=sum(statuses.values()) - statuses.get("CANCELED", 0),
        not_begun=statuses.get("SCHEDULED", 0),
        expected=expected,
        received=received,
        committed=committed,
        arrived=arrived or 0,
        counted=int(counted) if counted is not None else None,
    )
