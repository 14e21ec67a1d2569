"""The page of a record: readable, with its range, its course, its documents and its source."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect
from portal_city import ADMINISTRATOR, NARROW, WIDE, PortalCity
from running import fhir
from sample_city import Person, Record

from exchange import consent

SignIn = Callable[..., Page]

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)
CDA = (
    '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>出院小结</title><component><structuredBody>'
    "<component><section><title>治疗经过</title><text><paragraph>抗感染七天</paragraph>"
    '<linkHtml href="javascript:alert(1)">更多</linkHtml></text></section></component>'
    "</structuredBody></component></ClinicalDocument>"
).encode()
LOINC = {"system": "http://loinc.org", "code": "718-7", "display": "血红蛋白"}


@dataclass(slots=True)
class Ward:
    """What one hospital writes of one of its patients, until it takes it back."""

    city: PortalCity
    person: Person
    record: Record
    patient: str
    written: list[str] = field(default_factory=list)

    def write(self, kind: str, **told: Any) -> str:
        """The logical id of a resource about the patient."""
        about = "patient" if kind in {"Immunization", "AllergyIntolerance"} else "subject"
        resource = {"resourceType": kind, **told}
        if kind != "Binary":
            resource[about] = {"reference": f"Patient/{self.patient}"}
        else:
            resource["securityContext"] = {"reference": f"Patient/{self.patient}"}
        with self.city.exchange.web("ris.nh") as client:
            answer = client.post(f"/fhir/{kind}", json=resource)
        assert answer.status_code == 201, answer.text
        self.written.append(f"{kind}/{answer.json()['id']}")
        return str(answer.json()["id"])

    def hemoglobin(self, value: float, moment: str, **more: Any) -> str:
        """A result of the laboratory."""
        return self.write(
            "Observation",
            status="final",
            code={"coding": [LOINC]},
            effectiveDateTime=moment,
            valueQuantity={"value": value, "unit": "g/L"},
            referenceRange=[
                {"low": {"value": 130, "unit": "g/L"}, "high": {"value": 175, "unit": "g/L"}}
            ],
            **more,
        )


@contextmanager
def ward(city: PortalCity) -> Iterator[Ward]:
    """Of Nanhu, about somebody whom Beicheng knows, too."""
    for person in city.people.people:
        hospitals = {one.hospital for one in city.people.studies_of(person.id)}
        if hospitals >= {"BC", "NH"}:
            break
    record = next(one for one in city.people.records_of(person.id) if one.hospital == "NH")
    with city.exchange.web("ris.nh") as client:
        found = fhir(client, "Patient", identifier=record.patient_id, organization="nh")
    made = Ward(city, person, record, str(found[0]["id"]))
    try:
        yield made
    finally:
        with city.exchange.web("ris.nh") as client:
            for one in reversed(made.written):
                client.delete(f"/fhir/{one}")


@pytest.fixture(name="ward")
def _ward(city: PortalCity) -> Iterator[Ward]:
    with ward(city) as made:
        yield made


def checked(page: Page, width: int) -> None:
    """Nothing keeps anybody out (WCAG 2.2), and nobody scrolls sideways."""
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html']}" for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("language", "size", "high", "course"),
    [("zh-CN", WIDE, "偏低", "历次结果"), ("en", NARROW, "Low", "Results over time")],
    ids=["Chinese, wide", "English, on a phone"],
)
def test_a_result_is_opened_from_the_timeline_with_range_and_course(
    sign_in: SignIn, ward: Ward, language: str, size: dict[str, int], high: str, course: str
) -> None:
    ward.hemoglobin(151, "2026-09-01T08:00:00+08:00")
    ward.hemoglobin(140, "2026-10-01T08:00:00+08:00")
    last = ward.hemoglobin(
        118, "2026-11-01T08:00:00+08:00", interpretation=[{"coding": [{"code": "L"}]}]
    )
    page = sign_in("dr.bc", language=language, size=size)
    page.fill("#text", ward.person.resident_id)
    page.keyboard.press("Enter")
    page.locator(".people a").first.click()
    page.locator(".timeline .entry", has_text="118 g/L").get_by_role("link").first.click()

    expect(page.locator("h1")).to_have_text("血红蛋白")
    row = page.locator("table").first.locator("tbody tr")
    expect(row).to_contain_text("118 g/L")
    expect(row).to_contain_text("130 g/L – 175 g/L")
    expect(row).to_contain_text(high)
    expect(page.get_by_role("heading", name=course)).to_be_visible()
    expect(page.locator("svg.chart circle")).to_have_count(3)
    expect(page.locator("[aria-labelledby=source]")).to_contain_text("南湖医院")
    assert page.url.endswith(f"/portal/records/Observation/{last}")
    checked(page, size["width"])


def test_a_report_leads_to_its_results_its_order_and_its_images(
    sign_in: SignIn, city: PortalCity, ward: Ward
) -> None:
    study = next(
        one for one in city.people.studies_of(ward.person.id) if one.hospital == "NH"
    ).study_instance_uid
    order = ward.write("ServiceRequest", status="active", intent="order", code={"text": "胸部CT"})
    result = ward.hemoglobin(133, "2026-11-02T08:00:00+08:00")
    report = ward.write(
        "DiagnosticReport",
        status="final",
        code={"text": "综合报告"},
        basedOn=[{"reference": f"ServiceRequest/{order}"}],
        result=[{"reference": f"Observation/{result}"}],
        imagingStudy=[{"reference": f"ImagingStudy/{study}"}],
        conclusion="未见明显异常。",
    )
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study}")
    page.get_by_role("link", name="综合报告").click()
    expect(page.locator("h1")).to_have_text("综合报告")
    expect(page.locator(".lines")).to_contain_text(["未见明显异常。"])
    expect(page.locator("table").first).to_contain_text("133 g/L")
    expect(page.get_by_role("link", name="影像检查")).to_have_attribute(
        "href", f"/portal/studies/{study}"
    )
    page.locator("[aria-labelledby=beside] a", has_text="申请").click()
    expect(page.locator("h1")).to_have_text("胸部CT")
    page.locator("[aria-labelledby=beside] a", has_text="综合报告").click()
    assert page.url.endswith(f"/records/DiagnosticReport/{report}")


def test_documents_are_shown_in_the_page_and_nothing_in_them_acts(
    sign_in: SignIn, ward: Ward
) -> None:
    pdf = ward.write("Binary", contentType="application/pdf", data=base64.b64encode(PDF).decode())
    attachments = [
        {"contentType": "application/pdf", "url": f"Binary/{pdf}", "title": "出院证"},
        {"contentType": "text/xml", "data": base64.b64encode(CDA).decode(), "title": "小结"},
        {
            "contentType": "text/html",
            "data": base64.b64encode(b"<script>alert(1)</script>").decode(),
            "title": "网页",
        },
        {"contentType": "application/pdf", "url": "https://pacs.example/1.pdf", "title": "外院"},
    ]
    named = ward.write(
        "DocumentReference",
        status="current",
        type={"text": "出院资料"},
        content=[{"attachment": one} for one in attachments],
        text={
            "status": "additional",
            "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p class="bar" '
            'style="position:fixed">医院<b>原文</b></p></div>',
        },
    )
    page = sign_in("dr.bc")
    page.goto(f"/portal/records/DocumentReference/{named}")
    expect(page.locator(".foreign").first.locator("b")).to_have_text("原文")
    assert page.locator(".foreign [style], .foreign [class], .foreign a").count() == 0
    expect(page.get_by_text("抗感染七天")).to_be_visible()
    expect(page.get_by_text("此文档在其他系统中")).to_be_visible()
    checked(page, WIDE["width"])
    frame = page.locator("iframe.document")
    answer = page.request.get(str(frame.get_attribute("src")))
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.body() == PDF
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    html = page.request.get(f"/portal/records/DocumentReference/{named}/documents/2")
    assert html.headers["content-type"] == "application/octet-stream"
    assert html.headers["content-disposition"] == "attachment"
    for number, status in ((3, 404), (9, 404), ("x", 404), ("9" * 30, 404)):
        asked = page.request.get(f"/portal/records/DocumentReference/{named}/documents/{number}")
        assert asked.status == status


@pytest.mark.parametrize(
    ("kind", "told", "shown"),
    [
        ("Condition", {"code": {"text": "肺炎"}, "onsetDateTime": "2026-10"}, "起病"),
        (
            "AllergyIntolerance",
            {
                "code": {"text": "青霉素"},
                "criticality": "high",
                "clinicalStatus": {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/"
                            "allergyintolerance-clinical",
                            "code": "active",
                        }
                    ]
                },
            },
            "危险程度",
        ),
        (
            "MedicationRequest",
            {
                "status": "active",
                "intent": "order",
                "medicationCodeableConcept": {"text": "阿莫西林"},
                "dosageInstruction": [{"text": "一日三次"}],
            },
            "用法用量",
        ),
        (
            "Immunization",
            {
                "status": "completed",
                "vaccineCode": {"text": "流感疫苗"},
                "occurrenceDateTime": "2026-10-01",
                "lotNumber": "L1",
            },
            "批号",
        ),
        (
            "Encounter",
            {
                "status": "finished",
                "class": {"code": "AMB", "display": "门诊"},
                "reasonCode": [{"text": "咳嗽"}],
            },
            "原因",
        ),
        ("Procedure", {"status": "completed", "code": {"text": "支气管镜"}}, "支气管镜"),
    ],
)
def test_records_of_every_kind_have_a_page_of_their_own(
    sign_in: SignIn, ward: Ward, kind: str, told: dict[str, Any], shown: str
) -> None:
    named = ward.write(kind, **told)
    page = sign_in("dr.bc")
    page.goto(f"/portal/records/{kind}/{named}")
    expect(page.locator("main")).to_contain_text(shown)
    expect(page.locator(".person")).to_contain_text(ward.record.patient_id)
    checked(page, WIDE["width"])


def test_an_earlier_version_and_what_is_not_so_are_told_apart(
    sign_in: SignIn, city: PortalCity, ward: Ward
) -> None:
    named = ward.hemoglobin(13, "2026-11-03T08:00:00+08:00")
    with city.exchange.web("ris.nh") as client:
        told = client.get(f"/fhir/Observation/{named}").json()
        told["status"] = "entered-in-error"
        assert client.put(f"/fhir/Observation/{named}", json=told).status_code == 200
    page = sign_in("dr.bc")
    page.goto(f"/portal/records/Observation/{named}")
    expect(page.get_by_role("note")).to_contain_text("误录")
    page.get_by_text("各版本").click()
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.locator(".notice")).to_contain_text("较早的版本")
    expect(page.get_by_role("note")).to_have_count(0)


def test_a_record_that_is_withheld_gone_or_unknown_is_told_so_and_shows_nothing(
    sign_in: SignIn, city: PortalCity, ward: Ward
) -> None:
    named = ward.hemoglobin(99, "2026-11-04T08:00:00+08:00")
    gone = ward.hemoglobin(98, "2026-11-04T09:00:00+08:00")
    with city.exchange.web("ris.nh") as client:
        client.delete(f"/fhir/Observation/{gone}")
    page = sign_in("dr.bc")
    with city.exchange.opened() as exchange:
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "nh", ward.record.patient_id)
        answer = page.goto(f"/portal/records/Observation/{named}")
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_in(access, "nh", ward.record.patient_id)
    assert answer is not None
    assert answer.status == 404  # its name is its writer's choice: that it is there is not told
    assert "99 g/L" not in page.content()
    for path, status in (
        (f"Observation/{gone}", 404),
        (f"Condition/{named}", 404),
        ("Patient/1", 404),
        ("observation/1", 404),
        (f"Observation/{named}?version=7", 404),
        (f"Observation/{named}?version=x", 400),
    ):
        told = page.request.get(f"/portal/records/{path}")
        assert told.status == status, path
        assert "99 g/L" not in told.text()
