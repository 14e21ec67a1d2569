"""Who is told what becomes of workitems: subscriptions and event reports (PS3.4 CC.2.3, CC.2.4).

A subscriber is an AE title of a hospital. An event report is a row for each subscriber, written
with what it reports, and waits until it was sent, in whatever process the subscriber has its
connection; whether the subscriber's hospital may still know of the workitem is decided then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from exchange import visibility
from exchange.access import Access
from exchange.errors import Invalid, NotFound, Refused, TooBroad, TooLarge
from exchange.policy import Action, Role
from exchange.workitem_attributes import (
    CONTACT_NAME,
    CONTACT_URI,
    DISCONTINUATION,
    PERFORMER_CODE,
    PERFORMER_ORGANIZATION,
    PERFORMERS,
    PROGRESS,
    READINESS,
    REASON_FOR_CANCELLATION,
    SOP_CLASS,
    STATE,
    STATIONS,
    Json,
    State,
    items,
)
from exchange.worklist import Wanted, reach
from exchange_storage import criteria
from exchange_storage.records import (
    Patient,
    Workitem,
    WorkitemEvent,
    WorkitemSubscription,
    WorklistSubscription,
)

GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED = "1.2.840.10008.5.1.4.34.5.1"
"""The well-known UIDs under which all workitems are watched, or those that match (CC.3.1.2)."""

WAITS = timedelta(days=7)
"""How long an event report waits for its subscriber."""

SUBSCRIBERS = 200
"""Subscriptions to the worklist that one hospital may have."""

EXISTING = 20_000
"""Workitems to which a subscription to the worklist subscribes at once, at most."""

_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
_NOTHING: Json = {}


class Event(IntEnum):
    """Event Type ID (PS3.4 Table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    STATUS_CHANGE = 4
    ASSIGNED = 5


class Status(StrEnum):
    """SCP Status (0074,1242)."""

    GOING_DOWN = "GOING DOWN"
    RESTARTED = "RESTARTED"


@dataclass(frozen=True, slots=True)
class Report:
    """An event report as it is sent."""

    number: int
    content: Json


def subscriber(title: str) -> str:
    """`title` where it can be an AE title. Raises Invalid."""
    found = title.strip(" ")
    if not _TITLE.fullmatch(found):
        raise Invalid("a subscriber is an AE title of at most 16 characters")
    return found


def subscribe(access: Access, uid: str, title: str, *, deletion_lock: bool) -> None:
    """Tell `title` what becomes of one workitem; with a lock it remains after its end.

    Raises Refused, NotFound, Gone, Invalid.
    """
    access.require(Action.WORK, detail={"workitem": uid})
    known = subscriber(title)

    def unit(session: Session) -> None:
        workitem = reach(access, session, uid)
        session.merge(
            WorkitemSubscription(
                workitem_id=workitem.id,
                organization_id=access.organization,
                subscriber=known,
                deletion_lock=deletion_lock,
            )
        )
        _write(access, session, workitem, [(access.organization, known)], [_state(workitem)])
        _note(access, session, "subscribed", known, uid)

    access.write(unit)


def subscribe_to_all(
    access: Access, title: str, wanted: Wanted | None, *, deletion_lock: bool
) -> None:
    """Subscribe `title` to every workitem there is and will be, or to those that are `wanted`.

    Which subscriptions there are remain as they are; those that are new with a deletion lock get an
    initial report (Table CC.2.3-2). Raises Refused, Invalid, TooBroad, TooLarge.
    """
    filtered = wanted is not None
    access.require(Action.WORK, detail={"workitem": FILTERED if filtered else GLOBAL})
    known = subscriber(title)
    organization = access.organization

    def unit(session: Session) -> None:
        count = session.scalar(
            select(func.count())
            .select_from(WorklistSubscription)
            .where(WorklistSubscription.organization_id == organization)
        )
        if (count or 0) >= SUBSCRIBERS:
            raise TooLarge(f"a hospital may have {SUBSCRIBERS} subscriptions to its worklist")
        session.merge(
            WorklistSubscription(
                organization_id=organization,
                subscriber=known,
                filtered=filtered,
                keys=_written(wanted) if wanted else {},
                deletion_lock=deletion_lock,
                requester=access.requester.name[:255],
            )
        )
        there = _meant(access, session, wanted, known)
        if len(there) > EXISTING:
            raise TooBroad(f"there are more than {EXISTING} workitems: add a filter")
        if there:
            rows = [
                {
                    "workitem_id": one.id,
                    "organization_id": organization,
                    "subscriber": known,
                    "deletion_lock": deletion_lock,
                }
                for one in there
            ]
            session.execute(insert(WorkitemSubscription), rows)
        if deletion_lock:
            for workitem in there:
                _write(access, session, workitem, [(organization, known)], [_state(workitem)])
        _note(access, session, "subscribed", known, FILTERED if filtered else GLOBAL)

    access.write(unit)


def _meant(
    access: Access, session: Session, wanted: Wanted | None, title: str
) -> Sequence[Workitem]:
    """The workitems that are wanted, to which the subscriber is not subscribed yet."""
    subscribed = exists(
        select(literal(1)).where(
            WorkitemSubscription.workitem_id == Workitem.id,
            WorkitemSubscription.organization_id == access.organization,
            WorkitemSubscription.subscriber == title,
        )
    )
    return session.scalars(
        select(Workitem)
        .outerjoin(Patient, Patient.id == Workitem.patient_id)
        .where(
            Workitem.deleted.is_(None),
            visibility.workable(access.requester),
            (wanted or Wanted()).condition(),
            ~subscribed,
        )
        .order_by(Workitem.id)
        .limit(EXISTING + 1),
        visibility.parameters(access.requester, access.now),
    ).all()


def unsubscribe(access: Access, uid: str, title: str) -> None:
    """Tell `title` no more of a workitem; or of any, under `GLOBAL` or `FILTERED`.

    Raises Refused, Invalid, and NotFound where there was no such subscription.
    """
    access.require(Action.WORK, detail={"workitem": uid})
    known = subscriber(title)

    def unit(session: Session) -> None:
        if uid in (GLOBAL, FILTERED):
            removed = _end(access, session, known, filtered=uid == FILTERED)
            which: ColumnElement[bool] = literal(value=True)
        else:
            removed, which = 0, WorkitemSubscription.workitem_id == _number(session, uid)
        gone = session.execute(
            delete(WorkitemSubscription)
            .where(
                which,
                WorkitemSubscription.organization_id == access.organization,
                WorkitemSubscription.subscriber == known,
            )
            .returning(WorkitemSubscription.workitem_id)
        ).all()
        if not removed and not gone:
            raise NotFound("there is no such subscription")
        _note(access, session, "unsubscribed", known, uid)

    access.write(unit)


def suspend(access: Access, uid: str, title: str) -> None:
    """Subscribe `title` to no more workitems; of those it is subscribed to it is still told.

    Raises Refused, Invalid, NotFound.
    """
    access.require(Action.WORK, detail={"workitem": uid})
    known = subscriber(title)
    if uid not in (GLOBAL, FILTERED):
        raise Invalid("only a subscription to the worklist can be suspended")

    def unit(session: Session) -> None:
        if not _end(access, session, known, filtered=uid == FILTERED):
            raise NotFound("there is no such subscription")
        _note(access, session, "suspended", known, uid)

    access.write(unit)


def _end(access: Access, session: Session, title: str, *, filtered: bool) -> int:
    """How many subscriptions to the worklist ended."""
    ended = session.execute(
        delete(WorklistSubscription)
        .where(
            WorklistSubscription.organization_id == access.organization,
            WorklistSubscription.subscriber == title,
            WorklistSubscription.filtered == filtered,
        )
        .returning(WorklistSubscription.subscriber)
    )
    return len(ended.all())


def _number(session: Session, uid: str) -> int:
    found = session.scalar(select(Workitem.id).where(Workitem.sop_instance_uid == uid))
    if found is None:
        raise NotFound("there is no such subscription")
    return found


def _note(access: Access, session: Session, reason: str, title: str, uid: str) -> None:
    of = select(Workitem.patient_id).where(Workitem.sop_instance_uid == uid)
    detail = {"workitem": uid, "subscriber": title}
    patient = session.scalars(of).one_or_none()
    access.note(Action.WORK, reason=reason, patient=patient, detail=detail)


# What the verbs of `workitems` tell, in their own transactions.


def welcome(
    access: Access, session: Session, workitem: Workitem, *, only: int | None = None
) -> None:
    """Subscribe whoever is to be subscribed to a new workitem, and report it to them.

    With `only`, those of the hospital to which it was assigned now.
    """
    session.flush()
    hospitals = {only} if only else {workitem.organization_id, workitem.assigned_id}
    standing = session.scalars(
        select(WorklistSubscription).where(WorklistSubscription.organization_id.in_(hospitals))
    ).all()
    locks: dict[tuple[int, str], bool] = {}
    for one in standing:
        if not one.filtered or _is_wanted(session, workitem, one.keys):
            who = one.organization_id, one.subscriber
            locks[who] = locks.get(who, False) or one.deletion_lock
    for (organization, title), lock in locks.items():
        session.merge(
            WorkitemSubscription(
                workitem_id=workitem.id,
                organization_id=organization,
                subscriber=title,
                deletion_lock=lock,
            )
        )
    reports = [_state(workitem)]
    if _is_assigned(workitem.content):
        reports.append(_assigned(workitem))
    _write(access, session, workitem, locks, reports)


def _is_wanted(session: Session, workitem: Workitem, keys: Mapping[str, Any]) -> bool:
    found = session.scalar(
        select(literal(1))
        .select_from(Workitem)
        .outerjoin(Patient, Patient.id == Workitem.patient_id)
        .where(Workitem.id == workitem.id, _read(keys).condition())
    )
    return found is not None


def changed(access: Access, session: Session, workitem: Workitem, before: Json) -> None:
    """Report what an update has changed of the content `before` (CC.2.4.3)."""

    def differs(*tags: str) -> bool:
        return any(before.get(tag) != workitem.content.get(tag) for tag in tags)

    reports = []
    if differs(READINESS):
        reports.append(_state(workitem))
    if differs(STATIONS, PERFORMERS):
        reports.append(_assigned(workitem))
    if differs(PROGRESS):
        told = {PROGRESS: workitem.content.get(PROGRESS, {"vr": "SQ"})}
        reports.append(_report(workitem, Event.PROGRESS_REPORT, told))
    _write(access, session, workitem, _subscribed(session, workitem), reports)


def state_reported(access: Access, session: Session, workitem: Workitem) -> None:
    """Report the state to which a workitem has come."""
    _write(access, session, workitem, _subscribed(session, workitem), [_state(workitem)])


def cancel_requested(access: Access, session: Session, workitem: Workitem, told: Json) -> int:
    """Report that somebody asks for a cancellation; how many are told of it."""
    given = (REASON_FOR_CANCELLATION, DISCONTINUATION, CONTACT_URI, CONTACT_NAME)
    content = {tag: told[tag] for tag in given if tag in told}
    content["00741236"] = {"vr": "AE", "Value": [access.requester.name[:16]]}
    to = _subscribed(session, workitem)
    _write(access, session, workitem, to, [_report(workitem, Event.CANCEL_REQUESTED, content)])
    return len(to)


def status_changed(access: Access, status: Status) -> int:
    """Report to all who watch the worklist that the service goes down, or is there again.

    Nothing was forgotten meanwhile: a warm start, of subscriptions and workitems. Says how many are
    told. Raises Refused for anybody but the exchange itself.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself tells how it is")
    access.require(Action.WORK, detail={"workitem": GLOBAL})
    told: dict[str, Any] = {"00741242": {"vr": "CS", "Value": [status]}}
    if status is Status.RESTARTED:
        told |= {tag: {"vr": "CS", "Value": ["WARM START"]} for tag in ("00741244", "00741246")}

    def unit(session: Session) -> int:
        rows = [
            {
                "organization_id": one.organization_id,
                "subscriber": one.subscriber,
                "workitem_id": None,
                "recorded": access.now,
                "content": _content(
                    FILTERED if one.filtered else GLOBAL, Event.STATUS_CHANGE, told
                ),
            }
            for one in session.scalars(select(WorklistSubscription))
        ]
        # What it was before is no news any more.
        session.execute(delete(WorkitemEvent).where(WorkitemEvent.workitem_id.is_(None)))
        if rows:
            session.execute(insert(WorkitemEvent), rows)
            access.note(Action.WORK, reason=status.lower(), detail={"subscribers": len(rows)})
        return len(rows)

    return access.write(unit)


def _subscribed(session: Session, workitem: Workitem) -> list[tuple[int, str]]:
    rows = session.execute(
        select(WorkitemSubscription.organization_id, WorkitemSubscription.subscriber).where(
            WorkitemSubscription.workitem_id == workitem.id
        )
    )
    return [(row.organization_id, row.subscriber) for row in rows]


def _write(
    access: Access,
    session: Session,
    workitem: Workitem,
    to: Iterable[tuple[int, str]],
    reports: Sequence[Json],
) -> None:
    rows = [
        {
            "organization_id": organization,
            "subscriber": title,
            "workitem_id": workitem.id,
            "recorded": access.now,
            "content": report,
        }
        for organization, title in to
        for report in reports
    ]
    if rows:
        session.execute(insert(WorkitemEvent), rows)


def _report(workitem: Workitem, event: Event, content: Json) -> Json:
    return _content(workitem.sop_instance_uid, event, content)


def _content(uid: str, event: Event, content: Json) -> Json:
    return {
        "00000002": {"vr": "UI", "Value": [SOP_CLASS]},
        "00001000": {"vr": "UI", "Value": [uid]},
        "00001002": {"vr": "US", "Value": [int(event)]},
        **dict(sorted(content.items())),
    }


def _state(workitem: Workitem) -> Json:
    content = {tag: workitem.content[tag] for tag in (STATE, READINESS)}
    if workitem.state == State.CANCELED:
        progress = next(iter(items(workitem.content, PROGRESS)), _NOTHING)
        told = (REASON_FOR_CANCELLATION, DISCONTINUATION)
        content |= {tag: progress[tag] for tag in told if tag in progress}
    return _report(workitem, Event.STATE_REPORT, content)


def _is_assigned(content: Json) -> bool:
    return bool(items(content, STATIONS) or items(content, PERFORMERS))


def _assigned(workitem: Workitem) -> Json:
    content: dict[str, Any] = {}
    if items(workitem.content, STATIONS):
        content[STATIONS] = workitem.content[STATIONS]
    performer = next(iter(items(workitem.content, PERFORMERS)), _NOTHING)
    told = (PERFORMER_CODE, PERFORMER_ORGANIZATION)
    content |= {tag: performer[tag] for tag in told if tag in performer}
    return _report(workitem, Event.ASSIGNED, content)


# What waits for a subscriber.


def pending(access: Access, title: str, after: int, *, limit: int) -> Sequence[Report]:
    """The event reports that wait for the subscriber of the asker's hospital, after one of them.

    What the hospital may not know any more is not among them. Raises Refused, Invalid.
    """
    access.require(Action.WORK)
    known = subscriber(title)
    found = access.session.scalars(
        select(WorkitemEvent)
        .outerjoin(Workitem, Workitem.id == WorkitemEvent.workitem_id)
        .outerjoin(Patient, Patient.id == Workitem.patient_id)
        .where(
            WorkitemEvent.organization_id == access.organization,
            WorkitemEvent.subscriber == known,
            WorkitemEvent.id > after,
            or_(WorkitemEvent.workitem_id.is_(None), visibility.workable(access.requester)),
        )
        .order_by(WorkitemEvent.id)
        .limit(limit),
        visibility.parameters(access.requester, access.now),
    ).all()
    if found:
        access.note(
            Action.WORK,
            reason="reported",
            detail={
                "subscriber": known,
                "workitems": sorted({one.content["00001000"]["Value"][0] for one in found}),
            },
        )
    return [Report(one.id, one.content) for one in found]


def received(access: Access, title: str, numbers: Sequence[int]) -> None:
    """The subscriber has these event reports: they wait no more. Raises Refused, Invalid."""
    access.require(Action.WORK)
    known = subscriber(title)

    def unit(session: Session) -> None:
        session.execute(
            delete(WorkitemEvent).where(
                WorkitemEvent.id.in_(numbers),
                WorkitemEvent.organization_id == access.organization,
                WorkitemEvent.subscriber == known,
            )
        )

    access.write(unit)


def news(access: Access, after: int) -> tuple[int, frozenset[tuple[int, str]]]:
    """The number of the last event report, and who has one after the number `after`.

    For a process that has connections of many. Raises Refused.
    """
    access.require(Action.WORK)
    last = access.session.scalar(select(func.max(WorkitemEvent.id))) or 0
    rows = access.session.execute(
        select(WorkitemEvent.organization_id, WorkitemEvent.subscriber)
        .where(WorkitemEvent.id > after)
        .distinct()
    )
    return last, frozenset((row.organization_id, row.subscriber) for row in rows)


def forget(session: Session, now: datetime) -> None:
    """Remove the event reports that nobody has fetched in time."""
    session.execute(delete(WorkitemEvent).where(WorkitemEvent.recorded < now - WAITS))


# Matching keys as they are kept.

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        criteria.Values,
        criteria.Pattern,
        criteria.Range,
        criteria.Alike,
        criteria.Match,
        criteria.Number,
        criteria.Identifier,
        criteria.AnyOf,
    )
}


def _written(wanted: Wanted) -> dict[str, Any]:
    return {
        "keys": [[path, _as_json(matching)] for path, matching in wanted.keys],
        "patient": [_as_json(one) for one in wanted.patient],
    }


def _read(kept: Mapping[str, Any]) -> Wanted:
    return Wanted(
        tuple((path, _from_json(matching)) for path, matching in kept["keys"]),
        tuple(_from_json(one) for one in kept["patient"]),
    )


def _as_json(value: Any) -> Any:
    if type(value) in _KINDS.values():
        told = {one.name: _as_json(getattr(value, one.name)) for one in fields(value)}
        return {"is": type(value).__name__, **told}
    return [_as_json(one) for one in value] if isinstance(value, tuple) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        told = {name: _from_json(one) for name, one in value.items() if name != "is"}
        return _KINDS[value["is"]](**told)
    return tuple(_from_json(one) for one in value) if isinstance(value, list) else value
