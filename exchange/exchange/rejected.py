"""The rejections in force, as a list of them shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from exchange import organizations, rejection
from exchange.access import Access
from exchange.policy import Action
from exchange_storage.records import Organization, Rejection


@dataclass(frozen=True, slots=True)
class Listed:
    """A rejection as a list of them shows it."""

    organization: str
    code: str
    study_instance_uid: str
    sop_instance_uid: str
    rejected: datetime
    note: str
    """SOP Instance UID of the rejection note; ``command …`` for an administrator's."""
    kept: bool
    """Whether its object is kept; else it was deleted, or never came."""


def listed(
    access: Access, *, organization: str | None = None, limit: int = 1000
) -> Sequence[Listed]:
    """The rejections in force, the newest first. Raises Refused, NotFound."""
    access.require(Action.ADMINISTER, detail={"code": organization})
    wanted = (
        select(Rejection, Organization.code)
        .join(Organization, Organization.id == Rejection.organization_id)
        .where(rejection.IN_FORCE)
        .order_by(Rejection.id.desc())
        .limit(limit)
    )
    if organization is not None:
        owner = organizations.administered(access, organization)
        wanted = wanted.where(Rejection.organization_id == owner.id)
    elif (own := access.requester.organization) is not None:
        wanted = wanted.where(Rejection.organization_id == own)
    access.note(Action.ADMINISTER, reason="rejections listed", detail={"code": organization})
    return [
        Listed(
            organization=code,
            code=one.code,
            study_instance_uid=one.study_instance_uid,
            sop_instance_uid=one.sop_instance_uid,
            rejected=one.rejected,
            note=one.note_sop_instance_uid,
            kept=one.instance_id is not None,
        )
        for one, code in access.session.execute(wanted)
    ]
