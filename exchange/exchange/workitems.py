"""Workitems, and what becomes of them: scheduled, claimed, completed or canceled (PS3.4 annex CC).

Whoever claims one chooses the Transaction UID with which alone it is changed and ended from then
on; it is never told to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from sqlalchemy import delete, exists, insert, literal, select
from sqlalchemy.orm import Session

from exchange import demographics, places, watching
from exchange.access import Access
from exchange.errors import Conflicting, Refused
from exchange.ingest import Received
from exchange.policy import Action
from exchange.workitem_attributes import (
    FINAL,
    MATCHED,
    MODIFIED,
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    PATIENT_SEX,
    PERFORMERS,
    SOP_CLASS,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    SPECIFIC_CHARACTER_SET,
    STATE,
    STUDY_INSTANCE_UID,
    TRANSACTION_UID,
    WORKLIST_LABEL,
    Json,
    State,
    canceled,
    check_change,
    check_new,
    keys,
    lacking,
    organizations,
    text,
)
from exchange.worklist import reach
from exchange_storage.records import (
    Organization,
    Workitem,
    WorkitemEvent,
    WorkitemKey,
    WorkitemSubscription,
)
from exchange_storage.search import Kind

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.IN_PROGRESS}),
    State.IN_PROGRESS: frozenset({State.COMPLETED, State.CANCELED}),
    State.COMPLETED: frozenset(),
    State.CANCELED: frozenset(),
}
"""Where each may go (PS3.4 Table CC.1.1-2); a request to cancel takes two steps at once."""

KEPT = timedelta(days=30)
"""How long a workitem remains after its end, unless somebody has a deletion lock on it."""

DELETED_AT_ONCE = 500


class Reason(StrEnum):
    """Why a workitem does not do what was asked: the failures of PS3.4 CC.2.1.4, .2.4 and .6.4."""

    DUPLICATE = "Duplicate SOP Instance"
    NO_LONGER_UPDATED = "The UPS may no longer be updated"
    NO_TRANSACTION = "The Transaction UID is missing"
    OTHER_TRANSACTION = "The correct Transaction UID was not provided"
    ALREADY_IN_PROGRESS = "The UPS is already IN PROGRESS"
    ONLY_CREATED_SCHEDULED = "The UPS may only become SCHEDULED via N-CREATE"
    NOT_MET = "The UPS has not met final state requirements for the requested state change"
    NOT_IN_PROGRESS = "The UPS is not in the IN PROGRESS state"
    ALREADY_COMPLETED = "The UPS is already COMPLETED"
    UNREACHABLE = "The performer cannot be contacted"


class StateConflict(Conflicting):
    """The workitem is not in a state in which it can do what was asked."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """`detail` says more, for the asker."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def create(access: Access, uid: str, content: Json, *, zone: tzinfo) -> bool:
    """Put a workitem on the worklist of the asker's hospital; whether it was modified.

    `content` is all of it as DICOM JSON; what it says of moments without an offset is meant in
    `zone`. A Worklist Label that is missing is the hospital's name. Raises Refused, Invalid,
    TooLarge, and StateConflict where the UID is in use.
    """
    access.require(Action.SCHEDULE, detail={"workitem": uid})
    check_new(content)

    def unit(session: Session) -> bool:
        taken = select(Workitem.id).where(Workitem.sop_instance_uid == uid)
        if session.scalar(taken) is not None:
            raise StateConflict(Reason.DUPLICATE)
        hospital = session.get_one(Organization, access.organization)
        labelled = bool(text(content, WORKLIST_LABEL))
        label = {} if labelled else {WORKLIST_LABEL: {"vr": "LO", "Value": [hospital.name[:64]]}}
        workitem = Workitem(
            organization_id=hospital.id,
            patient_id=_patient(access, session, content),
            assigned_id=None,
            sop_instance_uid=uid,
            study_instance_uid=text(content, STUDY_INSTANCE_UID)[:64],
            state=State.SCHEDULED,
            transaction_uid="",
            content={},
            created=access.now,
            changed=access.now,
        )
        workitem.assigned_id = _assigned(session, hospital.id, content)
        session.add(workitem)
        session.flush()
        told = {
            **content,
            **label,
            SOP_CLASS_UID: {"vr": "UI", "Value": [SOP_CLASS]},
            SOP_INSTANCE_UID: {"vr": "UI", "Value": [uid]},
        }
        _keep(access, session, workitem, told, zone)
        watching.welcome(access, session, workitem)
        _note(access, Action.SCHEDULE, workitem, "created")
        return not labelled

    return access.write(unit)


def update(access: Access, uid: str, changes: Json, transaction: str, *, zone: tzinfo) -> None:
    """Change attributes of a workitem, each as a whole.

    While it is scheduled its hospital does that, without a Transaction UID; when it is in progress
    whoever knows that. Only its hospital says to whom it is assigned. Raises Refused, NotFound,
    Invalid, TooLarge, StateConflict.
    """
    access.require(Action.WORK, detail={"workitem": uid})
    check_change({tag: one for tag, one in changes.items() if tag != TRANSACTION_UID})

    def unit(session: Session) -> None:
        workitem = reach(access, session, uid)
        _check_transaction(access, workitem, transaction)
        own = workitem.organization_id == access.organization
        if PERFORMERS in changes and not own:
            assigned = _assigned(session, workitem.organization_id, changes)
            if assigned != workitem.assigned_id:
                raise Refused("only the hospital whose workitem it is says who is to do it")
        before = workitem.content
        _keep(access, session, workitem, {**before, **changes}, zone)
        session.flush()
        watching.changed(access, session, workitem, before)
        if PERFORMERS in changes:
            assigned = _assigned(session, workitem.organization_id, changes)
            newly = assigned is not None and assigned != workitem.assigned_id
            workitem.assigned_id = assigned
            if newly:
                watching.welcome(access, session, workitem, only=assigned)
        _note(access, Action.WORK, workitem, "updated")

    access.write(unit)


def _check_transaction(access: Access, workitem: Workitem, transaction: str) -> None:
    """Raise StateConflict, or Refused, unless it may be changed with this Transaction UID."""
    match State(workitem.state):
        case State.SCHEDULED:
            if transaction:
                raise StateConflict(Reason.NOT_IN_PROGRESS, "it was not claimed with any")
            if workitem.organization_id != access.organization:
                raise Refused("a workitem that was not claimed is changed by its hospital")
        case State.IN_PROGRESS:
            _check_owner(workitem, transaction)
        case State.COMPLETED | State.CANCELED:
            raise StateConflict(Reason.NO_LONGER_UPDATED)


def _check_owner(workitem: Workitem, transaction: str) -> None:
    if not transaction:
        raise StateConflict(Reason.NO_TRANSACTION)
    if transaction != workitem.transaction_uid:
        raise StateConflict(Reason.OTHER_TRANSACTION)


def change_state(access: Access, uid: str, to: State, transaction: str, *, zone: tzinfo) -> bool:
    """Claim, complete or cancel a workitem; False where it was so already.

    Raises Refused, NotFound, StateConflict.
    """
    access.require(Action.WORK, detail={"workitem": uid})
    if not transaction:
        raise StateConflict(Reason.NO_TRANSACTION)
    if to is State.SCHEDULED:
        raise StateConflict(Reason.ONLY_CREATED_SCHEDULED)

    def unit(session: Session) -> bool:
        workitem = reach(access, session, uid)
        at = State(workitem.state)
        if to in FINAL and workitem.transaction_uid:
            _check_owner(workitem, transaction)
        if to is at and at in FINAL:
            return False
        if to not in TRANSITIONS[at]:
            raise StateConflict(_why_not(at))
        if missing := lacking(workitem.content, to):
            raise StateConflict(Reason.NOT_MET, f"missing: {', '.join(missing)}")
        if to is State.IN_PROGRESS:
            workitem.transaction_uid = transaction
        _move(access, session, workitem, to, {}, zone)
        return True

    return access.write(unit)


def _why_not(at: State) -> Reason:
    match at:
        case State.SCHEDULED:
            return Reason.NOT_IN_PROGRESS
        case State.IN_PROGRESS:
            return Reason.ALREADY_IN_PROGRESS
        case State.COMPLETED | State.CANCELED:
            return Reason.NO_LONGER_UPDATED


def request_cancellation(access: Access, uid: str, told: Json, *, zone: tzinfo) -> bool:
    """Ask that a workitem be canceled; False where it was so already (PS3.4 CC.2.2.3).

    One that nobody has claimed is canceled; who has claimed one is told of the request, with the
    reason and the contact in `told`. Raises Refused, NotFound, StateConflict.
    """
    access.require(Action.WORK, detail={"workitem": uid})

    def unit(session: Session) -> bool:
        workitem = reach(access, session, uid)
        match State(workitem.state):
            case State.SCHEDULED:
                _move(access, session, workitem, State.IN_PROGRESS, {}, zone)
                _move(access, session, workitem, State.CANCELED, told, zone)
            case State.IN_PROGRESS:
                if not watching.cancel_requested(access, session, workitem, told):
                    raise StateConflict(Reason.UNREACHABLE, "nobody has subscribed to the workitem")
                _note(access, Action.WORK, workitem, "cancellation requested")
            case State.COMPLETED:
                raise StateConflict(Reason.ALREADY_COMPLETED)
            case State.CANCELED:
                return False
        return True

    return access.write(unit)


def _move(
    access: Access, session: Session, workitem: Workitem, to: State, told: Json, zone: tzinfo
) -> None:
    content = workitem.content
    if to is State.CANCELED:
        content = canceled(content, _stamp(access.now, zone), told)
    workitem.state = to
    if to in FINAL:
        workitem.ended = access.now
    _keep(access, session, workitem, content, zone)
    session.flush()
    watching.state_reported(access, session, workitem)
    _note(access, Action.WORK, workitem, to.lower())


def _keep(
    access: Access, session: Session, workitem: Workitem, content: Json, zone: tzinfo
) -> None:
    """Keep `content` as that of the workitem, and under what it is found."""
    kept = {
        **content,
        STATE: {"vr": "CS", "Value": [workitem.state]},
        MODIFIED: {"vr": "DT", "Value": [_stamp(access.now, zone)]},
    }
    for tag in (TRANSACTION_UID, SPECIFIC_CHARACTER_SET):
        kept.pop(tag, None)
    workitem.content = dict(sorted(kept.items()))
    workitem.study_instance_uid = text(kept, STUDY_INSTANCE_UID)[:64]
    workitem.changed = access.now
    session.execute(delete(WorkitemKey).where(WorkitemKey.workitem_id == workitem.id))
    told = keys(workitem.content, zone)
    rows = [
        {"workitem_id": workitem.id, "position": at, "path": path, "item": item, "value": value}
        for at, (path, item, value) in enumerate(told, 1)
    ]
    if rows:
        session.execute(insert(WorkitemKey), rows)
        demographics.know_persons(
            session, [value for path, _, value in told if MATCHED[path][1] is Kind.PERSON]
        )


def _stamp(now: datetime, zone: tzinfo) -> str:
    return f"{now.astimezone(zone):%Y%m%d%H%M%S%z}"


def _patient(access: Access, session: Session, content: Json) -> int | None:
    """The hospital's record of the patient, found or made; None for work on no patient."""
    if not text(content, PATIENT_ID):
        return None
    told = {
        "PatientID": text(content, PATIENT_ID),
        "PatientName": text(content, PATIENT_NAME),
        "PatientBirthDate": text(content, PATIENT_BIRTH_DATE),
        "PatientSex": text(content, PATIENT_SEX),
    }
    received = Received(attributes=told, transfer_syntax_uid="")
    return places.register_patient(access, session, access.organization, received)


def _assigned(session: Session, owner: int, content: Json) -> int | None:
    """The other hospital that is to do the work: the first that is named by its code or name."""
    for told in organizations(content):
        found = session.scalars(
            select(Organization.id).where((Organization.code == told) | (Organization.name == told))
        ).first()
        if found is not None:
            return None if found == owner else found
    return None


def _note(access: Access, action: Action, workitem: Workitem, reason: str) -> None:
    access.note(
        action,
        reason=reason,
        patient=workitem.patient_id,
        study=workitem.study_instance_uid,
        detail={"workitem": workitem.sop_instance_uid},
    )


def tidy(access: Access) -> int:
    """Delete the content of what ended long ago and nobody holds, and events that nobody fetched.

    Returns how many workitems; there may be more, see `DELETED_AT_ONCE`. Raises Refused.
    """
    access.require(Action.DESTROY, detail={"what": "workitems"})

    def unit(session: Session) -> int:
        watching.forget(session, access.now)
        locked = exists(
            select(literal(1)).where(
                WorkitemSubscription.workitem_id == Workitem.id,
                WorkitemSubscription.deletion_lock,
            )
        )
        ended = session.scalars(
            select(Workitem)
            .where(Workitem.ended < access.now - KEPT, Workitem.deleted.is_(None), ~locked)
            .order_by(Workitem.ended)
            .limit(DELETED_AT_ONCE)
        ).all()
        for workitem in ended:
            workitem.content, workitem.deleted = {}, access.now
        numbers = [one.id for one in ended]
        for about in (WorkitemKey, WorkitemSubscription, WorkitemEvent):
            session.execute(delete(about).where(about.workitem_id.in_(numbers)))
        if ended:
            access.note(
                Action.DESTROY,
                reason="workitems that ended long ago",
                detail={
                    "workitems": [one.sop_instance_uid for one in ended],
                    "patients": sorted({one.patient_id for one in ended} - {None}),
                },
            )
        return len(ended)

    return access.write(unit)
