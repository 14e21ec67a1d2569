"""The completeness ledger: what each hospital should have sent, against what came and is safe.

Expected is what performed procedure steps have announced, instance by instance; what was scheduled
and not begun; and what the hospital counts itself as sent. A day is the hospitals' local day. What
was deleted by rule has come all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from itertools import chain, islice
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action, Role
from exchange_storage.records import (
    Change,
    Destroyed,
    ExpectedInstance,
    Instance,
    Order,
    Organization,
    Patient,
    PerformedStep,
    Study,
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
    """Orders of the day for which no step was begun, of whose study nothing came, and that were not
    cancelled."""
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
    arrived_studies: int
    """Studies of which something came on the day."""
    counted_studies: int | None
    """Studies that the hospital itself counts as sent; None when it did not say."""

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self.not_begun and self.received == self.expected and not self.short

    @property
    def short(self) -> bool:
        """Whether less came than the hospital counts."""
        return self.arrived < (self.counted or 0) or self.arrived_studies < (
            self.counted_studies or 0
        )


class Missing(StrEnum):
    """What is missing of something."""

    BEGINNING = "not begun"
    """It was ordered, and nothing is known of it."""
    INSTANCE = "not received"
    """A step has announced it."""
    VERIFICATION = "not committed"
    """It came, and was not yet read back from where it will stay."""
    COUNT = "fewer than counted"
    """Less came than the hospital counts as sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that should be there and is not: what is not known of it is ""."""

    missing: Missing
    accession_number: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    station_ae_title: str = ""
    counts: str = ""
    """What came and what was counted, in numbers."""


def lines(
    access: Access,
    first: date,
    last: date,
    *,
    timezone: tzinfo,
    organization: str | None = None,
) -> Sequence[Line]:
    """The ledger from `first` to `last`, of one hospital or, for an administrator, of all.

    Raises Refused, NotFound, and Invalid for more than `DAYS` days.
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
    access: Access,
    day: date,
    *,
    timezone: ZoneInfo,
    organization: str | None = None,
    limit: int = 1000,
    missing: bool = False,
) -> Sequence[tuple[str, Gap]]:
    """What should have come on the day, and has not or is not safe yet, as (hospital's code, gap).

    What has come and is not safe yet stands last, and with `missing` not at all.

    Raises Refused, Invalid.
    """
    access.require(Action.PERFORM, detail={"code": organization})
    found: list[tuple[str, Gap]] = []
    for one in _hospitals(access, organization):
        told = chain(
            _without_beginning(access.session, one, f"{day:%Y%m%d}"),
            _without_instance(access.session, one, f"{day:%Y%m%d}"),
            _short_of_counts(_line(access.session, one, day, timezone)),
            () if missing else _without_instance(access.session, one, f"{day:%Y%m%d}", come=True),
        )
        found += [(one.code, gap) for gap in islice(told, limit - len(found))]
        if len(found) >= limit:
            break
    access.note(Action.PERFORM, reason="ledger: gaps", detail={"day": f"{day}"})
    return found


def _without_beginning(session: Session, hospital: Organization, day: str) -> Iterator[Gap]:
    rows = session.scalars(
        select(Order)
        .where(Order.organization_id == hospital.id, Order.scheduled_date == day, _not_begun())
        .order_by(Order.scheduled_time, Order.id)
    )
    for order in rows:
        yield Gap(
            missing=Missing.BEGINNING,
            accession_number=order.accession_number,
            study_instance_uid=order.study_instance_uid,
            station_ae_title=order.station_ae_title,
        )


def _without_instance(
    session: Session, hospital: Organization, day: str, *, come: bool = False
) -> Iterator[Gap]:
    """Announced, and not received; or with `come` received, and not verified."""
    announced = (
        PerformedStep.id,
        PerformedStep.study_instance_uid,
        PerformedStep.station_ae_title,
        ExpectedInstance.series_instance_uid,
        ExpectedInstance.sop_instance_uid,
    )
    received = func.count(Instance.id)
    unverified = and_(received > 0, func.max(Instance.verified).is_(None))
    rows = session.execute(
        select(*announced)
        .select_from(ExpectedInstance)
        .join(PerformedStep, PerformedStep.id == ExpectedInstance.performed_step_id)
        .outerjoin(Instance, _came())
        .where(*_performed(hospital.id, day), ~_destroyed())
        .group_by(*announced)
        .having(unverified if come else received == 0)
        .order_by(PerformedStep.id, ExpectedInstance.sop_instance_uid)
    )
    for _, study, station, series, instance in rows:
        yield Gap(
            missing=Missing.VERIFICATION if come else Missing.INSTANCE,
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid=instance,
            station_ae_title=station,
        )


def _short_of_counts(line: Line) -> Iterator[Gap]:
    for arrived, counted, of in (
        (line.arrived_studies, line.counted_studies, "studies"),
        (line.arrived, line.counted, "instances"),
    ):
        if counted is not None and arrived < counted:
            yield Gap(missing=Missing.COUNT, counts=f"{of}: {arrived} of {counted}")


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

    Raises Refused, NotFound, Invalid.
    """
    access.require(Action.PERFORM, detail={"code": organization})
    if not source.strip() or len(source) > 64:
        raise Invalid("a source has 1 to 64 characters")
    if any(count is not None and not 0 <= count < 2**31 for count in (studies, instances)):
        raise Invalid("a count is a number from 0 on")
    hospital, *others = _hospitals(access, organization)
    if others:
        raise Invalid("whose count is it? name one organization")
    if studies is None and instances is None:
        raise Invalid("a count of studies, of instances, or of both")

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
    region = access.requester.role is Role.ADMINISTRATOR and access.requester.organization is None
    if not region:
        wanted = wanted.where(Organization.id == access.organization)
    if code is not None:
        wanted = wanted.where(Organization.code == code)
    found = access.session.scalars(wanted).all()
    if code is not None and not found:
        raise NotFound(
            "no organization of yours has this code; `exchange organization list` shows them"
        )
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


def _destroyed() -> ColumnElement[bool]:
    """Whether an announced instance came, and was deleted since."""
    return exists(
        select(Destroyed.id).where(
            Destroyed.sop_instance_uid == ExpectedInstance.sop_instance_uid,
            Destroyed.organization_id == PerformedStep.organization_id,
        )
    )


def _not_begun() -> ColumnElement[bool]:
    """Whether nobody has said that an order was begun, and nothing of its study came.

    A modality that speaks no MPPS leaves its orders as they were scheduled.
    """
    return and_(
        Order.status == "SCHEDULED",
        ~exists(
            select(Study.id)
            .join(Patient, Patient.id == Study.patient_id)
            .where(
                Patient.organization_id == Order.organization_id,
                or_(
                    Study.study_instance_uid == Order.study_instance_uid,
                    Study.accession_number == Order.accession_number,
                ),
            )
            .correlate(Order)
        ),
    )


def _line(session: Session, hospital: Organization, day: date, timezone: tzinfo) -> Line:
    written = f"{day:%Y%m%d}"
    scheduled, not_begun = session.execute(
        select(func.count().filter(Order.status != "CANCELED"), func.count().filter(_not_begun()))
        .select_from(Order)
        .where(Order.organization_id == hospital.id, Order.scheduled_date == written)
    ).one()
    announced = ExpectedInstance.sop_instance_uid.distinct()
    expected, received, committed = session.execute(
        select(
            func.count(announced),
            func.count(announced).filter(or_(Instance.id.is_not(None), _destroyed())),
            func.count(announced).filter(or_(Instance.verified.is_not(None), _destroyed())),
        )
        .select_from(ExpectedInstance)
        .join(PerformedStep, PerformedStep.id == ExpectedInstance.performed_step_id)
        .outerjoin(Instance, _came())
        .where(*_performed(hospital.id, written))
    ).one()
    arrived, studies = session.execute(
        select(func.count(), func.count(Change.study_instance_uid.distinct())).where(
            Change.recorded >= datetime.combine(day, time(), timezone),
            Change.recorded < datetime.combine(day + timedelta(days=1), time(), timezone),
            Change.action.in_(("create", "conflict")),
            or_(
                exists(
                    select(Instance.id).where(
                        Instance.id == Change.instance_id,
                        # SQLite gives the number of a row that is gone to another one.
                        Instance.sop_instance_uid == Change.sop_instance_uid,
                        Instance.organization_id == hospital.id,
                    )
                ),
                exists(
                    select(Destroyed.id).where(
                        Destroyed.sop_instance_uid == Change.sop_instance_uid,
                        Destroyed.organization_id == hospital.id,
                    )
                ),
            ),
        )
    ).one()
    counted, counted_studies = session.execute(
        select(func.sum(Tally.instances), func.sum(Tally.studies)).where(
            Tally.organization_id == hospital.id, Tally.day == written
        )
    ).one()
    return Line(
        organization=hospital.code,
        day=written,
        scheduled=scheduled,
        not_begun=not_begun,
        expected=expected,
        received=received,
        committed=committed,
        arrived=arrived,
        counted=int(counted) if counted is not None else None,
        arrived_studies=studies,
        counted_studies=int(counted_studies) if counted_studies is not None else None,
    )
