"""Requests for images that hospitals write (FHIR ServiceRequest, Appointment): their worklist.

What a hospital asks for of its own patient is an order of its own as long as it is in force
(PS3.4 annex K); an Appointment says when and where. The hospital's resource stays as it wrote it:
what modalities tell of the order is told beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange import jobs, order_codes, orders
from exchange.access import Access
from exchange.demographics import clipped
from exchange.departments import Directory
from exchange.errors import Invalid, Refused
from exchange.orders import Status
from exchange.policy import Action, Role
from exchange_storage.records import Order, Organization, Patient, PerformedStep

KIND = "ServiceRequest"
APPOINTMENT = "Appointment"
TASK = "Task"
LOCATION = "Location"

DERIVED = frozenset({KIND, TASK})
"""Kinds of what is derived of orders."""
PREFIX = "order-"
"""How the logical ids of what is derived of orders begin; nobody else chooses such a one."""

DEPARTMENTS = ("Organization", "HealthcareService", "PractitionerRole", "Device")
"""The kinds in which hospitals keep who is theirs to do a request."""

STEPS = 99
"""Requests that may share an accession number."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room that is an entry of the directory, which says what it is called."""

    logical_id: str
    name: Callable[[bytes], str]
    """What an entry's content calls it, "" where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What a ServiceRequest for images says of its order."""

    status: Status
    """SCHEDULED while it is in force, CANCELED while it is not, COMPLETED."""
    accession_number: str
    requested_procedure_id: str = ""
    study_instance_uid: str = ""
    modality: str
    body_part_examined: str = ""
    procedure_description: str = ""
    station_ae_title: str = ""
    station_name: str = ""
    scheduled_date: str = ""
    """YYYYMMDD, local time; "" where an appointment is to say so."""
    scheduled_time: str = ""
    performing_physician_name: str = ""
    requesting_physician_name: str = ""
    priority: str = "ROUTINE"
    reason: str = ""
    location: str = ""
    room: Room | None = None
    """Which comes before `location`, where the directory knows what it is called."""
    admission_id: str = ""
    codes: order_codes.Codes = field(default_factory=dict)
    performers: tuple[tuple[str, str], ...] = ()
    """Kind and logical id of hospitals (their code), and of their departments; without any it is
    for the one that wrote it. Whose they are is the directory's to say, see `departments`."""
    performer_numbers: tuple[str, ...] = ()
    """Credit codes, and OIDs of their numbers, by which it names hospitals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What an Appointment says of the requests that it is based on."""

    requests: tuple[str, ...]
    """Logical ids of ServiceRequests."""
    is_booked: bool
    """Whether it stands: they are to be done then."""
    scheduled_date: str
    scheduled_time: str
    station_ae_title: str = ""
    station_name: str = ""
    location: str = ""
    room: Room | None = None


def stated(
    access: Access,
    session: Session,
    logical_id: str,
    patients: Collection[int],
    told: Requested | None,
    now: datetime,
) -> Sequence[tuple[str, str]]:
    """A hospital keeps a ServiceRequest, or keeps it no more (None): its order follows.

    In the transaction of `session`, for whoever may record it. Returns, by kind and logical id,
    what had been derived of the order and is to be told no more. Raises Invalid.
    """
    owner = access.organization
    known = session.scalars(
        select(Order).where(Order.request == logical_id, Order.organization_id == owner)
    ).one_or_none()
    patient = _patient(session, owner, patients) if told is not None else None
    if told is None or patient is None or not _is_own(session, owner, told):
        if known is not None:
            _follow(access, session, known, Status.CANCELED)
        return ()
    _check(told)
    told = replace(told, location=_location(session, told))
    same = session.scalars(
        select(Order).where(
            Order.organization_id == owner, Order.accession_number == told.accession_number
        )
    ).all()
    if any(one.patient_id != patient for one in same):
        raise Invalid("the accession number is that of another patient's order")
    derived: list[tuple[str, str]] = []
    if known is None and (known := next((o for o in same if not o.is_requested), None)) is not None:
        derived = [(KIND, known.request), (TASK, task_id(known.request))]
        known.request, known.is_requested = logical_id, True
    if known is None:
        if told.status is not Status.SCHEDULED:
            return ()
        known = _placed(session, owner, patient, logical_id, told, same, now)
        access.note(Action.ORDER, reason="placed", patient=patient, detail={"order": known.id})
    else:
        if known.status in {Status.SCHEDULED, Status.CANCELED}:
            _change(session, known, told, patient)
            known.changed = now
        session.flush()
        _follow(access, session, known, told.status)
    jobs.ask(session, jobs.PRIORS, str(known.id), now)
    orders.tell(session, known, now)
    return derived


def booked(
    access: Access,
    session: Session,
    logical_id: str,
    patients: Collection[int],
    told: Booked | None,
    now: datetime,
) -> None:
    """A hospital keeps an Appointment, or keeps it no more (None): its orders follow.

    In the transaction of `session`, for whoever may record it. Only what is not begun is moved.
    Raises Invalid.
    """
    owner = access.organization
    before = select(Order).where(Order.appointment == logical_id, Order.organization_id == owner)
    stands = told is not None and told.is_booked and bool(told.scheduled_date)
    wanted = told.requests if told is not None and stands else ()
    location = _location(session, told) if told is not None and wanted else ""
    if told is not None and stands:
        orders.check(station_ae_title=told.station_ae_title)
    for order in session.scalars(before).all() if logical_id else ():
        if order.request not in wanted:
            order.appointment = ""
            if order.status == Status.SCHEDULED:
                order.scheduled_date = order.scheduled_time = ""
            order.changed = now
            orders.tell(session, order, now)
    for order in session.scalars(
        select(Order).where(
            Order.organization_id == owner,
            Order.request.in_(wanted),
            Order.patient_id.in_(patients),
            Order.status == Status.SCHEDULED,
        )
    ).all():
        if told is None:
            break
        order.appointment = logical_id
        order.scheduled_date, order.scheduled_time = told.scheduled_date, told.scheduled_time
        order.station_ae_title = told.station_ae_title or order.station_ae_title
        order.station_name = clipped(told.station_name, 16) or order.station_name
        order.location = clipped(location, 16) or order.location
        order.changed = now
        access.note(
            Action.ORDER, reason="booked", patient=order.patient_id, detail={"order": order.id}
        )
        session.flush()
        jobs.ask(session, jobs.PRIORS, str(order.id), now)
        orders.tell(session, order, now)
    session.flush()


@dataclass(frozen=True, slots=True)
class Standing:
    """An order, as it is to be told in FHIR: what was performed of it too."""

    order: Order
    organization: str
    """The code of the hospital that performs it."""
    began: str
    """YYYYMMDDHHMMSS of its performed steps, local time; "" for not yet."""
    ended: str


def standing(access: Access, order: int) -> Standing | None:
    """Where the order with this row number stands; None where there is none.

    Raises Refused for anybody but the exchange.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself derives resources from orders")
    row = access.session.execute(
        select(Order, Organization.code)
        .join(Organization, Organization.id == Order.organization_id)
        .where(Order.id == order)
    ).one_or_none()
    if row is None or not row.Order.request:
        return None
    steps = access.session.execute(
        select(PerformedStep.started, PerformedStep.ended).where(PerformedStep.order_id == order)
    ).all()
    ended = max((one.ended for one in steps), default="")
    began = min((one.started for one in steps if one.started), default="")
    return Standing(row.Order, row.code, began, ended)


def task_id(request: str) -> str:
    """The logical id of the Task that tells of the order which a ServiceRequest is."""
    return f"{PREFIX}{hashlib.sha256(request.encode()).hexdigest()[:32]}"


def _patient(session: Session, owner: int, patients: Collection[int]) -> int | None:
    """The one patient, whom the hospital knows by a number; None: a modality could ask for none."""
    rows = session.scalars(
        select(Patient.id).where(
            Patient.id.in_(patients), Patient.organization_id == owner, Patient.patient_id != ""
        )
    ).all()
    return rows[0] if len(rows) == len(patients) == 1 else None


def _is_own(session: Session, owner: int, told: Requested) -> bool:
    """Whether the hospital is to do it itself: it names no other one, or itself too.

    Another's worklist does not show it: it is about a record of this hospital's, under whose number
    a modality there would make images. That one is told of it (topic ``order-for-us``).
    """
    named = Directory(session).named(told.performers, told.performer_numbers)
    return not named or owner in named


def _location(session: Session, told: Requested | Booked) -> str:
    """The room, as the directory calls it at this moment."""
    room = told.room
    content = b"" if room is None else Directory(session).content(LOCATION, room.logical_id)
    return (content and room is not None and room.name(content)) or told.location


def _placed(
    session: Session,
    owner: int,
    patient: int,
    request: str,
    told: Requested,
    same: Collection[Order],
    now: datetime,
) -> Order:
    order = Order(
        organization_id=owner,
        patient_id=patient,
        status=Status.SCHEDULED,
        placed=now,
        changed=now,
        request=request,
        is_requested=True,
        scheduled_procedure_step_id=_step(session, owner, told.accession_number),
        study_instance_uid=next((one.study_instance_uid for one in same), "") or orders.new_uid(),
        referring_physician_name="",
        **_columns(told),
    )
    if told.study_instance_uid:
        order.study_instance_uid = told.study_instance_uid
    session.add(order)
    session.flush()
    order_codes.keep(session, order.id, told.codes)
    orders.know_staff(session, order)
    return order


def _change(session: Session, order: Order, told: Requested, patient: int) -> None:
    order.patient_id = patient
    for name, value in _columns(told).items():
        if not (order.appointment and name in _OF_APPOINTMENT):
            setattr(order, name, value)
    if told.study_instance_uid:
        order.study_instance_uid = told.study_instance_uid
    order_codes.keep(session, order.id, told.codes)
    orders.know_staff(session, order)


_OF_APPOINTMENT = frozenset(
    {"scheduled_date", "scheduled_time", "station_ae_title", "station_name", "location"}
)


def _columns(told: Requested) -> dict[str, str]:
    return {
        "accession_number": told.accession_number,
        "requested_procedure_id": told.requested_procedure_id or told.accession_number,
        "modality": told.modality,
        "body_part_examined": clipped(told.body_part_examined, 64),
        "procedure_description": clipped(told.procedure_description, 64),
        "station_ae_title": told.station_ae_title,
        "station_name": clipped(told.station_name, 16),
        "scheduled_date": told.scheduled_date,
        "scheduled_time": told.scheduled_time,
        "performing_physician_name": clipped(told.performing_physician_name, 64),
        "requesting_physician_name": clipped(told.requesting_physician_name, 64),
        "priority": told.priority,
        "reason": clipped(told.reason, 4096),
        "location": clipped(told.location, 16),
        "admission_id": clipped(told.admission_id, 64),
    }


def _step(session: Session, owner: int, accession_number: str) -> str:
    """A Scheduled Procedure Step ID that the hospital has not: the accession number, or like it."""
    named = [accession_number]
    named += [f"{accession_number[:13]}-{number}" for number in range(2, STEPS + 1)]
    taken = session.scalars(
        select(Order.scheduled_procedure_step_id).where(
            Order.organization_id == owner, Order.scheduled_procedure_step_id.in_(named)
        )
    ).all()
    free = next((one for one in named if one not in taken), None)
    if free is None:
        raise Invalid(f"more than {STEPS} requests have this accession number")
    return free


def _follow(access: Access, session: Session, order: Order, to: Status) -> None:
    """The order follows, as far as it can: what was begun is not undone by a request."""
    at = Status(order.status)
    if to is Status.CANCELED and at is not Status.SCHEDULED:
        return
    if to in orders.TRANSITIONS[at]:
        orders.move(access, session, order, to)
        session.refresh(order)


def _check(told: Requested) -> None:
    orders.check(
        accession_number=told.accession_number,
        requested_procedure_id=told.requested_procedure_id,
        station_ae_title=told.station_ae_title,
    )
