"""Restoration: rejected instances come back into use, by command of an administrator.

What is kept is served again at once. What came while it was rejected waits for review.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session

from exchange import discrepancies, organizations, subject
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange.rejection import (
    BATCH,
    BEHAVIOURS,
    IN_FORCE,
    OTHER,
    REJECTED_BEFORE,
    located,
    serve,
)
from exchange_storage.records import Conflict, Instance, Rejection


@dataclass(frozen=True, slots=True)
class Restored:
    """How many instances are served again, and the numbers of the conflicts in which those wait
    that came meanwhile: they are served once they are promoted."""

    served: int
    waiting: tuple[int, ...]


def restore(
    access: Access,
    organization: str,
    uids: Sequence[str] = (),
    *,
    study: str = "",
    reason: str = "",
) -> Restored:
    """Withdraw every rejection of these instances, or of all of a study: what is still kept is
    served again; what came while they were rejected waits for review, also if it was to be kept
    aside.

    Raises Refused, NotFound, and Invalid when a reason is wanted, when all of it was deleted, when
    another instance has taken the place of one meanwhile, or when it is another person's.
    """
    about = {"code": organization, "why": reason[:256]}
    access.require(Action.ADMINISTER, study=study, detail=about)
    if bool(uids) == bool(study):
        raise Invalid("name either instances or a study")

    def unit(session: Session) -> Restored:
        owner = organizations.administered(access, organization, session).id
        mine = (
            Rejection.organization_id == owner,
            IN_FORCE,
            Rejection.study_instance_uid == study
            if study
            else Rejection.sop_instance_uid.in_(uids),
        )
        rejections = session.scalars(select(Rejection).where(*mine)).all()
        missing = set(uids) - {one.sop_instance_uid for one in rejections}
        if missing or not rejections:
            raise NotFound(
                "this hospital has not rejected such an instance; `exchange rejected` lists them"
            )
        if not reason.strip() and any(BEHAVIOURS[one.code].explained for one in rejections):
            raise Invalid("what was rejected for patient safety comes back only with a --reason")
        rows = sorted({one.instance_id for one in rejections if one.instance_id is not None})
        if not rows and all(BEHAVIOURS[one.code].deletes for one in rejections):
            raise Invalid("it was deleted; the hospital has to send it again")
        session.execute(update(Rejection).where(*mine).values(withdrawn=access.now))
        served = 0
        for start in range(0, len(rows), BATCH):
            kept = session.scalars(
                select(Instance).where(Instance.id.in_(rows[start : start + BATCH]))
            ).all()
            taken = select(Instance.id).where(
                Instance.sop_instance_uid.in_([one.sop_instance_uid for one in kept]),
                Instance.is_primary,
            )
            if session.scalars(taken).first() is not None:
                raise Invalid(
                    "another instance has this UID now: it would have to be rejected first"
                )
            numbers = [one.id for one in kept]
            discrepancies.require_nobody_else(session, numbers)
            found = located(session, Instance.id.in_(numbers))
            serve(session, found, True, access.now, "restore")
            discrepancies.in_use_again(access, session, numbers)
            served += len(found)
        for uid in sorted({one.study_instance_uid for one in rejections}):
            access.note(
                Action.REJECT,
                reason="withdrawn",
                **subject.of_study(session, uid),
                detail=about | {"instances": len(rejections), "served": served},
            )
        return Restored(
            served, _waiting(session, owner, {one.sop_instance_uid for one in rejections})
        )

    return access.write(unit)


def _waiting(session: Session, owner: int, uids: Collection[str]) -> tuple[int, ...]:
    """The conflicts about these instances of the hospital's, by number; one that was settled by
    keeping a rejected instance aside is open again where nothing else is in use."""
    in_use = exists().where(OTHER.sop_instance_uid == Instance.sop_instance_uid, OTHER.is_primary)
    aside = and_(Conflict.settlement == "kept", Conflict.reason == REJECTED_BEFORE, ~in_use)
    found: list[int] = []
    remaining = iter(sorted(uids))
    while some := list(islice(remaining, BATCH)):
        for one in session.scalars(
            select(Conflict)
            .join(Instance, Instance.id == Conflict.instance_id)
            .where(Instance.sop_instance_uid.in_(some), Instance.organization_id == owner)
            .where(or_(Conflict.settled.is_(None), aside))
        ):
            one.settled, one.settlement = None, ""
            found.append(one.id)
    return tuple(sorted(found))
