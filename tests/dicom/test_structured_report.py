"""A report is read as people read it: headings, findings, measurements, who verified it."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from exchange import sop_classes
from exchange_dicom import structured_report
from exchange_dicom.structured_report import DEPTH, ITEMS, TEXT, Item


def coded(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def item(kind: str, concept: Dataset | None = None, how: str = "CONTAINS", **told: Any) -> Dataset:
    made = Dataset()
    made.ValueType, made.RelationshipType = kind, how
    if concept is not None:
        made.ConceptNameCodeSequence = [concept]
    for keyword, value in told.items():
        setattr(made, keyword, value)
    return made


def document(*items: Dataset) -> dict[str, Any]:
    made = item("CONTAINER", coded("18748-4", "Diagnostic imaging report", "LN"))
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "VERIFIED"
    made.ContentDate, made.ContentTime = "20261101", "101500"
    observer = Dataset()
    observer.VerifyingObserverName = "Li^Na=李^娜"
    made.VerifyingObserverSequence = [observer]
    made.ContentSequence = list(items)
    return dict(made.to_json_dict())


def measured(value: str, unit: str) -> Dataset:
    made = Dataset()
    made.NumericValue = value
    made.MeasurementUnitsCodeSequence = [coded(unit, unit, "UCUM")]
    return made


def test_headings_findings_and_measurements_are_told_in_their_order() -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    reference.ReferencedSOPInstanceUID = "1.2.3"
    size = item(
        "NUM",
        coded("81827009", "Diameter", "SCT"),
        "INFERRED FROM",
        MeasuredValueSequence=[measured("6.5", "mm")],
    )
    image = item("IMAGE", None, "INFERRED FROM", ReferencedSOPSequence=[reference])
    finding = item(
        "TEXT", coded("121071", "Finding"), TextValue="右肺上叶结节", ContentSequence=[size, image]
    )
    findings = item("CONTAINER", coded("121070", "Findings"), ContentSequence=[finding])
    mode = item("CODE", coded("1", "Mode"), ConceptCodeSequence=[coded("2", "Contrast")])
    who = item("PNAME", coded("121008", "Observer"), "HAS OBS CONTEXT", PersonName="Li^Na=李^娜")

    report = structured_report.read(document(who, findings, mode))

    assert report.title == "Diagnostic imaging report"
    assert (report.complete, report.verified, report.observers) == (True, True, ("Li^Na=李^娜",))
    assert (report.date, report.time, report.more) == ("20261101", "101500", False)
    observer, heading, coded_value = report.items
    assert (observer.value, observer.context) == ("Li^Na=李^娜", True)
    assert coded_value.value == "Contrast"
    assert (heading.code, heading.concept, heading.value) == ("121070", "Findings", "")
    (told,) = heading.items
    assert told.value == "右肺上叶结节"
    assert [(one.concept, one.value, one.image) for one in told.items] == [
        ("Diameter", "6.5 mm", ""),
        ("", "", "1.2.3"),
    ]


def nested(levels: int) -> Dataset:
    made = item("TEXT", None, TextValue="x")
    for _ in range(levels):
        made = item("CONTAINER", None, ContentSequence=[made])
    return made


def deepest(items: tuple[Item, ...]) -> int:
    return 1 + max((deepest(one.items) for one in items), default=0) if items else 0


@pytest.mark.parametrize(
    "items",
    [
        [nested(DEPTH + 5)],
        [item("TEXT", None, TextValue="x") for _ in range(ITEMS + 5)],
        [item("TEXT", None, TextValue="字" * (TEXT + 5))],
    ],
    ids=["deep", "many", "long"],
)
def test_a_report_without_bounds_is_read_to_ours_and_says_that_there_is_more(
    items: list[Dataset],
) -> None:
    report = structured_report.read(document(*items))
    assert report.more
    assert deepest(report.items) <= DEPTH
    assert len(report.items) <= ITEMS
    assert sum(len(one.value) for one in report.items) <= TEXT


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"0040A730": {"vr": "SQ"}},
        {"0040A730": {"vr": "SQ", "Value": [None, {}, {"0040A040": {"vr": "CS", "Value": []}}]}},
        {"0040A730": {"vr": "SQ", "Value": [{"0040A040": {"vr": "CS", "Value": ["NUM"]}}]}},
        {"0040A730": {"vr": "UN", "InlineBinary": "AAAA"}},
        {"0040A043": {"vr": "SQ", "Value": [{"00080104": {"vr": "LO", "Value": [{"a": 1}]}}]}},
    ],
)
def test_a_report_that_is_none_is_an_empty_one(model: dict[str, Any]) -> None:
    report = structured_report.read(model)
    assert not report.complete
    assert all(one.value == "" for one in report.items)


def test_tables_for_programs_are_no_reports_for_people() -> None:
    assert sop_classes.is_structured_report("1.2.840.10008.5.1.4.1.1.88.33")
    assert sop_classes.is_structured_report("1.2.840.10008.5.1.4.1.1.88.11")
    assert not sop_classes.is_structured_report("1.2.840.10008.5.1.4.1.1.88.67")
    assert not sop_classes.is_structured_report("1.2.840.10008.5.1.4.1.1.88.59")
    assert not sop_classes.is_structured_report("1.2.840.10008.5.1.4.1.1.2")
