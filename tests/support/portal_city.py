"""A small city behind a running exchange, and people at its pages in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from running import PASSWORD, RunningExchange
from sample_city import City, generate

from exchange import organizations, users
from exchange.access import Exchange
from exchange.organizations import Entity
from exchange.policy import Requester, Role

CHROMIUM = "/usr/lib/chromium/chromium-headless-shell"
"""Debian's: nothing is downloaded. Without a window it takes a third of the processor time."""

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 360, "height": 740}

ADMINISTRATOR = Requester(
    name="tests", role=Role.ADMINISTRATOR, organization=None, purpose=None, door="cli"
)


@dataclass(frozen=True, slots=True)
class PortalCity:
    """Three hospitals, who works there, and what they have sent.

    Clinicians dr.bc, dr.nh and dr.ds; administrators admin.bc and admin.nh of their hospitals,
    and root of the region.
    """

    exchange: RunningExchange
    people: City


@contextmanager
def portal_city(home: Path) -> Iterator[PortalCity]:
    """A running exchange to which all hospitals have sent; stopped at the end."""
    folder = home / "city"
    generate(folder, "small")
    people = City.read(folder)
    running = RunningExchange(home, {})
    with running.opened() as exchange:
        _register(exchange, people)
    running.start()
    try:
        for hospital in people.hospitals:
            done = running.dcmsend(hospital.ae_title, folder / hospital.code)
            assert done.returncode == 0, done.stdout + done.stderr
        yield PortalCity(running, people)
    finally:
        running.stop()


def _register(exchange: Exchange, people: City) -> None:
    accounts: list[tuple[str, str, Role, str | None]] = [
        ("root", "平台管理员", Role.ADMINISTRATOR, None)
    ]
    for hospital in people.hospitals:
        code = hospital.code.lower()
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.register(
                access,
                code=code,
                name=hospital.name,
                credit_code=hospital.unified_social_credit_code,
                issuer=hospital.issuer_oid,
                entities=[Entity(title=hospital.ae_title, address="127.0.0.1")],
            )
        accounts += [
            (f"dr.{code}", "李医生", Role.CLINICIAN, code),
            (f"admin.{code}", "王主任", Role.ADMINISTRATOR, code),
            (f"ris.{code}", "RIS", Role.SYSTEM, code),
        ]
    for name, display_name, role, organization in accounts:
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(
                access,
                name=name,
                display_name=display_name,
                role=role,
                organization=organization,
                password=PASSWORD,
            )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


def signed_in(
    browser: Browser,
    city: PortalCity,
    name: str,
    *,
    language: str = "zh-CN",
    size: dict[str, int] | None = None,
    scripts: bool = True,
) -> Page:
    """A page of somebody who has signed in; its context is the caller's to close."""
    page = visitor(browser, city, language=language, size=size, scripts=scripts)
    page.goto("/portal/sign-in")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/portal/(search|hospital|operation)"))
    return page


def visitor(
    browser: Browser,
    city: PortalCity,
    *,
    language: str = "zh-CN",
    size: dict[str, int] | None = None,
    scripts: bool = True,
) -> Page:
    """A page of somebody whom nobody knows yet."""
    context: BrowserContext = browser.new_context(
        base_url=city.exchange.url,
        viewport=size or WIDE,  # type: ignore[arg-type]
    )
    context.add_cookies(
        [{"name": "exchange_language", "value": language, "url": city.exchange.url}]
    )
    return context.new_page()
