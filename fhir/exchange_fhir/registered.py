"""The registered hospitals' own Organizations and Endpoints, found among some dozens in memory.

What hospitals write of departments and other endpoints is kept and searched like any resource;
these are derived from what is registered, and are asked by the same criteria.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from exchange_fhir import indexing
from exchange_fhir.datatypes import Json
from exchange_fhir.resources import endpoint, organization
from exchange_fhir.search import Scope
from exchange_storage.names import fold
from exchange_storage.records import Organization
from exchange_storage.resource_criteria import (
    Asked,
    Changed,
    Every,
    Holds,
    Ids,
    Indexed,
    IsExactly,
    Present,
    RefersTo,
    Some,
    StartsWith,
    Test,
    Together,
    TokenIs,
    UriBelow,
    UriIs,
    Within,
    Without,
)
from exchange_storage.resource_index import (
    Date,
    Quantity,
    Reference,
    String,
    Token,
    Uri,
    Value,
)

KINDS = frozenset({"Organization", "Endpoint"})

_TYPES: dict[str, type[Any]] = {
    "token": Token,
    "string": String,
    "reference": Reference,
    "date": Date,
    "quantity": Quantity,
    "number": Quantity,
    "uri": Uri,
}


def identity(kind: str, hospital: Organization) -> str:
    """The logical id of a hospital's Organization, or of its Endpoint."""
    return endpoint.identity(hospital) if kind == "Endpoint" else hospital.code


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
    match criterion:
        case Every(criteria):
            return all(holds(scope, kind, one, hospital) for one in criteria)
        case Some(criteria):
            return any(holds(scope, kind, one, hospital) for one in criteria)
        case Without(inner):
            return not holds(scope, kind, inner, hospital)
        case Ids(ids):
            return identity(kind, hospital) in ids
        case Changed(since, before):
            at = hospital.registered
            return (since is None or at >= since) and (before is None or at < before)
        case Indexed():
            return bool(_passing(criterion, values(scope, kind, hospital)))
        case Together(components):
            held = values(scope, kind, hospital)
            positions = [{one.position for one in _passing(each, held)} for each in components]
            return bool(set.intersection(*positions))
    return False


def values(scope: Scope, kind: str, hospital: Organization) -> Sequence[Value]:
    """Under what a hospital's resource is found."""
    told = (
        *(hospital.id, hospital.code, hospital.name),
        *(hospital.credit_code, hospital.issuer, hospital.registered),
    )
    return _values(kind, told, scope.dicomweb, scope.base, scope.timezone)


@lru_cache(1024)
def _values(
    kind: str, told: tuple[Any, ...], dicomweb: str, base: str, zone: ZoneInfo
) -> tuple[Value, ...]:
    row, code, name, credit_code, issuer, registered = told
    hospital = Organization(
        code=code, name=name, credit_code=credit_code, issuer=issuer, registered=registered
    )
    hospital.id = row
    made = (
        endpoint.to_fhir(hospital, dicomweb)
        if kind == "Endpoint"
        else organization.to_fhir(hospital)
    )
    return tuple(indexing.values(made, zone, base))


def _passing(criterion: Indexed, held: Sequence[Value]) -> list[Value]:
    kind = _TYPES[criterion.type]
    return [
        one
        for one in held
        if isinstance(one, kind)
        and one.parameter in criterion.parameters
        and any(passes(test, one) for test in criterion.tests)
    ]


def passes(test: Test, value: Any) -> bool:
    """Whether a value at hand passes a test, as the databases decide it."""
    match test:
        case TokenIs(code, system):
            return code in {None, value.code} and system in {None, value.system}
        case StartsWith(text):
            return bool(value.folded.startswith(fold(text)))
        case Holds(text):
            return fold(text) in value.folded
        case IsExactly(text):
            return bool(value.exact == text)
        case RefersTo(kind, targets):
            return value.target_kind == kind and (not targets or value.target in targets)
        case UriIs(listed):
            return value.value in listed
        case UriBelow(start):
            return bool(value.value.startswith(start))
        case Present():
            return True
        case Within():
            return _within(test, value)


def _within(test: Within, value: Any) -> bool:
    if test.code and test.code not in {value.code, value.unit}:
        return False
    if test.system is not None and test.system != value.system:
        return False
    low, high = value.low, value.high
    return all(
        (
            test.low_from is None or low >= test.low_from,
            test.low_before is None or low < test.low_before,
            test.low_to is None or low <= test.low_to,
            test.low_after is None or low > test.low_after,
            test.high_from is None or high >= test.high_from,
            test.high_after is None or high > test.high_after,
            test.high_by is None or high <= test.high_by,
            test.high_before is None or high < test.high_before,
        )
    )
