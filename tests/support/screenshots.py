"""Pictures of the pages for the README, of the sample city: deploy/screenshots runs this."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page
from portal_city import NARROW, PortalCity, chromium, portal_city, signed_in

FOLDER = Path(__file__).parents[2] / "deploy/pictures"

COLORS = 96
"""Of a picture: pages have few, and a small file is quickly shown."""

SIZE = {"width": 1040, "height": 760}


def kept(page: Page, name: str) -> None:
    """Take the page's picture, when all that it shows has come."""
    page.wait_for_load_state("networkidle")
    taken = Image.open(io.BytesIO(page.screenshot()))
    taken.convert("RGB").quantize(COLORS).save(FOLDER / f"{name}.png", optimize=True)


def search(page: Page, city: PortalCity) -> None:
    """Somebody is looked for by pinyin."""
    page.fill("#text", "wang")
    page.keyboard.press("Enter")
    page.locator(".people .card").first.wait_for()


def timeline(page: Page, city: PortalCity) -> None:
    """Of a person whom three hospitals know."""
    person = next(
        one
        for one in city.people.people
        if len({study.hospital for study in city.people.studies_of(one.id)}) > 2
    )
    page.fill("#text", person.resident_id)
    page.keyboard.press("Enter")
    page.locator(".people a").first.click()
    page.locator(".timeline").wait_for()


def study(page: Page, city: PortalCity) -> None:
    """One with a report."""
    timeline(page, city)
    page.locator(".timeline h2 a").first.click()
    page.locator(".report").wait_for()


def nothing_more(page: Page, city: PortalCity) -> None:
    """The page on which one comes in."""


PICTURES: dict[str, tuple[str, str, dict[str, int], Callable[[Page, PortalCity], None]]] = {
    "search": ("dr.bc", "zh-CN", SIZE, search),
    "timeline": ("dr.bc", "zh-CN", SIZE, timeline),
    "timeline-phone": ("dr.bc", "en", NARROW, timeline),
    "study": ("dr.bc", "zh-CN", SIZE, study),
    "hospital": ("admin.bc", "zh-CN", SIZE, nothing_more),
    "operation": ("root", "zh-CN", SIZE, nothing_more),
}
"""File: who looks, in which language and at what size, and what they do first."""


def take(browser: Browser, city: PortalCity, name: str) -> None:
    """Take one of `PICTURES`."""
    who, language, size, does = PICTURES[name]
    page = signed_in(browser, city, who, language=language, size=size)
    does(page, city)
    kept(page, name)
    page.context.close()


def main() -> int:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        portal_city(Path(home)) as city,
        chromium() as browser,
    ):
        for name in PICTURES:
            take(browser, city, name)
            sys.stdout.write(f"{FOLDER / name}.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
