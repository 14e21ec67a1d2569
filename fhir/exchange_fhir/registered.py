"""The registered hospitals' own Organizations and Endpoints, found among some dozens in memory.

What hospitals write of departments and other endpoints is kept and searched like any resource;
these are derived from what is registered, and are asked by the same criteria.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from exchange_fhir import at_hand, indexing
from exchange_fhir.datatypes import Json
from exchange_fhir.resources import endpoint, organization
from exchange_fhir.search import Scope
from exchange_storage.records import Organization
from exchange_storage.resource_criteria import Asked
from exchange_storage.resource_index import Value

KINDS = frozenset({"Organization", "Endpoint"})


def identity(kind: str, hospital: Organization) -> str:
    """The logical id of a hospital's Organization, or of its Endpoint."""
    return endpoint.identity(hospital) if kind == "Endpoint" else hospital.code


def updated(kind: str, hospital: Organization) -> datetime:
    """When a hospital's Organization, or its Endpoint, last changed."""
    return hospital.registered if kind == "Endpoint" else organization.updated(hospital)


def resource(scope: Scope, kind: str, hospital: Organization) -> Json:
    """A hospital's Organization, or its Endpoint."""
    if kind == "Endpoint":
        return endpoint.to_fhir(hospital, scope.dicomweb)
    return organization.to_fhir(hospital)


def found(scope: Scope, kind: str, criterion: Asked) -> list[Organization]:
    """The hospitals whose Organization, or Endpoint, fulfils a criterion."""
    if kind not in KINDS:
        return []
    return [one for one in scope.organizations if holds(scope, kind, criterion, one)]


def holds(scope: Scope, kind: str, criterion: Asked, hospital: Organization) -> bool:
    """Whether a criterion holds.

    Chains and `_has` lead from here by ids that were put beside them, see `asking`.
    """
    return at_hand.holds(
        criterion,
        identity(kind, hospital),
        updated(kind, hospital),
        lambda: values(scope, kind, hospital),
    )


def values(scope: Scope, kind: str, hospital: Organization) -> Sequence[Value]:
    """Under what a hospital's resource is found."""
    told = (
        *(hospital.id, hospital.code, hospital.name),
        *(hospital.credit_code, hospital.issuer, hospital.registered),
        *(hospital.active, hospital.changed),
    )
    return _values(kind, told, scope.dicomweb, scope.base, scope.timezone)


@lru_cache(1024)
def _values(
    kind: str, told: tuple[Any, ...], dicomweb: str, base: str, zone: ZoneInfo
) -> tuple[Value, ...]:
    row, code, name, credit_code, issuer, registered, active, changed = told
    hospital = Organization(
        code=code,
        name=name,
        credit_code=credit_code,
        issuer=issuer,
        registered=registered,
        active=active,
        changed=changed,
    )
    hospital.id = row
    made = (
        endpoint.to_fhir(hospital, dicomweb)
        if kind == "Endpoint"
        else organization.to_fhir(hospital)
    )
    return tuple(indexing.values(made, zone, base))
