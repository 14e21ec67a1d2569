"""The worklist of unified procedure steps (PS3.4 annex CC): which workitems are meant, and who may
reach them.

A workitem is of the hospital that scheduled it, and done there, or by the hospital to which it is
assigned: that one may reach it as it may reach the patient's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, literal, select
from sqlalchemy.orm import Session, aliased

from exchange import visibility
from exchange.access import Access
from exchange.errors import Gone, NotFound
from exchange.policy import Action, Facts, Role
from exchange.workitem_attributes import MATCHED, Json
from exchange_storage import search as matcher
from exchange_storage.records import Organization, Patient, Workitem, WorkitemKey
from exchange_storage.search import Criterion, Kind, Matching

COLUMNS: dict[str, tuple[Any, Kind]] = {
    "SOPInstanceUID": (Workitem.sop_instance_uid, Kind.UID),
    "ProcedureStepState": (Workitem.state, Kind.TEXT),
}
"""What is matched of the record itself; all else in `MATCHED` by its keys."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What workitems are asked for."""

    keys: tuple[tuple[str, Matching], ...] = ()
    """By the path of an attribute, see `COLUMNS` and `MATCHED`."""
    patient: tuple[Criterion, ...] = ()

    def condition(self) -> ColumnElement[bool]:
        """As a condition on `Workitem` and the `Patient` beside it.

        Keys in the items of one sequence match in one item of it (PS3.4 C.2.2.2.6).
        """
        conditions: list[ColumnElement[bool]] = []
        together: dict[str, list[tuple[str, Matching]]] = {}
        for path, matching in self.keys:
            if path in COLUMNS:
                column, kind = COLUMNS[path]
                conditions.append(matcher.compare(column, matching, kind))
            else:
                together.setdefault(path.partition(".")[0], []).append((path, matching))
        conditions += [_holds(keys) for keys in together.values()]
        if self.patient:
            conditions.append(matcher.where(self.patient))
        return and_(literal(value=True), *conditions)


def _holds(keys: Sequence[tuple[str, Matching]]) -> ColumnElement[bool]:
    """Some item of a sequence, or an attribute outside of any, has all of the keys."""
    rows = [aliased(WorkitemKey) for _ in keys]
    found = select(literal(1)).select_from(rows[0])
    for row in rows[1:]:
        same = and_(row.workitem_id == rows[0].workitem_id, row.item == rows[0].item)
        found = found.join(row, same)
    compared = [
        and_(row.path == path, matcher.compare(row.value, matching, MATCHED[path][1]))
        for row, (path, matching) in zip(rows, keys, strict=True)
    ]
    return exists(found.where(rows[0].workitem_id == Workitem.id, *compared).correlate(Workitem))


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A workitem that was found."""

    workitem: Workitem
    issuer: str
    """Who issued the patient's number in it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of workitems."""

    found: Sequence[Scheduled]
    more: bool


def search(
    access: Access, wanted: Wanted, *, limit: int, offset: int = 0, asked: str = ""
) -> Answer:
    """The workitems that match and that the asker may work on, in the order of their creation.

    `asked` is the question for the audit trail. Raises Refused.
    """
    access.require(Action.WORK, detail={"asked": asked})
    rows = access.session.execute(
        select(Workitem, Organization.issuer)
        .select_from(Workitem)
        .join(Organization, Organization.id == Workitem.organization_id)
        .outerjoin(Patient, Patient.id == Workitem.patient_id)
        .where(
            Workitem.deleted.is_(None), visibility.workable(access.requester), wanted.condition()
        )
        .order_by(Workitem.id)
        .limit(limit + 1)
        .offset(offset),
        visibility.parameters(access.requester, access.now),
    ).all()
    page = rows[:limit]
    of = {row.Workitem.patient_id for row in page} - {None}
    access.note(
        Action.WORK,
        reason="searched",
        detail={"asked": asked, "answered": len(page), "scheduled": sorted(of)},
    )
    return Answer([Scheduled(row.Workitem, row.issuer) for row in page], len(rows) > limit)


def retrieve(access: Access, uid: str) -> Json:
    """All of a workitem but its Transaction UID, with the issuer of the patient's number.

    Raises Refused, NotFound, and Gone for one that was deleted.
    """
    access.require(Action.WORK)
    workitem = reach(access, access.session, uid)
    issuer = access.session.scalars(
        select(Organization.issuer).where(Organization.id == workitem.organization_id)
    ).one()
    access.note(
        Action.WORK,
        reason="read",
        patient=workitem.patient_id,
        study=workitem.study_instance_uid,
        detail={"workitem": uid},
    )
    return told(Scheduled(workitem, issuer))


def told(scheduled: Scheduled) -> Json:
    """What is told of a workitem: the number of the patient with its issuer."""
    content = scheduled.workitem.content
    if scheduled.workitem.patient_id is None:
        return content
    return {**content, "00100021": {"vr": "LO", "Value": [scheduled.issuer]}}


def reach(access: Access, session: Session, uid: str) -> Workitem:
    """The workitem, for whoever may work on it.

    Raises NotFound where it is neither the asker's own nor assigned to it, Refused where the
    policy says no, Gone where it was deleted.
    """
    row = session.execute(
        select(
            Workitem,
            visibility.shares(Workitem.organization_id).label("owner_shares"),
            visibility.asker_shares().label("asker_shares"),
            visibility.opted_out(Patient).label("opted_out"),
        )
        .select_from(Workitem)
        .outerjoin(Patient, Patient.id == Workitem.patient_id)
        .where(Workitem.sop_instance_uid == uid),
        visibility.parameters(access.requester, access.now),
    ).one_or_none()
    asker = access.requester.organization
    everything = access.requester.role is Role.EXCHANGE
    if row is None or not (
        everything or asker in (row.Workitem.organization_id, row.Workitem.assigned_id)
    ):
        raise NotFound("there is no such workitem")
    workitem: Workitem = row.Workitem
    access.require(
        Action.WORK,
        Facts(
            owner=workitem.organization_id,
            owner_shares=bool(row.owner_shares),
            asker_shares=bool(row.asker_shares),
            opted_out=bool(row.opted_out),
        ),
        patient=workitem.patient_id,
        study=workitem.study_instance_uid,
        detail={"workitem": uid},
    )
    if workitem.deleted is not None:
        raise Gone("the workitem ended long ago, and was deleted")
    return workitem
