"""A record of a person, opened: what a hospital wrote, in which version, and what belongs to it.

    opened = dossier.opened(access, "Observation", logical_id)

Whatever is told along with it is decided and recorded like the record itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from exchange import beside, clinical, clinical_search, people
from exchange.access import Access
from exchange.clinical import Kept
from exchange.clinical_search import Hit, Question
from exchange.errors import NotFound
from exchange_storage.records import Organization, Patient, Resource
from exchange_storage.resource_criteria import Asked, Every, Indexed, RefersTo, TokenIs
from exchange_storage.resource_order import Sort

VERSIONS = 20
"""Versions of a record that are listed, at most: the last."""

ALONGSIDE = 50
"""Records of one type that belong to another, at most."""

MEASURED = 200
"""Results of one kind over time, at most: the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A version of a record, and whose it is."""

    kept: Kept
    organization: Organization | None
    """The hospital that wrote it; None where the exchange derived it from a study's reports."""
    patient: Patient
    hospital: Organization
    """Whose patient record it is about."""
    versions: tuple[Kept, ...]
    """The last of those that the asker may see, the newest first."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A record that belongs to another, and the hospital that wrote it."""

    hit: Hit
    organization: Organization | None


def opened(access: Access, kind: str, logical_id: str, version: int | None = None) -> Opened:
    """The current version of a record about a patient, or the one that is named.

    Raises NotFound, also for what is about no patient; Gone where it was deleted; Refused.
    """
    if version is None:
        kept = clinical.read(access, kind, logical_id)
    else:
        kept = clinical.vread(access, kind, logical_id, version)
    row = access.session.execute(
        select(Resource.patient_id, Organization)
        .outerjoin(Organization, Organization.id == Resource.organization_id)
        .where(Resource.kind == kind, Resource.logical_id == logical_id)
    ).one()
    about = people.of_records(access, () if row.patient_id is None else (row.patient_id,))
    if row.patient_id not in about:
        raise NotFound("this record is about no patient whom you may see")
    patient, hospital = about[row.patient_id]
    versions = clinical.history(access, kind, logical_id, limit=VERSIONS).kept
    return Opened(
        kept=kept,
        organization=row.Organization,
        patient=patient,
        hospital=hospital,
        versions=versions,
    )


def alongside(
    access: Access, kind: str, logical_id: str, sources: Mapping[str, Sequence[str]]
) -> tuple[Beside, ...]:
    """The records that refer to one: by type, under which parameters they do so. Raises Refused."""
    hits = [
        hit
        for source, names in sources.items()
        for hit in clinical_search.referring(
            access, source, names, kind, (logical_id,), limit=ALONGSIDE
        )
    ]
    return _with_owners(access, [hit for hit in hits if hit.logical_id != logical_id])


def named(access: Access, kind: str, logical_ids: Sequence[str]) -> tuple[Beside, ...]:
    """The records of a type with these logical ids, in their order, as far as they may be seen.

    Raises Refused.
    """
    hits = clinical_search.named(access, kind, logical_ids, limit=len(logical_ids))
    order = {one: number for number, one in enumerate(logical_ids)}
    return _with_owners(access, sorted(hits, key=lambda one: order[one.logical_id]))


def over_time(
    access: Access, patient: Patient, codes: Iterable[tuple[str, str]]
) -> tuple[Beside, ...]:
    """The person's observations with one of these codes (system, code) of all hospitals, the oldest
    of the last first. Raises Refused.
    """
    tests = tuple(TokenIs(code, system) for system, code in codes)
    if not tests:
        return ()
    same = (patient.id, *beside.links(access, [patient]).get(patient.id, ()))
    about = RefersTo("Patient", tuple(str(row) for row in same))
    criteria: tuple[Asked, ...] = (
        Indexed("reference", ("Observation.subject",), (about,)),
        Indexed("token", ("Observation.code",), tests),
    )
    answer = clinical_search.find(
        access,
        Question(
            kind="Observation",
            criterion=Every(criteria),
            sort=(Sort("date", ("Observation.date",), descending=True),),
            limit=MEASURED,
            asked="results over time",
        ),
    )
    return _with_owners(access, answer.found[::-1])


def _with_owners(access: Access, hits: Sequence[Hit]) -> tuple[Beside, ...]:
    rows = access.session.execute(
        select(Resource.id, Organization)
        .join(Organization, Organization.id == Resource.organization_id)
        .where(Resource.id.in_([hit.row for hit in hits]))
    )
    owners: dict[int, Organization] = {row.id: row.Organization for row in rows}
    return tuple(Beside(hit, owners.get(hit.row)) for hit in hits)
