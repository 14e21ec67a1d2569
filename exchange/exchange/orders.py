"""Imaging orders: what a hospital has scheduled, for whom, and where it stands.

The nouns are those of the Modality Worklist (PS3.4 annex K) and of a FHIR ServiceRequest. An order
is of the hospital that performs it, for a patient of its own: its worklist is nobody else's, and a
timeline tells of an order to whoever may see the patient record.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, select, union, update
from sqlalchemy.orm import Session

from exchange import demographics, discrepancies, jobs, order_codes, own_numbers, places
from exchange.access import Access
from exchange.errors import Invalid, NotFound, TooBroad
from exchange.ingest import Received
from exchange.policy import Action, Role
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import Order, Organization, Patient, Study
from exchange_storage.rows import as_list, one_of
from exchange_storage.search import Criterion, Matching, Range


class Status(StrEnum):
    """Where an order stands (Scheduled Procedure Step Status, FHIR request status)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELED = "CANCELED"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.IN_PROGRESS, Status.COMPLETED, Status.CANCELED}),
    Status.IN_PROGRESS: frozenset({Status.COMPLETED, Status.DISCONTINUED}),
    Status.COMPLETED: frozenset(),
    Status.DISCONTINUED: frozenset({Status.IN_PROGRESS}),
    Status.CANCELED: frozenset({Status.SCHEDULED}),
}
"""Where each may go; a discontinued one may be begun again, a canceled one asked for again."""

PRIORITIES = ("STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW")
"""Requested Procedure Priority (PS3.3 C.4.11)."""

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An order as it is placed. Text is at most 64 characters, dates YYYYMMDD, times HHMMSS."""

    patient_id: str
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    identifiers: tuple[tuple[str, str], ...] = ()
    """Other numbers of the patient, as (issuer or "", value)."""
    accession_number: str
    scheduled_procedure_step_id: str = ""
    """The accession number where there is none."""
    requested_procedure_id: str = ""
    study_instance_uid: str = ""
    """A new one where there is none."""
    modality: str
    body_part_examined: str = ""
    procedure_description: str = ""
    station_ae_title: str = ""
    station_name: str = ""
    scheduled_date: str
    scheduled_time: str = ""
    performing_physician_name: str = ""
    referring_physician_name: str = ""
    requesting_physician_name: str = ""
    priority: str = "ROUTINE"
    reason: str = ""


_OF_PATIENT = frozenset(
    {"patient_id", "patient_name", "patient_birth_date", "patient_sex", "identifiers"}
)


def place(access: Access, placed: Placed, *, organization: str | None = None) -> Order:
    """Place an order at the asker's own hospital, or at the one with this code; or change it.

    The same step (by its Scheduled Procedure Step ID) is changed while it is scheduled. The
    patient's record is found by number, or made. Raises Refused, Invalid.
    """
    access.require(Action.ORDER, detail={"accession": placed.accession_number})
    step = placed.scheduled_procedure_step_id or placed.accession_number
    _check(placed)

    def unit(session: Session) -> Order:
        owner = _organization(access, session, organization)
        patient = _patient(access, session, owner, placed)
        known = session.scalars(
            select(Order).where(
                Order.organization_id == owner, Order.scheduled_procedure_step_id == step
            )
        ).one_or_none()
        told = {
            one.name: getattr(placed, one.name)
            for one in fields(placed)
            if one.name not in _OF_PATIENT
        } | {"scheduled_procedure_step_id": step}
        others = session.scalars(
            select(Order).where(
                Order.organization_id == owner, Order.accession_number == placed.accession_number
            )
        ).all()
        for other in others:
            if not discrepancies.are_one(session, other.patient_id, patient):
                raise Invalid("the accession number is that of another patient's order")
        shared = known or next(iter(others), None)
        told["study_instance_uid"] = (
            placed.study_instance_uid or (shared.study_instance_uid if shared else "") or new_uid()
        )
        told["requested_procedure_id"] = placed.requested_procedure_id or placed.accession_number
        if known is None:
            known = Order(
                organization_id=owner,
                patient_id=patient,
                status=Status.SCHEDULED,
                placed=access.now,
                changed=access.now,
                **told,
            )
            session.add(known)
        elif known.status != Status.SCHEDULED:
            raise Invalid(f"the order is {known.status.lower()} and cannot be changed")
        else:
            if known.procedure_description != placed.procedure_description:
                order_codes.keep(session, known.id, {})  # they are those of another procedure
            for name, value in told.items():
                setattr(known, name, value)
            known.changed = access.now
        session.flush()
        know_staff(session, known)
        jobs.ask(session, jobs.PRIORS, str(known.id), access.now)
        tell(session, known, access.now)
        access.note(
            Action.ORDER,
            reason="placed",
            patient=patient,
            study=known.study_instance_uid,
            detail={"order": known.id},
        )
        return known

    return access.write(unit)


def know_staff(session: Session, order: Order) -> None:
    """Have the order found by its persons, in the transaction of `session` that wrote it."""
    told = [getattr(order, column.key) for column in _STAFF]
    demographics.know_persons(session, told)


def cancel(access: Access, step: str, *, organization: str | None = None) -> None:
    """Cancel an order that was not begun. Raises Refused, NotFound, Invalid."""
    access.require(Action.ORDER, detail={"step": step})

    def unit(session: Session) -> None:
        owner = _organization(access, session, organization)
        order = by_step(session, owner, step)
        if order is None:
            raise NotFound("this hospital has no such order; `exchange order list` shows them")
        move(access, session, order, Status.CANCELED)

    access.write(unit)


def move(access: Access, session: Session, order: Order, to: Status) -> None:
    """Move an order on, in the transaction of `session`. Raises Invalid when it cannot go there."""
    if to == order.status:
        return
    if to not in TRANSITIONS[Status(order.status)]:
        raise Invalid(f"an order that is {order.status.lower()} cannot become {to.lower()}")
    session.execute(update(Order).where(Order.id == order.id).values(status=to, changed=access.now))
    jobs.ask(session, jobs.REQUEST, str(order.id), access.now)
    access.note(
        Action.ORDER,
        reason=to.lower(),
        patient=order.patient_id,
        study=order.study_instance_uid,
        detail={"order": order.id},
    )


def tell(session: Session, order: Order, now: datetime) -> None:
    """Have it told in FHIR where the order stands, and the studies that came of it say so."""
    jobs.ask(session, jobs.REQUEST, str(order.id), now)
    found = select(Study.id).where(Study.id.in_(_studies(order)))
    for study in session.scalars(found).all():
        jobs.ask(session, jobs.REFRESH, str(study), now)
    session.execute(
        update(Study)
        .where(Study.id.in_(_studies(order)))
        .values(revision=Study.revision + 1, changed=now)
    )


def _studies(order: Order) -> CompoundSelect[tuple[int]]:
    """The rows of the studies that an order has led to."""
    by_uid = (
        select(Study.id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(
            Study.study_instance_uid == order.study_instance_uid,
            Patient.organization_id == order.organization_id,
        )
    )
    by_number = select(Study.id).where(
        Study.patient_id == order.patient_id, Study.accession_number == order.accession_number
    )
    return union(by_uid, by_number)


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """The order that has led to a study: its ServiceRequest, and its accession number."""

    request: str
    accession_number: str


def of_studies(access: Access, studies: Collection[int]) -> Mapping[int, tuple[Fulfilled, ...]]:
    """The orders that have led to studies, by the studies' row numbers.

    It is for the caller to have been permitted the studies.
    """
    told: dict[int, dict[str, Fulfilled]] = {}
    if studies:
        rows = _FULFILLED.all(access.session.connection(), {"wanted": as_list(studies)})
        for row in sorted(rows, key=lambda one: one.of):
            found = Fulfilled(row.request, row.accession_number)
            told.setdefault(row.id, {})[row.request] = found
    return {study: tuple(found.values()) for study, found in told.items()}


def _fulfilled(dialect: str) -> CompoundSelect[tuple[int, int, str, str]]:
    columns = (Study.id, Order.id.label("of"), Order.request, Order.accession_number)
    wanted = (
        one_of(Study.id, "wanted", dialect),
        Order.status != Status.CANCELED,
        Order.request != "",
    )
    by_uid = (
        select(*columns)
        .join(Order, Order.study_instance_uid == Study.study_instance_uid)
        .join(Patient, Patient.id == Study.patient_id)
        .where(*wanted, Patient.organization_id == Order.organization_id)
    )
    by_number = (
        select(*columns)
        .join(Order, Order.accession_number == Study.accession_number)
        .where(*wanted, Order.patient_id == Study.patient_id)
    )
    return union(by_uid, by_number)


_FULFILLED = Prepared(_fulfilled)


def new_uid() -> str:
    """A UID that nothing has yet (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def by_step(session: Session, organization: int, step: str) -> Order | None:
    """The hospital's order with this Scheduled Procedure Step ID."""
    return session.scalars(
        select(Order).where(
            Order.organization_id == organization, Order.scheduled_procedure_step_id == step
        )
    ).one_or_none()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """An entry of a worklist."""

    order: Order
    patient: Patient
    organization: Organization
    number: own_numbers.Number
    """The patient's: of a record that was merged that of the one which stands in its place."""
    codes: order_codes.Codes = field(default_factory=dict)


ATTRIBUTES: Mapping[str, Any] = {
    "AccessionNumber": Order.accession_number,
    "RequestedProcedureID": Order.requested_procedure_id,
    "RequestedProcedurePriority": Order.priority,
    "RequestedProcedureDescription": Order.procedure_description,
    "StudyInstanceUID": Order.study_instance_uid,
    "ReferringPhysicianName": Order.referring_physician_name,
    "RequestingPhysician": Order.requesting_physician_name,
    "Modality": Order.modality,
    "ScheduledStationAETitle": Order.station_ae_title,
    "ScheduledStationName": Order.station_name,
    "ScheduledProcedureStepLocation": Order.location,
    "ScheduledProcedureStepStartDate": Order.scheduled_date,
    "ScheduledProcedureStepStartTime": Order.scheduled_time,
    "ScheduledProcedureStepID": Order.scheduled_procedure_step_id,
    "ScheduledProcedureStepDescription": Order.procedure_description,
    "ScheduledPerformingPhysicianName": Order.performing_physician_name,
    "ScheduledProcedureStepStatus": Order.status,
    "AdmissionID": Order.admission_id,
}
"""What of an order can be matched, by DICOM keyword; beside the attributes of the patient."""

PERSONS = frozenset(
    {"ReferringPhysicianName", "RequestingPhysician", "ScheduledPerformingPhysicianName"}
)
"""Which of them are names of persons."""

_FOR_ANY = frozenset({"ScheduledStationAETitle", "ScheduledProcedureStepStartTime"})
"""What an order may leave open: one that is for no station, or no hour, is found for each."""

_STAFF = tuple(ATTRIBUTES[keyword] for keyword in sorted(PERSONS))
_KINDS: Mapping[str, search.Kind] = {
    "ScheduledProcedureStepStartTime": search.Kind.TIME,
    **dict.fromkeys(PERSONS, search.Kind.PERSON),
}
"""How they are matched; all else is text."""

Moments = tuple[tuple[str, str] | None, tuple[str, str] | None]
"""From a date and time to another, both included; None leaves an end open."""


def worklist(
    access: Access,
    keys: Sequence[tuple[str, Matching]],
    patient: Sequence[Criterion] = (),
    *,
    moment: Moments | None = None,
    codes: Mapping[order_codes.Kind, Sequence[tuple[str, Matching]]] | None = None,
    limit: int,
    statuses: Sequence[Status] = (Status.SCHEDULED,),
) -> Sequence[Scheduled]:
    """The asking hospital's own orders that match, the earliest first.

    `moment` is the span in which the step is to begin, as (date, time) ends, of which one may be
    None; `codes` are what its codes are to match (`order_codes.coded`). Raises Refused, TooBroad.
    """
    access.require(Action.ORDER)
    conditions: list[ColumnElement[bool]] = [
        Order.organization_id == access.organization,
        Order.status.in_(statuses),
        Order.scheduled_date != "",  # else it waits for its appointment
        search.where(patient),
        *(order_codes.coded(kind, wanted) for kind, wanted in (codes or {}).items()),
    ]
    for keyword, matching in keys:
        kind = _KINDS.get(keyword, search.Kind.TEXT)
        column = ATTRIBUTES[keyword]
        condition = search.compare(column, matching, kind)
        conditions.append(condition | (column == "") if keyword in _FOR_ANY else condition)
    if moment is not None:
        within = search.between(Order.scheduled_date, Order.scheduled_time, *moment)
        first, last = (end and end[0] for end in moment)
        of_the_day = search.compare(Order.scheduled_date, Range(first, last), search.Kind.DATE)
        conditions.append(within | (Order.scheduled_time == "") & of_the_day)
    rows = access.session.execute(
        select(Order, Patient, Organization)
        .select_from(Order)
        .join(Patient, Patient.id == Order.patient_id)
        .join(Organization, Organization.id == Order.organization_id)
        .where(*conditions)
        .order_by(Order.scheduled_date, Order.scheduled_time, Order.id)
        .limit(limit + 1)
    ).all()
    if len(rows) > limit:
        raise TooBroad(f"more than {limit} entries: add a selective key")
    access.note(
        Action.ORDER,
        reason="worklist",
        detail={"answered": len(rows), "scheduled": sorted({row.Patient.id for row in rows})},
    )
    told = order_codes.of_orders(access, [row.Order.id for row in rows])
    numbers = own_numbers.of_own(access, [(row.Patient, row.Organization) for row in rows], patient)
    return [
        Scheduled(row.Order, row.Patient, row.Organization, number, told.get(row.Order.id, {}))
        for row, number in zip(rows, numbers, strict=True)
    ]


def listed(access: Access, *, organization: str, limit: int = 100) -> Sequence[Scheduled]:
    """A hospital's last orders, the newest first, for those who run the exchange.

    Raises Refused, NotFound.
    """
    access.require(Action.ADMINISTER, detail={"code": organization})
    owner = _organization(access, access.session, organization)
    rows = access.session.execute(
        select(Order, Patient, Organization)
        .select_from(Order)
        .join(Patient, Patient.id == Order.patient_id)
        .join(Organization, Organization.id == Order.organization_id)
        .where(Order.organization_id == owner)
        .order_by(Order.id.desc())
        .limit(limit)
    ).all()
    about = {"code": organization, "patients": sorted({row.Patient.id for row in rows})}
    access.note(Action.ORDER, reason="listed", detail=about)
    numbers = own_numbers.of_own(access, [(row.Patient, row.Organization) for row in rows])
    return [
        Scheduled(row.Order, row.Patient, row.Organization, number)
        for row, number in zip(rows, numbers, strict=True)
    ]


def _organization(access: Access, session: Session, code: str | None) -> int:
    if code is None:
        return access.organization
    found = session.scalars(select(Organization).where(Organization.code == code)).one_or_none()
    region = access.requester.role is Role.ADMINISTRATOR and access.requester.organization is None
    if found is None or not (region or found.id == access.requester.organization):
        raise NotFound("no organization has this code; `exchange organization list` shows them")
    return found.id


def _patient(access: Access, session: Session, owner: int, placed: Placed) -> int:
    told = {
        "PatientID": placed.patient_id,
        "PatientName": placed.patient_name,
        "PatientBirthDate": placed.patient_birth_date,
        "PatientSex": placed.patient_sex,
    }
    received = Received(attributes=told, identifiers=placed.identifiers, transfer_syntax_uid="")
    return places.register_patient(access, session, owner, received)


def check(**told: str) -> None:
    """Whether a modality can read what an order says, by the names of `Placed`; "" is nothing said.

    A worklist answers what was placed: what is no value of its VR is another's, or nobody's
    (PS3.5 6.2). Raises Invalid, with the name of what is wrong and its form.
    """
    for name, value in told.items():
        named = _NAMES.get(name, name)
        if _DIVIDES.search(value):
            raise Invalid(f"{named} is one line without a backslash, which would divide it")
        if len(value) > (most := _LENGTHS.get(name, LENGTH)):
            raise Invalid(f"{named} is at most {most} characters long")
        if not value:
            continue
        if name in _DAYS and not _is_day(value):
            raise Invalid(f"{named} is a day of the calendar, written YYYYMMDD, such as 20261130")
        if name == "scheduled_time" and not _TIME.fullmatch(value):
            raise Invalid(f"{named} is a time of the day, written HHMMSS, such as 093000")
        if name == "modality" and not _CODE_STRING.fullmatch(value):
            raise Invalid(f"{named} is capital letters and digits, such as CT, MR or DX")
        if name == "patient_sex" and value not in _SEXES:
            raise Invalid(f"{named} is M, F or O; leave it out where it is not known")
        if name == "station_ae_title" and not (value.isascii() and value.strip()):
            raise Invalid(f"{named} is letters, digits and signs of ASCII, such as CT1")


def _check(placed: Placed) -> None:
    for name in ("patient_id", "accession_number", "modality", "scheduled_date"):
        if not getattr(placed, name).strip():
            raise Invalid(f"an order needs {_NAMES[name]}")
    told = {one.name: getattr(placed, one.name) for one in fields(placed)}
    check(**{name: value for name, value in told.items() if isinstance(value, str)})
    if placed.study_instance_uid and not _UID.fullmatch(placed.study_instance_uid):
        raise Invalid("study_instance_uid is not a UID")
    if placed.priority not in PRIORITIES:
        raise Invalid(f"priority is one of {', '.join(PRIORITIES)}")


def _is_day(value: str) -> bool:
    if not _DAY.fullmatch(value):
        return False
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


LENGTH = 64
"""Characters of a text, where its VR or its use says nothing else (PS3.5 6.2, LO)."""
_LENGTHS: Mapping[str, int] = {
    **dict.fromkeys(
        ("accession_number", "scheduled_procedure_step_id", "station_ae_title", "modality"), 16
    ),
    "station_name": 16,
    **dict.fromkeys(("patient_name", "performing_physician_name"), LENGTH * 5),
    **dict.fromkeys(("referring_physician_name", "requesting_physician_name"), LENGTH * 5),
    "reason": 4096,
}
_NAMES: Mapping[str, str] = {
    "patient_id": "the patient number",
    "patient_name": "the patient's name",
    "patient_birth_date": "the birth date",
    "patient_sex": "the sex",
    "accession_number": "the accession number",
    "scheduled_procedure_step_id": "the step id",
    "requested_procedure_id": "the requested procedure id",
    "modality": "the modality",
    "body_part_examined": "the body part",
    "procedure_description": "the description",
    "station_ae_title": "the station's AE title",
    "scheduled_date": "the scheduled date",
    "scheduled_time": "the scheduled time",
}
"""What each is called to who places an order; others by their name here."""
_DAYS = frozenset({"patient_birth_date", "scheduled_date"})
_SEXES = frozenset("MFO")
_DIVIDES = re.compile(r"[\\\x00-\x1f\x7f]")
_DAY = re.compile(r"[0-9]{8}")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]){0,2}")
_CODE_STRING = re.compile(r"[A-Z0-9_]+( [A-Z0-9_]+)*")
