"""Who asks from a browser: the session cookie (RFC 6265), believed for our own pages only.

A browser sends a cookie along with whatever a foreign page makes it ask, so a cookie alone is no
proof of intent. Browsers say where a request comes from (Fetch Metadata `Sec-Fetch-Site`, RFC 6454
`Origin`); what comes from elsewhere is not believed, and what changes something has to say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

from fastapi import Request, Response

from exchange import patient_links, sessions
from exchange.access import Access, Exchange
from exchange.errors import NotAuthenticated
from exchange.patient_links import Guest
from exchange.policy import Requester, Role
from exchange.sessions import Lifetime, SignedIn
from exchange_server.addresses import nobody
from exchange_server.identities import REJECTED_DOOR

COOKIE = "exchange_session"
"""The session cookie; `__Host-` before it over HTTPS, so that no neighbour can set it (RFC 6265bis
section 4.1.3.2)."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that ask for nothing but an answer (RFC 9110 section 9.2.1)."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who has signed in at a browser, and as whom they ask."""

    requester: Requester
    display_name: str
    organization: str
    """The name of their hospital, or "" for the region's own staff."""


class Cookies:
    """Knows a session by its cookie, gives it out and takes it back."""

    def __init__(self, exchange: Exchange, *, idle: float, whole: float) -> None:
        """`idle` and `whole`: seconds without a request, and in all, after which one ends."""
        self._exchange = exchange
        self.lifetime = Lifetime(timedelta(seconds=idle), timedelta(seconds=whole))

    def shown(self, request: Request) -> str:
        """The secret of the session cookie, or ""."""
        return request.cookies.get(_name(request), "")

    def visitor(self, request: Request, door: str, *, page: bool = False) -> Visitor:
        """Who sends the request, by its cookie; `page`: also by a link from elsewhere to a page.

        Raises NotAuthenticated, and Unavailable when the index does not answer.
        """
        secret = self.shown(request)
        if not secret:
            raise NotAuthenticated("sign in first")
        if not (from_our_pages(request) or (page and _follows_a_link(request))):
            raise NotAuthenticated("a session is for the pages of this site")
        asking = nobody(request, door)
        if patient_links.is_guests(secret):
            return self._guest(asking, secret)
        signed_in: SignedIn | None = None
        with self._exchange.on_behalf_of(asking) as access:
            signed_in = sessions.of(access, secret, self.lifetime)
        if signed_in is None:
            raise NotAuthenticated("the session has ended; sign in again")
        user, organization = signed_in.user, signed_in.organization
        known = replace(
            asking,
            name=user.name,
            role=Role(user.role),
            organization=user.organization_id,
            purpose=signed_in.purpose,
            rejected=user.sees_rejected and door == REJECTED_DOOR,
        )
        return Visitor(known, user.display_name, organization.name if organization else "")

    def _guest(self, asking: Requester, secret: str) -> Visitor:
        """Who has opened a patient's link. Raises NotAuthenticated, Unavailable."""
        guest: Guest | None = None
        with self._exchange.on_behalf_of(asking) as access:
            guest = patient_links.of(access, secret, self.lifetime)
        if guest is None:
            raise NotAuthenticated("the link has ended; open it with another code")
        return Visitor(guest.asking(asking), "", guest.organization.name)

    def end(self, access: Access, request: Request) -> None:
        """The session that the request shows is over, if there is one."""
        secret = self.shown(request)
        if patient_links.is_guests(secret):
            patient_links.end(access, secret)
        elif secret:
            sessions.end(access, secret)

    def give(self, request: Request, response: Response, secret: str) -> None:
        """Hand the secret to the browser: out of reach for scripts, and for other sites."""
        response.set_cookie(
            _name(request),
            secret,
            path="/",
            secure=_secure(request),
            httponly=True,
            samesite="lax",
        )

    def take(self, request: Request, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(
            _name(request), path="/", secure=_secure(request), httponly=True, samesite="lax"
        )


def from_our_pages(request: Request) -> bool:
    """Whether the request comes from a page of ours, or, if it changes nothing, from nobody's."""
    safe = request.method in SAFE
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin" or (safe and site == "none")
    origin = request.headers.get("origin")
    if origin is None:
        return safe
    # The host alone: behind a proxy the scheme may be another here than there.
    return urlsplit(origin).netloc == request.url.netloc


def _follows_a_link(request: Request) -> bool:
    """Whether a person goes to a page, from wherever: such as from the hospital's own system."""
    return request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _name(request: Request) -> str:
    return f"__Host-{COOKIE}" if _secure(request) else COOKIE
