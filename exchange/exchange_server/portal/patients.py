"""Finding a person, and the person's timeline over all hospitals."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from exchange import people, timeline
from exchange.access import Exchange
from exchange.errors import Invalid
from exchange.policy import Action
from exchange.timeline import Wanted
from exchange_fhir import summary
from exchange_server.portal.pages import PREFIX, Number, Pages, form

PAGE = 40
"""Studies on one page of a timeline."""

DICOMWEB = "/dicom-web"
"""Where pictures come from."""


def patients(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes about people. What is asked for goes in a form: no name or number in an address."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)
    reading = summary.said(pages.timezone)

    @router.get("/search")
    def ask(request: Request) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            access.require(Action.SEARCH)
        return pages.page(request, "search.html", text="", born="", answer=None, wrong="")

    @router.post("/search")
    def search(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        visitor = pages.visitor(request)
        text, born = given.get("text", "").strip(), given.get("born", "").strip()
        answer, wrong = None, ""
        try:
            with exchange.on_behalf_of(visitor.requester) as access:
                answer = people.find(access, text, born.replace("-", ""))
        except Invalid as error:
            wrong = str(error)
        part = "people.html" if request.headers.get("hx-request") else "search.html"
        return pages.page(
            request,
            part,
            status=200 if not wrong or part == "people.html" else 400,
            text=text,
            born=born,
            answer=answer,
            wrong=wrong,
        )

    @router.get("/people/{number}")
    def show(request: Request, number: Number) -> Response:
        visitor = pages.visitor(request)
        asked = request.query_params
        wanted = _wanted(asked)
        offset = _offset(asked.get("from", ""))
        with exchange.on_behalf_of(visitor.requester) as access:
            shown = timeline.of(access, number, wanted, limit=PAGE, offset=offset, reading=reading)
        kept = {name: value for name, value in _fields(wanted).items() if value}
        following = urlencode({**kept, "from": offset + PAGE})
        part = "entries.html" if request.headers.get("hx-request") else "timeline.html"
        return pages.page(
            request,
            part,
            number=number,
            timeline=shown,
            wanted=wanted,
            offset=offset,
            following=f"{PREFIX}/people/{number}?{following}" if shown.more else "",
            pictures=DICOMWEB,
        )

    return router


def _wanted(asked: Mapping[str, str]) -> Wanted:
    """Raises Invalid."""
    first, last = (asked.get(name, "").replace("-", "") for name in ("first", "last"))
    for date in (first, last):
        if date and not (len(date) == 8 and date.isascii() and date.isdigit()):
            raise Invalid("a date is written YYYYMMDD")
    return Wanted(
        organization=asked.get("hospital", "")[:64],
        modality=asked.get("modality", "")[:64],
        body_part=asked.get("part", "")[:64],
        first=first,
        last=last,
    )


def _fields(wanted: Wanted) -> Mapping[str, str]:
    return {
        "hospital": wanted.organization,
        "modality": wanted.modality,
        "part": wanted.body_part,
        "first": wanted.first,
        "last": wanted.last,
    }


def _offset(stated: str) -> int:
    return int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 8 else 0
