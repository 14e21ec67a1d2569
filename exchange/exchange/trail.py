"""Reading the audit trail: who looked at whom, asked by an administrator and itself recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from exchange import organizations
from exchange.access import Access
from exchange.errors import NotFound
from exchange.policy import Action
from exchange_storage import search
from exchange_storage.records import AuditRecord, Patient
from exchange_storage.search import SamePerson


def records(
    access: Access,
    *,
    limit: int = 50,
    requester: str = "",
    study: str = "",
    patient: tuple[str, str] | None = None,
) -> Sequence[dict[str, Any]]:
    """The last records that match, the newest first, as `audit.Entry.content` wrote them.

    `patient` is a hospital's code and its number for the patient; it means the same person's
    records at the other hospitals too. Raises Refused, NotFound.
    """
    access.require(Action.AUDIT)
    matching = select(AuditRecord.content)
    row = None
    if requester:
        matching = matching.where(AuditRecord.requester == requester)
    if study:
        matching = matching.where(AuditRecord.study_instance_uid == study)
    if patient is not None:
        code, number = patient
        owner = organizations.by_code(access.session, code)
        row = access.session.scalars(
            select(Patient.id).where(
                Patient.organization_id == owner.id, Patient.patient_id == number
            )
        ).one_or_none()
        if row is None or not number:
            raise NotFound("this hospital has no patient with this number")
        same = select(Patient.id).where(search.where([SamePerson(row)]))
        matching = matching.where(AuditRecord.patient_id.in_(same))
    access.note(
        Action.AUDIT,
        reason="the trail was read",
        patient=row,
        study=study,
        detail={"requester": requester, "limit": limit},
    )
    newest = matching.order_by(AuditRecord.sequence.desc()).limit(limit)
    return [json.loads(content) for content in access.session.scalars(newest)]
