"""Consent to sharing: opting out, and taking that back, for a person at every hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from exchange import organizations
from exchange.access import Access
from exchange.errors import NotFound
from exchange.policy import Action
from exchange_storage import search
from exchange_storage.records import Consent, Patient
from exchange_storage.search import SamePerson


def opt_out(access: Access, organization: str, number: str) -> None:
    """Record that the patient does not consent to sharing, as stated at one hospital.

    It holds for every record of the same person from this commit on. Raises Refused, NotFound.
    """
    _record(access, organization, number, "deny")


def opt_in(access: Access, organization: str, number: str) -> None:
    """Record that the patient consents again: earlier refusals of the same person end."""
    _record(access, organization, number, "permit")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a Consent says of sharing: ``deny`` or ``permit``, and for which period."""

    decision: str
    since: datetime | None = None
    until: datetime | None = None


def stated(
    session: Session,
    logical_id: str,
    patients: Sequence[int],
    statements: Sequence[Statement],
    now: datetime,
) -> None:
    """A hospital keeps a Consent of its patients, which says this of sharing; nothing where it is
    not in force.

    In the transaction of `session`, for whoever may record it. What the same Consent said before
    ends. While a permit is in force, what was denied before it for the same patient record holds
    no more; but what was denied elsewhere does: no hospital gives itself leave to see what another
    one's patient has refused.
    """
    source = f"Consent/{logical_id}"
    before = (Consent.recorded_by == source, Consent.ended.is_(None))
    session.execute(update(Consent).where(*before).values(ended=now))
    session.add_all(
        Consent(
            patient_id=patient,
            decision=one.decision,
            recorded=now,
            recorded_by=source,
            since=one.since,
            until=one.until,
        )
        for patient in patients
        for one in statements
    )
    session.flush()


def _record(access: Access, organization: str, number: str, decision: str) -> None:
    access.require(Action.ADMINISTER)
    owner = organizations.administered(access, organization)
    if not number:  # records without a number are of one study each: see `Patient.patient_id`
        raise NotFound("a patient is named by a number of the hospital")

    def unit(session: Session) -> None:
        patient = session.scalars(
            select(Patient).where(Patient.organization_id == owner.id, Patient.patient_id == number)
        ).one_or_none()
        if patient is None:
            raise NotFound("this hospital has no patient with this number")
        same = select(Patient.id).where(search.where([SamePerson(patient.id)]))
        session.execute(
            update(Consent)
            .where(Consent.patient_id.in_(same), Consent.ended.is_(None))
            .values(ended=access.now)
        )
        session.add(
            Consent(
                patient_id=patient.id,
                decision=decision,
                recorded=access.now,
                recorded_by=access.requester.name,
            )
        )
        access.note(
            Action.ADMINISTER,
            reason="consent recorded",
            patient=patient.id,
            detail={"decision": decision},
        )

    access.write(unit)
