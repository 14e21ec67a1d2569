"""How a page is made and answered: templates, words, headers, forms, and errors as pages."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of dependencies.

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from fastapi import Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from exchange.errors import Damaged, ExchangeError, NotAuthenticated, NotFound, Refused, Unavailable
from exchange.policy import Requester, Role
from exchange_dicom import web_errors
from exchange_server.cookies import Cookies, Visitor, from_our_pages
from exchange_server.observability import place
from exchange_server.portal import clinical_words, naming
from exchange_server.portal.language import spoken

DOOR = "portal"
"""What the audit trail calls it."""

PREFIX = "/portal"
"""Where the pages are."""

FIELDS = 64
"""Fields of a form, at most."""

Number = Annotated[int, Path(ge=0, lt=2**63)]
"""A row number in an address: no database has others."""

HEADERS = {
    # Scripts and styles are files of ours: neither may stand inside a page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # With "no-referrer" a form of ours would say that it comes from nowhere (Fetch 3.1).
    "Referrer-Policy": "same-origin",
}

FRAMED = {
    **HEADERS,
    # Shown within a page of ours, and nowhere else.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
}
"""Of a document that somebody sent: it runs nothing and asks for nothing."""

_NEXT = re.compile(r"/(?:portal|viewer|iid|IHEInvokeImageDisplay)(?:[/?][!-\[\]-~]*)?", re.ASCII)
"""Where one goes after signing in: to a page of this site, whatever a link has said."""

_STATIC = files("exchange_server.portal") / "static"


@dataclass(frozen=True, slots=True)
class Static:
    """A file that pages load, as it is served."""

    content: bytes
    media_type: str
    version: str
    """Changes with the content, so that browsers may keep the file for good."""


_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript", ".svg": "image/svg+xml"}

STATIC: Mapping[str, Static] = {
    file.name: Static(
        content,
        next(kind for suffix, kind in _KINDS.items() if file.name.endswith(suffix)),
        hashlib.sha256(content).hexdigest()[:12],
    )
    for file in _STATIC.iterdir()
    if file.name.endswith(tuple(_KINDS))
    for content in (file.read_bytes(),)
}
"""By name; what is not here is not served."""


class Pages:
    """Makes pages for the readers of one portal."""

    def __init__(self, cookies: Cookies, timezone: ZoneInfo, foreseen: Sequence[str] = ()) -> None:
        """`foreseen`: scripts of the viewer, which a browser fetches while somebody still reads."""
        self.cookies = cookies
        self.timezone = timezone
        self._templates = Environment(
            loader=PackageLoader("exchange_server.portal"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            moment=self._moment,
            day=day,
            grouped=grouped,
            bytes=sized,
            clock=naming.clock,
            person_name=naming.person_name,
            best_name=naming.best_name,
            latin_name=naming.latin_name,
            kinds=naming.kinds,
        )
        self._templates.globals.update(
            static=_static,
            foreseen=tuple(foreseen),
            prefix=PREFIX,
            navigation=navigation,
            bases=naming.BASES,
            statuses=naming.STATUSES,
            missing=naming.MISSING,
            kinds=naming.KINDS,
            negating=clinical_words.NEGATING,
            part_names=naming.PARTS,
            outcomes=naming.OUTCOMES,
        )

    def visitor(self, request: Request) -> Visitor:
        """Who reads; their name stands on the page from here on. Raises NotAuthenticated."""
        visitor = self.cookies.visitor(request, DOOR, page=True)
        request.state.visitor = visitor
        return visitor

    def page(
        self, request: Request, template: str, /, *, status: int = 200, **told: Any
    ) -> Response:
        """A page, or with `template` a part of one, for who sent the request."""
        words = spoken(request)
        text = self._templates.get_template(template).render(
            say=words.say,
            sex=partial(naming.sex, words=words),
            modality=partial(naming.modality, words=words),
            held=partial(naming.held, words=words),
            concept=partial(naming.concept, words=words),
            body_part=partial(naming.body_part, words=words),
            element=partial(clinical_words.element, words=words),
            coded=partial(clinical_words.code, words=words),
            interpretation=partial(clinical_words.interpretation, words=words),
            told=words.told,
            language=words.language,
            visitor=getattr(request.state, "visitor", None),
            here=_here(request),
            path=request.url.path,
            posted=request.method == "POST",
            **told,
        )
        return HTMLResponse(text, status, HEADERS)

    def route(self) -> type[APIRoute]:
        """The kind of route whose errors are pages, too."""
        pages = self

        class Route(APIRoute):
            """Answers every error as a page, and who has not signed in by the page for that."""

            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    try:
                        return await handle(request)
                    except NotAuthenticated:
                        return to_sign_in(request)
                    except Unavailable as error:
                        answered = pages.error(request, web_errors.of(error).http, error)
                        if not isinstance(error, Damaged):
                            answered.headers["Retry-After"] = str(web_errors.RETRY_AFTER)
                        return answered
                    except ExchangeError as error:
                        return pages.error(request, web_errors.of(error).http, error)
                    except RequestValidationError:  # such as a number that is none
                        return pages.error(request, 404, NotFound("there is no such page"))
                    except HTTPException:
                        raise
                    except Exception as error:
                        logging.getLogger(__name__).error("unexpected %s", place(error))
                        return pages.error(request, 500, None)

                return answer

        return Route

    def error(self, request: Request, status: int, error: ExchangeError | None) -> Response:
        """The page that says why there is no other."""
        refused = isinstance(error, Refused)
        return self.page(
            request, "error.html", status=status, refused=refused, message=str(error or "")
        )

    def _moment(self, at: datetime) -> str:
        """A moment as the clocks of the hospitals show it."""
        return f"{at.astimezone(self.timezone):%Y-%m-%d %H:%M}"


def number(stated: str) -> int | None:
    """A whole number as a form tells it, that a column can hold; None where it is none."""
    return int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 19 else None


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, each once, from a page of ours. Raises Refused, HTTPException."""
    if not from_our_pages(request):
        raise Refused("this form is not of a page of this site")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            (await request.body()).decode(),
            keep_blank_values=True,
            max_num_fields=FIELDS,
            errors="strict",
        )
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    return dict(pairs)


_PLACES = (
    ("search", ("查找患者", "Find a patient")),
    ("shares", ("分享", "Shares")),
    ("hospital", ("医院", "Hospital")),
    ("links", ("患者链接", "Patient links")),
    ("operation", ("运行", "Operation")),
    ("audit", ("审计", "Audit")),
)
"""Where each page is, and what it is called in Chinese and English."""


def navigation(visitor: Visitor) -> list[tuple[str, tuple[str, str]]]:
    """The pages that somebody may use."""
    administers = visitor.requester.role is Role.ADMINISTRATOR
    regional = administers and visitor.requester.organization is None
    if visitor.requester.role is Role.GUEST:
        return []
    may = {
        "search": not administers,
        "shares": not administers,
        "links": not regional,
        "hospital": administers,
        "operation": regional,
        "audit": administers,
    }
    return [(place, words) for place, words in _PLACES if may[place]]


def home(requester: Requester) -> str:
    """The first page of somebody."""
    if requester.named is not None:
        return f"{PREFIX}/studies/{requester.named.study}"
    if requester.role is not Role.ADMINISTRATOR:
        return f"{PREFIX}/search"
    return f"{PREFIX}/operation" if requester.organization is None else f"{PREFIX}/hospital"


def goes_to(stated: str) -> str:
    """Where `stated` leads, if it is a page of this site; else "", wherever it may lead."""
    return stated if _NEXT.fullmatch(stated) else ""


def to_sign_in(request: Request) -> Response:
    """To the page where one signs in, and from there back to this one, or to that of the form."""
    place = f"{PREFIX}/sign-in"
    part = "hx-request" in request.headers  # only a part of a page: the whole has to go
    sent = part or request.method != "GET"
    left = goes_to(_left(request) if sent else _here(request))
    told = {"next": left} if left else {}
    if sent:
        told["over"] = "yes"
    place += "?" * bool(told) + urlencode(told, safe="/")
    if part:
        return Response(status_code=401, headers={"HX-Redirect": place})
    return RedirectResponse(place, 303)


def _left(request: Request) -> str:
    """The page of ours on which somebody was who sent this; "" where that is not known."""
    told = request.headers.get("hx-current-url") or request.headers.get("referer", "")
    page = urlsplit(told)
    if page.netloc != request.url.netloc:
        return ""
    return page.path + "?" * bool(page.query) + page.query


def day(date: str) -> str:
    """A DICOM date (PS3.5 6.2, DA) as people read it; what is none stays as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def grouped(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def sized(size: float) -> str:
    """Bytes as people read them, in decimal units."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _static(name: str) -> str:
    return f"{PREFIX}/static/{name}?v={STATIC[name].version}"


def _here(request: Request) -> str:
    return request.url.path + "?" * bool(request.url.query) + request.url.query
