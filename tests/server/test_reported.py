"""What reports say of a patient becomes resources when the study is quiet, and goes with them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fhir_door import Asker, outcome
from fhir_door import Door as FhirDoor
from fhir_door import opened as fhir_opened
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedCDAStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    XRayRadiationDoseSRStorage,
)
from region import ADMINISTRATOR, Region
from sqlalchemy import delete, select, update
from web_door import Door, opened

from exchange import consent, jobs, rejection, retention
from exchange_server.composition import worker
from exchange_server.settings import Settings
from exchange_storage.records import Job, Revision, Study

PDF = b"%PDF-1.4 a report of one page\n"
STUDY = "1.2.826.1"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def item(value_type: str, concept: Dataset, **more: Any) -> Dataset:
    made = Dataset()
    made.RelationshipType = more.pop("relationship", "CONTAINS")
    made.ValueType, made.ConceptNameCodeSequence = value_type, [concept]
    for name, value in more.items():
        setattr(made, name, value)
    return made


def measured(concept: Dataset, value: str, unit: Dataset) -> Dataset:
    number = Dataset()
    number.NumericValue, number.MeasurementUnitsCodeSequence = value, [unit]
    return item("NUM", concept, MeasuredValueSequence=[number])


def common(sop_class: str, instance: str, modality: str) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = sop_class, instance
    made.StudyInstanceUID, made.SeriesInstanceUID = STUDY, f"{STUDY}.{instance[-1]}"
    made.PatientID, made.PatientName = "R1", "Wang^XiaoDong=王^小东"
    made.PatientBirthDate, made.PatientSex = "19491231", "F"
    made.StudyDate, made.StudyTime, made.AccessionNumber = "20261101", "101500", "A77"
    made.ContentDate, made.ContentTime, made.Modality = "20261102", "093000", modality
    made.InstanceNumber = "1"
    return made


def part10(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def measurement_report(diameter: str = "12.50", *, verified: bool = True) -> bytes:
    """TID 1500 in a Comprehensive 3D SR, with an impression."""
    made = common(Comprehensive3DSRStorage, "1.9.1", "SR")
    made.CompletionFlag = "COMPLETE"
    made.VerificationFlag = "VERIFIED" if verified else "UNVERIFIED"
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "=李^四", "北城医院"
    made.VerifyingObserverSequence = [observer]
    made.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    site = item(
        "CODE",
        code("363698007", "SCT", "Finding Site"),
        relationship="HAS CONCEPT MOD",
        ConceptCodeSequence=[code("39607008", "SCT", "Lung")],
    )
    length = measured(code("410668003", "SCT", "Length"), diameter, code("mm", "UCUM", "mm"))
    group = item("CONTAINER", code("125007", "DCM", "Measurement Group"))
    group.ContentSequence = [site, length]
    impressions = item("CONTAINER", code("121072", "DCM", "Impressions"))
    impressions.ContentSequence = [
        item("TEXT", code("121073", "DCM", "Impression"), TextValue="右肺上叶结节，建议随访。")
    ]
    made.ValueType = "CONTAINER"
    made.ContentSequence = [group, impressions]
    return part10(made)


def dose_report() -> bytes:
    made = common(XRayRadiationDoseSRStorage, "1.9.2", "SR")
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    made.ConceptNameCodeSequence = [code("113701", "DCM", "X-Ray Radiation Dose Report")]
    made.ValueType = "CONTAINER"
    made.ContentSequence = [
        measured(
            code("113813", "DCM", "CT Dose Length Product Total"),
            "502.24",
            code("mGy.cm", "UCUM", "mGy.cm"),
        )
    ]
    return part10(made)


def pdf() -> bytes:
    made = common(EncapsulatedPDFStorage, "1.9.3", "DOC")
    made.DocumentTitle, made.MIMETypeOfEncapsulatedDocument = "CT report", "application/pdf"
    made.ConceptNameCodeSequence = [code("18748-4", "LN", "Diagnostic imaging study")]
    made.EncapsulatedDocument = PDF + b"\0" * (len(PDF) % 2)
    return part10(made)


CDA = '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>检查报告</title></ClinicalDocument>'.encode()


def cda() -> bytes:
    made = common(EncapsulatedCDAStorage, "1.9.4", "DOC")
    made.DocumentTitle, made.MIMETypeOfEncapsulatedDocument = "CT report", "text/xml"
    made.HL7InstanceIdentifier = "2.25.101^1"
    made.ConceptNameCodeSequence = [code("18748-4", "LN", "Diagnostic imaging study")]
    made.EncapsulatedDocument = CDA + b"\0" * (len(CDA) % 2)
    return part10(made)


@dataclass(slots=True)
class Hospital:
    """One hospital that sends reports, and who reads them."""

    city: Region
    web: Door
    fhir: FhirDoor
    settings: Settings
    doctor: Asker = field(init=False)

    def send(self, *instances: bytes) -> None:
        assert self.web.send(*instances).status_code == 200
        self.work()

    def work(self) -> None:
        """Do what the worker does once the study is quiet."""
        with self.city.exchange.database.writing() as session:
            quiet = update(Job).where(Job.kind == jobs.REFRESH).values(due=datetime.now(UTC))
            session.execute(quiet)
            session.execute(delete(Job).where(Job.kind != jobs.REFRESH))
        one = worker(self.city.exchange, self.settings)
        while one.run_once():
            pass
        with self.city.exchange.database.reading() as session:
            assert jobs.dead_letters(session) == []

    def found(self, kind: str, code: str = "") -> list[dict[str, Any]]:
        """The resources of a kind that the doctor may see, with this code where one is given."""
        newest: dict[str, dict[str, Any]] = {}
        history = self.doctor.bundle(f"{kind}/_history", mode_of="history")
        for entry in history.get("entry", []):
            newest.setdefault(entry["fullUrl"], entry.get("resource", {}))
        return [one for one in newest.values() if one and code in str(one.get("code", ""))]


@pytest.fixture
def hospital(city: Region, tmp_path: Path) -> Iterator[Hospital]:
    with opened(city) as web:
        made = Hospital(city, web, fhir_opened(city), Settings(data=tmp_path))
        made.doctor = made.fhir.clinician("nanhu")
        yield made


def only(resources: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = resources
    return one


def test_measurements_of_a_report_are_found_at_every_hospital_that_may_see_them(
    hospital: Hospital,
) -> None:
    hospital.send(measurement_report())

    report = only(hospital.found("DiagnosticReport"))
    length = only(hospital.found("Observation", "410668003"))
    assert report["conclusion"] == "右肺上叶结节，建议随访。"
    assert report["imagingStudy"][0]["reference"] == f"ImagingStudy/{STUDY}"
    assert report["resultsInterpreter"] == [{"display": "李四"}]
    assert report["basedOn"][0]["identifier"]["value"] == "A77"
    assert report["effectiveDateTime"] == "2026-11-02T09:30:00+08:00"
    assert [one["reference"] for one in report["result"]] == [f"Observation/{length['id']}"]
    assert length["valueQuantity"] == {
        "value": 12.5,
        "unit": "mm",
        "system": "http://unitsofmeasure.org",
        "code": "mm",
    }
    assert length["bodySite"]["coding"][0]["display"] == "Lung"
    assert (report["status"], length["status"]) == ("final", "final")


def test_a_dose_report_tells_the_dose_of_its_study(hospital: Hospital) -> None:
    hospital.send(dose_report())

    dose = only(hospital.found("Observation", "113813"))
    assert (dose["valueQuantity"]["value"], dose["status"]) == (502.24, "preliminary")


def test_a_document_is_fetched_as_what_it_is(hospital: Hospital) -> None:
    hospital.send(pdf())

    document = only(hospital.found("DocumentReference"))
    attachment = document["content"][0]["attachment"]
    assert attachment["size"] == len(PDF)
    fetched = hospital.doctor.get(attachment["url"], Accept="application/pdf")
    assert (fetched.headers["content-type"], fetched.content) == ("application/pdf", PDF)
    binary = hospital.doctor.get(attachment["url"], Accept="application/fhir+json").json()
    assert base64.b64decode(binary["data"]) == PDF
    report = only(hospital.found("DiagnosticReport"))
    assert report["presentedForm"][0]["url"] == attachment["url"]
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "R1")
    hospital.doctor.refused(attachment["url"], 404, "not-found", Accept="application/fhir+json")


def test_a_cda_document_in_dicom_is_a_document_like_any_other(hospital: Hospital) -> None:
    hospital.send(cda())

    document = only(hospital.found("DocumentReference"))
    attachment = document["content"][0]["attachment"]
    assert attachment["contentType"] == "text/xml"
    fetched = hospital.doctor.get(attachment["url"], Accept="text/xml")
    assert (fetched.headers["content-type"].partition(";")[0], fetched.content) == ("text/xml", CDA)


def test_nobody_changes_what_a_report_says_but_by_another_report(hospital: Hospital) -> None:
    hospital.send(measurement_report(verified=False))
    report = only(hospital.found("DiagnosticReport"))
    system = hospital.fhir.system("beicheng")

    outcome(system.send("PUT", f"DiagnosticReport/{report['id']}", report), 403, "forbidden")
    outcome(system.send("DELETE", f"DiagnosticReport/{report['id']}"), 403, "forbidden")

    hospital.city.send("beicheng", patient="R1", study=STUDY, instance="1.4.99")
    hospital.work()
    assert hospital.found("DiagnosticReport") == [report]  # nothing new: no new version
    assert report["status"] == "preliminary"


def gone(hospital: Hospital, *names: str) -> None:
    """Neither the resources nor what they said before can be read by anybody."""
    for name in names:
        for asker in (hospital.doctor, hospital.fhir.system("beicheng")):
            asker.refused(name, 410, "deleted")
            asker.refused(f"{name}/_history/1", 404, "not-found")
            (version,) = asker.bundle(f"{name}/_history", mode_of="history")["entry"]
            assert version["request"]["method"] == "DELETE"


def test_what_is_deleted_for_good_leaves_nothing_that_was_made_of_it(hospital: Hospital) -> None:
    hospital.send(measurement_report(), pdf())
    kinds = ("Observation", "DiagnosticReport", "DocumentReference", "Binary")
    names = [f"{kind}/{one['id']}" for kind in kinds for one in hospital.found(kind)]
    assert len(names) == 5

    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "", 1)
    with hospital.city.exchange.database.writing() as session:
        session.execute(update(Study).values(received=datetime.now(UTC) - timedelta(days=9)))
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (study,) = retention.expired(access)
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert retention.destroy(access, study) == 2
    hospital.work()

    gone(hospital, *names)
    with hospital.city.exchange.database.reading() as session:
        assert not session.scalars(select(Revision).where(Revision.content != b"")).all()


def test_what_a_rejected_report_said_goes_with_it(hospital: Hospital) -> None:
    hospital.send(measurement_report(), pdf())
    (observation,) = hospital.found("Observation")

    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", ["1.9.1"])
    hospital.work()

    assert hospital.found("Observation") == []
    gone(hospital, f"Observation/{observation['id']}")
    assert only(hospital.found("DiagnosticReport"))["presentedForm"]
