"""A browser session: who begins one, what ends it, and which requests it is believed for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from region import ADMINISTRATOR, Region, region
from sqlalchemy import update
from starlette.testclient import TestClient

from exchange import audit, users
from exchange.policy import Role
from exchange_server import composition
from exchange_server.cookies import COOKIE
from exchange_server.keys import make_keys
from exchange_server.passwords import FAILURES
from exchange_server.portal.pages import goes_to
from exchange_server.settings import Settings
from exchange_storage.records import UserSession

PASSWORD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin"}
ELSEWHERE = {"Sec-Fetch-Site": "cross-site"}
HOST = "http://testserver"


@pytest.fixture
def city(tmp_path: Path) -> Iterator[Region]:
    """On SQLite: what PostgreSQL keeps of a session, one test shows."""
    with region(f"sqlite:///{tmp_path / 'index.sqlite'}") as made:
        yield made


@pytest.fixture
def app(city: Region, tmp_path: Path) -> FastAPI:
    return served(city, tmp_path)


def served(city: Region, folder: Path) -> FastAPI:
    """The application, with clinician zhang and system pacs of Beicheng, and administrator root."""
    for name, role, code in (
        ("zhang", Role.CLINICIAN, "beicheng"),
        ("pacs", Role.SYSTEM, "beicheng"),
        ("root", Role.ADMINISTRATOR, None),
    ):
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(
                access,
                name=name,
                display_name="张医生",
                role=role,
                organization=code,
                password=PASSWORD,
            )
    make_keys(folder / "keys")
    return composition.application(city.exchange, Settings(data=folder))


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    with opened(app) as made:
        yield made


def opened(app: FastAPI, base: str = HOST) -> TestClient:
    return TestClient(app, base_url=base, follow_redirects=False, client=("192.0.2.7", 50000))


def sign_in(
    browser: TestClient, name: str = "zhang", password: str = PASSWORD, **more: str
) -> Response:
    return browser.post(
        "/portal/sign-in", data={"name": name, "password": password, **more}, headers=SAME
    )


def trail(city: Region) -> list[dict[str, Any]]:
    with city.exchange.database.reading() as session:
        return [json.loads(record.content) for record in audit.latest(session)]


def test_who_signs_in_is_known_at_every_door_as_the_same_user(
    browser: TestClient, city: Region
) -> None:
    city.send("beicheng", study="1.2.7")

    answer = sign_in(browser)

    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/search")
    assert [one["StudyInstanceUID"] for one in _studies(browser)] == ["1.2.7"]
    assert browser.get("/fhir/Patient?birthdate=1949-12-31", headers=SAME).status_code == 200
    by_door = {one["door"]: one for one in trail(city)}
    for door in ("dicomweb", "fhir"):
        told = by_door[door]
        assert (told["requester"], told["role"], told["purpose"]) == ("zhang", "clinician", "TREAT")
        assert told["address"] == "192.0.2.7"


def _studies(browser: TestClient) -> list[dict[str, str]]:
    answer = browser.get("/dicom-web/studies?PatientID=P1", headers=SAME)
    assert answer.status_code == 200
    return [{"StudyInstanceUID": one["0020000D"]["Value"][0]} for one in answer.json()]


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(app: FastAPI) -> None:
    with opened(app) as plain, opened(app, "https://testserver") as secure:
        in_plain, over_tls = sign_in(plain), sign_in(secure)
        told, strict = in_plain.headers["set-cookie"], over_tls.headers["set-cookie"]
        assert told.startswith(f"{COOKIE}=")
        assert strict.startswith(f"__Host-{COOKIE}=")
        for cookie in (told, strict):
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert "Path=/" in cookie
            assert "Domain" not in cookie
        assert "Secure" in strict
        assert secure.get("/portal/", headers=SAME).headers["location"] == "/portal/search"


REQUESTS: list[tuple[str, dict[str, str], int]] = [
    ("GET", SAME, 200),
    ("GET", {"Sec-Fetch-Site": "none"}, 200),
    ("GET", {}, 200),
    ("GET", ELSEWHERE, 401),
    ("GET", {"Sec-Fetch-Site": "same-site"}, 401),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 401),
    ("GET", {"Origin": "http://elsewhere.example"}, 401),
    ("DELETE", SAME, 403),
    ("DELETE", {"Origin": HOST}, 403),
    ("DELETE", {}, 401),
    ("DELETE", {"Sec-Fetch-Site": "none"}, 401),
    ("DELETE", ELSEWHERE, 401),
    ("DELETE", {"Origin": "null"}, 401),
    ("DELETE", {"Origin": "http://testserver:8081"}, 401),
]
"""Method, where the browser says that it comes from, and the status: 403 is for who is known."""


def test_a_session_is_believed_for_requests_of_our_own_pages(
    browser: TestClient, city: Region
) -> None:
    city.send("beicheng", study="1.2.7")
    sign_in(browser)

    for method, headers, status in REQUESTS:
        path = "/dicom-web/studies/1.2.7" if method == "DELETE" else "/dicom-web/studies"
        answer = browser.request(method, path, headers=headers)
        assert answer.status_code == status, (method, headers)


def test_a_link_from_elsewhere_leads_to_a_page_but_fills_in_no_form(browser: TestClient) -> None:
    sign_in(browser)

    followed = browser.get("/portal/", headers={**ELSEWHERE, "Sec-Fetch-Mode": "navigate"})
    loaded = browser.get("/portal/", headers={**ELSEWHERE, "Sec-Fetch-Mode": "no-cors"})
    posted = browser.post("/portal/sign-out", data={"a": "b"}, headers=ELSEWHERE)

    assert followed.headers["location"] == "/portal/search"
    assert loaded.headers["location"].startswith("/portal/sign-in")
    assert posted.status_code == 403
    assert browser.get("/portal/", headers=SAME).headers["location"] == "/portal/search"


def test_nobody_is_signed_in_by_a_form_of_another_site(browser: TestClient) -> None:
    given = {"name": "zhang", "password": PASSWORD}
    assert browser.post("/portal/sign-in", data=given, headers=ELSEWHERE).status_code == 403
    assert browser.post("/portal/sign-in", data=given).status_code == 403
    assert COOKIE not in browser.cookies


def test_who_signs_out_is_out_at_once_with_what_was_copied_of_the_cookie(
    database_url: str, tmp_path: Path
) -> None:
    with region(database_url) as city, opened(served(city, tmp_path)) as browser:
        sign_in(browser)
        copied = browser.cookies[COOKIE]

        answer = browser.post("/portal/sign-out", data={"a": ""}, headers=SAME)

        assert answer.headers["location"] == "/portal/sign-in"
        assert COOKIE not in browser.cookies
        browser.cookies.set(COOKIE, copied)
        assert browser.get("/fhir/Patient", headers=SAME).status_code == 401
        told = [one["reason"] for one in trail(city)[:2]]
        assert told == ["signed out", "signed in at a browser"]


@pytest.mark.parametrize("what", ["deactivated", "another password"])
def test_a_session_ends_with_the_account_and_with_the_password(
    browser: TestClient, city: Region, what: str
) -> None:
    sign_in(browser)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        if what == "deactivated":
            users.deactivate(access, "zhang")
        else:
            users.set_password(access, "zhang", "another long password")

    assert browser.get("/fhir/Patient", headers=SAME).status_code == 401

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.activate(access, "zhang")
    assert browser.get("/fhir/Patient", headers=SAME).status_code == 401


@pytest.mark.parametrize(("column", "seconds"), [("used", 1800), ("began", 43200)])
def test_a_session_ends_when_it_is_idle_and_when_it_is_old(
    browser: TestClient, city: Region, column: str, seconds: int
) -> None:
    sign_in(browser)
    for ago, status in ((seconds - 60, 303), (seconds, 401)):
        at = datetime.now(UTC) - timedelta(seconds=ago)
        with city.exchange.database.writing() as session:
            session.execute(update(UserSession).values({column: at}))
        if status == 303:
            assert browser.get("/portal/", headers=SAME).headers["location"] == "/portal/search"
        else:
            assert browser.get("/fhir/Patient", headers=SAME).status_code == 401


def test_use_keeps_a_session_and_is_not_written_for_each_picture(
    browser: TestClient, city: Region
) -> None:
    def used() -> datetime:
        with city.exchange.database.reading() as session:
            return session.query(UserSession).one().used

    sign_in(browser)
    began = used()
    browser.get("/portal/", headers=SAME)
    assert used() == began
    with city.exchange.database.writing() as session:
        session.execute(update(UserSession).values(used=began - timedelta(minutes=20)))
    browser.get("/portal/", headers=SAME)
    assert used() >= began


def test_signing_in_again_leaves_no_session_behind(browser: TestClient, city: Region) -> None:
    sign_in(browser)
    before = dict(browser.cookies)
    sign_in(browser)
    assert before != dict(browser.cookies)
    with city.exchange.database.reading() as session:
        assert session.query(UserSession).count() == 1


def test_a_wrong_password_and_an_unknown_name_are_refused_alike(
    browser: TestClient, city: Region
) -> None:
    wrong = sign_in(browser, password="wrong wrong wrong")
    unknown = sign_in(browser, name="nobody")

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("zhang", "") == unknown.text.replace("nobody", "")
    assert "用户名或密码错误" in wrong.text
    assert PASSWORD not in unknown.text
    assert {one["outcome"] for one in trail(city)[:2]} == {"refused"}


def test_tries_at_the_page_and_at_the_token_endpoint_are_counted_together(
    browser: TestClient,
) -> None:
    for number in range(FAILURES):
        if number % 2:
            assert sign_in(browser, password="wrong wrong wrong").status_code == 401
        else:
            form = {"grant_type": "client_credentials"}
            answer = browser.post("/oauth/token", data=form, auth=("zhang", "wrong wrong"))
            assert answer.status_code == 401
    answer = sign_in(browser)
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert "一分钟" in answer.text


def test_the_account_of_a_system_is_for_no_browser(browser: TestClient, city: Region) -> None:
    answer = sign_in(browser, name="pacs")
    assert answer.status_code == 403
    assert COOKIE not in browser.cookies
    assert trail(city)[0]["reason"] == "a hospital's system does not sign in at a browser"


@pytest.mark.parametrize(
    ("stated", "place"),
    [
        ("/portal/people/3?modality=CT", "/portal/people/3?modality=CT"),
        ("/viewer/viewer?StudyInstanceUIDs=1.2,1.3", "/viewer/viewer?StudyInstanceUIDs=1.2,1.3"),
        ("https://elsewhere.example/", ""),
        ("//elsewhere.example/portal/", ""),
        ("/\\elsewhere.example", ""),
        ("/portal/\\elsewhere.example", ""),
        ("/portalelsewhere", ""),
        ("/portal/\r\nSet-Cookie: a=b", ""),
        ("javascript:alert(1)", ""),
        ("", ""),
    ],
)
def test_after_signing_in_one_comes_to_a_page_of_this_site_only(stated: str, place: str) -> None:
    assert goes_to(stated) == place


def test_who_is_not_signed_in_comes_back_to_the_page_that_was_asked_for(
    browser: TestClient,
) -> None:
    asked = browser.get("/portal/?a=1", headers=SAME).headers["location"]
    assert asked == "/portal/sign-in?next=/portal/%3Fa%3D1"
    assert 'value="/portal/?a=1"' in browser.get(asked).text
    assert sign_in(browser, next="/portal/?a=1").headers["location"] == "/portal/?a=1"
    assert sign_in(browser, next="//elsewhere.example").headers["location"] == "/portal/search"


def test_a_part_of_a_page_sends_the_whole_page_to_the_sign_in(browser: TestClient) -> None:
    answer = browser.get("/portal/", headers={**SAME, "HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/portal/sign-in?over=yes")


@pytest.mark.parametrize(
    ("name", "page", "following"),
    [
        ("HX-Current-URL", "http://testserver/portal/search", "next=/portal/search&"),
        ("Referer", "http://testserver/portal/search?a=1", "next=/portal/search%3Fa%3D1&"),
        ("Referer", "https://evil.example/portal/search", ""),
        ("Referer", "http://testserver/elsewhere", ""),
    ],
)
def test_a_form_that_is_sent_too_late_leads_back_to_its_page_if_that_is_ours(
    browser: TestClient, name: str, page: str, following: str
) -> None:
    answer = browser.post("/portal/search", headers={**SAME, name: page}, data={"text": "x"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/portal/sign-in?{following}over=yes"


def test_pages_allow_no_script_or_style_but_their_own_files(browser: TestClient) -> None:
    answer = browser.get("/portal/sign-in")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "style=" not in answer.text
    assert "<script>" not in answer.text
    assert "//" not in answer.text.replace("<!doctype html>", "")  # nothing is loaded elsewhere
    for part in answer.text.split('"'):
        if part.startswith("/portal/static/"):
            file = browser.get(part)
            assert file.status_code == 200
            assert "immutable" in file.headers["cache-control"]
    assert browser.get("/portal/static/..%2Fpages.py").status_code == 404


def test_the_reader_chooses_the_language_and_the_browser_keeps_it(browser: TestClient) -> None:
    assert '<html lang="zh-CN">' in browser.get("/portal/sign-in").text
    chosen = {"language": "en", "next": "/portal/sign-in"}
    answer = browser.post("/portal/language", data=chosen, headers=SAME)
    assert answer.headers["location"] == "/portal/sign-in"
    page = browser.get("/portal/sign-in").text
    assert '<html lang="en">' in page
    assert "Sign in" in page
    assert (
        "The user name or the password is wrong".lower()
        in sign_in(browser, password="wrong wrong wrong").text.lower()
    )


def test_people_who_open_the_site_come_to_the_pages(browser: TestClient) -> None:
    assert browser.get("/").headers["location"] == "/portal/"
