"""Who is meant: Patient/$match (IHE PDQm ITI-119) and Patient/$ihe-pix (IHE PIXm ITI-83)."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange import matching
from exchange.matching import Match, Sought
from exchange.query import Found
from exchange_fhir import (
    json_format,
    negotiation,
    parameters,
    reading,
    registering,
    validation,
)
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN
from exchange_fhir.datatypes import Json, issuer_uri, present, reference
from exchange_fhir.outcome import Problem
from exchange_fhir.resources import patient
from exchange_fhir.rest_interactions import body
from exchange_fhir.search import Scope, split, unescaped
from exchange_fhir.serving import Serving

MATCH_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"

COUNT = 50
"""Matches that are told of where the asker does not say."""
MOST = 200


def matched(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of these operations of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    @router.post("/Patient/$match")
    def match(request: Request, content: Body) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = _sought_by(request, content)
        parameters.known(given, SHOWN | {"resource", "count", "onlyCertainMatches"})
        asked = parameters.resource(given, "resource")
        validation.check(asked, "Patient")
        limit = parameters.whole(given, "count", COUNT, MOST)
        only_certain = parameters.truth(given, "onlyCertainMatches")
        with serving.exchange.on_behalf_of(requester) as access:
            scope = serving.scope(serving.base(request), access)
            found = matching.match(access, sought(asked), limit=limit, only_certain=only_certain)
            told = _graded(scope, found)
        return negotiation.response(Answered(status=200, content=told), written)

    def cross_referenced(request: Request, content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        parameters.known(given, SHOWN | {"sourceIdentifier", "targetSystem"})
        issuer, value = _source(given)
        targets = parameters.listed(given, "targetSystem")
        with serving.exchange.on_behalf_of(requester) as access:
            scope = serving.scope(serving.base(request), access)
            _known_targets(scope, targets)
            if not _is_domain(scope, issuer):
                told = "no hospital issues numbers under the system of sourceIdentifier"
                raise Problem(400, "code-invalid", told)
            found = matching.cross_references(access, issuer, value)
            content = _references(scope, found, (issuer, value), targets)
        return negotiation.response(Answered(status=200, content=content), written)

    @router.get("/Patient/$ihe-pix")
    def ihe_pix(request: Request) -> Response:
        return cross_referenced(request)

    @router.post("/Patient/$ihe-pix")
    def ihe_pix_by_post(request: Request, content: Body) -> Response:
        return cross_referenced(request, content)

    return router


# -- $match ---------------------------------------------------------------------------------------


def _sought_by(request: Request, content: bytes) -> parameters.Given:
    """The parameters, or a Patient alone, which FHIR allows where it is the only one (3.2.0.2)."""
    if content.strip():
        told = negotiation.resource(content, request.headers.get("content-type", ""))
        if told.get("resourceType") == "Patient":
            return {**parameters.given(request), "resource": [told]}
    return parameters.given(request, content)


def sought(resource: Json) -> Sought:
    """Who is asked for by a Patient of which only some parts are known."""
    name, further = registering.names_of(resource.get("name", ()))
    return Sought(
        names=tuple(
            group for one in (name, *further) for group in one.split("=") if group.strip("^ ")
        ),
        birth_date=str(resource.get("birthDate", "")).replace("-", ""),
        sex={gender: sex for sex, gender in patient.GENDERS.items()}.get(
            resource.get("gender", ""), ""
        ),
        telephones=tuple(
            str(one["value"])
            for one in resource.get("telecom", ())
            if one.get("system") in {"phone", "sms", None} and one.get("value")
        ),
        identifiers=tuple(
            (str(one.get("system", "")), str(one["value"]))
            for one in resource.get("identifier", ())
            if one.get("value")
        ),
    )


def _graded(scope: Scope, found: Sequence[Match]) -> bytes:
    patients = reading.patients(scope, [one.found for one in found])
    told = {one.id: one for one in patients}
    entries: list[Json] = []
    for one in found:
        resource = told[str(one.found.patient.id)]
        entries.append(
            {
                "fullUrl": f"{scope.base}/Patient/{resource.id}",
                "resource": json_format.parse(resource.content),
                "search": {
                    "extension": [{"url": MATCH_GRADE, "valueCode": one.grade.value}],
                    "mode": "match",
                    "score": one.score,
                },
            }
        )
    return json_format.serialize(
        present(resourceType="Bundle", type="searchset", entry=entries) | {"total": len(entries)}
    )


# -- $ihe-pix -------------------------------------------------------------------------------------


def _source(given: parameters.Given) -> tuple[str, str]:
    """System and value of the number that is known. Raises Problem."""
    told: Any = parameters.one(given, "sourceIdentifier")
    if told is None:
        raise Problem(400, "required", "sourceIdentifier is expected: system|value")
    if isinstance(told, dict):  # an Identifier, in a Parameters resource
        return str(told.get("system", "")), str(told.get("value", ""))
    parts = [unescaped(part) for part in split(str(told), "|")]
    if len(parts) != 2 or not all(parts) or "\0" in str(told) or len(str(told)) > 1024:
        raise Problem(400, "invalid", "sourceIdentifier is written system|value")
    return parts[0], parts[1]


def _is_domain(scope: Scope, system: str) -> bool:
    return scope.issuer(system) is not None or _same(system, patient.RESIDENT_ID)


def _known_targets(scope: Scope, targets: Sequence[str]) -> None:
    for target in targets:
        if not _is_domain(scope, target):
            told = "targetSystem is not one that is known here"
            raise Problem(403, "code-invalid", told)


def _references(
    scope: Scope, found: Sequence[Found], source: tuple[str, str], targets: Sequence[str]
) -> bytes:
    """The identifiers of the records in the wanted domains, then the records themselves."""
    identifiers: dict[tuple[str, str], Json] = {}
    ids: list[str] = []
    read = reading.patients(scope, found)
    owners = {str(one.patient.id): one.owner for one in found}
    for one in read:
        own = f"urn:oid:{owners[one.id].issuer}"
        if not targets or any(_same(own, target) for target in targets):
            ids.append(one.id)
        for told in json_format.parse(one.content).get("identifier", ()):
            system, value = str(told.get("system", "")), str(told.get("value", ""))
            itself = _same(system, source[0]) and value == source[1]
            wanted = not targets or any(_same(system, target) for target in targets)
            issuing = scope.issuer(issuer_uri(system) or system)
            if issuing is not None and issuing.id != owners[one.id].id:
                continue  # what another hospital says its number is, only that one knows
            if wanted and _is_domain(scope, system) and not itself:
                identifiers.setdefault((system, value), told)
    told_of = [
        {"name": "targetIdentifier", "valueIdentifier": one} for one in identifiers.values()
    ] + [{"name": "targetId", "valueReference": reference("Patient", one)} for one in ids]
    return json_format.serialize(present(resourceType="Parameters", parameter=told_of))


def _same(one: str, other: str) -> bool:
    return (issuer_uri(one) or one) == (issuer_uri(other) or other)
