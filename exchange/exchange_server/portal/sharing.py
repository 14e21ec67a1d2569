"""Sharing a study with a colleague by a link: making it, opening it, and taking it back."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from exchange import query, shares
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound
from exchange.secret_links import DAYS
from exchange.shares import NOTE, OPENINGS
from exchange_dicom.resources import uid
from exchange_server.portal.naming import LINKS
from exchange_server.portal.pages import PREFIX, Number, Pages, form, number
from exchange_server.portal.patients import DICOMWEB


def sharing(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes of shares."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get("/shares")
    def listed(request: Request) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            given, received = shares.given(access), shares.received(access)
        return pages.page(request, "shares.html", given=given, received=received, states=LINKS)

    @router.get("/studies/{study}/share")
    def ask(request: Request, study: str) -> Response:
        visitor = pages.visitor(request)
        text = request.query_params.get("colleague", "").strip()[:64]
        with exchange.on_behalf_of(visitor.requester) as access:
            found = query.study(access, uid(study))
            (contents,) = query.contents(access, [found]).values()
            colleagues = shares.colleagues(access, text)
        return pages.page(
            request,
            "share.html",
            found=found,
            study=found.study,
            text=text,
            colleagues=colleagues,
            series=contents,
            longest=NOTE,
            days=DAYS,
            openings=OPENINGS,
        )

    @router.post("/studies/{study}/shares")
    def make(
        request: Request, study: str, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        series = given.get("series", "")
        with exchange.on_behalf_of(visitor.requester) as access:
            made = shares.share(
                access,
                uid(study),
                _number(given.get("recipient", "")),
                series=uid(series) if series else "",
                note=given.get("note", "").strip(),
                days=_number(given.get("days", "")),
                openings=_number(given.get("openings", "")),
            )
        address = f"{request.url.scheme}://{request.url.netloc}{PREFIX}/shared/{made.secret}"
        return pages.page(request, "share_made.html", share=made.share, address=address)

    @router.get("/shared/{secret}")
    def follow(request: Request, secret: str) -> Response:
        visitor = pages.visitor(request)
        if len(secret) > 128:
            raise NotFound("this link is not for you, or there is no such link")
        with exchange.on_behalf_of(visitor.requester) as access:
            opened = shares.open_link(access, secret)
        return pages.page(request, "shared.html", opened=opened, pictures=DICOMWEB)

    @router.post("/shares/{number}/end")
    def revoke(
        request: Request, number: Number, _: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            shares.revoke(access, number)
        return RedirectResponse(f"{PREFIX}/shares", 303)

    return router


def _number(stated: str) -> int:
    """Raises Invalid."""
    if (known := number(stated)) is None:
        raise Invalid("choose a colleague, and say for how long and how often")
    return known
