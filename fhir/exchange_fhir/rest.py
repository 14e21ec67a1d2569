"""The FHIR door: the RESTful API (FHIR R4 section 3.1.0), its searches and capabilities."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any
from urllib.parse import urljoin
from zoneinfo import ZoneInfo

import orjson
from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange.access import Exchange
from exchange.errors import NotFound
from exchange.policy import Requester
from exchange_fhir import batched, bundle, capability, negotiation, question, searching, transaction
from exchange_fhir.answers import Answered
from exchange_fhir.asking import COMPARTMENT, SEARCHED
from exchange_fhir.binary import Send, sent
from exchange_fhir.bulk import bulk_data
from exchange_fhir.bundle import Pairs
from exchange_fhir.documented import documenting
from exchange_fhir.everything import everything
from exchange_fhir.latest import latest
from exchange_fhir.matching_operations import matched
from exchange_fhir.negotiation import Return
from exchange_fhir.operations import operating
from exchange_fhir.outcome import Problem
from exchange_fhir.rest_described import describing
from exchange_fhir.rest_interactions import body, interacting
from exchange_fhir.routed import Table, operation
from exchange_fhir.serving import METADATA, Conduct, Identify, Serving, door_path
from exchange_fhir.subscription_operations import subscribed
from exchange_fhir.subscription_sockets import Bindings

NOWHERE = "00000000-0000-0000-0000-000000000000"
"""The logical id of nothing."""

ALL = "*"
"""All types, in the address of a search of a compartment (R4 3.1.1.2)."""

USUAL = (
    f"/Patient/{NOWHERE}",
    f"/Observation/{NOWHERE}",
    "/Patient?identifier=-",
    f"/Patient?name={NOWHERE}",
    f"/Patient/{NOWHERE}/$everything",
    f"/Observation?patient={NOWHERE}",
    f"/Observation?patient={NOWHERE}&_sort=-date&_count=1",
    f"/DiagnosticReport?patient={NOWHERE}&_include=DiagnosticReport:result",
    f"/Observation?patient.identifier={NOWHERE}",
    f"/Observation?patient.name={NOWHERE}",
    f"/ImagingStudy?patient={NOWHERE}&_include=ImagingStudy:endpoint",
    f"/ImagingStudy?patient.identifier={NOWHERE}",
    f"/Observation?patient={NOWHERE}&value-quantity=1%7Chttp://unitsofmeasure.org%7Cmg",
    "/metadata",
)
"""Questions as clinical systems ask them, about nobody."""

SMART_CAPABILITIES = ("smart-imaging-access",)
"""Of SMART only this: ImagingStudy is searched and retrieved here as SMART Imaging Access says."""

_MODES = frozenset({"full", "normative"})
"""What may be asked of the capabilities (R4 3.1.0.10); all that is told is normative or ours."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class _Route(APIRoute):
    """A route whose every error is answered by an OperationOutcome."""

    table: Table
    identify: Identify

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = self._plain() or super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if operation(request.url.path) and not operation(self.path):
                    # What is called $… is none of the routes of resources.
                    await to_thread.run_sync(self.identify, request)
                    raise self.table.refusal(request.method, _below(request))
                negotiation.in_utf8(request)
                answered = await handle(request)
            except Exception as error:
                answered = negotiation.error(error, request)
            return negotiation.compressed(answered, request)

        return answer

    def _plain(self) -> Callable[[Request], Coroutine[Any, Any, Response]] | None:
        """What calls a function of the request and the parts of its path alone, as most are: there
        is nothing to be solved or validated. None for any other."""
        takes = inspect.signature(self.endpoint).parameters
        waits = inspect.iscoroutinefunction(self.endpoint)
        if waits or {*takes} != {"request", *self.param_convertors}:
            return None

        async def handle(request: Request) -> Response:
            called = partial(self.endpoint, request, **request.path_params)
            return await to_thread.run_sync(called)

        return handle


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
    send: Send = sent,
) -> APIRouter:
    """The routes of the FHIR door, to be mounted under a prefix.

    `key` (16 bytes or more, the same in every process) seals next links. `base_url` is the address
    of the door as clients write it, where that is not what their requests arrive with; `dicomweb`
    is the address or path of the DICOMweb root, `token_endpoint` that of the one that issues access
    tokens by client credentials and HTTP Basic; without it none is told of. `timezone` is the
    hospitals', as in `refresh`. `send` is how the content of Binaries leaves.
    """

    class Route(_Route):
        """A route of this door."""

    router = APIRouter(route_class=Route, include_in_schema=False)
    pages = bundle.Pages(key)
    serving = Serving(
        exchange=exchange,
        identify=identify,
        pages=pages,
        base_url=base_url,
        dicomweb=dicomweb,
        timezone=timezone,
        conduct=conduct or Conduct(),
        sent=send,
    )
    form_body = body(negotiation.FORM_LIMIT)

    def found(
        request: Request, requester: Requester, where: str, asked: Pairs, after: Any = None
    ) -> Answered:
        """The answer to a search of a type, of a Patient's compartment, or, with "", of all."""
        strict = negotiation.preferences(request).get("handling") == "strict"
        with exchange.on_behalf_of(requester) as access:
            here = serving.scope(serving.base(request), access)
            of_patient, _, kind = where.rpartition("/")
            identity = of_patient.removeprefix("Patient/")
            if kind not in {"", ALL}:
                wanted = question.read(here, kind, asked, strict=strict, within=identity)
                page, further = searching.page(here, wanted, after)
                used, ignored = wanted.used, wanted.ignored
            else:
                everything = question.everywhere(here, asked, strict=strict, within=identity)
                page, further = searching.everywhere(here, everything, after)
                used, ignored = everything.used, everything.ignored
        used = (*used, *bundle.written_as(asked))
        following = "" if further is None else pages.seal(requester, where, used, further)
        content = bundle.searchset(
            here, where, page, used=used, ignored=ignored, following=following
        )
        return Answered(status=200, content=content)

    def searched(request: Request, where: str, form: bytes = b"") -> Response:
        requester = identify(request)
        _searchable(where)
        asked: Pairs = [*request.query_params.multi_items(), *negotiation.form(form, request)]
        written = negotiation.negotiated(request, asked)
        told = dict(asked)
        after = None
        if "_page" in told:
            if told.keys() - {"_page", "_format", "_pretty"}:
                raise Problem(400, "invalid", "_page stands alone: it holds the whole search")
            asked, after = pages.unseal(requester, where, told["_page"])
            written = negotiation.negotiated(request, [*asked, *told.items()])
        return negotiation.response(found(request, requester, where, asked, after), written)

    @router.post("")
    @router.post("/")
    def batch_or_transaction(
        request: Request, content: Annotated[bytes, Depends(body(serving.conduct.body_limit))]
    ) -> Response:
        requester = identify(request)
        written = negotiation.negotiated(request)
        sent = negotiation.resource(content, request.headers.get("content-type", ""))
        answered = transaction.processed(
            sent,
            partial(serving.asked, request, requester),
            Route.table,
            batched.asking(request, door_path(request.app)),
            serving.base(request),
            limit=serving.conduct.entries,
            full=negotiation.preferences(request).get("return") == Return.REPRESENTATION,
        )
        return negotiation.response(answered, written)

    @router.get("/metadata", name=METADATA)
    def metadata(request: Request) -> Response:
        written = negotiation.negotiated(request)
        if request.query_params.get("mode", "full") not in _MODES:
            wrong = "there is no terminology service here: mode is full or normative"
            raise Problem(400, "not-supported", wrong)
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

    for routes in (
        bulk_data,
        describing,
        documenting,
        everything,
        latest,
        matched,
        operating,
    ):
        router.routes += routes(serving, Route).routes
    router.routes += subscribed(serving, Route, Bindings(key)).routes
    Route.identify = staticmethod(identify)

    @router.get("")
    @router.get("/")
    def search_all(request: Request) -> Response:
        return searched(request, "")

    @router.post("/_search")
    def search_all_by_form(
        request: Request, form: Annotated[bytes, Depends(form_body)]
    ) -> Response:
        return searched(request, "", form)

    router.routes += interacting(serving, Route).routes

    @router.get("/{kind}")
    @router.get("/{kind}/")
    def search(request: Request, kind: str) -> Response:
        return searched(request, kind)

    @router.post("/{kind}/_search")
    def search_by_form(
        request: Request, kind: str, form: Annotated[bytes, Depends(form_body)]
    ) -> Response:
        return searched(request, kind, form)

    @router.get("/Patient/{identity}/{kind}")
    def search_compartment(request: Request, identity: str, kind: str) -> Response:
        return searched(request, f"Patient/{identity}/{kind}")

    @router.post("/Patient/{identity}/{kind}/_search")
    def search_compartment_by_form(
        request: Request,
        identity: str,
        kind: str,
        form: Annotated[bytes, Depends(form_body)],
    ) -> Response:
        return searched(request, f"Patient/{identity}/{kind}", form)

    Route.table = Table(router.routes)

    @router.api_route("", methods=_METHODS)
    @router.api_route("/{path:path}", methods=_METHODS)
    def anything_else(request: Request, path: str = "") -> Response:
        identify(request)
        raise Route.table.refusal(request.method, f"/{path}")

    return router


# -- HTTP -----------------------------------------------------------------------------------------


def _searchable(where: str) -> None:
    """Raise Problem unless resources are searched there."""
    kind = where.rpartition("/")[2]
    if kind == ALL and kind != where:
        return
    if where and kind not in SEARCHED:
        told = f"this resource type is not searched; there are {', '.join(SEARCHED)}"
        raise Problem(404, "not-supported", told)
    if kind != where and kind not in COMPARTMENT:
        raise Problem(404, "not-supported", f"{kind} is in no patient's compartment")


def _below(request: Request) -> str:
    """The path of a request below the address of the door."""
    return request.url.path[len(door_path(request.app)) :]
