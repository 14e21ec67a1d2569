"""Patient/$everything (FHIR R4 8.1.15.1): all that is held about a person, of every hospital.

That is the person's records, studies and what is in their compartments, and the entries of the
directory to which those refer. It is streamed, page by page, each decided and recorded of its own;
with `_count`, or as XML, it comes as pages.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from exchange import beside, clinical, clinical_search, compartment, query, related
from exchange.errors import NotFound
from exchange.policy import Requester
from exchange_fhir import (
    batched,
    json_format,
    negotiation,
    outcome,
    parameters,
    reading,
    registered,
    subset,
)
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN, Pairs
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.outcome import Problem
from exchange_fhir.reading import Resource
from exchange_fhir.resources import patient
from exchange_fhir.rest_interactions import body
from exchange_fhir.search import Scope
from exchange_fhir.serving import Serving
from exchange_storage.search import AllOf, Changed, Criterion, Level, Match, Range, Rows

PAGE = 200
"""Resources of a page, and of a piece of a stream, where the asker does not say."""
MOST = 1000

PIECE_BYTES = 1 << 22
"""Bytes of resources after which a page, or a piece of a stream, ends."""

CARE: tuple[str, ...] = (
    "Appointment.date",
    "Composition.date",
    "Condition.onset-date",
    "DiagnosticReport.date",
    "DocumentReference.period",
    "Encounter.date",
    "Immunization.date",
    "MeasureReport.period",
    "MedicationRequest.authoredon",
    "MedicationStatement.effective",
    "Observation.date",
    "Procedure.date",
    "QuestionnaireResponse.authored",
    "ServiceRequest.authored",
    "ServiceRequest.occurrence",
    "Specimen.collected",
    "Task.period",
)
"""Under what the dates of care are kept (R4 8.1.15.1: ``start``, ``end``)."""

NAMES = frozenset({"_since", "_type", "_count", "start", "end", "_page", "_summary", "_elements"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for."""

    row: int
    """Of the patient record that was named."""
    kinds: frozenset[str] = frozenset()
    """All of them where none is named."""
    since: datetime | None = None
    days: tuple[str, str] = ("", "")
    """First and last day of care, as DICOM writes them."""
    care: tuple[int, int] | None = None
    count: int = PAGE
    used: Pairs = ()

    def has(self, kind: str) -> bool:
        """Whether resources of this kind are wanted."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class Position:
    """How far it has been told: the studies that were, or the last row of what was written."""

    stage: int = 0
    """0: the person's records come next, 1: their studies, 2: what was written."""
    at: int = 0

    @property
    def number(self) -> int:
        """As one number."""
        return self.at * 3 + self.stage


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of it, and where the next piece begins; None behind the last."""

    matches: Sequence[Resource]
    included: Sequence[Resource]
    following: Position | None


def everything(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of the operation of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def told(request: Request, logical_id: str, content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        place = f"Patient/{logical_id}/$everything"
        position = Position()
        if token := parameters.text(given, "_page"):
            used, number = serving.pages.unseal(requester, place, token)
            position = Position(number % 3, number // 3)
            given = {name: [value] for name, value in used}
            written = negotiation.negotiated(request, [*used, *request.query_params.multi_items()])
        wanted = _wanted(serving, logical_id, given)
        base = serving.base(request)

        def piece(position: Position) -> Piece:
            with serving.exchange.on_behalf_of(requester) as access:
                return _piece(serving.scope(base, access), wanted, position)

        def address(token: str) -> str:
            pairs = [("_page", token)] if token else wanted.used
            return f"{base}/{place}" + (f"?{urlencode(pairs)}" if pairs else "")

        first = piece(position)
        whole = (
            "_count" not in given
            and not token
            and not batched.is_entry(request)
            and written.media_type == json_format.MEDIA_TYPE
            and not written.pretty
            and written.wanted == subset.Wanted()
        )
        if whole:
            streamed = _streamed(base, address(""), first, piece)
            headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
            media_type = f"{written.media_type}; charset=utf-8"
            if negotiation.takes_gzip(request):
                headers["Content-Encoding"] = "gzip"
                streamed = negotiation.zipped(streamed)
            return StreamingResponse(streamed, 200, headers, media_type)
        links = [{"relation": "self", "url": address(token)}]
        if first.following is not None:
            sealed = _sealed(serving, requester, place, wanted, first.following)
            links.append({"relation": "next", "url": address(sealed)})
        entries = [_entry(base, one, mode) for one, mode in _modes(first)]
        bundle = {"resourceType": "Bundle", "type": "searchset", "link": links} | (
            {"entry": entries} if entries else {}
        )
        return negotiation.response(Answered(status=200, content=orjson.dumps(bundle)), written)

    @router.get("/Patient/{logical_id}/$everything")
    def of_patient(request: Request, logical_id: str) -> Response:
        return told(request, logical_id)

    @router.post("/Patient/{logical_id}/$everything")
    def of_patient_by_post(request: Request, logical_id: str, content: Body) -> Response:
        return told(request, logical_id, content)

    @router.get("/Patient/$everything")
    @router.post("/Patient/$everything")
    def of_everyone(request: Request) -> Response:
        serving.identify(request)
        raise Problem(400, "too-costly", "name a patient, or export all of them: Patient/$export")

    return router


def _wanted(serving: Serving, logical_id: str, given: parameters.Given) -> Wanted:
    """What the parameters ask for. Raises Problem, NotFound."""
    parameters.known(given, NAMES)
    rows = patient.rows(logical_id)
    if not rows:
        raise NotFound("no such patient record")
    kinds = parameters.listed(given, "_type")
    if unknown := [kind for kind in kinds if kind not in search_parameters.kinds()]:
        raise Problem(400, "not-supported", f"no such resource type is served: {unknown[0][:64]}")
    start = parameters.span(given, "start", serving.timezone)
    end = parameters.span(given, "end", serving.timezone)
    days = tuple(
        parameters.text(given, name)[:10].replace("-", "").ljust(8, filler)
        if parameters.text(given, name)
        else ""
        for name, filler in (("start", "0"), ("end", "9"))
    )
    return Wanted(
        row=rows[0],
        kinds=frozenset(kinds),
        since=parameters.instant(given, "_since"),
        days=(days[0], days[1]),
        care=(start[0] if start else -(1 << 62), end[1] if end else 1 << 62)
        if start or end
        else None,
        count=parameters.whole(given, "_count", PAGE, MOST),
        used=[
            (name, str(value))
            for name in ("_since", "_type", "start", "end", "_count", *sorted(SHOWN))
            for value in given.get(name, ())
        ],
    )


def _sealed(
    serving: Serving, requester: Requester, place: str, wanted: Wanted, position: Position
) -> str:
    used = [pair for pair in wanted.used if pair[0] not in {"_count", "_type"}]
    used += [("_type", ",".join(sorted(wanted.kinds)))] if wanted.kinds else []
    used += [("_count", str(wanted.count))]
    return serving.pages.seal(requester, place, used, position.number)


# -- What there is --------------------------------------------------------------------------------


def _piece(scope: Scope, wanted: Wanted, position: Position) -> Piece:
    """What comes from a position on. Raises NotFound, Gone, Refused."""
    access = scope.access
    named = query.patient(access, wanted.row)
    links = beside.links(access, [named.patient]).get(wanted.row, ())
    rows = (wanted.row, *links)
    matches: list[Resource] = []
    hospitals: list[Resource] = []
    if position.stage == 0:
        if wanted.has("Patient") or wanted.has("Organization"):
            changed = [Changed(Level.PATIENT, since=wanted.since)] if wanted.since else []
            found = query.find(
                access,
                Level.PATIENT,
                [Rows(Level.PATIENT, rows), *changed],
                limit=MOST,
                summarize=False,
                asked="$everything",
            )
            if wanted.has("Patient"):
                matches += reading.patients(scope, found.found)
            if wanted.has("Organization"):
                hospitals += reading.organizations(one.owner for one in found.found)
        if wanted.has("Endpoint"):
            owners = related.owners(access, Level.STUDY, AllOf(_of_studies(wanted, rows)))
            known = (one for one in scope.organizations if one.id in owners)
            hospitals += reading.endpoints(scope, known)
        position = Position(1)
    if position.stage == 1:
        following = _studies(scope, wanted, rows, position, matches)
        if following is not None:
            return Piece(matches, hospitals, following)
        position = Position(2)
    return _written(scope, wanted, rows, position, matches, hospitals)


def _studies(
    scope: Scope, wanted: Wanted, rows: tuple[int, ...], position: Position, to: list[Resource]
) -> Position | None:
    """Add studies; the next position where there are more of them than a piece holds."""
    if not wanted.has("ImagingStudy"):
        return None
    room = wanted.count - len(to)
    if room <= 0:
        return position
    answer = query.find(
        scope.access,
        Level.STUDY,
        _of_studies(wanted, rows),
        limit=room,
        offset=position.at,
        summarize=False,
        asked="$everything",
    )
    read = reading.imaging_studies(scope, answer.found)
    to += read
    if answer.more or len(read) < len(answer.found):
        return Position(1, position.at + len(read))
    return None


def _of_studies(wanted: Wanted, rows: tuple[int, ...]) -> tuple[Criterion, ...]:
    """What asks for the person's studies that are wanted."""
    criteria: list[Criterion] = [Rows(Level.PATIENT, rows)]
    if wanted.since:
        criteria.append(Changed(Level.STUDY, since=wanted.since))
    low, high = wanted.days
    if low or high:
        criteria.append(Match("StudyDate", Range(low or None, high or None)))
    return tuple(criteria)


def _written(
    scope: Scope,
    wanted: Wanted,
    rows: tuple[int, ...],
    position: Position,
    to: list[Resource],
    along: list[Resource],
) -> Piece:
    """What hospitals wrote about the person, and the directory's entries that it refers to.

    They come `along` with those that come along already, each once.
    """
    kinds = tuple(wanted.kinds - {"Patient", "ImagingStudy"})
    if wanted.kinds and not kinds:
        return Piece(to, along, None)
    room = wanted.count - len(to)
    if room <= 0:
        return Piece(to, along, position)
    page = compartment.page(
        scope.access,
        compartment.Wanted(
            kinds=kinds,
            patients=rows,
            since=wanted.since,
            care=wanted.care,
            care_parameters=CARE,
        ),
        after=position.at,
        limit=room,
    )
    held = page.held
    size = 0
    for number, one in enumerate(held):
        size += len(one.content)
        if size > PIECE_BYTES and number:
            held = held[:number]
            break
    # What was written of a Patient is told as part of the record itself.
    told = [one for one in held if one.kind != "Patient"]
    matches = [*to, *(Resource(one.kind, one.logical_id, one.content) for one in told)]
    more = bool(held) and (page.more or len(held) < len(page.held))
    following = Position(2, held[-1].row) if more else None
    included = {(one.kind, one.id): one for one in along}
    for entry in _directory(scope, wanted, [one.row for one in held]):
        included.setdefault((entry.kind, entry.id), entry)
    return Piece(matches, tuple(included.values()), following)


def _directory(scope: Scope, wanted: Wanted, rows: Sequence[int]) -> list[Resource]:
    """The entries of the directory to which resources refer, each once."""
    if not rows:
        return []
    access, names = scope.access, _references()
    targets: dict[str, set[str]] = {}
    for _, kind, logical_id in clinical_search.referred(access, rows, names):
        if kind in clinical.DIRECTORY and wanted.has(kind):
            targets.setdefault(kind, set()).add(logical_id)
    written = [
        Resource(hit.kind, hit.logical_id, hit.content)
        for kind, ids in sorted(targets.items())
        for hit in clinical_search.named(access, kind, sorted(ids), limit=MOST)
    ]
    called = clinical_search.called(access, rows, names)
    for kind in sorted(clinical.DIRECTORY) if called else ():
        if wanted.has(kind) and (under := search_parameters.named_under(kind)):
            hits = clinical_search.calling(access, kind, under, called, limit=MOST)
            written += [Resource(hit.kind, hit.logical_id, hit.content) for hit in hits]
    hospitals = [
        reading.resource(registered.resource(scope, kind, one))
        for kind in sorted(registered.KINDS & targets.keys())
        for one in scope.organizations
        if registered.identity(kind, one) in targets[kind]
    ]
    return written + hospitals


@cache
def _references() -> tuple[str, ...]:
    """Every parameter by which references are followed."""
    found = (
        name
        for kind in search_parameters.kinds()
        for one in search_parameters.of(kind).values()
        if one.type == "reference"
        for name in one.followed_by
    )
    return tuple(dict.fromkeys(found))


# -- How it is told -------------------------------------------------------------------------------


def _modes(piece: Piece) -> list[tuple[Resource, str]]:
    return [(one, "match") for one in piece.matches] + [(one, "include") for one in piece.included]


def _entry(base: str, one: Resource, mode: str) -> Json:
    return {
        "fullUrl": f"{base}/{one.kind}/{one.id}",
        "resource": orjson.Fragment(one.content),
        "search": {"mode": mode},
    }


def _broken(content: bytes) -> bytes:
    """The entry that says that what comes before it is not all."""
    told = orjson.loads(content)
    told["issue"].insert(
        0,
        {
            "severity": "fatal",
            "code": "incomplete",
            "diagnostics": "the Bundle is not complete: ask again",
        },
    )
    return orjson.dumps({"resource": told, "search": {"mode": "outcome"}})


def _streamed(
    base: str, address: str, first: Piece, piece: Callable[[Position], Piece]
) -> Iterator[bytes]:
    """The Bundle, piece by piece; what breaks on the way is told by its last entry.

    The status has been sent by then: who reads the Bundle sees by the OperationOutcome in it that
    it is not whole.
    """
    links = orjson.dumps([{"relation": "self", "url": address}])
    yield b'{"resourceType":"Bundle","type":"searchset","link":' + links
    seen: set[tuple[str, str]] = set()
    between = b',"entry":['
    current = first
    while True:
        told: list[bytes] = []
        for one, mode in _modes(current):
            if mode == "include" and (one.kind, one.id) in seen:
                continue
            if mode == "include" or one.kind in clinical.DIRECTORY:
                seen.add((one.kind, one.id))
            told.append(orjson.dumps(_entry(base, one, mode)))
        if told:
            yield between + b",".join(told)
            between = b","
        if current.following is None:
            break
        try:
            current = piece(current.following)
        except Exception as error:
            told_of = outcome.response(error)  # which logs what was not expected
            yield between + _broken(bytes(told_of.body))
            between = b","
            break
    yield b"}" if between != b"," else b"]}"
