"""Whom a resource is about by what it is about: a Provenance of an Observation (FHIR R4 6.3).

Who may see all of what it is about may see the resource, so it is about the patients of all of it.
A hospital writes of its own patients: of others' the resource says nothing to others, and stays
its writer's alone, as it does where something of what it is about is nobody's. Where that comes,
goes, or is moved to another patient, the resource follows in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, literal, select
from sqlalchemy.orm import Session

from exchange import clinical
from exchange_storage import resource_index, resource_rows
from exchange_storage.prepared import Prepared
from exchange_storage.records import Patient, Resource, SearchReference, Study

Target = tuple[str, str]
"""Kind and logical id."""

PATIENT = "Patient"
STUDY = "ImagingStudy"
"""The kind that is named by its Study Instance UID, and is kept as what it was derived from."""

REFERENCE = "Provenance.target"
"""The search parameter by which a resource says what it is about."""

PATIENTS = 1000
"""Patient records that one resource may be about."""


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


def follow(session: Session, kind: str, logical_id: str) -> None:
    """Have all that is about a resource be about its patients, who are others now; and so on."""
    waiting, seen = [(kind, logical_id)], {(kind, logical_id)}
    while waiting:
        kind, logical_id = waiting.pop()
        given = {"target_kind": kind, "target": logical_id}
        for one in _FOLLOWING.all(session.connection(), given):
            if (one.kind, one.logical_id) not in seen and _followed(session, one):
                seen.add((one.kind, one.logical_id))
                waiting.append((one.kind, one.logical_id))


def _followed(session: Session, one: Any) -> bool:
    """Whether a resource is about others now than it was."""
    told = _TARGETS.all(session.connection(), {"resource": one.id})
    found = [int(row.target) for row in told if row.target_kind == PATIENT and _is_row(row.target)]
    others = [(row.target_kind, row.target) for row in told if row.target_kind not in {"", PATIENT}]
    found = list(dict.fromkeys((*found, *patients(session, one.organization_id, others))))
    before = clinical.about(session, one.id, one.patient_id, others=one.has_others)
    if set(found) == set(before) or len(found) > PATIENTS:
        return False
    place(session, one.id, one.version, found)
    return True


def place(session: Session, resource: int, version: int, patients: Sequence[int]) -> None:
    """Have the current version of a resource (its row number) be about other patients than it was.

    Versions before it are not shown with theirs.
    """
    connection = session.connection()
    first = patients[0] if patients else None
    stands = {"row": resource, "patient_id": first, "has_others": len(patients) > 1}
    resource_rows.PLACE.run(connection, stands)
    resource_rows.REMOVE_OTHERS.run(connection, {"resource": resource})
    if rest := [{"resource_id": resource, "patient_id": patient} for patient in patients[1:]]:
        resource_rows.ADD_OTHER.run_many(connection, rest)
    resource_index.place(session, resource, patients)
    earlier = {"resource": resource, "version": version}
    resource_rows.EARLIER_ELSEWHERE.run(connection, earlier)


def _is_row(identity: str) -> bool:
    return identity.isascii() and identity.isdecimal() and len(identity) <= 18


_REFERENCE = SearchReference.parameter == literal(REFERENCE, SearchReference.parameter.type)
_FOLLOWING = Prepared(
    select(
        Resource.id,
        Resource.kind,
        Resource.logical_id,
        Resource.version,
        Resource.organization_id,
        Resource.patient_id,
        Resource.has_others,
    )
    .distinct()
    .join(SearchReference, SearchReference.resource_id == Resource.id)
    .where(
        _REFERENCE,
        SearchReference.target_kind == bindparam("target_kind"),
        SearchReference.target == bindparam("target"),
        ~Resource.deleted,
    )
)
_TARGETS = Prepared(
    select(SearchReference.target_kind, SearchReference.target)
    .where(SearchReference.resource_id == bindparam("resource"), _REFERENCE)
    .order_by(SearchReference.position)
)
