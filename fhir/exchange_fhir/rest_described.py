"""The routes of what the server tells of itself: definitions that anyone who asks may read."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange.errors import NotFound
from exchange_fhir import described, json_format, negotiation
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN
from exchange_fhir.outcome import Problem, outcome
from exchange_fhir.rest_interactions import body
from exchange_fhir.serving import Serving

_RESULT = SHOWN | {"_count", "_page"}


def _whole(given: Mapping[str, str], name: str) -> int | None:
    """A parameter that is a number, None where it is not given. Raises Problem."""
    told = given.get(name)
    if told is None:
        return None
    if not (told.isascii() and told.isdecimal() and len(told) < 10):
        raise Problem(400, "invalid", f"{name} is a number")
    return int(told)


def describing(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of the definitions by which `serving` works."""
    router = APIRouter(route_class=route_class, include_in_schema=False)

    def searched(request: Request, form: bytes = b"") -> Response:
        serving.identify(request)
        path = request.url.path.rstrip("/").removesuffix("/_search")
        kind = path.rpartition("/")[2]
        given = [*request.query_params.multi_items(), *negotiation.form(form, request)]
        written = negotiation.negotiated(request, given)
        asked = [(name, value) for name, value in given if name not in _RESULT]
        known = [(name, value) for name, value in asked if name in described.PARAMETERS]
        ignored = [name[:64] for name, _ in asked if name not in described.PARAMETERS]
        if ignored and negotiation.preferences(request).get("handling") == "strict":
            raise Problem(400, "not-supported", "not supported here: " + ", ".join(ignored))
        base = serving.base(request)
        found = [
            one
            for one in described.at(base, kind).values()
            if all(
                set(value.split(",")) & set(map(str, described.PARAMETERS[name](one)))
                for name, value in known
            )
        ]
        count, start = (_whole(dict(given), name) for name in ("_count", "_page"))
        shown = [one for one in given if one[0] in SHOWN]
        used = [*known, *([("_count", str(count))] if count is not None else []), *shown]
        address = f"{base}/{kind}" + (f"?{urlencode(used)}" if used else "")
        entries = [
            {
                "fullUrl": f"{base}/{kind}/{one['id']}",
                "resource": one,
                "search": {"mode": "match"},
            }
            for one in (found if count is None else found[start or 0 :][:count])
        ]
        links = [{"relation": "self", "url": address}]
        if count and (start or 0) + count < len(found):
            further = urlencode([*used, ("_page", (start or 0) + count)])
            links.append({"relation": "next", "url": f"{base}/{kind}?{further}"})
        if ignored:
            told = outcome("warning", "not-supported", [f"ignored: {one}" for one in ignored])
            entries.append({"resource": told, "search": {"mode": "outcome"}})
        bundle = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "link": links,
            **({"entry": entries} if entries else {}),
        }
        content = json_format.serialize(bundle)
        return negotiation.response(Answered(status=200, content=content), written)

    def read(request: Request, logical_id: str) -> Response:
        serving.identify(request)
        written = negotiation.negotiated(request)
        kind = request.url.path.rsplit("/", 2)[1]
        found = described.at(serving.base(request), kind).get(logical_id)
        if found is None:
            raise NotFound("no such definition is worked by here")
        content = json_format.serialize(found)
        return negotiation.response(Answered(status=200, content=content), written)

    def searched_plainly(request: Request) -> Response:
        return searched(request)

    def searched_by_form(
        request: Request, form: Annotated[bytes, Depends(body(negotiation.FORM_LIMIT))]
    ) -> Response:
        return searched(request, form)

    for kind in described.KINDS:
        router.get(f"/{kind}")(searched_plainly)
        router.post(f"/{kind}/_search")(searched_by_form)
        router.get(f"/{kind}/{{logical_id}}")(read)
    return router
