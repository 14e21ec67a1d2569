"""Every page passes axe-core: names, roles, order, and contrast (WCAG 2.2 A and AA)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect
from portal_city import NARROW, WIDE, PortalCity

SignIn = Callable[..., Page]


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]


def places(city: PortalCity) -> dict[str, list[str]]:
    """The pages that each of them may use."""
    person = next(
        one
        for one in city.people.people
        if len({study.hospital for study in city.people.studies_of(one.id)}) > 1
    )
    study = city.people.studies_of(person.id)[0].study_instance_uid
    return {
        "": ["/portal/sign-in"],
        "dr.bc": ["/portal/search", "/portal/people/1", f"/portal/studies/{study}"],
        "admin.bc": ["/portal/hospital", "/portal/search"],
        "root": ["/portal/operation"],
    }


@pytest.mark.parametrize(
    ("language", "size"),
    [("zh-CN", WIDE), ("en", NARROW)],
    ids=["Chinese, wide", "English, on a phone"],
)
@pytest.mark.parametrize("name", ["", "dr.bc", "admin.bc", "root"])
def test_nothing_on_the_pages_keeps_anybody_out(
    sign_in: SignIn, city: PortalCity, name: str, language: str, size: dict[str, int]
) -> None:
    page = sign_in(name, language=language, size=size)
    for place in places(city)[name]:
        page.goto(place)
        expect(page.locator("h1")).to_be_visible()
        assert violations(page) == [], place
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], place
    if name == "dr.bc":
        page.goto("/portal/search")
        page.fill("#text", "wang")
        page.keyboard.press("Enter")
        expect(page.locator("#people p").first).to_be_visible()
        assert violations(page) == []
