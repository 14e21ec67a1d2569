"""Another system opens a patient or a study (IHE RAD-106), as far as its user may see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, Region, region
from starlette.testclient import TestClient

from exchange import consent, trail, users
from exchange.errors import Invalid
from exchange.policy import Role
from exchange_server import composition
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_server.viewer import launch

PASSWORD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin"}
CARD = "21990119491231002X"
NEW, OLD, OTHER = "1.2.10", "1.2.11", "1.2.12"
OPENS = "/viewer/viewer?StudyInstanceUIDs="
BESIDE = "&hangingProtocolId=exchange.comparing"
"""Of several studies the first two stand beside each other."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """One woman is N7 at Nanhu, which has no image of her, and P1 at Beicheng, which has two
    studies; P2 is another patient there, who shares with nobody."""
    with region(f"sqlite:///{tmp_path_factory.mktemp('launch') / 'index.sqlite'}") as made:
        made.send("beicheng", study=NEW, instance="1.4.1", card=CARD, AccessionNumber="A1",
                  StudyDescription="胸部CT平扫")  # fmt: skip
        made.send("beicheng", study=OLD, instance="1.4.2", card=CARD, AccessionNumber="A2",
                  StudyDate="20200301", Modality="MR")  # fmt: skip
        made.send("beicheng", patient="P2", study=OTHER, instance="1.4.3", AccessionNumber="A3")
        made.send("nanhu", patient="N7", study="1.2.13", instance="1.4.4", card=CARD,
                  StudyDate="20190101", AccessionNumber="A1")  # fmt: skip
        made.identify()
        with made.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "beicheng", "P2")
        for name, code in (("li", "nanhu"), ("zhang", "beicheng")):
            with made.exchange.on_behalf_of(ADMINISTRATOR) as access:
                users.add(
                    access,
                    name=name,
                    display_name=name,
                    role=Role.CLINICIAN,
                    organization=code,
                    password=PASSWORD,
                )
        yield made


@pytest.fixture(scope="module")
def browser(city: Region, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Li's, of Nanhu."""
    folder: Path = tmp_path_factory.mktemp("site")
    make_keys(folder / "keys")
    app = composition.application(city.exchange, Settings(data=folder))
    with TestClient(app, base_url="http://testserver", follow_redirects=False) as made:
        signed = made.post(
            "/portal/sign-in", data={"name": "li", "password": PASSWORD}, headers=SAME
        )
        assert signed.status_code == 303
        yield made


@pytest.mark.parametrize(
    ("asked", "opened"),
    [
        (f"requestType=STUDY&studyUID={NEW}", NEW),
        (f"requestType=STUDY&studyUID={OLD},{NEW}", f"{NEW},{OLD}"),
        ("requestType=STUDY&accessionNumber=A2", OLD),
        ("requestType=STUDY&accessionNumber=A2&viewerType=IHE_BIR&diagnosticQuality=true", OLD),
        ("requestType=PATIENT&patientID=N7&modalitiesInStudy=MR", OLD),
        ("requestType=PATIENT&patientID=N7^^^%262.25.102%26ISO&mostRecentResults=1", NEW),
        (
            "requestType=PATIENT&patientID=P1^^^%262.25.101%26ISO&mostRecentResults=2",
            f"{NEW},{OLD}",
        ),
        ("requestType=PATIENT&patientID=N7&lowerDateTime=2026-11-01T10:00:00", NEW),
        ("requestType=PATIENT&patientID=N7&upperDateTime=2019-01-01", "1.2.13"),
        (
            "requestType=PATIENT&patientID=N7&lowerDateTime=2026-11-01T02:14:00Z"
            "&upperDateTime=2026-11-01T10:16:00%2B08:00",
            NEW,
        ),
        ("requestType=PATIENT&patientID=N7&patientBirthDate=1949-12-31&mostRecentResults=1", NEW),
    ],
)
@pytest.mark.parametrize("path", launch.LAUNCHES)
def test_what_is_asked_for_opens(browser: TestClient, path: str, asked: str, opened: str) -> None:
    answer = browser.get(f"{path}?{asked}")

    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == OPENS + opened + BESIDE * ("," in opened)


def test_a_patient_s_studies_are_offered_newest_first(browser: TestClient) -> None:
    page = browser.get("/iid?requestType=PATIENT&patientID=N7")

    assert page.status_code == 200
    places = [page.text.index(f'href="{OPENS}{one}"') for one in (NEW, OLD, "1.2.13")]
    assert places == sorted(places)
    assert "2026-11-01 胸部CT平扫" in page.text
    assert "北城医院" in page.text


def test_accession_numbers_of_several_hospitals_open_together(browser: TestClient) -> None:
    answer = browser.get("/iid?requestType=STUDY&accessionNumber=A1")

    assert answer.headers["location"] == f"{OPENS}{NEW},1.2.13{BESIDE}"


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ("", 400, "requestType 为"),
        ("requestType=STUDY", 400, "studyUID 或 accessionNumber"),
        (f"requestType=STUDY&studyUID={NEW}&accessionNumber=A1", 400, "之一"),
        ("requestType=STUDY&studyUID=*", 400, "UID"),
        ("requestType=STUDY&accessionNumber=A*", 400, "通配符"),
        ("requestType=STUDY&studyUID=" + ",".join(["1.2"] * 11), 400, "1 至 10"),
        ("requestType=PATIENT", 400, "患者号"),
        ("requestType=PATIENT&patientID=N?", 400, "通配符"),
        ("requestType=PATIENT&patientID=N7&lowerDateTime=yesterday", 400, "日期写作"),
        ("requestType=PATIENT&patientID=N7&mostRecentResults=many", 400, "0 至 10"),
        ("requestType=PATIENT&patientID=N7&mystery=1", 400, "RAD-106"),
        ("requestType=PATIENT&patientID=N7&patientID=N8", 400, "每个一次"),
        (f"requestType=STUDY&studyUID={NEW}&keyImagesOnly=true", 400, "关键图像"),
        ("requestType=STUDY&studyUID=1.2.99", 404, "不能显示"),
        ("requestType=PATIENT&patientID=N8", 404, "没有符合"),
        ("requestType=PATIENT&patientID=N7^^^%269.9%26ISO", 404, "没有符合"),
        (f"requestType=STUDY&studyUID={OTHER}", 404, "不能显示"),
        ("requestType=STUDY&accessionNumber=A3", 404, "没有符合"),
    ],
)
def test_what_cannot_be_opened_is_a_page_that_says_why(
    browser: TestClient, asked: str, status: int, words: str
) -> None:
    page = browser.get(f"/iid?{asked}")

    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert words in page.text


def test_a_launch_is_recorded_as_asked_and_by_whom(city: Region, browser: TestClient) -> None:
    browser.get("/iid?requestType=STUDY&accessionNumber=A2")

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (last,) = trail.records(access, limit=1)
    assert (last["requester"], last["door"], last["study"]) == ("li", "viewer", OLD)


def test_who_has_not_signed_in_comes_back_to_the_launch(browser: TestClient) -> None:
    asked = f"requestType=STUDY&studyUID={NEW}"
    kept = dict(browser.cookies)
    browser.cookies.clear()
    try:
        sent = browser.get(f"/iid?{asked}")
        assert sent.status_code == 303
        assert sent.headers["location"].startswith("/portal/sign-in?next=/iid%3FrequestType")
        entered = browser.post(
            "/portal/sign-in",
            data={"name": "li", "password": PASSWORD, "next": f"/iid?{asked}"},
            headers=SAME,
        )
        assert entered.headers["location"] == f"/iid?{asked}"
    finally:
        browser.cookies.clear()
        browser.cookies.update(kept)


def test_a_moment_without_a_zone_is_the_hospitals_own() -> None:
    shanghai = ZoneInfo("Asia/Shanghai")
    given = {"requestType": "PATIENT", "patientID": "1", "lowerDateTime": "2026-11-01T08:00:00Z"}

    here = launch.read(given, shanghai).keys
    there = launch.read({**given, "lowerDateTime": "2026-11-01T16:00:00"}, shanghai).keys

    assert here == there
    assert launch.read(given, ZoneInfo("UTC")).keys != here
    with pytest.raises(Invalid):
        launch.read({**given, "upperDateTime": "9999-12-31T23:59:59-23:59"}, shanghai)
