"""Who is told that something is withheld, and why: whoever knows the person, and nobody else.

A Study Instance UID can be guessed, overheard or read on a film, and the numbers of patient records
be counted through. Who may see no record of the person is answered as if there were no such study,
or patient; the refusal stands in the trail alone. Who may see one is told of others that are
withheld anyway (see `timeline.withheld`), with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from exchange import visibility
from exchange.access import Access
from exchange.errors import NotFound, Refused
from exchange.policy import Action
from exchange_storage.records import Patient

NO_STUDY = "no such study"
"""What is said of a study that is not there, or seems so."""

NO_PATIENT = "no such patient record"
"""What is said of a patient record that is not there, or seems so."""


@contextmanager
def to_those_who_know(
    access: Access, record: Patient, study: str = "", *, told: bool = False
) -> Iterator[None]:
    """A refusal inside, of this patient record or a `study` of it, is told as such to whoever may
    know of it, or was `told`; else it is NotFound, as if nothing were there."""
    try:
        yield
    except Refused as refused:
        if told or access.requester.reaches(study) or knows(access, record):
            raise
        raise NotFound(NO_STUDY if study else NO_PATIENT) from refused


def knows(access: Access, record: Patient, session: Session | None = None) -> bool:
    """Whether the asker may see the patient record, or another of the same person's.

    Looked up through `session` within a unit of work.
    """
    same = Patient.id == record.id
    if record.person_id is not None:
        same = or_(same, Patient.person_id == record.person_id)
    seen = visibility.visible(access.requester, Action.SEARCH)
    found = (session or access.session).scalars(
        select(Patient.id).where(same, ~Patient.withdrawn, seen).limit(1),
        visibility.parameters(access.requester, access.now),
    )
    return found.first() is not None
