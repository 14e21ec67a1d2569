"""What a search finds: a resource, and by what its references are followed (FHIR R4 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exchange.clinical_search import Hit
from exchange.persons import Known
from exchange.query import Found
from exchange_fhir import indexing, reading, registered
from exchange_fhir.reading import Resource
from exchange_fhir.search import Scope
from exchange_storage.records import Organization
from exchange_storage.resource_index import Value


@dataclass(frozen=True, slots=True)
class One:
    """A resource, and by what its references are followed."""

    resource: Resource
    row: int | None = None
    """Of a kept resource."""
    found: Found | None = None
    """Of a patient record or study."""
    hospital: Organization | None = None
    """Of a registered hospital's entry of the directory."""
    told: Sequence[Value] = ()
    """Of what is derived from records: what it is found under."""


def of_persons(scope: Scope, known: Sequence[Known]) -> list[One]:
    """Persons."""
    made = reading.persons(scope, known)
    return [
        One(reading.resource(one), told=indexing.values(one, scope.timezone, scope.base))
        for one in made
    ]


def of_records(scope: Scope, kind: str, found: Sequence[Found]) -> list[One]:
    """Patients, each once, or studies, of which as many as a page has room for."""
    if kind == "Patient":
        by_row = {one.patient.id: one for one in found}
        patients = reading.patients(scope, list(by_row.values()))
        return [
            One(resource, found=one)
            for resource, one in zip(patients, by_row.values(), strict=True)
        ]
    studies = reading.imaging_studies(scope, found)
    return [One(resource, found=one) for resource, one in zip(studies, found, strict=False)]


def of_hit(one: Hit) -> One:
    """A kept resource."""
    return One(Resource(one.kind, one.logical_id, one.content, str(one.version)), row=one.row)


def of_hospital(scope: Scope, kind: str, hospital: Organization) -> One:
    """A registered hospital's entry of the directory."""
    made = reading.resource(registered.resource(scope, kind, hospital))
    return One(made, hospital=hospital)
