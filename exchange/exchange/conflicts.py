"""Conflicts: instances that were kept, could not become primary, and wait for someone to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, insert, select, true, update
from sqlalchemy.orm import Session

from exchange import destruction, discrepancies, jobs, otherwise, rejection
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.ingest import Received
from exchange.places import OTHER_PATIENT, Place, place_of
from exchange.policy import Action
from exchange_storage.records import (
    Change,
    Conflict,
    Instance,
    Organization,
    Patient,
    Series,
    Study,
)
from exchange_storage.search import ATTRIBUTES, Level


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conflict that nobody has settled: which instance, from whom, since when, and why."""

    number: int
    """By which it is settled."""
    sop_instance_uid: str
    study_instance_uid: str
    sender: str
    """The code of the hospital that sent it."""
    raised: datetime
    reason: str
    key: str
    """Where its object lies."""


def waiting(access: Access, limit: int = 100) -> Sequence[Waiting]:
    """The conflicts that wait, the oldest first; of one hospital to its own. Raises Refused."""
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="conflicts listed")
    rows = access.session.execute(
        select(Conflict, Instance, Organization.code)
        .join(Instance, Instance.id == Conflict.instance_id)
        .join(Organization, Organization.id == Instance.organization_id)
        .where(Conflict.settled.is_(None), _reviewed_by(access))
        .order_by(Conflict.id)
        .limit(limit)
    )
    return [
        Waiting(
            number=conflict.id,
            sop_instance_uid=instance.sop_instance_uid,
            study_instance_uid=str(conflict.claimed.get("StudyInstanceUID", "")),
            sender=code,
            raised=conflict.raised,
            reason=conflict.reason,
            key=instance.key,
        )
        for conflict, instance, code in rows
    ]


@dataclass(frozen=True, slots=True)
class Pair:
    """A conflicting instance, and the primary one of its SOP Instance UID, if there is one."""

    reason: str
    conflicting: Instance
    primary: Instance | None
    """None as well where it is another hospital's than the asker administers."""
    claimed: Mapping[str, str]
    """What the conflicting one says of its patient and study, by DICOM keyword."""
    known: Mapping[str, str]
    """What the index has under its Study Instance UID instead; empty where it has no such study, or
    one of another hospital than the asker administers."""


def pair(access: Access, number: int) -> Pair:
    """The two sides of a conflict, to be compared. Raises Refused, NotFound."""
    access.require(Action.REVIEW, detail={"conflict": number})
    conflict, instance = _open(access, access.session, number)
    study = str(conflict.claimed.get("StudyInstanceUID", ""))
    primary = access.session.scalars(
        select(Instance).where(
            Instance.sop_instance_uid == instance.sop_instance_uid, Instance.is_primary
        )
    ).one_or_none()
    row = access.session.execute(
        select(Study, Patient)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Study.study_instance_uid == study)
    ).one_or_none()
    own = access.requester.organization
    if row is not None and own not in {None, row.Patient.organization_id}:
        row = None  # another hospital's patient is not its administrator's to see
    if primary is not None and own not in {None, primary.organization_id}:
        primary = None
    known = {
        keyword: str(getattr(one, attribute.column.key) or "")
        for keyword, attribute in ATTRIBUTES.items()
        for level, one in zip((Level.STUDY, Level.PATIENT), row or (), strict=False)
        if attribute.level is level
    }
    access.note(
        Action.REVIEW,
        reason="compared",
        patient=row.Patient.id if row is not None else None,
        study=study,
        detail={"conflict": number},
    )
    claimed = {keyword: str(conflict.claimed.get(keyword, "")) for keyword in known}
    return Pair(conflict.reason, instance, primary, claimed, known)


def promote(access: Access, number: int) -> None:
    """The conflicting instance is the right one: it is served, the other kept beside it.

    Only if it could be received as it is, into a study of the patient that it names; and where
    there is another, only if both are the same hospital's, of the same series. Raises Refused,
    NotFound, Invalid.
    """
    access.require(Action.REVIEW, detail={"conflict": number})

    def unit(session: Session) -> None:
        conflict, instance = _open(access, session, number)
        row = session.execute(
            select(Instance, Series, Study)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(Instance.sop_instance_uid == instance.sop_instance_uid, Instance.is_primary)
        ).one_or_none()
        claimed = (
            str(conflict.claimed.get("StudyInstanceUID", "")),
            str(conflict.claimed.get("SeriesInstanceUID", "")),
        )
        if row is None:
            action = "create"
        elif row.Instance.organization_id != instance.organization_id:
            raise Invalid("the instance in its place is another hospital's: keep or discard it")
        elif claimed != (row.Study.study_instance_uid, row.Series.series_instance_uid):
            raise Invalid(
                "it claims another study or series than the instance in its place: keep or "
                "discard it"
            )
        else:
            action = "replace"
        # Of its patient too: what took another's place would be served under that one's name.
        place = _place(access, session, conflict, instance)
        if row is not None:
            row.Instance.is_primary = False
            session.flush()
        instance.series_id, instance.is_primary = place.series, True
        session.flush()
        otherwise.replace(session, instance.id, place.otherwise)
        discrepancies.require_nobody_else(session, [instance.id])
        taken = [] if row is None else [row.Instance.id]
        otherwise.recount(session, otherwise.touched(session, [instance.id, *taken]))
        session.execute(
            update(Study)
            .where(Study.id == place.study)
            .values(changed=access.now, revision=Study.revision + 1)
        )
        _settled(access, session, conflict, instance, "promoted")
        session.execute(
            insert(Change).values(
                recorded=access.now,
                action=action,
                instance_id=instance.id,
                study_instance_uid=claimed[0],
                series_instance_uid=claimed[1],
                sop_instance_uid=instance.sop_instance_uid,
            )
        )
        jobs.hasten(session, jobs.REFRESH, str(place.study), access.now)

    access.write(unit)


def _place(access: Access, session: Session, conflict: Conflict, instance: Instance) -> Place:
    """The place of an instance, as it claims it. Raises Invalid."""
    if rejection.is_rejected(session, instance.organization_id, instance.sop_instance_uid):
        raise Invalid("the hospital has rejected this instance; `exchange restore` comes first")
    received = Received(
        attributes={keyword: str(value) for keyword, value in conflict.claimed.items()},
        identifiers=(),
        transfer_syntax_uid=instance.transfer_syntax_uid,
    )
    place = place_of(access, session, instance.organization_id, received, access.now)
    if place == OTHER_PATIENT:
        raise Invalid(
            f"{place}: keep or discard it; its hospital corrects the patient and sends it again, "
            "or, if the study is the wrong one, rejects that and sends it anew under new UIDs"
        )
    if isinstance(place, str):
        raise Invalid(f"{place}: keep or discard it")
    return place


def keep(access: Access, number: int) -> None:
    """It stays as it is, kept and not served; nobody need look again.

    Raises Refused, NotFound.
    """
    access.require(Action.REVIEW, detail={"conflict": number})
    access.write(lambda session: _settled(access, session, *_open(access, session, number), "kept"))


def discard(access: Access, number: int) -> None:
    """The conflicting instance is of no use: its row goes now, its object by a job.

    Raises Refused, NotFound, and Invalid while the study is under a legal hold.
    """
    access.require(Action.REVIEW, detail={"conflict": number})

    def unit(session: Session) -> None:
        conflict, instance = _open(access, session, number)
        study = str(conflict.claimed.get("StudyInstanceUID", ""))
        destruction.require_no_hold(session, study)
        _settled(access, session, conflict, instance, "discarded")
        session.flush()
        series = str(conflict.claimed.get("SeriesInstanceUID", ""))[:64]
        destruction.destroy(
            session, study[:64], [(instance, series)], reason="discarded", at=access.now
        )

    access.write(unit)


def _open(access: Access, session: Session, number: int) -> tuple[Conflict, Instance]:
    row = session.execute(
        select(Conflict, Instance)
        .join(Instance, Instance.id == Conflict.instance_id)
        .where(Conflict.id == number, Conflict.settled.is_(None), _reviewed_by(access))
    ).one_or_none()
    if row is None:
        raise NotFound("no conflict of this number waits; `exchange conflict list` shows them")
    return row.Conflict, row.Instance


def _reviewed_by(access: Access) -> ColumnElement[bool]:
    """Whether the asker reviews what this instance's sender has sent: a hospital's own, or all."""
    own = access.requester.organization
    return true() if own is None else Instance.organization_id == own


def _settled(
    access: Access, session: Session, conflict: Conflict, instance: Instance, how: str
) -> None:
    conflict.settled, conflict.settlement = access.now, how
    study = str(conflict.claimed.get("StudyInstanceUID", ""))
    own = select(Patient.id).join(Study, Study.patient_id == Patient.id)
    own = own.where(
        Study.study_instance_uid == study, Patient.organization_id == instance.organization_id
    )
    access.note(
        Action.REVIEW,
        reason=how,
        patient=session.scalars(own).one_or_none(),
        study=study,
        detail={"conflict": conflict.id, "reason": conflict.reason},
    )
