"""Conflicts: instances that were kept, could not become primary, and wait for someone to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from exchange.access import Access
from exchange.policy import Action
from exchange_storage.records import Conflict, Instance, Organization


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conflict that nobody has settled: which instance, from whom, since when, and why."""

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
            sop_instance_uid=instance.sop_instance_uid,
            study_instance_uid=str(conflict.claimed.get("StudyInstanceUID", "")),
            sender=code,
            raised=conflict.raised,
            reason=conflict.reason,
            key=instance.key,
        )
        for conflict, instance, code in rows
    ]
