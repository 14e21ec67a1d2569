"""Links for patients: handing them out, taking them back, and opening them without an account."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from typing import Annotated

import segno
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from exchange import patient_links, query
from exchange.access import Exchange
from exchange.errors import Gone, Invalid, NotAuthenticated, NotFound
from exchange.patient_links import OPENINGS, Made
from exchange.policy import Action, Role
from exchange.secret_links import DAYS
from exchange_dicom.resources import uid
from exchange_server.addresses import nobody
from exchange_server.observability import SESSION_BEGUN, SESSION_REFUSED, observe
from exchange_server.passwords import WINDOW, Refusals, source_of
from exchange_server.portal.naming import LINKS
from exchange_server.portal.pages import DOOR, PREFIX, Number, Pages, form, home, number

TRIES = 10
"""Links or codes that are wrong from one address within `WINDOW`; then it has to wait."""


def links(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes of patients' links."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)
    refused = Refusals()

    @router.get("/links")
    def listed(request: Request) -> Response:
        return _listed(exchange, pages, request, "")

    @router.post("/links")
    def at_desk(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        visitor = pages.visitor(request)
        try:
            with exchange.on_behalf_of(visitor.requester) as access:
                made = patient_links.at_desk(
                    access,
                    given.get("number", "").strip()[:64],
                    given.get("accession", "").strip()[:64],
                    days=_number(given.get("days", "")),
                    openings=_number(given.get("openings", "")),
                )
        except (NotFound, Invalid) as error:
            return _listed(exchange, pages, request, str(error))
        return _told(pages, request, made)

    @router.get("/studies/{study}/link")
    def ask(request: Request, study: str) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            access.require(Action.HAND_OUT, study=study)
            found = query.study(access, uid(study))
            (contents,) = query.contents(access, [found]).values()
        return pages.page(
            request,
            "link.html",
            found=found,
            study=found.study,
            series=contents,
            days=DAYS,
            openings=OPENINGS,
        )

    @router.post("/studies/{study}/links")
    def make(
        request: Request, study: str, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        series = given.get("series", "")
        with exchange.on_behalf_of(visitor.requester) as access:
            made = patient_links.make(
                access,
                uid(study),
                series=uid(series) if series else "",
                days=_number(given.get("days", "")),
                openings=_number(given.get("openings", "")),
            )
        return _told(pages, request, made)

    @router.post("/links/{number}/end")
    def revoke(
        request: Request, number: Number, _: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            patient_links.revoke(access, number)
        return RedirectResponse(f"{PREFIX}/links", 303)

    @router.get("/visit")
    def visit(request: Request) -> Response:
        return pages.page(request, "visit.html", link="", wrong="")

    @router.post("/visit")
    def enter(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        asking = nobody(request, DOOR)
        source = source_of(asking.address)
        # What stands behind the "#" of the address, with or without what is before it.
        secret = given.get("link", "").strip().rpartition("#")[2]
        status, wrong = 401, "too many wrong codes; wait a minute"
        if refused.of_late(source) >= TRIES:
            status = 429
        else:
            try:
                with exchange.on_behalf_of(asking) as access:
                    known = patient_links.known(access, secret[:128], given.get("code", "")[:32])
                with exchange.on_behalf_of(known.requester) as access:
                    session = patient_links.enter(access, known.code)
                    pages.cookies.end(access, request)
            except NotAuthenticated as error:
                refused.add(source)
                wrong = str(error)
            except Gone as error:
                status, wrong = 404, str(error)
            else:
                observe(SESSION_BEGUN)
                entered = RedirectResponse(home(known.requester), 303)
                pages.cookies.give(request, entered, session)
                return entered
        observe(SESSION_REFUSED, reason=str(status))
        answer = pages.page(request, "visit.html", status=status, link=secret[:128], wrong=wrong)
        if status == 429:
            answer.headers["Retry-After"] = f"{WINDOW:.0f}"
        return answer

    return router


def _listed(exchange: Exchange, pages: Pages, request: Request, wrong: str) -> Response:
    visitor = pages.visitor(request)
    with exchange.on_behalf_of(visitor.requester) as access:
        given = patient_links.given(access)
    return pages.page(
        request,
        "links.html",
        status=404 if wrong else 200,
        links=given,
        states=LINKS,
        desk=visitor.requester.role is Role.ADMINISTRATOR,
        days=DAYS,
        openings=OPENINGS,
        wrong=wrong,
    )


def _told(pages: Pages, request: Request, made: Made) -> Response:
    address = f"{request.url.scheme}://{request.url.netloc}{PREFIX}/visit#{made.secret}"
    drawn = segno.make(address, error="m", micro=False).svg_inline(scale=4, omitsize=True)
    return pages.page(
        request,
        "link_made.html",
        link=made.link,
        address=address,
        codes=made.codes,
        code=Markup(drawn),  # noqa: S704 - drawn by us of an address of ours: shapes alone
    )


def _number(stated: str) -> int:
    """Raises Invalid."""
    if (known := number(stated)) is None:
        raise Invalid("say for how many days, and how often it may be opened")
    return known
