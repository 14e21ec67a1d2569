"""Observation/$lastn (FHIR R4 10.1.15.2) and DocumentReference/$docref (IPA, US Core)."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange import beside, clinical_search, query
from exchange.access import Access
from exchange.clinical_search import Hit, Question
from exchange_fhir import (
    batched,
    bundle,
    elements,
    json_format,
    negotiation,
    parameters,
    question,
)
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import Page
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.outcome import Problem
from exchange_fhir.reading import Resource
from exchange_fhir.resources import patient
from exchange_fhir.rest_interactions import body
from exchange_fhir.search import Scope, split, unescaped
from exchange_fhir.serving import Serving
from exchange_storage.resource_criteria import Asked, Every, Indexed, RefersTo, TokenIs, Within
from exchange_storage.resource_order import Sort

LOOKED_AT = 5000
"""Observations that are looked at for one $lastn, at most, the newest first."""

PAGE = 500

MOST = 100
"""Observations of one code that $lastn tells of, at most."""

VALUES = 50
"""Codes and categories by which one question may ask, of each."""

DOCUMENTS = 500
"""Documents that $docref tells of, at most."""


def latest(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of these operations of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def told(
        request: Request,
        kind: str,
        content: bytes,
        known: Callable[[str], bool],
        find: Callable[[Scope, parameters.Given], Page],
    ) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        parameters.known(given, frozenset(filter(known, given)) | bundle.SHOWN)
        used = [
            (name, str(value))
            for name in sorted(given)
            for value in given[name]
            if isinstance(value, str | int)
        ]
        with serving.exchange.on_behalf_of(requester) as access:
            scope = serving.scope(serving.base(request), access)
            page = find(scope, given)
            made = bundle.searchset(scope, kind, page, used=used, ignored=(), following="")
        return negotiation.response(Answered(status=200, content=made), written)

    def last_n(request: Request, content: bytes = b"") -> Response:
        return told(request, "Observation/$lastn", content, _narrows, _last_n)

    def documents(request: Request, content: bytes = b"") -> Response:
        return told(request, "DocumentReference/$docref", content, _DOCREF.__contains__, _documents)

    @router.get("/Observation/$lastn")
    def lastn(request: Request) -> Response:
        return last_n(request)

    @router.post("/Observation/$lastn")
    def lastn_by_post(request: Request, content: Body) -> Response:
        return last_n(request, content)

    @router.get("/DocumentReference/$docref")
    def docref(request: Request) -> Response:
        return documents(request)

    @router.post("/DocumentReference/$docref")
    def docref_by_post(request: Request, content: Body) -> Response:
        return documents(request, content)

    return router


# -- $lastn ---------------------------------------------------------------------------------------

_LASTN = frozenset({"max", "patient", "subject", "category", "code"})


def _narrows(name: str) -> bool:
    """Whether a parameter says which observations are meant: any search parameter may, with its
    modifiers and chains, beside those that are named by the operation."""
    code = name.partition(":")[0].partition(".")[0]
    return name in _LASTN or code in {*search_parameters.of("Observation"), "_has", "_list"}


def _last_n(scope: Scope, given: parameters.Given) -> Page:
    """The last observations of each code, the newest first within it."""
    most = parameters.whole(given, "max", 1, MOST)
    criteria: list[Asked] = [_about(scope, given, ("patient", "subject"), "Observation.subject")]
    criteria += _tokens(given, "category", "Observation.category")
    criteria += _tokens(given, "code", "Observation.code")
    further = [
        (name, batched.text(value))
        for name, values in given.items()
        for value in values
        if name not in _LASTN | bundle.SHOWN
    ]
    criteria += question.read(scope, "Observation", further, strict=True).criteria
    groups: dict[Any, list[Hit]] = {}
    looked_at = 0
    for hit in _newest(scope.access, criteria, f"Observation/$lastn?{_asked(given)}"):
        looked_at += 1
        group = groups.setdefault(_code(json_format.parse(hit.content)), [])
        if len(group) < most:
            group.append(hit)
    cut = [f"only the newest {LOOKED_AT} were looked at"] if looked_at >= LOOKED_AT else []
    found = [_resource(hit) for group in groups.values() for hit in group]
    return Page(matches=found, total=len(found), warnings=cut)


def _newest(access: Access, criteria: Sequence[Asked], asked: str) -> Iterator[Hit]:
    after: tuple[Any, ...] | None = None
    for _ in range(LOOKED_AT // PAGE):
        answer = clinical_search.find(
            access,
            Question(
                kind="Observation",
                criterion=Every(tuple(criteria)),
                sort=(Sort("date", ("Observation.date",), descending=True),),
                limit=PAGE,
                after=after,
                asked=asked,
            ),
        )
        yield from answer.found
        if not answer.more:
            return
        after = answer.last


def _code(observation: Json) -> tuple[Any, ...]:
    """What makes two observations of one kind: a code in common, here the first; else the text."""
    told: Mapping[str, Any] = observation.get("code", {})
    for coding in told.get("coding", ()):
        if coding.get("code"):
            return coding.get("system", ""), coding["code"]
    return (told.get("text", ""),)


# -- $docref --------------------------------------------------------------------------------------

_DOCREF = frozenset({"patient", "start", "end", "type", "on-demand", "profile"})


def _documents(scope: Scope, given: parameters.Given) -> Page:
    """The documents of a patient; none is made on demand."""
    parameters.truth(given, "on-demand")
    criteria: list[Asked] = [_about(scope, given, ("patient",), "DocumentReference.subject")]
    criteria += _tokens(given, "type", "DocumentReference.type")
    profiles = [("_profile", one) for one in parameters.listed(given, "profile")]
    criteria += question.read(scope, "DocumentReference", profiles, strict=True).criteria
    start = parameters.span(given, "start", scope.timezone)
    end = parameters.span(given, "end", scope.timezone)
    if start or end:
        within = Within(high_after=start[0] if start else None, low_before=end[1] if end else None)
        criteria.append(Indexed("date", ("DocumentReference.period",), (within,)))
    answer = clinical_search.find(
        scope.access,
        Question(
            kind="DocumentReference",
            criterion=Every(tuple(criteria)),
            sort=(Sort("date", ("DocumentReference.date",), descending=True),),
            limit=DOCUMENTS,
            asked=f"DocumentReference/$docref?{_asked(given)}",
        ),
    )
    cut = [f"only the newest {DOCUMENTS} are told of"] if answer.more else []
    found = [_resource(hit) for hit in answer.found]
    return Page(matches=found, total=None if answer.more else len(found), warnings=cut)


# -- What both ask by -----------------------------------------------------------------------------


def _about(scope: Scope, given: parameters.Given, names: Sequence[str], parameter: str) -> Indexed:
    """About whom: every record of the person that the asker may see. Raises Problem, NotFound."""
    told = [one for name in names for one in given.get(name, ())]
    if len(told) != 1:
        raise Problem(400, "required", f"one {names[0]} is expected")
    written = told[0].get("reference", "") if isinstance(told[0], dict) else str(told[0])
    kind, logical_id = elements.target(written, f"{scope.base}/")
    rows = patient.rows(logical_id or written) if kind in {"", "Patient"} else ()
    if not rows:
        raise Problem(400, "invalid", f"{names[0]} is a Patient of this server")
    named = query.patient(scope.access, rows[0]).patient
    links = beside.links(scope.access, [named]).get(named.id, ())
    ids = tuple(str(row) for row in (named.id, *links))
    return Indexed("reference", (parameter,), (RefersTo("Patient", ids),))


def _tokens(given: parameters.Given, name: str, parameter: str) -> list[Indexed]:
    tests: list[TokenIs] = []
    for value in given.get(name, ()):
        if isinstance(value, dict):  # a Coding, or a CodeableConcept
            codings = value.get("coding", [value])
            tests += [TokenIs(one.get("code"), one.get("system")) for one in codings]
            continue
        for one in split(str(value), ","):
            parts = [unescaped(part) for part in split(one, "|")]
            if len(parts) > 2 or not any(parts):
                raise Problem(400, "invalid", f"{name} is written code or system|code")
            tests.append(TokenIs(parts[-1] or None, parts[0] if len(parts) == 2 else None))
    if len(tests) > VALUES:
        raise Problem(400, "too-costly", f"at most {VALUES} values of {name} are asked for")
    return [Indexed("token", (parameter,), tuple(tests))] if tests else []


def _asked(given: parameters.Given) -> str:
    return urlencode([(name, str(value)) for name, values in given.items() for value in values])


def _resource(hit: Hit) -> Resource:
    return Resource(hit.kind, hit.logical_id, hit.content, str(hit.version))
