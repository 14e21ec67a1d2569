"""Conflicts: instances that were kept, could not become primary, and wait for someone to look."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from exchange import jobs
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import (
    Change,
    Conflict,
    Destroyed,
    Instance,
    LegalHold,
    Organization,
    Series,
    Study,
)


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
    """The conflicts that wait, the oldest first. Raises Refused."""
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="conflicts listed")
    rows = access.session.execute(
        select(Conflict, Instance, Organization.code)
        .join(Instance, Instance.id == Conflict.instance_id)
        .join(Organization, Organization.id == Instance.organization_id)
        .where(Conflict.settled.is_(None))
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


def pair(access: Access, number: int) -> Pair:
    """The two instances that a conflict is about, to be compared. Raises Refused, NotFound."""
    access.require(Action.REVIEW, detail={"conflict": number})
    conflict, instance = _open(access.session, number)
    primary = access.session.scalars(
        select(Instance).where(
            Instance.sop_instance_uid == instance.sop_instance_uid, Instance.is_primary
        )
    ).one_or_none()
    access.note(
        Action.REVIEW,
        reason="compared",
        study=str(conflict.claimed.get("StudyInstanceUID", "")),
        detail={"conflict": number},
    )
    return Pair(conflict.reason, instance, primary)


def promote(access: Access, number: int) -> None:
    """The conflicting instance is the right one: it is served, the other kept beside it.

    Only where both are the same hospital's, of the same series. Raises Refused, NotFound, Invalid.
    """
    access.require(Action.REVIEW, detail={"conflict": number})

    def unit(session: Session) -> None:
        conflict, instance = _open(session, number)
        row = session.execute(
            select(Instance, Series, Study)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(Instance.sop_instance_uid == instance.sop_instance_uid, Instance.is_primary)
        ).one_or_none()
        if row is None or row.Instance.organization_id != instance.organization_id:
            raise Invalid("there is no instance of the same hospital whose place it could take")
        claimed = conflict.claimed
        if (claimed.get("StudyInstanceUID"), claimed.get("SeriesInstanceUID")) != (
            row.Study.study_instance_uid,
            row.Series.series_instance_uid,
        ):
            raise Invalid("it claims another study or series than the instance in its place")
        row.Instance.is_primary = False
        session.flush()
        instance.series_id, instance.is_primary = row.Series.id, True
        row.Study.changed, row.Study.revision = access.now, row.Study.revision + 1
        session.flush()
        _settled(access, conflict, "promoted")
        session.execute(
            insert(Change).values(
                recorded=access.now,
                action="replace",
                instance_id=instance.id,
                study_instance_uid=row.Study.study_instance_uid,
                series_instance_uid=row.Series.series_instance_uid,
                sop_instance_uid=instance.sop_instance_uid,
            )
        )
        jobs.ask(session, jobs.REFRESH, str(row.Study.id), access.now)

    access.write(unit)


def keep(access: Access, number: int) -> None:
    """It stays as it is, kept and not served; nobody need look again.

    Raises Refused, NotFound.
    """
    access.require(Action.REVIEW, detail={"conflict": number})
    access.write(lambda session: _settled(access, _open(session, number)[0], "kept"))


def discard(access: Access, number: int) -> None:
    """The conflicting instance is of no use: its row goes now, its object by a job.

    Raises Refused, NotFound, and Invalid while the study is under a legal hold.
    """
    access.require(Action.REVIEW, detail={"conflict": number})

    def unit(session: Session) -> None:
        conflict, instance = _open(session, number)
        study = str(conflict.claimed.get("StudyInstanceUID", ""))
        held = select(LegalHold.id).where(
            LegalHold.study_instance_uid == study, LegalHold.lifted.is_(None)
        )
        if session.scalars(held).first() is not None:
            raise Invalid("the study is under a legal hold: nothing of it is deleted")
        _settled(access, conflict, "discarded")
        gone = Destroyed(
            organization_id=instance.organization_id,
            study_instance_uid=study[:64],
            series_instance_uid=str(conflict.claimed.get("SeriesInstanceUID", ""))[:64],
            sop_instance_uid=instance.sop_instance_uid,
            key=instance.key,
            digest=instance.digest,
            reason="discarded",
            decided=access.now,
        )
        session.add(gone)
        session.delete(conflict)
        session.flush()
        session.delete(instance)
        session.flush()
        jobs.ask(session, jobs.DESTROY, str(gone.id), access.now)

    access.write(unit)


def remove_object(access: Access, number: int) -> None:
    """Remove the object of a `Destroyed` row (its number), unless another row needs it.

    Raises Refused, Unavailable.
    """
    access.require(Action.DESTROY)
    gone = access.session.get(Destroyed, number)
    if gone is None or gone.removed is not None:
        return
    shared = access.session.scalar(
        select(func.count()).select_from(Instance).where(Instance.key == gone.key)
    )
    if not shared:
        with suppress(ObjectNotFound):  # it was removed before a crash
            access.objects.delete(gone.key)

    def unit(session: Session) -> None:
        session.execute(update(Destroyed).where(Destroyed.id == number).values(removed=access.now))
        access.note(
            Action.DESTROY,
            reason=gone.reason,
            study=gone.study_instance_uid,
            detail={"instance": gone.sop_instance_uid, "shared": bool(shared)},
        )

    access.write(unit)


def _open(session: Session, number: int) -> tuple[Conflict, Instance]:
    row = session.execute(
        select(Conflict, Instance)
        .join(Instance, Instance.id == Conflict.instance_id)
        .where(Conflict.id == number, Conflict.settled.is_(None))
    ).one_or_none()
    if row is None:
        raise NotFound("no conflict of this number waits; `exchange conflict list` shows them")
    return row.Conflict, row.Instance


def _settled(access: Access, conflict: Conflict, how: str) -> None:
    conflict.settled, conflict.settlement = access.now, how
    access.note(
        Action.REVIEW,
        reason=how,
        study=str(conflict.claimed.get("StudyInstanceUID", "")),
        detail={"conflict": conflict.id, "reason": conflict.reason},
    )
