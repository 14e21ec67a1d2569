"""A clinician shares a study with a colleague elsewhere, who opens it after signing in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect
from portal_city import NARROW, WIDE, PortalCity
from running import PASSWORD

SignIn = Callable[..., Page]


def shared(page: Page, study: str, *, language: str = "zh-CN") -> str:
    """Share the study with dr.nh; returns the address of the link."""
    page.goto(f"/portal/studies/{study}")
    word = "分享" if language == "zh-CN" else "Share"
    page.locator("main").get_by_role("link", name=word, exact=True).click()
    page.fill("#colleague", "dr.nh")
    page.keyboard.press("Enter")
    expect(page.locator("[name=recipient]")).to_be_checked()
    page.fill("#note", "请看右上肺结节 <b>急</b>")
    page.locator("button.main").click()
    return page.locator("#address").input_value()


def checked(page: Page, width: int) -> None:
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html']}" for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("language", "size"), [("zh-CN", WIDE), ("en", NARROW)], ids=["Chinese", "English, on a phone"]
)
def test_a_study_is_shared_opened_by_the_colleague_and_taken_back(
    sign_in: SignIn, city: PortalCity, language: str, size: dict[str, int]
) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC").study_instance_uid
    page = sign_in("dr.bc", language=language, size=size)
    page.goto(f"/portal/studies/{study}/share?colleague=dr.")
    checked(page, size["width"])
    address = shared(page, study, language=language)
    checked(page, size["width"])

    other = sign_in("", language=language, size=size)
    other.goto(address)  # to the page where one signs in, and from there back
    other.fill("#name", "dr.nh")
    other.fill("#password", PASSWORD)
    other.keyboard.press("Enter")
    other.wait_for_url(address)
    expect(other.locator(".notice")).to_have_text("请看右上肺结节 <b>急</b>")
    assert other.locator(".notice b").count() == 0
    checked(other, size["width"])
    viewer = "看图像" if language == "zh-CN" else "View images"
    expect(other.get_by_role("link", name=viewer)).to_have_attribute(
        "href", f"/viewer/viewer?StudyInstanceUIDs={study}"
    )
    launched = other.request.get(f"/iid?requestType=STUDY&studyUID={study}", max_redirects=0)
    assert launched.headers["location"] == f"/viewer/viewer?StudyInstanceUIDs={study}"
    other.goto("/portal/shares")
    expect(other.locator("[aria-labelledby=received] tbody tr").first).to_contain_text("李医生")
    checked(other, size["width"])

    page.goto("/portal/shares")
    row = page.locator("[aria-labelledby=given] tbody tr").first
    expect(row).to_contain_text("1 / 10")
    row.get_by_role("button").click()
    expect(row.get_by_role("button")).to_have_count(0)
    answer = other.goto(address)
    assert answer is not None
    assert answer.status == 404
    expect(other.get_by_role("alert")).to_contain_text(
        "链接已失效" if language == "zh-CN" else "the link has ended"
    )


def test_one_series_is_where_the_colleague_begins(sign_in: SignIn, city: PortalCity) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC")
    series = study.series[-1].series_instance_uid
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study.study_instance_uid}/share?colleague=dr.nh")
    page.select_option("#series", series)
    page.locator("button.main").click()
    address = page.locator("#address").input_value()
    other = sign_in("dr.nh")
    other.goto(address)

    expect(other.get_by_role("link", name="看图像")).to_have_attribute(
        "href",
        f"/viewer/viewer?StudyInstanceUIDs={study.study_instance_uid}"
        f"&initialSeriesInstanceUID={series}",
    )


def test_somebody_else_and_who_only_guesses_find_nothing(sign_in: SignIn, city: PortalCity) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC").study_instance_uid
    page = sign_in("dr.bc")
    address = shared(page, study)
    third = sign_in("dr.ds")
    for path in (address, f"{address}x", "/portal/shared/x", "/portal/shared/" + "x" * 2000):
        assert third.request.get(path).status == 404
    administrator = sign_in("admin.nh")
    assert administrator.request.get(address).status == 403
    assert administrator.request.get("/portal/shares").status == 403
    # A form of another site makes no share, and takes none back.
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    told: dict[str, str | float | bool] = {"recipient": "1", "days": "7", "openings": "1"}
    for path in (f"/portal/studies/{study}/shares", "/portal/shares/1/end"):
        answer = page.request.post(path, form=told, headers=foreign, max_redirects=0)
        assert answer.status in {303, 403}
        assert "shared" not in answer.headers.get("location", "")
    page.goto("/portal/shares")
    expect(page.locator("[aria-labelledby=given] tbody tr").first).to_contain_text("有效")
