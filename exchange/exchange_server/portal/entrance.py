"""The way in and out: signing in, the language, signing out, and the files that pages load."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from exchange import sessions
from exchange.access import Exchange
from exchange.errors import NotAuthenticated, NotFound, Refused, TooManyTries, Unavailable
from exchange.policy import Purpose
from exchange_server.addresses import nobody
from exchange_server.observability import SESSION_BEGUN, SESSION_REFUSED, observe
from exchange_server.passwords import WINDOW, Passwords
from exchange_server.portal.language import remember
from exchange_server.portal.pages import DOOR, HEADERS, PREFIX, STATIC, Pages, form, goes_to, home

FOR_GOOD = 365 * 24 * 3600
"""Seconds for which a browser may keep a file whose address changes with its content."""


def entrance(exchange: Exchange, pages: Pages, passwords: Passwords) -> APIRouter:
    """Routes that somebody needs before it is known who they are."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get("/")
    def first(request: Request) -> Response:
        visitor = pages.visitor(request)
        return RedirectResponse(home(visitor.requester), 303)

    @router.get("/sign-in")
    def ask(request: Request) -> Response:
        return pages.page(
            request,
            "sign_in.html",
            next=goes_to(request.query_params.get("next", "")),
            name="",
            wrong="",
            over=bool(request.query_params.get("over")),
        )

    @router.post("/sign-in")
    def sign_in(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        name, following = given.get("name", "").strip(), goes_to(given.get("next", ""))
        claimed = replace(nobody(request, DOOR), name=name)
        status, headers, wrong = 401, dict[str, str](), ""
        try:
            who, user, _ = passwords.known(claimed, given.get("password", ""), Purpose.TREATMENT)
            with exchange.on_behalf_of(who) as access:
                pages.cookies.end(access, request)
                secret = sessions.begin(access, user, Purpose.TREATMENT, pages.cookies.lifetime)
        except TooManyTries as error:
            status, headers, wrong = 429, {"Retry-After": f"{WINDOW:.0f}"}, str(error)
        except NotAuthenticated as error:
            wrong = str(error)
        except Refused as error:
            status, wrong = 403, str(error)
        except Unavailable as error:
            status, headers, wrong = 503, {"Retry-After": "5"}, str(error)
        else:
            observe(SESSION_BEGUN)
            place = following or home(who)
            entered = RedirectResponse(place, 303)
            pages.cookies.give(request, entered, secret)
            return entered
        observe(SESSION_REFUSED, reason=str(status))
        answer = pages.page(
            request,
            "sign_in.html",
            status=status,
            next=following,
            name=name[:64],
            wrong=wrong,
            over=False,
        )
        answer.headers.update(headers)
        return answer

    @router.post("/sign-out")
    def sign_out(request: Request, _: Annotated[dict[str, str], Depends(form)]) -> Response:
        answer = RedirectResponse(f"{PREFIX}/sign-in", 303)
        try:
            visitor = pages.visitor(request)
        except NotAuthenticated:
            pass  # is over already
        else:
            with exchange.on_behalf_of(visitor.requester) as access:
                pages.cookies.end(access, request)
        pages.cookies.take(request, answer)
        # What the browser has kept of the pages, too: the next at this desk is somebody else.
        answer.headers["Clear-Site-Data"] = '"cache"'
        return answer

    @router.post("/language")
    def language(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        answer = RedirectResponse(goes_to(given.get("next", "")) or f"{PREFIX}/", 303)
        remember(request, answer, given.get("language", ""))
        return answer

    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        file = STATIC.get(name)
        if file is None:
            raise HTTPException(404)
        kept = {"Cache-Control": f"public, max-age={FOR_GOOD}, immutable"}
        return Response(file.content, headers={**HEADERS, **kept}, media_type=file.media_type)

    return router


def nowhere(pages: Pages) -> APIRouter:
    """The last route: what is at none of the others is told in a page, too."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get("/{path:path}")
    def nothing(request: Request) -> Response:
        pages.visitor(request)
        raise NotFound("there is no such page")

    return router
