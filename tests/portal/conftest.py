"""One running city and one browser for all tests of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page
from portal_city import PortalCity, chromium, portal_city, signed_in, visitor

SignIn = Callable[..., Page]


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortalCity]:
    """Three hospitals that have sent everything; nobody may stop it."""
    with portal_city(tmp_path_factory.mktemp("portal")) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Not for longer: as long as Playwright drives one, its event loop counts as
    running, and whoever needs another in this process fails."""
    with chromium() as made:
        yield made


@pytest.fixture
def sign_in(browser: Browser, city: PortalCity) -> Iterator[SignIn]:
    """Signs somebody in (no name: nobody) and gives the page; fails on whatever a script says."""
    pages: list[Page] = []
    said: list[str] = []

    def opened(name: str = "", **how: object) -> Page:
        page = (
            signed_in(browser, city, name, **how)  # type: ignore[arg-type]
            if name
            else visitor(browser, city, **how)  # type: ignore[arg-type]
        )
        # What the page's policy forbids, and what goes wrong in a script, is told there.
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    wrong = [one for one in said if one.startswith(("error", "warning"))]
    assert [one for one in wrong if "the server responded with a status of 4" not in one] == []
