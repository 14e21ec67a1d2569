"""A clinician finds a person and sees one timeline, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from portal_city import ADMINISTRATOR, NARROW, WIDE, PortalCity
from running import fhir
from sample_city import Person, Record

from exchange import consent, orders
from exchange.orders import Placed

SignIn = Callable[..., Page]

LOOKS = [
    pytest.param("zh-CN", WIDE, id="Chinese, wide"),
    pytest.param("en", NARROW, id="English, on a phone"),
    pytest.param("zh-CN", NARROW, id="Chinese, on a phone"),
]


def known_at_all(city: PortalCity) -> tuple[Person, tuple[Record, ...]]:
    """A person with studies at more than one hospital, and their records."""
    for person in city.people.people:
        if len({one.hospital for one in city.people.studies_of(person.id)}) > 1:
            return person, city.people.records_of(person.id)
    raise AssertionError("the small city has nobody who is known at two hospitals")


def find(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.keyboard.press("Enter")
    expect(page.locator(".people .card").first).to_be_visible()


def fits(page: Page) -> bool:
    """Whether nobody has to scroll sideways (WCAG 1.4.10)."""
    width = page.evaluate("document.documentElement.scrollWidth")
    assert page.viewport_size is not None
    return int(width) <= page.viewport_size["width"]


@pytest.mark.parametrize(("language", "size"), LOOKS)
def test_a_person_is_found_once_and_opened_by_keyboard_alone(
    sign_in: SignIn, city: PortalCity, language: str, size: dict[str, int]
) -> None:
    person, records = known_at_all(city)
    page = sign_in("dr.bc", language=language, size=size)
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(person.resident_id)
    page.keyboard.press("Enter")

    entry = page.locator(".people .card")
    expect(entry).to_have_count(1)
    expect(entry).to_contain_text("身份证号相符" if language == "zh-CN" else "ID card")
    for record in records:
        expect(entry).to_contain_text(record.patient_id)
    assert fits(page)
    assert person.resident_id not in page.url

    while page.evaluate("document.activeElement.closest('.people a')") is None:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/portal/people/\d+$"))
    shown = page.locator(".timeline .entry")
    expect(shown).to_have_count(len(city.people.studies_of(person.id)))
    assert fits(page)
    hospitals = {one.hospital for one in city.people.studies_of(person.id)}
    for hospital in city.people.hospitals:
        if hospital.code in hospitals:
            expect(shown.filter(has_text=hospital.name).first).to_be_visible()


@pytest.mark.parametrize("way", ["hanzi", "pinyin", "number of another hospital"])
def test_a_person_is_found_by_name_and_by_any_hospitals_number(
    sign_in: SignIn, city: PortalCity, way: str
) -> None:
    person, records = known_at_all(city)
    elsewhere = next(one for one in records if one.hospital != "BC")
    asked = {
        "hanzi": person.name,
        "pinyin": person.pinyin.replace("^", " ").lower(),
        "number of another hospital": elsewhere.patient_id,
    }
    page = sign_in("dr.bc")
    find(page, asked[way])
    expect(page.locator(".people")).to_contain_text(person.name)
    expect(page.locator(".people .tag.good").first).to_have_text(
        "患者号相符" if way == "number of another hospital" else "姓名相符"
    )


def test_thumbnails_of_all_hospitals_are_shown(sign_in: SignIn, city: PortalCity) -> None:
    person, _ = known_at_all(city)
    page = sign_in("dr.nh")
    find(page, person.resident_id)
    page.click(".people a")
    pictures = page.locator(".timeline img")
    expect(pictures).to_have_count(len(city.people.studies_of(person.id)))
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function(
            "image => image.complete && image.naturalWidth > 0", arg=picture.element_handle()
        )


def test_the_timeline_is_narrowed_without_a_new_page(sign_in: SignIn, city: PortalCity) -> None:
    person, _ = known_at_all(city)
    page = sign_in("dr.bc")
    find(page, person.resident_id)
    page.click(".people a")
    studies = city.people.studies_of(person.id)
    one = studies[0].hospital
    page.select_option("#hospital", one.lower())
    expect(page.locator(".timeline .entry")).to_have_count(
        sum(study.hospital == one for study in studies)
    )
    assert f"hospital={one.lower()}" in page.url
    page.reload()  # the address says the same
    expect(page.locator("#hospital")).to_have_value(one.lower())
    expect(page.locator(".timeline .entry")).to_have_count(
        sum(study.hospital == one for study in studies)
    )
    page.select_option("#hospital", "")
    page.fill("#first", "2100-01-01")
    expect(page.locator("#entries")).to_contain_text("没有符合条件的记录")


def test_an_order_without_images_stands_in_the_timeline(sign_in: SignIn, city: PortalCity) -> None:
    person, records = known_at_all(city)
    record = next(one for one in records if one.hospital == "NH")
    with city.exchange.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        orders.place(
            access,
            Placed(
                patient_id=record.patient_id,
                accession_number="NEW1",
                modality="MR",
                body_part_examined="HEAD",
                procedure_description="头颅MR",
                scheduled_date="20991231",
            ),
            organization="nh",
        )
    page = sign_in("dr.bc")
    find(page, person.resident_id)
    page.click(".people a")
    first = page.locator(".timeline .entry").first
    expect(first).to_contain_text("头颅MR")
    expect(first).to_contain_text("已预约")
    with city.exchange.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        orders.cancel(access, "NEW1", organization="nh")


def test_a_result_that_a_hospital_wrote_stands_in_the_timeline(
    sign_in: SignIn, city: PortalCity
) -> None:
    person, records = known_at_all(city)
    record = next(one for one in records if one.hospital == "NH")
    with city.exchange.web("ris.nh") as client:
        found = fhir(client, "Patient", identifier=record.patient_id, organization="nh")
        answer = client.post(
            "/fhir/Observation",
            json={
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "血红蛋白"},
                "subject": {"reference": f"Patient/{found[0]['id']}"},
                "effectiveDateTime": "2026-11-18T08:00:00+08:00",
                "valueQuantity": {"value": 132, "unit": "g/L"},
            },
        )
        assert answer.status_code == 201, answer.text
    page = sign_in("dr.bc")
    find(page, person.resident_id)
    page.click(".people a")
    entry = page.locator(".timeline .entry", has_text="血红蛋白")
    expect(entry).to_contain_text("132 g/L")
    expect(entry).to_contain_text("南湖医院")
    expect(entry).to_contain_text("2026-11-18 08:00")
    with city.exchange.web("ris.nh") as client:
        assert client.delete(f"/fhir/Observation/{answer.json()['id']}").status_code < 300
    page.reload()
    expect(page.locator(".timeline .entry").first).to_be_visible()
    expect(entry).to_have_count(0)


def test_what_is_withheld_is_said_with_the_reason(sign_in: SignIn, city: PortalCity) -> None:
    person, records = known_at_all(city)
    record = next(one for one in records if one.hospital == "NH")
    page = sign_in("dr.bc")
    find(page, person.resident_id)
    page.click(".people a")
    expect(page.locator(".timeline")).to_contain_text("南湖医院")
    expect(page.locator(".withheld")).to_have_count(0)
    with city.exchange.opened() as exchange:
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "nh", record.patient_id)
        page.reload()
        expect(page.locator(".timeline")).not_to_contain_text("南湖医院")
        expect(page.locator(".withheld", has_text="南湖医院")).to_contain_text("患者不同意共享")
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_in(access, "nh", record.patient_id)
    page.reload()
    expect(page.locator(".withheld")).to_have_count(0)


@pytest.mark.parametrize("language", ["zh-CN", "en"])
def test_who_may_not_search_is_told_so(sign_in: SignIn, language: str) -> None:
    page = sign_in("admin.bc", language=language)
    answer = page.goto("/portal/search")
    assert answer is not None
    assert answer.status == 403
    expect(page.locator("h1")).to_have_text(
        "您无权查看" if language == "zh-CN" else "You may not see this"
    )
    answer = page.goto("/portal/people/1")
    assert answer is not None
    assert answer.status == 403


def test_who_signs_out_sees_nothing_any_more(sign_in: SignIn, city: PortalCity) -> None:
    person, _ = known_at_all(city)
    page = sign_in("dr.bc")
    find(page, person.resident_id)
    page.click(".people a")
    place = page.url
    page.click("text=退出")
    expect(page.locator("h1")).to_have_text("登录")
    page.goto(place)
    expect(page.locator("h1")).to_have_text("登录")
    assert person.name not in page.content()


def test_images_are_counted_as_images_and_reports_as_reports(
    sign_in: SignIn, city: PortalCity
) -> None:
    study = next(
        one
        for one in city.people.studies
        if one.hospital == "BC"
        and {series.modality for series in one.series} > {"SR"}
        and len(one.series) > 1
    )
    pictures = [one for one in study.series if one.modality != "SR"]
    images = sum(len(one.sop_instance_uids) for one in pictures)
    reports = sum(len(one.sop_instance_uids) for one in study.series) - images
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study.study_instance_uid}")
    expect(page.locator(".tile")).to_have_count(len(pictures))
    page.locator("main p.small a").first.click()
    entry = page.locator(".entry").filter(
        has=page.locator(f"a[href='/portal/studies/{study.study_instance_uid}']")
    )
    expect(entry).to_contain_text(
        f"{len(pictures)} 个序列，{images} 幅图像，{reports} 份报告 · 在线"
    )
