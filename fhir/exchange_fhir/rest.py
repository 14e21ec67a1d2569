"""The FHIR door: the RESTful API (FHIR R4 section 3.1.0), its searches and capabilities."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urljoin
from zoneinfo import ZoneInfo

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange import organizations, query
from exchange.access import Exchange
from exchange.errors import NotFound
from exchange.policy import Requester
from exchange.query import Answer
from exchange_fhir import bundle, capability, negotiation, reading, transaction
from exchange_fhir.answers import Answered
from exchange_fhir.bulk import bulk_data
from exchange_fhir.bundle import Page, Pairs
from exchange_fhir.definitions import search_parameters
from exchange_fhir.everything import everything
from exchange_fhir.latest import latest
from exchange_fhir.matching_operations import matched
from exchange_fhir.operations import operating
from exchange_fhir.outcome import Problem
from exchange_fhir.reading import Resource
from exchange_fhir.rest_described import describing
from exchange_fhir.rest_interactions import body, interacting
from exchange_fhir.search import Condition, Query, Scope, any_of, parse
from exchange_fhir.serving import METADATA, Conduct, Identify, Serving
from exchange_storage.records import Organization
from exchange_storage.search import Criterion, Level, Rows

FORM_LIMIT = 1 << 16
"""Bytes of a form to search by."""

INCLUDED = 1000
"""Resources that a page brings by _revinclude, at most; that some are left out is told."""

SMART_CAPABILITIES = ("smart-imaging-access",)
"""Of SMART only this: ImagingStudy is searched and retrieved here as SMART Imaging Access says."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class _Route(APIRoute):
    """A route whose every error is answered by an OperationOutcome."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                answered = await handle(request)
            except Exception as error:
                answered = negotiation.error(error, request)
            return negotiation.compressed(answered, request)

        return answer


def fhir(
    exchange: Exchange,
    identify: Identify,
    *,
    key: bytes,
    base_url: str | None = None,
    dicomweb: str = "/dicom-web",
    token_endpoint: str | None = None,
    timezone: ZoneInfo = ZoneInfo("Asia/Shanghai"),
    conduct: Conduct | None = None,
) -> APIRouter:
    """The routes of the FHIR door, to be mounted under a prefix.

    `key` (16 bytes or more, the same in every process) seals next links. `base_url` is the address
    of the door as clients write it, where that is not what their requests arrive with; `dicomweb`
    is the address or path of the DICOMweb root, `token_endpoint` that of the one that issues access
    tokens by client credentials and HTTP Basic; without it none is told of. `timezone` is the
    hospitals', as in `refresh`.
    """
    router = APIRouter(route_class=_Route, include_in_schema=False)
    pages = bundle.Pages(key)
    serving = Serving(
        exchange=exchange,
        identify=identify,
        pages=pages,
        base_url=base_url,
        dicomweb=dicomweb,
        timezone=timezone,
        conduct=conduct or Conduct(),
    )
    form_body = body(FORM_LIMIT)

    def found(
        request: Request, requester: Requester, kind: str, asked: Pairs, offset: int = 0
    ) -> Answered:
        strict = "handling=strict" in request.headers.get("prefer", "").replace(" ", "")
        with exchange.on_behalf_of(requester) as access:
            here = serving.scope(serving.base(request), access)
            wanted = parse(capability.TABLES[kind], asked, here, strict=strict)
            page = _SEARCHES[kind](here, wanted, offset)
        following = ""
        if page.more and wanted.count:
            following = pages.seal(requester, kind, wanted.used, offset + len(page.matches))
        content = bundle.searchset(
            here, kind, page, used=wanted.used, ignored=wanted.ignored, following=following
        )
        return Answered(status=200, content=content)

    def searched(request: Request, kind: str, form: bytes = b"") -> Response:
        requester = identify(request)
        _supported(kind)
        asked: Pairs = [*request.query_params.multi_items(), *_pairs(form)]
        written = negotiation.negotiated(request, asked)
        told = dict(asked)
        offset = 0
        if "_page" in told:
            if told.keys() - {"_page", "_format", "_pretty"}:
                raise Problem(400, "invalid", "_page stands alone: it holds the whole search")
            asked, offset = pages.unseal(requester, kind, told["_page"])
            written = negotiation.negotiated(request, [*asked, *told.items()])
        return negotiation.response(found(request, requester, kind, asked, offset), written)

    @router.post("")
    @router.post("/")
    def batch_or_transaction(
        request: Request, content: Annotated[bytes, Depends(body(serving.conduct.body_limit))]
    ) -> Response:
        requester = identify(request)
        written = negotiation.negotiated(request)
        sent = negotiation.resource(content, request.headers.get("content-type", ""))

        def get(kind: str, asked: Pairs) -> Answered:
            _supported(kind)
            return found(request, requester, kind, asked)

        answered = transaction.processed(
            sent,
            partial(serving.asked, request, requester),
            get,
            serving.base(request),
            limit=serving.conduct.entries,
            full="return=representation" in request.headers.get("prefer", "").replace(" ", ""),
        )
        return negotiation.response(answered, written)

    @router.get("/metadata", name=METADATA)
    def metadata(request: Request) -> Response:
        written = negotiation.negotiated(request)
        issuer = urljoin(serving.base(request), token_endpoint) if token_endpoint else ""
        told = orjson.dumps(capability.statement(serving.base(request), issuer, serving.conduct))
        return negotiation.response(Answered(status=200, content=told), written)

    @router.get("/.well-known/smart-configuration")
    def smart_configuration(request: Request) -> Response:
        # JSON whatever Accept says, and for whoever asks (SMART App Launch 2.2, Conformance).
        if not token_endpoint:
            raise NotFound("no token endpoint is known here")
        content = orjson.dumps(
            {
                "token_endpoint": urljoin(serving.base(request), token_endpoint),
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "capabilities": SMART_CAPABILITIES,
            }
        )
        return Response(content, media_type="application/json")

    for routes in (bulk_data, describing, everything, latest, matched, operating):
        router.include_router(routes(serving, _Route))
    router.include_router(interacting(serving, _Route))

    @router.get("/{kind}")
    @router.get("/{kind}/")
    def search(request: Request, kind: str) -> Response:
        return searched(request, kind)

    @router.post("/{kind}/_search")
    def search_by_form(
        request: Request, kind: str, form: Annotated[bytes, Depends(form_body)]
    ) -> Response:
        if form and negotiation.media_type(request) != "application/x-www-form-urlencoded":
            told = "a search by POST is sent as application/x-www-form-urlencoded"
            raise Problem(415, "not-supported", told)
        return searched(request, kind, form)

    @router.api_route("", methods=_METHODS)
    @router.api_route("/{path:path}", methods=_METHODS)
    def anything_else(request: Request, path: str = "") -> Response:
        identify(request)
        raise _refusal(request, path)

    return router


# -- Search ---------------------------------------------------------------------------------------


def _find(scope: Scope, kind: str, level: Level, wanted: Query[Criterion], offset: int) -> Answer:
    return query.find(
        scope.access,
        level,
        [any_of(group) for group in wanted.wanted],
        limit=wanted.count,
        offset=offset,
        total=wanted.total is True,
        summarize=False,
        order=wanted.order,
        asked=f"{kind}?{urlencode(wanted.used)}",
    )


def _total(wanted: Query[Criterion], answer: Answer, offset: int) -> int | None:
    """The number of all matches, as far as it was asked for or the last of them is at hand."""
    last = not answer.more and (answer.found or not offset)
    if wanted.total is None and last:
        return offset + len(answer.found)
    return answer.total


def _search_patients(scope: Scope, wanted: Query[Criterion], offset: int) -> Page:
    answer = _find(scope, "Patient", Level.PATIENT, wanted, offset)
    included: list[Resource] = []
    warnings: list[str] = []
    if "Patient:organization" in wanted.include:
        included += reading.organizations(one.owner for one in answer.found)
    if "ImagingStudy:patient" in wanted.revinclude and answer.found:
        rows = Rows(Level.PATIENT, tuple(one.patient.id for one in answer.found))
        studies = query.find(
            scope.access, Level.STUDY, [rows], limit=INCLUDED, summarize=False, asked="_revinclude"
        )
        read = reading.imaging_studies(scope, studies.found)
        included += read
        if studies.more or len(read) < len(studies.found):
            warnings.append(f"only the newest {len(read)} ImagingStudies are included")
    return Page(
        matches=reading.patients(scope, answer.found),
        included=included,
        total=_total(wanted, answer, offset),
        more=answer.more,
        warnings=warnings,
    )


def _search_imaging_studies(scope: Scope, wanted: Query[Criterion], offset: int) -> Page:
    answer = _find(scope, "ImagingStudy", Level.STUDY, wanted, offset)
    matches = reading.imaging_studies(scope, answer.found)
    found = answer.found[: len(matches)]
    included: list[Resource] = []
    if wanted.include & {"ImagingStudy:patient", "ImagingStudy:subject"}:
        included += reading.patients(scope, found)
    if "ImagingStudy:endpoint" in wanted.include:
        included += reading.endpoints(scope, (one.owner for one in found))
    return Page(
        matches=matches,
        included=included,
        total=_total(wanted, answer, offset),
        more=answer.more or len(found) < len(answer.found),
    )


def _search_organizations(scope: Scope, wanted: Query[Condition], offset: int) -> Page:
    organizations.look_up(scope.access, "Organization")
    found = _sifted(scope, wanted)
    page = found[offset : offset + wanted.count]
    included = "Organization:endpoint" in wanted.include
    return Page(
        matches=reading.organizations(page),
        included=reading.endpoints(scope, page) if included else (),
        total=None if wanted.total is False else len(found),
        more=offset + wanted.count < len(found),
    )


def _search_endpoints(scope: Scope, wanted: Query[Condition], offset: int) -> Page:
    organizations.look_up(scope.access, "Endpoint")
    found = _sifted(scope, wanted)
    page = found[offset : offset + wanted.count]
    included = "Endpoint:organization" in wanted.include
    return Page(
        matches=reading.endpoints(scope, page),
        included=reading.organizations(page) if included else (),
        total=None if wanted.total is False else len(found),
        more=offset + wanted.count < len(found),
    )


def _sifted(scope: Scope, wanted: Query[Condition]) -> list[Organization]:
    return [
        one
        for one in scope.organizations
        if all(any(holds(one) for holds in group) for group in wanted.wanted)
    ]


_SEARCHES: Mapping[str, Callable[[Scope, Query[Any], int], Page]] = {
    "Endpoint": _search_endpoints,
    "ImagingStudy": _search_imaging_studies,
    "Organization": _search_organizations,
    "Patient": _search_patients,
}


# -- HTTP -----------------------------------------------------------------------------------------


def _supported(kind: str) -> None:
    if kind not in capability.TABLES:
        known = ", ".join(capability.TABLES)
        raise Problem(
            404, "not-supported", f"this resource type is not searched; there are {known}"
        )


def _pairs(form: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(form.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Problem(400, "structure", "the form cannot be read") from None


def _refusal(request: Request, path: str) -> Problem:
    """What is wrong with a request that no interaction fits."""
    kind, *rest = path.split("/")
    match rest:
        case _ if path == "metadata":
            allow = "GET"
        case _ if path and kind not in search_parameters.kinds():
            return Problem(404, "not-supported", "nothing is served here; see metadata")
        case []:
            allow = "GET, POST, PUT, PATCH, DELETE" if path else "POST"
        case ["_search"]:
            allow = "POST"
        case [_]:
            allow = "GET, PUT, PATCH, DELETE"
        case [_, "_history"] | [_, "_history", _]:
            allow = "GET"
        case _:
            told = "this interaction is not supported; see metadata"
            return Problem(404, "not-supported", told)
    told = f"{request.method} is not supported here; see metadata"
    return Problem(405, "not-supported", told, allow=allow)
