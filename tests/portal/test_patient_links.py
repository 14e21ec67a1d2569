"""A patient opens their study by a link and a code in a browser; nothing else opens to them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import APIResponse, Page, expect
from portal_city import NARROW, WIDE, PortalCity

SignIn = Callable[..., Page]


def checked(page: Page, width: int) -> None:
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html']}" for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def handed_out(page: Page) -> tuple[str, list[str]]:
    """Address and codes, from the page that tells them."""
    expect(page.locator(".qr svg")).to_be_visible()
    return page.locator("#address").input_value(), page.locator(".codes .number").all_inner_texts()


@pytest.mark.parametrize(
    ("language", "size"), [("zh-CN", WIDE), ("en", NARROW)], ids=["Chinese", "English, on a phone"]
)
def test_a_patient_opens_their_study_and_downloads_it(
    sign_in: SignIn, city: PortalCity, language: str, size: dict[str, int]
) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC").study_instance_uid
    page = sign_in("dr.bc", language=language, size=size)
    page.goto(f"/portal/studies/{study}")
    words = {"zh-CN": ("给患者的链接", "下载"), "en": ("Link for the patient", "Download")}
    link, download = words[language]
    page.get_by_role("link", name=link).click()
    checked(page, size["width"])
    page.locator("main button.main").click()
    address, codes = handed_out(page)
    checked(page, size["width"])

    patient = sign_in("", language=language, size=size)
    asked: list[str] = []
    patient.on("request", lambda one: asked.append(f"{one.url} {one.headers}"))
    patient.goto(address)
    expect(patient.locator("#link")).to_be_hidden()
    checked(patient, size["width"])
    patient.fill("#code", "00000000")
    patient.keyboard.press("Enter")
    expect(patient.get_by_role("alert")).to_be_visible()
    checked(patient, size["width"])
    patient.fill("#code", codes[0])
    patient.keyboard.press("Enter")
    patient.wait_for_url(f"**/portal/studies/{study}")
    checked(patient, size["width"])
    secret = address.partition("#")[2]
    assert not [one for one in asked if secret in one]  # in no address, and in no referrer
    expect(patient.locator("nav a")).to_have_count(0)
    expect(patient.locator(".tiles img").first).to_have_js_property("complete", True)
    with patient.expect_download() as fetched:
        patient.get_by_role("button", name=download, exact=True).click()
    assert fetched.value.suggested_filename.endswith(".zip")
    patient.goto("about:blank")  # the page of a download asks again by itself, also just then

    page.goto("/portal/links")
    checked(page, size["width"])
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("1 / 3")
    row.get_by_role("button").click()
    expect(row.get_by_role("button")).to_have_count(0)
    patient.goto(f"/portal/studies/{study}")
    expect(patient).to_have_url(re.compile("/portal/sign-in"))  # it has ended at once


def test_a_link_opens_no_other_page_and_nothing_else_at_any_door(
    sign_in: SignIn, city: PortalCity
) -> None:
    mine, other = [one for one in city.people.studies if one.hospital == "BC"][:2]
    study, elsewhere = mine.study_instance_uid, other.study_instance_uid
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study}/link")
    page.locator("#series").select_option(index=1)
    series = page.locator("#series").input_value()
    page.locator("main button.main").click()
    address, codes = handed_out(page)
    patient = sign_in("")
    patient.goto(address)
    patient.fill("#code", codes[0])
    patient.keyboard.press("Enter")
    patient.wait_for_url(f"**/portal/studies/{study}")
    expect(patient.locator(".tile, .report, .card iframe")).to_have_count(1)

    def answered(path: str) -> APIResponse:
        return patient.request.get(path, max_redirects=0, headers={"Accept": "*/*"})

    for root in ("/dicom-web", "/viewer/dicom-web"):
        found = answered(f"{root}/studies").json()
        assert [one["0020000D"]["Value"] for one in found] == [[study]]
        (one,) = answered(f"{root}/studies/{study}/series").json()
        assert one["0020000E"]["Value"] == [series]
        assert {
            one["0020000E"]["Value"][0]
            for one in answered(f"{root}/studies/{study}/metadata").json()
        } == {series}
        assert answered(f"{root}/studies/{elsewhere}/metadata").status == 404
    for path in (
        f"/portal/studies/{elsewhere}", f"/portal/studies/{elsewhere}/share",
        f"/portal/studies/{study}/share", f"/portal/studies/{study}/link",
        "/portal/search", "/portal/people/1", "/portal/shares", "/portal/links",
        "/portal/hospital", "/portal/operation", "/portal/records/Patient/1",
        "/dicom-web/workitems", "/dicom-web/changefeed",
        "/fhir/Patient", "/fhir/Patient/1", "/fhir/Organization",
        "/fhir/AuditEvent", "/fhir/Subscription",
    ):  # fmt: skip
        answer = answered(path)
        assert answer.status in {403, 404}, (path, answer.status, answer.text()[:200])
    assert answered(f"/iid?requestType=STUDY&studyUID={elsewhere}").status == 404
    (entry,) = answered("/fhir/ImagingStudy").json()["entry"]  # the same study, as far as it goes
    assert [one["uid"] for one in entry["resource"]["series"]] == [series]
    assert entry["resource"]["numberOfSeries"] == 1
    with_others = answered("/fhir/ImagingStudy?_include=ImagingStudy:subject").text()
    assert '"resourceType":"Patient"' not in with_others


def test_the_desk_hands_out_a_link_and_guesses_have_an_end(
    sign_in: SignIn, city: PortalCity
) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC")
    page = sign_in("admin.bc")
    page.goto("/portal/links")
    checked(page, WIDE["width"])
    page.fill("#number", "404")
    page.fill("#accession", study.accession_number)
    page.locator("form button.main").click()
    expect(page.get_by_role("alert")).to_contain_text("本院没有同时符合")
    page.fill("#number", study.patient_id)
    page.fill("#accession", study.accession_number)
    page.locator("form button.main").click()
    address, codes = handed_out(page)

    patient = sign_in("")
    told: dict[str, str | float | bool] = {"link": address, "code": codes[0]}
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert patient.request.post("/portal/visit", form=told, headers=foreign).status == 403
    ours = {"Sec-Fetch-Site": "same-origin"}
    wrong = [
        patient.request.post("/portal/visit", form={**told, "link": "x"}, headers=ours).status
        for _ in range(12)
    ]
    assert wrong[0] == 401
    assert wrong[-1] == 429
    assert patient.request.post("/portal/visit", form=told, headers=ours).status == 429
