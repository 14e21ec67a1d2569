"""A clinician opens a study in the viewer, in Chromium, and sees what was sent."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import (
    DRAWN,
    PATIENCE,
    Seen,
    chromium,
    enlarged,
    opened,
    picture,
    sign_in,
    visitor,
)
from playwright.sync_api import BrowserContext, Locator, Page, expect
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid
from region import ADMINISTRATOR
from running import PASSWORD, RunningExchange
from sample_city import City, Study
from sqlalchemy import delete

from exchange import organizations, users
from exchange.organizations import Entity
from exchange.policy import Role
from exchange_server.viewer import installation
from exchange_server.viewer.viewer import opening
from exchange_storage.records import UserSession

CLOSE = 4.0
"""Gray values of 255 by which pixels differ on average where two scale and round them."""

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, people: City, city_folder: Path
) -> Iterator[RunningExchange]:
    """All hospitals have sent everything; the clinician dr.bc is Beicheng's."""
    home = tmp_path_factory.mktemp("viewer")
    made = RunningExchange(home, {"EXCHANGE_VIEWER": str(installation.cache())})
    with made.opened() as exchange:
        for hospital in people.hospitals:
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                organizations.register(
                    access,
                    code=hospital.code.lower(),
                    name=hospital.name,
                    credit_code=hospital.unified_social_credit_code,
                    issuer=hospital.issuer_oid,
                    entities=[Entity(title=hospital.ae_title, address="127.0.0.1")],
                )
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(
                access,
                name="dr.bc",
                display_name="dr.bc",
                role=Role.CLINICIAN,
                organization="bc",
                password=PASSWORD,
            )
    made.start()
    try:
        for hospital in people.hospitals:
            sent = made.dcmsend(hospital.ae_title, city_folder / hospital.code)
            assert sent.returncode == 0, sent.stderr
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def reader(site: RunningExchange) -> Iterator[BrowserContext]:
    """The browser of dr.bc, who has signed in."""
    with chromium() as browser, visitor(browser, site.url) as made:
        page = made.new_page()
        page.goto("/portal/sign-in")
        sign_in(page, "dr.bc", PASSWORD)
        page.wait_for_url("**/portal/**")
        page.close()
        yield made


@pytest.fixture
def visit(reader: BrowserContext, site: RunningExchange) -> Iterator[tuple[Page, Seen]]:
    """A page of theirs; it must not ask any other host, or fail at anything."""
    with opened(reader, site.url) as (page, seen):
        yield page, seen
        assert seen.outside == []
        assert seen.errors == []


def study_of(people: City, modality: str, hospital: str = "BC") -> Study:
    """The first study there in which this modality is the first."""
    return next(
        one
        for one in people.studies
        if one.hospital == hospital and next(iter(one.series)).modality == modality
    )


def shown(page: Page) -> tuple[int, int]:
    """Which image is on the screen, and of how many."""
    corner = page.locator("[data-cy=viewport-overlay-bottom-right]").first
    expect(corner).to_contain_text(re.compile(r"\d+/\d+"))
    found = re.search(r"(\d+)/(\d+)", corner.inner_text())
    assert found is not None
    return int(found[1]), int(found[2])


def window(page: Page) -> tuple[int, int]:
    """Width and center on the screen."""
    corner = page.locator("[data-cy=viewport-overlay-bottom-left]").first
    expect(corner).to_contain_text(re.compile(r"W:\s*\d+\s*L:\s*-?\d+"))
    width, center = re.findall(r"-?\d+", corner.inner_text())[:2]
    return int(width), int(center)


def canvas(page: Page) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The pixels of the viewport."""
    read = page.evaluate("() => document.querySelector('.cornerstone-canvas').toDataURL()")
    return picture(base64.b64decode(read.partition(",")[2]))


def wait_for_picture(page: Page) -> None:
    """Until something is drawn that is not one gray alone."""
    page.wait_for_function(DRAWN)


def differences(page: Page, ours: bytes) -> float:
    """Mean difference of the viewport from our own picture of the image, fitted into it."""
    drawn = canvas(page)
    size = min(drawn.shape)
    top, left = ((side - size) // 2 for side in drawn.shape)
    return float(np.abs(drawn[top : top + size, left : left + size] - enlarged(ours, size)).mean())


def draws(page: Page, ours: Callable[[], bytes]) -> None:
    """Wait until the viewport shows what we render: it draws a moment after it was told to."""
    deadline = time.monotonic() + PATIENCE / 1000
    while (found := differences(page, ours())) >= CLOSE:
        assert time.monotonic() < deadline, found
        page.wait_for_timeout(200)


def rendered(page: Page, study: Study, instance: str, **presentation: str) -> bytes:
    answer = page.request.get(
        f"/dicom-web/studies/{study.study_instance_uid}/series/"
        f"{study.series[0].series_instance_uid}/instances/{instance}/rendered",
        params=dict(presentation),
        headers={"Accept": "image/png"},
    )
    assert answer.status == 200
    return answer.body()


def in_order(page: Page, study: Study) -> list[str]:
    """The instances of the first series as the viewer sorts them: from the head down."""
    answer = page.request.get(
        f"/dicom-web/studies/{study.study_instance_uid}/series/"
        f"{study.series[0].series_instance_uid}/metadata"
    )
    found = sorted(answer.json(), key=lambda one: -one["00200032"]["Value"][2])
    return [one["00080018"]["Value"][0] for one in found]


def test_a_clinician_opens_a_study_and_sees_the_picture(
    visit: tuple[Page, Seen], people: City
) -> None:
    page, seen = visit
    study = study_of(people, "CT")
    page.goto(f"/iid?requestType=STUDY&studyUID={study.study_instance_uid}")

    wait_for_picture(page)

    instances = in_order(page, study)
    number, count = shown(page)
    assert count == len(instances)
    draws(page, lambda: rendered(page, study, instances[number - 1]))
    far = instances[(number - 1 + count // 2) % count]
    assert differences(page, rendered(page, study, far)) > CLOSE

    # In hanzi, as one reads it, and with the number of the reader's own hospital.
    record = next(one for one in people.records_of(study.person) if one.hospital == study.hospital)
    corner = page.locator("[data-cy=viewport-overlay-top-right]").first
    expect(corner).to_contain_text(people.person(study.person).name)
    expect(corner).to_contain_text(record.patient_id)
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    assert seen.failed == []


def test_the_page_of_a_study_has_the_viewer_fetched_meanwhile(
    visit: tuple[Page, Seen], people: City
) -> None:
    page, seen = visit
    with page.expect_request_finished(lambda asked: "/app.bundle." in asked.url):
        page.goto(f"/portal/studies/{study_of(people, 'CT').study_instance_uid}")

    assert seen.failed == []


def test_scrolling_and_window_show_what_we_render(visit: tuple[Page, Seen], people: City) -> None:
    page, seen = visit
    study = study_of(people, "CT")
    page.goto(opening([study.study_instance_uid]))
    wait_for_picture(page)
    instances = in_order(page, study)
    first, _ = shown(page)
    box = page.locator(".cornerstone-canvas").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.mouse.move(x, y)
    page.mouse.wheel(0, 120)

    corner = page.locator("[data-cy=viewport-overlay-bottom-right]").first
    expect(corner).to_contain_text(f"({first + 1}/{len(instances)})")
    before = window(page)
    page.mouse.down()
    page.mouse.move(x + 80, y + 20, steps=4)
    page.mouse.up()

    def as_shown() -> bytes:
        width, center = window(page)
        return rendered(page, study, instances[first], window=f"{center},{width},linear")

    draws(page, as_shown)
    assert window(page) != before
    assert differences(page, rendered(page, study, instances[first])) > CLOSE / 2
    assert seen.failed == []


def test_two_studies_hang_side_by_side_with_the_like_series_and_scroll_together(
    visit: tuple[Page, Seen], site: RunningExchange, people: City, tmp_path: Path, city_folder: Path
) -> None:
    page, seen = visit
    study = study_of(people, "CT")
    images = sorted((city_folder / "BC" / study.accession_number).glob("001-*.dcm"))
    prior = earlier(images, tmp_path)
    assert site.dcmsend("BEICHENG", tmp_path).returncode == 0
    page.goto(f"/portal/studies/{study.study_instance_uid}")
    page.locator("#prior").select_option(prior)
    page.get_by_role("button", name="比较").click()

    def corners(place: str) -> Locator:
        return page.locator(f"[data-cy=viewport-overlay-{place}]")

    # The localizer comes first in the earlier study, and is not what is compared.
    expect(corners("top-left")).to_have_count(2)
    for one in corners("top-left").all():
        expect(one).to_contain_text(study.series[0].description)
    expect(corners("bottom-right").nth(1)).to_contain_text(f"(1/{len(images)})")
    wait_for_picture(page)
    box = page.locator(".cornerstone-canvas").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, 120)
    for one in corners("bottom-right").all():
        expect(one).to_contain_text(f"(2/{len(images)})")
    assert seen.failed == []


def earlier(images: list[Path], folder: Path) -> str:
    """A study of the same patient from the year before: a localizer, and the same series."""
    study, localizer, series = (generate_uid() for _ in range(3))
    for number, path in enumerate([images[0], *images]):
        made = dcmread(path)
        made.StudyInstanceUID, made.StudyDate, made.AccessionNumber = study, "20251101", "EARLIER"
        made.SeriesInstanceUID, made.SeriesNumber = (series, "2") if number else (localizer, "1")
        made.SeriesDescription = made.SeriesDescription if number else "定位像"
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return str(study)


def test_another_hospital_s_images_have_the_reader_s_number(
    visit: tuple[Page, Seen], people: City
) -> None:
    page, seen = visit
    own = {one.person: one for one in people.records if one.hospital == "BC"}
    study = next(
        one
        for one in people.studies
        if one.hospital != "BC"
        and one.person in own
        and own[one.person].resident_id == people.person(one.person).resident_id
        and one.series[0].modality != "SR"
    )

    page.goto(opening([study.study_instance_uid]))

    corner = page.locator("[data-cy=viewport-overlay-top-right]").first
    expect(corner).to_contain_text(own[study.person].patient_id)
    assert seen.failed == []


def test_reports_and_documents_are_shown_beside_the_images(
    visit: tuple[Page, Seen], site: RunningExchange, people: City, tmp_path: Path, city_folder: Path
) -> None:
    page, _ = visit
    study = study_of(people, "CT")
    example = dcmread(next((city_folder / "BC" / study.accession_number).glob("*.dcm")))
    document = tmp_path / "document.dcm"
    encapsulated(example).save_as(document, enforce_file_format=True)
    assert site.dcmsend("BEICHENG", document).returncode == 0

    page.goto(opening([study.study_instance_uid]))
    wait_for_picture(page)
    grid, listed = (
        page.locator("[data-cy=viewport-grid]"),
        "[data-cy=study-browser-thumbnail-no-image]",
    )
    page.locator(listed).filter(has_text="SR").first.dblclick()
    expect(grid).to_contain_text(study.impression or "")
    page.locator(listed).filter(has_text="DOC").first.dblclick()
    expect(grid.locator("object[type='application/pdf']")).to_be_attached()


def encapsulated(example: Dataset) -> Dataset:
    """A document in the study of `example`."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in (
        "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber",
    ):  # fmt: skip
        setattr(made, keyword, getattr(example, keyword, ""))
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID = generate_uid()
    made.Modality = "DOC"
    made.SeriesNumber = "99"
    made.InstanceNumber = "1"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument = PDF + b"\0" * (len(PDF) % 2)
    return made


def test_work_keeps_a_session_and_its_end_leads_back_to_the_same_study(
    visit: tuple[Page, Seen], site: RunningExchange, people: City
) -> None:
    page, _ = visit
    page.clock.install()
    place = opening([study_of(people, "CT").study_instance_uid])
    page.goto(place)
    wait_for_picture(page)

    page.clock.fast_forward("10:00")
    with page.expect_response("**/viewer/session") as kept:
        page.mouse.move(500, 400)
    assert kept.value.status == 204

    with site.opened() as exchange, exchange.database.writing() as session:
        session.execute(delete(UserSession))
    page.clock.fast_forward("35:00")

    page.wait_for_url("**/portal/sign-in?next=*")
    sign_in(page, "dr.bc", PASSWORD)
    page.wait_for_url(f"**{place}")
    wait_for_picture(page)
