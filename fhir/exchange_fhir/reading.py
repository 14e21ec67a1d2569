"""What the exchange found, as resources: kept bytes where they are current, else derived now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exchange import beside, documents, orders, query
from exchange.persons import Known
from exchange.query import Found
from exchange_fhir import json_format, registering
from exchange_fhir.datatypes import Json
from exchange_fhir.resources import endpoint, imaging_study, organization, patient, person
from exchange_fhir.search import Scope
from exchange_storage.records import Organization

PAGE_BYTES = 1 << 24
"""Bytes of resources after which a page ends: 500 large CT studies would be 125 MB."""

BATCH = 16
"""Studies that are read at a time, so that a page is not read far beyond its end."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as it is served."""

    kind: str
    id: str
    content: bytes
    version: str = ""
    updated: str = ""
    """When it last changed, as an instant; "" where that is read from its content only."""


def patients(scope: Scope, found: Sequence[Found]) -> list[Resource]:
    """The Patients of matches, each record once; three queries at most for all of them."""
    return [resource(one) for one in _patients(scope, found).values()]


def persons(scope: Scope, found: Sequence[Known]) -> list[Json]:
    """The Persons of records that the asker may see."""
    told = _patients(scope, [one.found for known in found for one in known.records])
    return [person.to_fhir(known, told) for known in found]


def _patients(scope: Scope, found: Sequence[Found]) -> dict[int, Json]:
    records = {one.patient.id: one for one in found}
    alone = [one.patient for one in records.values() if one.beside is None]
    asked = beside.of(scope.access, alone) if alone else {}
    told: dict[int, Json] = {}
    for row, one in records.items():
        held = one.beside or asked[row]
        derived = patient.to_fhir(one, held.identifiers, held.links)
        told[row] = registering.completed(derived, held.written)
    return told


def imaging_studies(scope: Scope, found: Sequence[Found]) -> list[Resource]:
    """The ImagingStudies of matches at study level: the first of them, up to `PAGE_BYTES`.

    Of any there is at least one, however large it is.
    """
    read: list[Resource] = []
    size = 0
    for at in range(0, len(found), BATCH):
        for one in _imaging_studies(scope, found[at : at + BATCH]):
            size += len(one.content)
            if read and size > PAGE_BYTES:
                return read
            read.append(one)
    return read


def _imaging_studies(scope: Scope, found: Sequence[Found]) -> list[Resource]:
    studies = [(one, imaging_study.held(one)) for one in found]
    revisions = {study.study_instance_uid: study.revision for _, study in studies}
    kept = documents.current(scope.access, "ImagingStudy", revisions)
    stale = [one for one, study in studies if study.study_instance_uid not in kept]
    contents = query.contents(scope.access, stale) if stale else {}
    led = orders.of_studies(scope.access, [one.study.id for one in stale if one.study is not None])
    return [
        Resource("ImagingStudy", study.study_instance_uid, held, str(study.revision))
        if (held := kept.get(study.study_instance_uid))
        else resource(
            imaging_study.to_fhir(one, contents[study.id], scope.timezone, led.get(study.id, ()))
        )
        for one, study in studies
    ]


def organizations(hospitals: Iterable[Organization]) -> list[Resource]:
    """The Organizations of hospitals, each once."""
    return [resource(organization.to_fhir(one)) for one in _once(hospitals)]


def endpoints(scope: Scope, hospitals: Iterable[Organization]) -> list[Resource]:
    """The Endpoints of hospitals, each once."""
    return [resource(endpoint.to_fhir(one, scope.dicomweb)) for one in _once(hospitals)]


def _once(hospitals: Iterable[Organization]) -> Iterable[Organization]:
    return {one.id: one for one in hospitals}.values()


def resource(told: Json) -> Resource:
    """A resource that was just derived, as it is served."""
    meta = told["meta"]
    content = json_format.serialize(told)
    version, updated = meta.get("versionId", ""), meta.get("lastUpdated", "")
    return Resource(told["resourceType"], told["id"], content, version, updated)
