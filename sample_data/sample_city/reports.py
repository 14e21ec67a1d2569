"""Verified reports as Basic Text and Comprehensive SR: Imaging Report, TID 2000 (PS3.16)."""

from datetime import datetime

from pydicom import Dataset
from pydicom.uid import UID, BasicTextSRStorage, ComprehensiveSRStorage

from .city import Hospital, Series, Study
from .examinations import Reading
from .images import code, ds

FINDINGS, FINDING = ("121070", "Findings"), ("121071", "Finding")
IMPRESSIONS, IMPRESSION = ("121072", "Impressions"), ("121073", "Impression")


def sop_class_of(reading: Reading) -> UID:
    """A measurement needs Comprehensive SR; words alone are Basic Text SR."""
    return BasicTextSRStorage if reading.diameter is None else ComprehensiveSRStorage


def report(
    study: Study,
    hospital: Hospital,
    reading: Reading,
    key_image: tuple[Series, str],
    radiologist: str,
    verified: datetime,
) -> Dataset:
    """The SR Document General and Content modules (C.17.2, C.17.3) of a complete, verified report.

    `key_image` is a series of the study and one SOP Instance UID of it; `radiologist` is a DICOM
    person name.
    """
    series, instance = key_image
    document = Dataset()
    document.ReferencedPerformedProcedureStepSequence = []
    document.CompletionFlag, document.VerificationFlag = "COMPLETE", "VERIFIED"
    document.ContentDate, document.ContentTime = f"{verified:%Y%m%d}", f"{verified:%H%M%S}"
    document.PreliminaryFlag = "FINAL"
    document.VerifyingObserverSequence = [_observer(hospital, radiologist, verified)]
    document.ReferencedRequestSequence = [_request(study)]
    document.PerformedProcedureCodeSequence = []
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(study, series, instance)]

    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    document.ContentTemplateSequence = [template]
    document.ValueType, document.ContinuityOfContent = "CONTAINER", "SEPARATE"
    document.ConceptNameCodeSequence = [code("11528-7", "LN", "Radiology Report")]
    document.ContentSequence = [
        _coded("HAS CONCEPT MOD", ("121049", "Language of Content Item and Descendants"), "zh-CN"),
        _coded("HAS OBS CONTEXT", ("121005", "Observer Type"), "121006"),
        _person(radiologist),
        _section(FINDINGS, FINDING, reading.findings, _details(reading, series, instance)),
        _section(IMPRESSIONS, IMPRESSION, reading.impression, []),
    ]
    return document


_MEANINGS = {
    "zh-CN": code("zh-CN", "RFC5646", "Chinese (China)"),
    "121006": code("121006", "DCM", "Person"),
}


def _observer(hospital: Hospital, radiologist: str, verified: datetime) -> Dataset:
    item = Dataset()
    item.VerifyingOrganization = hospital.name
    item.VerificationDateTime = f"{verified:%Y%m%d%H%M%S%z}"
    item.VerifyingObserverName = radiologist
    item.VerifyingObserverIdentificationCodeSequence = []
    return item


def _request(study: Study) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID, item.AccessionNumber = study.study_instance_uid, study.accession_number
    item.ReferencedStudySequence = []
    item.PlacerOrderNumberImagingServiceRequest = item.FillerOrderNumberImagingServiceRequest = ""
    item.RequestedProcedureID = study.accession_number
    item.RequestedProcedureDescription = study.description
    item.RequestedProcedureCodeSequence = []
    return item


def _evidence(study: Study, series: Series, instance: str) -> Dataset:
    of_series, item = Dataset(), Dataset()
    of_series.SeriesInstanceUID = series.series_instance_uid
    of_series.ReferencedSOPSequence = [_reference(series, instance)]
    item.StudyInstanceUID = study.study_instance_uid
    item.ReferencedSeriesSequence = [of_series]
    return item


def _reference(series: Series, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = series.sop_class_uid, instance
    return item


def _item(relationship: str, value_type: str, concept: tuple[str, str] | None) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    if concept:
        item.ConceptNameCodeSequence = [code(concept[0], "DCM", concept[1])]
    return item


def _coded(relationship: str, concept: tuple[str, str], value: str) -> Dataset:
    item = _item(relationship, "CODE", concept)
    item.ConceptCodeSequence = [_MEANINGS[value]]
    return item


def _person(name: str) -> Dataset:
    item = _item("HAS OBS CONTEXT", "PNAME", ("121008", "Person Observer Name"))
    item.PersonName = name
    return item


def _section(
    heading: tuple[str, str], concept: tuple[str, str], text: str, details: list[Dataset]
) -> Dataset:
    words = _item("CONTAINS", "TEXT", concept)
    words.TextValue = text
    if details:
        words.ContentSequence = details
    section = _item("CONTAINS", "CONTAINER", heading)
    section.ContinuityOfContent = "SEPARATE"
    section.ContentSequence = [words]
    return section


def _details(reading: Reading, series: Series, instance: str) -> list[Dataset]:
    """What a finding was inferred from: the key image and, where measured, a diameter."""
    image = _item("INFERRED FROM", "IMAGE", None)
    image.ReferencedSOPSequence = [_reference(series, instance)]
    if reading.diameter is None:
        return [image]
    size = _item("INFERRED FROM", "NUM", None)
    size.ConceptNameCodeSequence = [code("81827009", "SCT", "Diameter")]
    value = Dataset()
    value.MeasurementUnitsCodeSequence = [code("mm", "UCUM", "millimeter")]
    value.NumericValue = ds(reading.diameter)
    size.MeasuredValueSequence = [value]
    return [size, image]
