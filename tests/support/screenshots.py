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
from running import fhir

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


RESULTS = (("2025-11-03", 101), ("2026-02-17", 109), ("2026-05-21", 124), ("2026-11-02", 138))
"""Days, and what the laboratory found."""


def record(page: Page, city: PortalCity) -> None:
    """A result that was found before, written by the hospital for as long as that takes."""
    known = next(one for one in city.people.studies if one.hospital == "NH")
    with city.exchange.web("ris.nh") as client:
        found = fhir(client, "Patient", identifier=known.patient_id, organization="nh")
        written = [
            client.post(
                "/fhir/Observation",
                json={
                    "resourceType": "Observation",
                    "status": "final",
                    "code": {
                        "coding": [{"system": "http://loinc.org", "code": "718-7"}],
                        "text": "血红蛋白",
                    },
                    "subject": {"reference": f"Patient/{found[0]['id']}"},
                    "effectiveDateTime": f"{day}T08:00:00+08:00",
                    "performer": [{"display": "检验科 陈医师"}],
                    "method": {"text": "氰化高铁法"},
                    "valueQuantity": {"value": value, "unit": "g/L"},
                    "interpretation": [{"coding": [{"code": "L" if value < 130 else "N"}]}],
                    "referenceRange": [
                        {
                            "low": {"value": 115, "unit": "g/L"},
                            "high": {"value": 150, "unit": "g/L"},
                        }
                    ],
                },
            ).json()["id"]
            for day, value in RESULTS
        ]
        page.goto(f"/portal/records/Observation/{written[-1]}")
        page.locator("svg.chart").wait_for()
        for one in written:
            client.delete(f"/fhir/Observation/{one}")


def nothing_more(page: Page, city: PortalCity) -> None:
    """The page on which one comes in."""


PICTURES: dict[str, tuple[str, str, dict[str, int], Callable[[Page, PortalCity], None]]] = {
    "search": ("dr.bc", "zh-CN", SIZE, search),
    "timeline": ("dr.bc", "zh-CN", SIZE, timeline),
    "timeline-phone": ("dr.bc", "en", NARROW, timeline),
    "study": ("dr.bc", "zh-CN", SIZE, study),
    "record": ("dr.bc", "zh-CN", SIZE, record),
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
