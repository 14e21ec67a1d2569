"""All pages of the portal as one door."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from fastapi import APIRouter

from exchange.access import Exchange
from exchange_server.authentication import Identify
from exchange_server.cookies import Cookies
from exchange_server.passwords import Passwords
from exchange_server.portal.administration import administration
from exchange_server.portal.audit import audit
from exchange_server.portal.entrance import entrance, nowhere
from exchange_server.portal.pages import Pages
from exchange_server.portal.patient_links import links
from exchange_server.portal.patients import patients
from exchange_server.portal.records import records
from exchange_server.portal.sharing import sharing
from exchange_server.portal.studies import studies
from exchange_server.portal.takeaway import takeaway


def portal(
    exchange: Exchange,
    _identify: Identify,
    *,
    cookies: Cookies,
    passwords: Passwords,
    timezone: ZoneInfo,
    foreseen: Sequence[str] = (),
) -> APIRouter:
    """The routes of the portal, to be mounted under `pages.PREFIX`."""
    pages = Pages(cookies, timezone, foreseen)
    router = APIRouter(include_in_schema=False)
    router.include_router(entrance(exchange, pages, passwords))
    router.include_router(patients(exchange, pages))
    router.include_router(studies(exchange, pages))
    router.include_router(records(exchange, pages))
    router.include_router(sharing(exchange, pages))
    router.include_router(links(exchange, pages))
    router.include_router(takeaway(exchange, pages))
    router.include_router(administration(exchange, pages))
    router.include_router(audit(exchange, pages))
    router.include_router(nowhere(pages))
    return router
