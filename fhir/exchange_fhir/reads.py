"""Reading what the exchange keeps in records of its own, by logical id (FHIR R4 3.1.0.1.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exchange import organizations, persons, query, trail
from exchange.errors import NotFound
from exchange_fhir import reading, trail_search
from exchange_fhir.answers import Answered
from exchange_fhir.primitives import moment
from exchange_fhir.reading import Resource
from exchange_fhir.resources import endpoint, patient
from exchange_fhir.search import Scope


def _patient(scope: Scope, identity: str) -> Resource:
    for row in patient.rows(identity):
        return reading.patients(scope, [query.patient(scope.access, row, whole=True)])[0]
    raise NotFound("no such patient record")


def _imaging_study(scope: Scope, identity: str) -> Resource:
    return reading.imaging_studies(scope, [query.study(scope.access, identity)])[0]


def _organization(scope: Scope, identity: str) -> Resource:
    organizations.look_up(scope.access, f"Organization/{identity}")
    found = [one for one in scope.organizations if one.code == identity]
    return _only(reading.organizations(found))


def _endpoint(scope: Scope, identity: str) -> Resource:
    organizations.look_up(scope.access, f"Endpoint/{identity}")
    found = [one for one in scope.organizations if endpoint.identity(one) == identity]
    return _only(reading.endpoints(scope, found))


def _person(scope: Scope, identity: str) -> Resource:
    for number in patient.rows(identity):
        known = persons.one(scope.access, number)
        return reading.resource(reading.persons(scope, [known])[0])
    raise NotFound("no such person")


def _audit_event(scope: Scope, identity: str) -> Resource:
    if not (identity.isascii() and identity.isdecimal() and len(identity) <= 18):
        raise NotFound("no such record of the trail")
    return trail_search.resource(scope, trail.one(scope.access, int(identity)))


def _only(found: list[Resource]) -> Resource:
    if not found:
        raise NotFound("no such organization")
    return found[0]


def _answer(read: Callable[[Scope, str], Resource]) -> Callable[[Scope, str], Answered]:
    def one(scope: Scope, identity: str) -> Answered:
        found = read(scope, identity)
        changed = moment(found.updated) if found.updated else None
        return Answered(status=200, content=found.content, version=found.version, changed=changed)

    return one


READS: Mapping[str, Callable[[Scope, str], Answered]] = {
    "AuditEvent": _answer(_audit_event),
    "Endpoint": _answer(_endpoint),
    "ImagingStudy": _answer(_imaging_study),
    "Organization": _answer(_organization),
    "Patient": _answer(_patient),
    "Person": _answer(_person),
}
"""By kind; of Organization and Endpoint there are others, which hospitals wrote."""
