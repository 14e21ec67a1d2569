"""Administrators look at their hospital and at the exchange, and put right what waits for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect
from portal_city import ADMINISTRATOR, NARROW, WIDE, PortalCity
from pydicom import dcmread
from pydicom.uid import UID

from exchange import conflicts, jobs, routing
from exchange.routing import Rule
from exchange_storage.records import Delivery, Job

SignIn = Callable[..., Page]

LOOKS = [
    pytest.param("zh-CN", WIDE, id="Chinese, wide"),
    pytest.param("en", NARROW, id="English, on a phone"),
]


SOMEBODY_ELSES = UID("1.2.840.99.1")


@pytest.fixture(scope="module")
def troubled(city: PortalCity) -> PortalCity:
    """Beicheng has sent an instance with other bytes and one of somebody else under a used number,
    and a delivery of its was given up."""
    folder = city.exchange.home / "again"
    folder.mkdir()
    image = dcmread(next((city.exchange.home / "city/BC").rglob("*.dcm")))
    image.SeriesDescription = "另一份"
    image.save_as(folder / "again.dcm")
    city.exchange.dcmsend("BEICHENG", folder)
    (folder / "again.dcm").unlink()
    image.PatientName, image.PatientBirthDate = "Other^Human", "19010101"
    image.StudyInstanceUID = image.SeriesInstanceUID = image.SOPInstanceUID = SOMEBODY_ELSES
    image.file_meta.MediaStorageSOPInstanceUID = SOMEBODY_ELSES
    image.save_as(folder / "another.dcm")
    city.exchange.dcmsend("BEICHENG", folder)
    now = datetime.now(UTC)
    with city.exchange.opened() as exchange:
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            # Where nobody listens.
            routing.add(access, "bc", Rule(name="云", url="http://127.0.0.1:9/dicom-web"))
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            (listed,) = routing.everything(access)
        with exchange.database.writing() as session:
            made = Delivery(study_instance_uid="1.2.3", asked=now, route_id=listed.route.id)
            session.add(made)
            session.flush()
            session.add(
                Job(
                    kind=jobs.FORWARD,
                    subject=str(made.id),
                    due=now,
                    dead=True,
                    attempts=20,
                    last_error="Unavailable: no answer",
                )
            )
    return city


def fits(page: Page) -> bool:
    width = page.evaluate("document.documentElement.scrollWidth")
    assert page.viewport_size is not None
    return int(width) <= page.viewport_size["width"]


@pytest.mark.parametrize(("language", "size"), LOOKS)
def test_a_hospitals_administrator_sees_its_day(
    sign_in: SignIn, troubled: PortalCity, language: str, size: dict[str, int]
) -> None:
    page = sign_in("admin.bc", language=language, size=size)
    page.wait_for_url("**/portal/hospital")
    expect(page.locator("h1")).to_have_text("北城医院")
    chart = page.locator("svg.chart")
    expect(chart).to_have_attribute("role", "img")
    assert chart.locator("rect.bar-1").count() == 24
    expect(page.locator("#conflicts")).to_contain_text("冲突" if language == "zh-CN" else "review")
    expect(page.locator(".conflict h3")).to_contain_text("SOP Instance UID")
    expect(page.locator("#routes + .wide-table")).to_contain_text("云")
    assert fits(page)


def test_a_conflict_is_settled_with_the_keyboard(sign_in: SignIn, troubled: PortalCity) -> None:
    with troubled.exchange.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
    page = sign_in("admin.bc")
    expect(page.locator(".conflict")).to_have_count(1)
    page.get_by_role("button", name=f"保留不启用 {waiting.number}").press("Enter")
    page.wait_for_url("**/portal/hospital?hospital=bc")
    expect(page.locator(".conflict")).to_have_count(0)
    with troubled.exchange.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert list(conflicts.waiting(access)) == []


def test_images_that_may_be_of_somebody_else_are_shown_and_settled(
    sign_in: SignIn, troubled: PortalCity
) -> None:
    page = sign_in("admin.bc")
    shown = page.locator(".discrepancy", has_text="Other^Human")
    expect(shown).to_contain_text(SOMEBODY_ELSES)
    expect(shown).to_contain_text("19010101")
    shown.get_by_role("button", name="另有其人").press("Enter")
    expect(page.locator("body")).to_contain_text("exchange reject")  # it is in use still
    page.go_back()
    shown.get_by_role("button", name="是同一人").press("Enter")
    page.wait_for_url("**/portal/hospital?hospital=bc")
    expect(page.locator(".discrepancy")).to_have_count(0)


def test_what_was_given_up_is_tried_again(sign_in: SignIn, troubled: PortalCity) -> None:
    page = sign_in("admin.bc")
    row = page.locator("tr", has_text="1.2.3")
    expect(row).to_contain_text("放弃")
    row.get_by_role("button").click()
    page.wait_for_url("**/portal/hospital?hospital=bc")
    expect(page.locator("tr", has_text="1.2.3")).not_to_contain_text("放弃")


@pytest.mark.parametrize(("language", "size"), LOOKS)
def test_an_operator_sees_queues_nodes_growth_and_errors(
    sign_in: SignIn, troubled: PortalCity, language: str, size: dict[str, int]
) -> None:
    page = sign_in("root", language=language, size=size)
    page.wait_for_url("**/portal/operation")
    expect(page.locator("#nodes + .wide-table")).to_contain_text("BEICHENG")
    expect(page.locator("#growth")).to_be_visible()
    assert page.locator("figure svg.chart").count() == 2
    expect(page.locator("#parts + p .tag.good").first).to_be_visible()
    assert fits(page)
    page.goto("/portal/hospital?hospital=nh")
    expect(page.locator("h1")).to_have_text("南湖医院")
    assert fits(page)


def test_a_job_that_was_given_up_is_tried_again_by_an_operator(
    sign_in: SignIn, troubled: PortalCity
) -> None:
    with troubled.exchange.opened() as exchange, exchange.database.writing() as session:
        made = Job(
            kind=jobs.FORWARD,
            subject="999999",  # of a delivery that is gone: there is nothing to do
            due=datetime.now(UTC),
            dead=True,
            attempts=20,
            last_error="Unavailable: no answer",
        )
        session.add(made)
        session.flush()
        number = made.id
    page = sign_in("root")
    page.get_by_role("button", name=f"重试 {number}", exact=True).click()
    page.wait_for_url("**/portal/operation")
    expect(page.get_by_role("button", name=f"重试 {number}", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("dr.bc", "/portal/hospital", 403),
        ("dr.bc", "/portal/operation", 403),
        ("admin.bc", "/portal/operation", 403),
        ("admin.bc", "/portal/hospital?hospital=nh", 404),
        ("admin.bc", "/portal/hospital?day=yesterday", 400),
    ],
)
def test_who_may_not_look_is_told_so(
    sign_in: SignIn, troubled: PortalCity, name: str, path: str, status: int
) -> None:
    page = sign_in(name)
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == status
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("table").count() == 0


@pytest.mark.parametrize(("language", "size"), LOOKS)
def test_an_administrator_sees_who_looked_at_a_patient_and_that_is_recorded(
    sign_in: SignIn, city: PortalCity, language: str, size: dict[str, int]
) -> None:
    study = next(one for one in city.people.studies if one.hospital == "BC")
    sign_in("dr.nh").goto(f"/portal/studies/{study.study_instance_uid}")
    page = sign_in("admin.bc", language=language, size=size)
    page.goto("/portal/audit")
    page.fill("#number", study.patient_id)
    page.keyboard.press("Enter")

    row = page.locator("tbody tr", has_text="dr.nh").first
    expect(row).to_contain_text(study.study_instance_uid)
    expect(row).to_contain_text("调阅" if language == "zh-CN" else "Retrieved")
    assert study.patient_id not in page.url
    assert fits(page)
    page.fill("#number", "404")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto("/portal/audit")
    expect(page.locator("tbody tr").first).to_contain_text("admin.bc")
    assert sign_in("dr.bc").request.get("/portal/audit").status == 403


def test_an_address_that_leads_nowhere_is_a_page_that_leads_back(sign_in: SignIn) -> None:
    page = sign_in("dr.bc")
    answer = page.goto("/portal/no/such/page")

    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("alert")).to_have_text("没有这个页面")
    page.get_by_role("link", name="返回首页").click()
    page.wait_for_url("**/portal/search")
    page.goto("/portal/hospital")
    expect(page.get_by_role("alert")).to_have_text("角色 医生 不能执行 管理")
