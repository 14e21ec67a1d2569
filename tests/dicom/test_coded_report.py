"""Reports in codes and numbers, as programs read them."""

from __future__ import annotations

from typing import Any

from exchange.reports import Concept
from exchange_dicom import coded_report
from exchange_dicom.coded_report import DEPTH, ITEMS

Model = dict[str, Any]


def sq(*items: Model) -> Model:
    return {"vr": "SQ", "Value": list(items)}


def cs(*values: str) -> Model:
    return {"vr": "CS", "Value": list(values)}


def code(value: str, scheme: str, meaning: str) -> Model:
    return sq({"00080100": cs(value), "00080102": cs(scheme), "00080104": cs(meaning)})


def item(value_type: str, concept: Model, *below: Model, **more: Model) -> Model:
    return {
        "0040A010": cs("CONTAINS"),
        "0040A040": cs(value_type),
        "0040A043": concept,
        **({"0040A730": sq(*below)} if below else {}),
        **{tag.removeprefix("t"): told for tag, told in more.items()},
    }


def number(value: Any, unit: str) -> Model:
    measured = {
        "0040A30A": {"vr": "DS", "Value": [value]},
        "004008EA": code(unit, "UCUM", unit),
    }
    return {"t0040A300": sq(measured)}


LENGTH = item("NUM", code("410668003", "SCT", "Length"), **number(12.5, "mm"))


def report(*items: Model) -> Model:
    return {
        "00080018": cs("1.4.9"),
        "00080023": cs("20261101"),
        "00080033": cs("101500"),
        "0040A043": code("18748-4", "LN", "Imaging Report"),
        "0040A491": cs("COMPLETE"),
        "0040A493": cs("VERIFIED"),
        "0040A073": sq({"0040A075": {"vr": "PN", "Value": [{"Ideographic": "李^四"}]}}),
        "0040A370": sq({"00080050": cs("A1")}),
        "0040A730": sq(*items),
    }


def test_a_report_is_read_with_its_codes_numbers_and_units() -> None:
    group = item("CONTAINER", code("125007", "DCM", "Measurement Group"), LENGTH)

    read = coded_report.report(report(group))

    assert read is not None
    assert read.title == Concept("18748-4", "LN", "Imaging Report")
    assert (read.is_complete, read.is_verified, read.is_preliminary) == (True, True, False)
    assert (read.accession_number, read.verifiers) == ("A1", ("=李^四",))
    (length,) = read.items[0].items
    assert (length.number, length.unit) == ("12.5", Concept("mm", "UCUM", "mm"))


def test_what_is_no_report_is_not_read() -> None:
    assert coded_report.report({}) is None
    assert coded_report.report({"0040A730": {"vr": "SQ"}}) is None
    assert coded_report.report({"0040A730": {"vr": "SQ", "Value": [None, "x"]}}) is None


def test_a_report_is_read_as_far_as_the_limits_go() -> None:
    deep = LENGTH
    for _ in range(DEPTH + 5):
        deep = item("CONTAINER", code("1", "99", "one"), deep)
    read = coded_report.report(report(deep))
    assert read is not None
    depth, items = 0, read.items
    while items:
        depth, items = depth + 1, items[0].items
    assert depth == DEPTH
    many = coded_report.report(report(*[LENGTH] * (ITEMS + 5)))
    assert many is not None
    assert len(many.items) == ITEMS
