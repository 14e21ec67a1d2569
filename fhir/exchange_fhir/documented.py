"""Composition/$document (FHIR R4 2.37.2, 3.3): a Composition and what it is made of, as a document.

Each resource is read for the asker and recorded, as if it had been asked for by itself. What the
Composition itself names belongs to the document: where some of it may not be seen or is not here,
there is no document. What that refers to in its turn comes along as far as it may be seen.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange.errors import Gone, NotFound, Refused
from exchange_fhir import interactions, json_format, negotiation, parameters
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN
from exchange_fhir.datatypes import URI, instant
from exchange_fhir.elements import target
from exchange_fhir.interactions import Asked, Here
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.rest_interactions import body
from exchange_fhir.serving import Serving

MOST = 500
"""Resources of a document."""

DOCUMENT_BYTES = 1 << 26
"""Bytes of its resources."""

FURTHER = 2
"""How far it is followed from what the Composition names."""

_PARAMETERS = SHOWN | {"id", "persist"}
_NOT_FOLLOWED = frozenset({"Patient", "Encounter", "AuditEvent", "Person"})
"""What leads away from the document: to other visits, and other hospitals' records."""

Named = tuple[str, str, str]
"""Type, logical id and version, or ""."""


def documenting(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of the operation of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def told(request: Request, logical_id: str, content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        parameters.known(given, _PARAMETERS)
        if parameters.truth(given, "persist"):
            told = "documents are made when they are asked for, and not kept: no Bundle is served"
            raise Problem(400, "not-supported", told)
        logical_id = logical_id or parameters.text(given, "id").removeprefix("Composition/")
        if not logical_id:
            raise Problem(400, "required", "name the Composition (id)")
        with serving.asked(request, requester) as here:
            document = _document(here, logical_id)
        return negotiation.response(Answered(status=200, content=document), written)

    @router.get("/Composition/$document")
    def by_id(request: Request) -> Response:
        return told(request, "")

    @router.post("/Composition/$document")
    def by_id_posted(request: Request, content: Body) -> Response:
        return told(request, "", content)

    @router.get("/Composition/{logical_id}/$document")
    def of_one(request: Request, logical_id: str) -> Response:
        return told(request, logical_id)

    @router.post("/Composition/{logical_id}/$document")
    def of_one_posted(request: Request, logical_id: str, content: Body) -> Response:
        return told(request, logical_id, content)

    return router


def _document(here: Here, logical_id: str) -> bytes:
    """The document. Raises NotFound, Refused, Problem where something of it is missing."""
    first: Named = ("Composition", logical_id, "")
    held = {first: interactions.read(here, Asked(kind="Composition", logical_id=logical_id))}
    composition = json_format.parse(held[first].content)
    missing: list[Issue] = []
    front: list[Named] = []
    for path, named, address in _references(composition, here.base):
        if named in held:
            continue
        if named is None:
            missing.append(Issue("not-supported", f"{address[:200]} is not of this server", path))
            continue
        found = _read(here, held, named)
        if isinstance(found, Issue):
            missing.append(Issue(found.code, found.told, path))
        else:
            front.append(named)
    if missing:
        raise Problem(422, "incomplete", "", issues=missing)
    for _ in range(FURTHER):
        front = list(_further(here, held, front))
    now = instant(here.access.now)
    number = {"system": URI, "value": f"urn:uuid:{uuid4()}"}
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "id": number["value"].removeprefix("urn:uuid:"),
            "meta": {"lastUpdated": now},
            "identifier": number,
            "type": "document",
            "timestamp": now,
            "entry": [
                {
                    "fullUrl": f"{here.base}/{kind}/{identity}",
                    "resource": orjson.Fragment(one.content),
                }
                for (kind, identity, _), one in held.items()
            ],
        }
    )


def _further(here: Here, held: dict[Named, Answered], front: Sequence[Named]) -> Iterator[Named]:
    """What these refer to that is not in the document yet, and may be seen."""
    for one in front:
        if one[0] in _NOT_FOLLOWED or one[0] == "Binary":
            continue
        for _, named, _ in _references(json_format.parse(held[one].content), here.base):
            if named is None or named in held or named[0] in _NOT_FOLLOWED:
                continue
            if not isinstance(_read(here, held, named), Issue):
                yield named


def _read(here: Here, held: dict[Named, Answered], named: Named) -> Issue | None:
    """Take a resource into the document, once; the issue where it may not be seen or is not there.

    Raises Problem where the document grows too large.
    """
    kind, logical_id, version = named
    asked = Asked(kind=kind, logical_id=logical_id, version=version)
    try:
        read = interactions.vread if version else interactions.read
        found = read(here, asked)
    except Problem as problem:
        return Issue(problem.answer.code, f"{kind}/{logical_id}: {problem}")
    except Refused as refusal:
        return Issue("forbidden", f"{kind}/{logical_id}: {refusal}")
    except Gone:
        return Issue("deleted", f"{kind}/{logical_id} was deleted")
    except NotFound:
        return Issue("not-found", f"{kind}/{logical_id} is not here")
    if len(held) >= MOST or sum(len(one.content) for one in held.values()) > DOCUMENT_BYTES:
        raise Problem(422, "too-costly", f"a document has at most {MOST} resources")
    held[named] = found
    return None


def _references(value: Any, base: str, path: str = "") -> Iterator[tuple[str, Named | None, str]]:
    """Where a resource refers to what: a resource of this server, or None and the address."""
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from _references(one, base, f"{path}[{at}]")
    elif isinstance(value, dict):
        path = path or str(value["resourceType"])
        address = value.get("reference")
        if isinstance(address, str) and not address.startswith("#"):
            kind, logical_id = target(address, f"{base}/")
            found = re.search(r"/_history/(\d{1,9})$", address)
            named = (kind, logical_id, found[1] if found else "") if kind else None
            yield path, named, address
        for name, one in value.items():
            if name != "contained" and isinstance(one, list | dict):
                yield from _references(one, base, f"{path}.{name}")
