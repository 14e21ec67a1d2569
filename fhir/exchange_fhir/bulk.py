"""FHIR Bulk Data Access 2.0: $export of the system, of patients or a group; and $import of NDJSON.

Both are asked for, followed at an address of their own, and done by a worker.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from datetime import UTC
from email.utils import format_datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from exchange import bulk, clinical, related
from exchange.access import Access, Exchange, translated
from exchange.bulk import Cancelled, Direction, State
from exchange.errors import Refused
from exchange.policy import Action, Requester
from exchange_fhir import (
    bulk_export,
    bulk_import,
    elements,
    json_format,
    negotiation,
    parameters,
)
from exchange_fhir.bulk_export import Wanted
from exchange_fhir.datatypes import instant
from exchange_fhir.outcome import Problem, outcome
from exchange_fhir.resources import patient
from exchange_fhir.rest_interactions import body
from exchange_fhir.serving import Serving
from exchange_storage.records import BulkFile, BulkJob

MEDIA_TYPE = "application/fhir+ndjson"
FORMATS = frozenset({MEDIA_TYPE, "application/ndjson", "ndjson"})

MEMBERS = 10_000
"""Patients of a group that is exported, at most."""

FILTERS = 20
"""Searches that narrow one export, at most."""

RETRY = "5"
"""Seconds after which it is worth asking again how far it is."""

IGNORED = 50
"""Ignored parameters that are told of."""
NAMES = frozenset({"_outputFormat", "_since", "_until", "_type", "_typeFilter", "_elements"})


def bulk_data(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of exports and imports of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def accepted(request: Request, job: BulkJob) -> Response:
        where = f"{serving.base(request)}/$bulk-status/{job.token}"
        told = outcome("information", "informational", ["it is being done: see Content-Location"])
        headers = {"Content-Location": where, "Cache-Control": "no-store"}
        return Response(orjson.dumps(told), 202, headers, json_format.MEDIA_TYPE)

    def asked(
        request: Request, *, of_patients: bool, group: str = "", content: bytes = b""
    ) -> Response:
        requester = serving.identify(request)
        _in_background(request)
        given = parameters.given(request, content)
        with serving.exchange.on_behalf_of(requester) as access:
            if not group:
                access.require(Action.EXPORT, detail={"what": "bulk export"})
            wanted = _wanted(serving, request, access, given, of_patients=of_patients)
            if group:
                wanted = _of_group(access, wanted, group)
            address = f"{serving.base(request)}{request.url.path.partition('/fhir')[2]}"
            address += f"?{request.url.query}" * bool(request.url.query)
            made = bulk.ask(access, Direction.EXPORT, request=address, asked=wanted.told())
        return accepted(request, made)

    @router.get("/$export")
    def export(request: Request) -> Response:
        return asked(request, of_patients=False)

    @router.post("/$export")
    def export_by_post(request: Request, content: Body) -> Response:
        return asked(request, of_patients=False, content=content)

    @router.get("/Patient/$export")
    def export_patients(request: Request) -> Response:
        return asked(request, of_patients=True)

    @router.post("/Patient/$export")
    def export_patients_by_post(request: Request, content: Body) -> Response:
        return asked(request, of_patients=True, content=content)

    @router.get("/Group/{logical_id}/$export")
    def export_group(request: Request, logical_id: str) -> Response:
        return asked(request, of_patients=True, group=logical_id)

    @router.post("/Group/{logical_id}/$export")
    def export_group_by_post(request: Request, logical_id: str, content: Body) -> Response:
        return asked(request, of_patients=True, group=logical_id, content=content)

    @router.post("/$import")
    def import_(request: Request, content: Body) -> Response:
        requester = serving.identify(request)
        _in_background(request)
        if negotiation.media_type(request) not in FORMATS:
            raise Problem(415, "not-supported", f"what is imported is sent as {MEDIA_TYPE}")
        if not content.strip():
            raise Problem(400, "required", "lines of resources are expected")
        with serving.exchange.on_behalf_of(requester) as access:
            with translated():
                staged = access.objects.stage()
            with staged:
                staged.write(content)
                made = bulk.ask(
                    access,
                    Direction.IMPORT,
                    request=f"{serving.base(request)}/$import",
                    asked={"base": serving.base(request)},
                    content=staged,
                )
        return accepted(request, made)

    @router.get("/$bulk-status/{token}")
    def status(request: Request, token: str) -> Response:
        requester = serving.identify(request)
        with serving.exchange.on_behalf_of(requester) as access:
            job = bulk.of(access, token)
            files = bulk.files(access, job)
        return _status(serving.base(request), job, files)

    @router.delete("/$bulk-status/{token}")
    def cancel(request: Request, token: str) -> Response:
        requester = serving.identify(request)
        with serving.exchange.on_behalf_of(requester) as access:
            bulk.cancel(access, token)
        told = outcome("information", "informational", ["it is cancelled, its files are removed"])
        return Response(
            orjson.dumps(told), 202, {"Cache-Control": "no-store"}, json_format.MEDIA_TYPE
        )

    @router.get("/$bulk-file/{token}/{number}")
    def file(request: Request, token: str, number: str) -> Response:
        requester = serving.identify(request)
        row = int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else -1
        with serving.exchange.on_behalf_of(requester) as access:
            found = bulk.file(access, token, row)
            with translated():
                pieces = access.objects.stream(found.key)
        headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
        if negotiation.takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
            return StreamingResponse(negotiation.zipped(pieces), 200, headers, MEDIA_TYPE)
        headers["Content-Length"] = str(found.size)
        return StreamingResponse(pieces, 200, headers, MEDIA_TYPE)

    return router


def go_on(exchange: Exchange, worker: Requester, number: int, serving: Serving) -> None:
    """What a worker does of an export or import. Raises Later where there is more of it."""
    with exchange.on_behalf_of(worker) as access:
        job = bulk.going_on(access, number)
    if job is None:
        with exchange.on_behalf_of(worker) as access:
            bulk.tidy(access)
        return
    try:
        if job.direction == Direction.IMPORT:
            bulk_import.take_in(exchange, worker, job, serving)
        else:
            bulk_export.export(
                exchange, worker, job, timezone=serving.timezone, dicomweb=serving.dicomweb
            )
    except Cancelled:
        with exchange.on_behalf_of(worker) as access:
            bulk.discard(access, job)
            bulk.tidy(access)


def _in_background(request: Request) -> None:
    if "respond-async" not in negotiation.preferences(request):
        raise Problem(400, "required", "it is done in the background: send Prefer: respond-async")


def _wanted(
    serving: Serving,
    request: Request,
    access: Access,
    given: parameters.Given,
    *,
    of_patients: bool,
) -> Wanted:
    """What the parameters ask for. Raises Problem, Invalid."""
    lenient = negotiation.preferences(request).get("handling") == "lenient"
    if not lenient:
        parameters.known(given, NAMES)
    ignored = sorted(set(given) - NAMES - {"_format", "_pretty"})
    output = parameters.text(given, "_outputFormat").replace(" ", "+")
    if output and output not in FORMATS:
        raise Problem(400, "not-supported", f"files are written as {MEDIA_TYPE}")
    possible = bulk_export.kinds(of_patients=of_patients)
    asked_for = parameters.listed(given, "_type")
    kinds = tuple(one for one in asked_for if one in possible)
    if len(kinds) < len(asked_for) and not lenient:
        raise Problem(400, "not-supported", f"what can be exported here is {', '.join(possible)}")
    ignored += [f"_type={one}" for one in asked_for if one not in possible]
    filters: dict[str, list[str]] = {}
    scope = serving.scope(serving.base(request), access)
    for told in _filters(given):
        kind, _, search = told.partition("?")
        if kind not in possible or not search:
            raise Problem(400, "invalid", "a _typeFilter is written Type?name=value")
        bulk_export.check(scope, kind, search)
        filters.setdefault(kind, []).append(search)
    if not asked_for:
        kinds = possible
    return Wanted(
        base=serving.base(request),
        kinds=kinds,
        of_patients=of_patients,
        since=parameters.instant(given, "_since"),
        until=parameters.instant(given, "_until"),
        elements=parameters.listed(given, "_elements"),
        filters={kind: tuple(found) for kind, found in filters.items() if kind in kinds},
        ignored=tuple(ignored[:IGNORED]),
    )


def _filters(given: parameters.Given) -> list[str]:
    """Filters, which may hold commas of their own: one begins behind those with a type."""
    found: list[str] = []
    for told in given.get("_typeFilter", ()):
        for part in str(told).split(","):
            kind = part.partition("?")[0].strip()
            if "?" in part and kind.isalpha():
                found.append(part.strip())
            elif found:
                found[-1] += f",{part}"
            else:
                raise Problem(400, "invalid", "a _typeFilter is written Type?name=value")
    if len(found) > FILTERS or any(len(one) > 1024 for one in found):
        raise Problem(400, "too-costly", f"an export has at most {FILTERS} filters")
    return found


def _of_group(access: Access, wanted: Wanted, logical_id: str) -> Wanted:
    """Only of the members whom the asker's hospital treats, that is, of whom it has a record, with
    their records at other hospitals. Raises NotFound, Refused."""
    access.require(Action.EXPORT_GROUP, detail={"what": f"Group/{logical_id}"})
    group = json_format.parse(clinical.read(access, "Group", logical_id).content)
    rows: list[int] = []
    for member in group.get("member", ()):
        kind, named = elements.target(member.get("entity", {}).get("reference", ""), wanted.base)
        if kind == "Patient" and not member.get("inactive"):
            rows += patient.rows(named)
    if len(rows) > MEMBERS:
        raise Problem(400, "too-costly", f"a group that is exported has at most {MEMBERS} members")
    treated = related.treated(access, related.persons(access, rows))
    if rows and not treated:
        raise Refused("of a group those are exported whom the hospital treats: it treats none")
    return Wanted.read(wanted.told() | {"patients": sorted(treated)})


# -- How far it is --------------------------------------------------------------------------------


def _status(base: str, job: BulkJob, files: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    unit = "lines read" if job.direction == Direction.IMPORT else "resources"
    match job.state:
        case State.WORKING:
            headers |= {"X-Progress": f"{job.done} {unit}", "Retry-After": RETRY}
            return Response(status_code=202, headers=headers)
        case State.FAILED:
            told = outcome("error", "processing", [job.told])
            return Response(orjson.dumps(told), 500, headers, json_format.MEDIA_TYPE)
    headers["Expires"] = format_datetime(job.expires.astimezone(UTC), usegmt=True)
    return Response(orjson.dumps(_manifest(base, job, files)), 200, headers, "application/json")


def _manifest(base: str, job: BulkJob, files: list[BulkFile]) -> dict[str, Any]:
    told = [
        {
            "type": one.kind,
            "url": f"{base}/$bulk-file/{job.token}/{one.number}",
            "count": one.count,
        }
        for one in files
    ]
    wrong = [entry for one, entry in zip(files, told, strict=True) if one.is_error]
    right = [entry for one, entry in zip(files, told, strict=True) if not one.is_error]
    since = job.asked.get("since")
    deleted = [entry for entry in right if entry["type"] == bulk_export.DELETED]
    if job.direction == Direction.IMPORT:
        right = [
            {"type": kind, "count": count}
            for kind, count in sorted(job.progress.get("taken", {}).items())
        ]
    return {
        "transactionTime": instant(job.made),
        "request": job.request,
        "requiresAccessToken": True,
        "output": [entry for entry in right if entry not in deleted],
        **({"deleted": deleted} if since else {}),
        "error": wrong,
    }
