"""The page of a study: pictures of its series, its reports and documents, and what may go wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images import opened_file_set
from playwright.sync_api import Page, expect
from portal_city import ADMINISTRATOR, NARROW, WIDE, PortalCity
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)
from sample_city import Study
from sqlalchemy import select

from exchange import consent
from exchange_server.viewer.viewer import opening
from exchange_storage import records
from exchange_storage.records import Damage, Instance, Series

SignIn = Callable[..., Page]

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


def with_report(city: PortalCity, hospital: str = "NH") -> Study:
    """A study of the hospital that has a report."""
    return next(
        one
        for one in city.people.studies
        if one.hospital == hospital and any(series.modality == "SR" for series in one.series)
    )


def sent(city: PortalCity, text: str) -> str:
    """Beicheng sends a study with a report that says `text` and a PDF; returns its UID."""
    study, patient = str(generate_uid()), "PDF1"
    report, document = (
        _of(study, patient, kind) for kind in (BasicTextSRStorage, EncapsulatedPDFStorage)
    )
    report.Modality, report.ValueType, report.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    report.CompletionFlag, report.VerificationFlag = "PARTIAL", "UNVERIFIED"
    words = Dataset()
    words.RelationshipType, words.ValueType, words.TextValue = "CONTAINS", "TEXT", text
    report.ContentSequence = [words]
    document.Modality, document.SeriesDescription = "DOC", "门诊报告单"
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = PDF + b"\n" * (len(PDF) % 2)
    client = city.exchange.dicomweb("ris.bc")
    client.store_instances([report, document])
    return study


def _of(study: str, patient: str, sop_class: str) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.StudyInstanceUID, made.SeriesInstanceUID = study, generate_uid()
    made.SOPClassUID, made.SOPInstanceUID = UID(sop_class), generate_uid()
    made.PatientID, made.PatientName = patient, "Ceshi=测试"
    made.PatientBirthDate, made.PatientSex, made.StudyDate = "19700101", "M", "20261101"
    made.StudyTime, made.StudyID, made.AccessionNumber = "101500", "1", "PDF1"
    made.SeriesNumber = made.InstanceNumber = "1"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return made


def test_a_report_that_is_damaged_does_not_keep_the_page_of_its_study_from_anybody(
    sign_in: SignIn, city: PortalCity
) -> None:
    study = sent(city, "不应显示的内容")
    of_study = select(Instance).join(Series, Series.id == Instance.series_id)
    of_study = of_study.join(records.Study, records.Study.id == Series.study_id)
    of_study = of_study.where(records.Study.study_instance_uid == study)
    with city.exchange.opened() as exchange, exchange.database.writing() as session:
        (report,) = session.scalars(of_study.where(Series.modality == "SR")).all()
        found = Damage(instance_id=report.id, key=report.key, what="missing", found=report.received)
        session.add(found)
    page = sign_in("dr.bc")

    page.goto(f"/portal/studies/{study}")

    expect(page.locator("body")).not_to_contain_text("不应显示的内容")
    link = page.locator("a[href*='/reports/']")
    answer = page.request.get(str(link.get_attribute("href")))
    assert answer.status == 503
    assert "须由所属医院重新发送" in answer.text()
    assert "不应显示的内容" not in answer.text()


@pytest.mark.parametrize(
    ("language", "size", "finding"),
    [("zh-CN", WIDE, "检查所见"), ("en", NARROW, "Findings")],
    ids=["Chinese, wide", "English, on a phone"],
)
def test_another_hospitals_report_is_read_and_its_series_are_pictured(
    sign_in: SignIn, city: PortalCity, language: str, size: dict[str, int], finding: str
) -> None:
    study = with_report(city)
    page = sign_in("dr.bc", language=language, size=size)
    page.goto(f"/portal/studies/{study.study_instance_uid}")
    report = page.locator(".report")
    expect(report).to_contain_text(finding)
    expect(report).to_contain_text("已审核" if language == "zh-CN" else "Verified")
    expect(report.locator(".words").first).to_be_visible()
    pictures = page.locator(".tile img")
    expect(pictures).to_have_count(sum(one.modality != "SR" for one in study.series))
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function(
            "image => image.complete && image.naturalWidth > 0", arg=picture.element_handle()
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    link = page.get_by_role("link", name="在阅片器中打开" if language == "zh-CN" else "Open in the")
    expect(link).to_have_attribute(
        "href", f"/viewer/viewer?StudyInstanceUIDs={study.study_instance_uid}"
    )


def test_two_studies_of_a_person_are_opened_side_by_side(sign_in: SignIn, city: PortalCity) -> None:
    person = next(
        one
        for one in city.people.people
        if len({study.hospital for study in city.people.studies_of(one.id)}) > 1
    )
    first = city.people.studies_of(person.id)[0].study_instance_uid
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{first}")
    second = page.locator("#prior").input_value()
    assert second != first
    with page.expect_request("**/viewer/**") as asked:
        page.get_by_role("button", name="比较").click()
    assert asked.value.url.endswith(opening([first, second]))


def test_the_same_part_of_the_body_is_offered_for_comparison_before_what_is_newer(
    sign_in: SignIn, city: PortalCity
) -> None:
    study, older, newer = next(
        (one, older, newer)
        for person in city.people.people
        for one in city.people.studies_of(person.id)
        for older in city.people.studies_of(person.id)
        for newer in city.people.studies_of(person.id)
        if one is not older
        and one.body_part == older.body_part != newer.body_part
        and older.started.date() < newer.started.date()
    )
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study.study_instance_uid}")
    offered = page.locator("#prior option").evaluate_all("all => all.map(one => one.value)")
    assert offered.index(older.study_instance_uid) < offered.index(newer.study_instance_uid)


def test_a_study_of_reports_alone_offers_no_images(sign_in: SignIn, city: PortalCity) -> None:
    study = sent(city, "测试")
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study}")
    expect(page.get_by_role("button", name="下载", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="不含姓名")).to_have_count(0)
    page.locator("main p.small a").first.click()
    link = page.locator(f"h2 a[href='/portal/studies/{study}']")
    entry = page.locator(".entry").filter(has=link)
    expect(entry).to_contain_text("2 份报告 · 在线")
    expect(entry.locator("img")).to_have_count(0)
    expect(entry.get_by_role("link", name="看图像")).to_have_count(0)


def test_what_a_report_says_is_text_whatever_it_says(sign_in: SignIn, city: PortalCity) -> None:
    study = sent(city, "<script>alert(1)</script><img src=x onerror=alert(1)> & 测试")
    page = sign_in("dr.bc")
    said: list[str] = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(f"/portal/studies/{study}")
    expect(page.locator(".report .words")).to_have_text(
        "<script>alert(1)</script><img src=x onerror=alert(1)> & 测试"
    )
    expect(page.locator(".report")).to_contain_text("未审核")
    expect(page.locator(".report")).to_contain_text("未完成")
    assert page.locator(".report img, .report script").count() == 0
    assert said == []


def test_an_encapsulated_document_is_shown_within_its_page_only(
    sign_in: SignIn, city: PortalCity
) -> None:
    study = sent(city, "文字")
    page = sign_in("dr.nh")
    page.goto(f"/portal/studies/{study}")
    frame = page.locator("iframe.document")
    expect(frame).to_have_attribute("title", "门诊报告单")
    answer = page.request.get(str(frame.get_attribute("src")))
    assert answer.headers["content-type"] == "application/pdf"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.body().startswith(PDF)
    expect(page.get_by_role("link", name="单独打开")).to_be_visible()


def test_who_may_not_see_a_study_is_told_why_and_sees_nothing_of_it(
    sign_in: SignIn, city: PortalCity
) -> None:
    study = with_report(city)
    record = next(
        one
        for one in city.people.records_of(study.person)
        if one.hospital == "NH" and one.patient_id == study.patient_id
    )
    page = sign_in("dr.bc")
    with city.exchange.opened() as exchange:
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "nh", record.patient_id)
        answer = page.goto(f"/portal/studies/{study.study_instance_uid}")
        assert answer is not None
        assert answer.status == 403
        expect(page.get_by_role("alert")).to_have_text("患者不同意共享")
        assert study.description not in page.content()
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_in(access, "nh", record.patient_id)
    for path, status in (("1.2.3", 404), ("..%2F1", 404), ("x" * 80, 400)):
        answer = page.goto(f"/portal/studies/{path}")
        assert answer is not None
        assert answer.status == status
        if path == "1.2.3":
            expect(page.get_by_role("alert")).to_have_text("没有这项检查")


def downloaded(page: Page, button: str, folder: Path) -> zipfile.ZipFile:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#progress")).to_contain_text("已完成")
    path = folder / "study.zip"
    download.value.save_as(path)
    assert download.value.suggested_filename.endswith(".zip")
    return zipfile.ZipFile(path)


def test_a_study_is_taken_along_with_a_directory_under_the_askers_number(
    sign_in: SignIn, city: PortalCity, tmp_path: Path
) -> None:
    study = with_report(city)
    own = next(one for one in city.people.records_of(study.person) if one.hospital == "BC")
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{study.study_instance_uid}")

    with downloaded(page, "下载", tmp_path) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")

    held = {uid for series in study.series for uid in series.sop_instance_uids}
    with opened_file_set(tmp_path / "out/DICOMDIR") as read:
        assert read.find_values("PatientID") == [own.patient_id]
        assert {str(one.ReferencedSOPInstanceUIDInFile) for one in read} == held
        for one in read:
            image = dcmread(one.path)
            assert image.SOPInstanceUID == one.ReferencedSOPInstanceUIDInFile
            assert image.PatientID == own.patient_id


def test_a_study_is_taken_along_without_names(
    sign_in: SignIn, city: PortalCity, tmp_path: Path
) -> None:
    study = with_report(city)
    page = sign_in("dr.nh")
    page.goto(f"/portal/studies/{study.study_instance_uid}")

    with downloaded(page, "下载（不含姓名）", tmp_path) as archive:
        names = archive.namelist()
        whole = b"".join(archive.read(name) for name in names)

    assert {"DICOMDIR", "README.TXT"} <= set(names)
    images = sum(len(one.sop_instance_uids) for one in study.series if one.modality != "SR")
    assert len(names) == images + 2
    record = next(
        one for one in city.people.records_of(study.person) if one.patient_id == study.patient_id
    )
    for word in (record.patient_id, *record.patient_name.replace("=", "^").split("^")):
        for encoding in ("gb18030", "utf-8"):
            assert not word or word.encode(encoding) not in whole, word


def test_nobody_fetches_what_somebody_else_has_asked_for(
    sign_in: SignIn, city: PortalCity, tmp_path: Path
) -> None:
    page = sign_in("dr.bc")
    page.goto(f"/portal/studies/{with_report(city).study_instance_uid}")
    downloaded(page, "下载", tmp_path).close()
    other = sign_in("dr.nh")
    for path in (page.url, f"{page.url}/file"):
        answer = other.request.get(path)
        assert answer.status == 404
