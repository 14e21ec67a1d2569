"""Whom a resource is about by what it is about: a Provenance of an Observation (FHIR R4 6.3).

Who may see all of what it is about may see the resource, so it is about the patients of all of it.
A hospital writes of its own patients: of others' the resource says nothing to others, and stays
its writer's alone, as it does where something of what it is about is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange import clinical
from exchange_storage import resource_rows
from exchange_storage.records import Patient, Study

Target = tuple[str, str]
"""Kind and logical id."""

STUDY = "ImagingStudy"
"""The kind that is named by its Study Instance UID, and is kept as what it was derived from."""


def patients(session: Session, organization: int | None, targets: Iterable[Target]) -> list[int]:
    """The patient records of all of the targets that are here, none where not all are such of the
    organization's.

    What is in the directory, or not here, says nothing of whom.
    """
    found: list[int] = []
    for kind, logical_id in targets:
        about = _about(session, kind, logical_id)
        if about is not None and not about:
            return []
        found += about or ()
    wanted = list(dict.fromkeys(found))
    if not wanted:
        return []
    owners = select(Patient.organization_id).where(Patient.id.in_(wanted)).distinct()
    return wanted if {*session.scalars(owners)} <= {organization} else []


def _about(session: Session, kind: str, logical_id: str) -> Sequence[int] | None:
    """The patients of a target; None where it is not here, or in the directory."""
    if kind == STUDY:
        uid = Study.study_instance_uid == logical_id
        return session.scalars(select(Study.patient_id).where(uid)).all() or None
    named = {"kind": kind, "logical_id": logical_id}
    held = resource_rows.HELD.first(session.connection(), named)
    if held is None or held.deleted or held.is_directory:
        return None
    return clinical.about(session, held.id, held.patient_id, others=held.has_others)
