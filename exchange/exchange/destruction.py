"""Destruction: deleting an instance for good, in two durable steps that a crash cannot part.

First its row goes, and `Destroyed` says what it was and why; then a job removes the object, unless
another row needs it. Nothing of a study under a legal hold is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from exchange import derived, jobs, otherwise, subject
from exchange.access import Access
from exchange.errors import Invalid
from exchange.policy import Action
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import (
    Change,
    Conflict,
    Damage,
    Delivered,
    Destroyed,
    Instance,
    LegalHold,
    Rejection,
    Series,
    Study,
)
from exchange_storage.records.record import Moment

BATCH = 500
"""Rows of one statement, objects of one commit."""


def is_held(session: Session, study_instance_uid: str) -> bool:
    """Whether the study is under a legal hold."""
    found = select(LegalHold.id).where(
        LegalHold.study_instance_uid == study_instance_uid, LegalHold.lifted.is_(None)
    )
    return session.scalars(found.limit(1)).first() is not None


def require_no_hold(session: Session, study_instance_uid: str) -> None:
    """Raises Invalid while the study is under a legal hold."""
    if is_held(session, study_instance_uid):
        raise Invalid(
            "the study is under a legal hold: nothing of it is deleted; `exchange hold list`"
        )


def destroy(
    session: Session,
    study_instance_uid: str,
    instances: Sequence[tuple[Instance, str]],
    *,
    reason: str,
    at: datetime,
) -> None:
    """Delete instances of one study, each with its Series Instance UID, in the transaction of
    `session`; and have their objects removed.

    What refers to a row by its number goes too: SQLite gives the number to another one day.
    """
    remaining = iter(instances)
    while some := list(islice(remaining, BATCH)):
        numbers = [instance.id for instance, _ in some]
        about = [
            {
                "study_instance_uid": study_instance_uid,
                "series_instance_uid": series,
                "sop_instance_uid": instance.sop_instance_uid,
            }
            for instance, series in some
        ]
        session.execute(
            insert(Destroyed),
            [
                told
                | {
                    "organization_id": instance.organization_id,
                    "key": instance.key,
                    "digest": instance.digest,
                    "reason": reason,
                    "decided": at,
                }
                for told, (instance, _) in zip(about, some, strict=True)
            ],
        )
        session.execute(
            insert(Change),
            [
                told | {"recorded": at, "action": "delete", "instance_id": instance.id}
                for told, (instance, _) in zip(about, some, strict=True)
            ],
        )
        said = otherwise.touched(session, numbers)
        otherwise.forget(session, numbers)
        for record in (Conflict, Delivered, Damage):
            session.execute(delete(record).where(record.instance_id.in_(numbers)))
        session.execute(
            update(Rejection).where(Rejection.instance_id.in_(numbers)).values(instance_id=None)
        )
        session.execute(delete(Instance).where(Instance.id.in_(numbers)))
        otherwise.recount(session, said)
    if instances:
        jobs.ask(session, jobs.DESTROY, study_instance_uid, at)


def beside(
    session: Session, organization: int, uids: Collection[str], *conditions: ColumnElement[bool]
) -> Mapping[str, list[tuple[Instance, str]]]:
    """What a hospital has sent under some SOP Instance UIDs that is not in use, hidden or kept for
    review: what goes with the one in use, or goes as it does.

    Each with its Series Instance UID, by Study Instance UID, as it is kept or claims them: it may
    be of another study, which has a legal hold of its own.
    """
    found: dict[str, list[tuple[Instance, str]]] = {}
    remaining = iter(sorted(uids))
    while some := list(islice(remaining, BATCH)):
        rows = session.execute(
            select(Instance, Conflict.claimed, Study.study_instance_uid, Series.series_instance_uid)
            .outerjoin(Conflict, Conflict.instance_id == Instance.id)
            .outerjoin(Series, Series.id == Instance.series_id)
            .outerjoin(Study, Study.id == Series.study_id)
            .where(
                Instance.organization_id == organization,
                Instance.sop_instance_uid.in_(some),
                Instance.is_primary.is_(False),
                *conditions,
            )
            .order_by(Instance.id)
        )
        for instance, claimed, study, series in rows:
            told = claimed or {}
            study = study or str(told.get("StudyInstanceUID", ""))[:64]
            series = series or str(told.get("SeriesInstanceUID", ""))[:64]
            found.setdefault(study, []).append((instance, series))
    return found


GOING = exists().where(
    Destroyed.sop_instance_uid == bindparam("uid"),
    Destroyed.key == bindparam("key"),
    or_(Destroyed.removed.is_(None), Destroyed.removed >= bindparam("since", type_=Moment())),
)
"""Whether the object of instance `uid` under `key` is to be removed, or was after `since`.

Who keeps the same bytes anew meanwhile may find them gone, and has to begin again.
"""


def remove_again(session: Session, sop_instance_uid: str, key: str) -> None:
    """Have the object of a deleted instance removed, though it was removed already: the same bytes
    were kept once more, and refused. In the transaction of `session`.

    A row of its own says so: who is removing the object now notes that in the row that it read.
    """
    rows = session.scalars(
        select(Destroyed)
        .where(Destroyed.sop_instance_uid == sop_instance_uid, Destroyed.key == key)
        .order_by(Destroyed.id)
    ).all()
    if not rows:
        return
    last = rows[-1]
    session.add(
        Destroyed(
            organization_id=last.organization_id,
            study_instance_uid=last.study_instance_uid,
            series_instance_uid=last.series_instance_uid,
            sop_instance_uid=sop_instance_uid,
            key=key,
            digest=last.digest,
            reason=last.reason,
            decided=last.decided,
        )
    )
    session.flush()  # before the others go: SQLite would give a number of theirs to it
    for row in rows:
        if row.removed is None:
            session.delete(row)
    jobs.ask(session, jobs.DESTROY, last.study_instance_uid, datetime.now(UTC))


def needed(session: Session, uids: Mapping[str, str]) -> frozenset[str]:
    """Those of some keys, each with the SOP Instance UID that is in it, that a row still needs."""
    return frozenset(session.scalars(_needed(uids)))


def _needed(uids: Mapping[str, str]) -> Select[str]:
    # By their UIDs as well, which are indexed: there may be a hundred million rows.
    return select(Instance.key).where(
        Instance.sop_instance_uid.in_(sorted(set(uids.values()))), Instance.key.in_(sorted(uids))
    )


def remove_objects(access: Access, study_instance_uid: str) -> None:
    """Remove the objects that `Destroyed` names of a study, unless another row needs one.

    Safe to repeat. Raises Refused, Unavailable.
    """
    access.require(Action.DESTROY, study=study_instance_uid)
    derived.forget(access.objects, study_instance_uid)
    last = 0
    while True:
        # In transactions of their own: PostgreSQL ends one in which nothing is asked for 30 s, and
        # to remove a batch from a remote store may take longer.
        with access.exchange.database.reading() as session:
            waiting = session.scalars(
                select(Destroyed)
                .where(
                    Destroyed.study_instance_uid == study_instance_uid,
                    Destroyed.removed.is_(None),
                    Destroyed.id > last,
                )
                .order_by(Destroyed.id)
                .limit(BATCH)
            ).all()
            shared = needed(session, {one.key: one.sop_instance_uid for one in waiting})
        if not waiting:
            break
        last = waiting[-1].id
        _remove(access, study_instance_uid, waiting, shared)
    # Once more: an answer that was being streamed may have kept what it was made of.
    derived.forget(access.objects, study_instance_uid)


def _remove(
    access: Access, study_instance_uid: str, waiting: Sequence[Destroyed], needed: Collection[str]
) -> None:
    for one in waiting:
        if one.key not in needed:
            with suppress(ObjectNotFound):  # it was removed before a crash
                access.objects.delete(one.key)
    numbers = [one.id for one in waiting]

    def unit(session: Session) -> None:
        session.execute(
            update(Destroyed).where(Destroyed.id.in_(numbers)).values(removed=datetime.now(UTC))
        )
        access.note(
            Action.DESTROY,
            reason="objects removed",
            **subject.of_study(session, study_instance_uid),
            detail={"instances": len(waiting), "shared": len(needed)},
        )

    access.write(unit)
