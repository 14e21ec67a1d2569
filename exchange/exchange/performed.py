"""Performed procedure steps: what a hospital's modalities say that they did (PS3.4 annex F)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from exchange import orders
from exchange.access import Access
from exchange.errors import Invalid, NotFound, TooLarge
from exchange.policy import Action
from exchange_storage.records import ExpectedInstance, Order, PerformedStep

INSTANCES = 20_000
"""Instances that one step may announce."""


class Status(StrEnum):
    """Performed Procedure Step Status (PS3.3 C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.IN_PROGRESS: frozenset(Status),
    Status.COMPLETED: frozenset(),
    Status.DISCONTINUED: frozenset(),
}
"""Where each may go (PS3.4 F.7.2.2): what has ended is not changed any more."""

_ORDER: Mapping[Status, orders.Status] = {
    Status.IN_PROGRESS: orders.Status.IN_PROGRESS,
    Status.COMPLETED: orders.Status.COMPLETED,
    Status.DISCONTINUED: orders.Status.DISCONTINUED,
}


SERIES = "00400340"
"""Performed Series Sequence, as DICOM JSON names it."""

FINAL: Mapping[str, str] = {
    "PerformedProcedureStepEndDate": "00400250",
    "PerformedProcedureStepEndTime": "00400251",
    "PerformedSeriesSequence": SERIES,
}
"""What a step has when it has ended (final state in PS3.4 Table F.7.2-1), as tags."""


class Ended(Invalid):
    """The step has ended and may no longer be updated."""


class Incomplete(Invalid):
    """The step cannot be completed: no series of it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a modality tells of a step, as far as the exchange uses it."""

    status: Status
    study_instance_uid: str = ""
    accession_number: str = ""
    scheduled_procedure_step_id: str = ""
    station_ae_title: str = ""
    modality: str = ""
    started: str = ""
    ended: str = ""
    """YYYYMMDDHHMMSS, the modality's local time."""
    expected: tuple[tuple[str, str], ...] = ()
    """Series and SOP Instance UIDs of what it made."""


def begin(
    access: Access, sop_instance_uid: str, told: Told, content: Mapping[str, Any]
) -> int | None:
    """A step has begun; `content` is all of it as DICOM JSON. None when the UID is used already.

    The order that it performs, if one is found, is in progress from now on. Raises Refused,
    Invalid, TooLarge.
    """
    access.require(Action.PERFORM, study=told.study_instance_uid)
    if told.status is not Status.IN_PROGRESS:
        raise Invalid("a performed procedure step begins as IN PROGRESS")
    _check(told)

    def unit(session: Session) -> int | None:
        if _by_uid(access, session, sop_instance_uid) is not None:
            return None
        order = _order(access, session, told)
        step = PerformedStep(
            organization_id=access.organization,
            sop_instance_uid=sop_instance_uid,
            order_id=order.id if order is not None else None,
            study_instance_uid=told.study_instance_uid[:64],
            status=told.status,
            station_ae_title=told.station_ae_title[:255],
            modality=told.modality[:255],
            started=told.started[:255],
            ended=told.ended[:255],
            content=dict(content),
            created=access.now,
            changed=access.now,
        )
        session.add(step)
        session.flush()
        _expect(session, step.id, told.expected)
        if order is not None:
            _move(access, session, order, told.status)
        access.note(
            Action.PERFORM,
            reason="begun",
            patient=order.patient_id if order is not None else None,
            study=step.study_instance_uid,
            detail={"step": sop_instance_uid},
        )
        return step.id

    return access.write(unit)


def change(
    access: Access, sop_instance_uid: str, told: Told, content: Mapping[str, Any]
) -> list[str]:
    """More is known of a step: `content` replaces attribute by attribute; what is "" stays. Returns
    what of `FINAL` a step that has ended lacks: that it has ended is not lost for it.

    Raises Refused, NotFound, TooLarge, Ended, and Incomplete for a completed step of which neither
    this nor what came before told a series.
    """
    access.require(Action.PERFORM)
    _check(told)

    def unit(session: Session) -> list[str]:
        step = _by_uid(access, session, sop_instance_uid)
        if step is None:
            raise NotFound("no such performed procedure step")
        if told.status not in TRANSITIONS[Status(step.status)]:
            raise Ended("the performed procedure step has ended: it may no longer be updated")
        step.content = step.content | dict(content)
        lacking = []
        if not TRANSITIONS[told.status]:
            lacking = [
                keyword
                for keyword, tag in FINAL.items()
                if not step.content.get(tag, {}).get("Value")
            ]
        if told.status is Status.COMPLETED and "PerformedSeriesSequence" in lacking:
            raise Incomplete("PerformedSeriesSequence is missing")
        step.status = told.status
        step.ended = told.ended[:255] or step.ended
        step.changed = access.now
        if told.expected:
            session.execute(
                delete(ExpectedInstance).where(ExpectedInstance.performed_step_id == step.id)
            )
            _expect(session, step.id, told.expected)
        order = session.get(Order, step.order_id) if step.order_id is not None else None
        if order is not None:
            _move(access, session, order, told.status)
        session.flush()
        access.note(
            Action.PERFORM,
            reason=told.status.lower(),
            patient=order.patient_id if order is not None else None,
            study=step.study_instance_uid,
            detail={"step": sop_instance_uid, "instances": len(set(told.expected))}
            | ({"lacking": lacking} if lacking else {}),
        )
        return lacking

    return access.write(unit)


def content(access: Access, sop_instance_uid: str) -> Mapping[str, Any]:
    """All of a step of the asking hospital's, as DICOM JSON. Raises Refused, NotFound."""
    access.require(Action.PERFORM)
    step = _by_uid(access, access.session, sop_instance_uid)
    if step is None:
        raise NotFound("no such performed procedure step")
    order = access.session.get(Order, step.order_id) if step.order_id is not None else None
    access.note(
        Action.PERFORM,
        reason="read",
        patient=order.patient_id if order is not None else None,
        study=step.study_instance_uid,
    )
    return step.content


def _by_uid(access: Access, session: Session, uid: str) -> PerformedStep | None:
    return session.scalars(
        select(PerformedStep).where(
            PerformedStep.organization_id == access.organization,
            PerformedStep.sop_instance_uid == uid,
        )
    ).one_or_none()


def _order(access: Access, session: Session, told: Told) -> Order | None:
    """The order that is performed: by its step id, else the one order of the study or accession."""
    if told.scheduled_procedure_step_id:
        found = orders.by_step(session, access.organization, told.scheduled_procedure_step_id)
        if found is not None:
            return found
    for column, value in (
        (Order.study_instance_uid, told.study_instance_uid),
        (Order.accession_number, told.accession_number),
    ):
        if value:
            rows = session.scalars(
                select(Order)
                .where(Order.organization_id == access.organization, column == value)
                .limit(2)
            ).all()
            if len(rows) == 1:
                return rows[0]
    return None


def _move(access: Access, session: Session, order: Order, status: Status) -> None:
    """The order follows, as far as it can: what was performed is no less true for it."""
    to = _ORDER[status]
    if to in orders.TRANSITIONS[orders.Status(order.status)]:
        orders.move(access, session, order, to)


def _expect(session: Session, step: int, expected: Iterable[tuple[str, str]]) -> None:
    rows = {
        instance: {
            "performed_step_id": step,
            "sop_instance_uid": instance,
            "series_instance_uid": series,
        }
        for series, instance in expected
    }
    if rows:
        session.execute(insert(ExpectedInstance), list(rows.values()))


def _check(told: Told) -> None:
    if len(told.expected) > INSTANCES:
        raise TooLarge(f"a performed procedure step has at most {INSTANCES} instances")
    if any(not uid or len(uid) > 64 for pair in told.expected for uid in pair):
        raise Invalid("a referenced UID has 1 to 64 characters")
