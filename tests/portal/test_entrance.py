"""Signing in with a browser, in both languages, by keyboard, and with a wrong password."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from portal_city import NARROW, WIDE, PortalCity
from running import PASSWORD

SignIn = Callable[..., Page]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "phone"])
def test_a_clinician_signs_in_by_keyboard_and_changes_the_language(
    sign_in: SignIn, size: dict[str, int]
) -> None:
    page = sign_in(size=size)
    page.goto("/")
    expect(page.locator("h1")).to_have_text("登录")
    expect(page.locator("#name")).to_be_focused()
    page.keyboard.type("dr.bc")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/portal/search")
    page.get_by_role("button", name="English").press("Enter")
    expect(page.locator("h1")).to_have_text("Find a patient")
    page.get_by_role("button", name="中文").press("Enter")
    expect(page.locator("h1")).to_have_text("查找患者")


def test_a_wrong_password_is_said_in_the_readers_language(sign_in: SignIn) -> None:
    for language, words in (("zh-CN", "用户名或密码错误"), ("en", "password is wrong")):
        page = sign_in(language=language)
        page.goto("/portal/sign-in")
        page.fill("#name", "dr.bc")
        page.fill("#password", "not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#name")).to_have_value("dr.bc")
        expect(page.locator("#password")).to_be_focused()


@pytest.mark.parametrize(("language", "words"), [("zh-CN", "没有提交"), ("en", "was not sent")])
def test_a_session_that_ends_while_somebody_fills_in_a_form_leads_back_to_the_form(
    sign_in: SignIn, city: PortalCity, language: str, words: str
) -> None:
    page = sign_in("dr.bc", language=language)
    study = next(one for one in city.people.studies if one.hospital == "BC").study_instance_uid
    for place, button in (
        ("/portal/search", "form button.main"),  # sent by a script
        (f"/portal/studies/{study}/share?colleague=dr.nh", "button.main"),
    ):
        page.goto(place)
        end(page)
        if page.locator("#text").count():
            page.fill("#text", "王小东")
        page.locator("main").locator(button).first.click()
        expect(page.get_by_role("status")).to_contain_text(words)
        page.fill("#name", "dr.bc")
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(f"{re.escape(place)}$"))


def end(page: Page) -> None:
    """The session of whoever reads the page ends."""
    kept = [one for one in page.context.cookies() if "language" in one["name"]]
    page.context.clear_cookies()
    page.context.add_cookies(kept)  # type: ignore[arg-type]


def test_the_first_stop_of_the_keyboard_skips_to_the_content(sign_in: SignIn) -> None:
    page = sign_in("admin.bc")
    page.goto("/portal/search")  # which says that an administrator may not
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))


def test_pages_work_without_scripts(sign_in: SignIn) -> None:
    page = sign_in("dr.bc", scripts=False)
    page.fill("#text", "nobody of this name")
    page.keyboard.press("Enter")
    expect(page.locator("#people")).to_contain_text("没有您可以查看的匹配患者")
