"""A resource in a line: when, what, and what came of it, in the hospitals' own time."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from exchange.timeline import Said
from exchange_fhir import summary

TELL = summary.said(ZoneInfo("Asia/Shanghai"))
CODE = {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "血红蛋白"}]}


@pytest.mark.parametrize(
    ("kind", "resource", "expected"),
    [
        (
            "Observation",
            {
                "status": "final",
                "code": CODE,
                "effectiveDateTime": "2026-11-01T02:00:00Z",
                "valueQuantity": {"value": 132, "unit": "g/L"},
            },
            Said("20261101100000", "血红蛋白", "132 g/L", "final"),
        ),
        (
            "DiagnosticReport",
            {
                "status": "preliminary",
                "code": {"text": "胸部CT"},
                "issued": "2026-11-02T20:00:00+08:00",
                "effectivePeriod": {"start": "2026-11-01"},
                "conclusion": "右肺上叶结节",
            },
            Said("20261102200000", "胸部CT", "右肺上叶结节", "preliminary"),
        ),
        (
            "Condition",
            {"code": CODE, "onsetDateTime": "2020", "note": [{"text": "复查"}]},
            Said("20200000000000", "血红蛋白", "复查", ""),
        ),
        (
            "Encounter",
            {
                "status": "finished",
                "class": {"code": "AMB", "display": "门诊"},
                "period": {"start": "2026-10-01"},
            },
            Said("20261001000000", "门诊", "", "finished"),
        ),
        (
            "Observation",
            {"code": CODE, "valueCodeableConcept": {"text": "阳性"}, "note": "not a list"},
            Said("", "血红蛋白", "阳性", ""),
        ),
        ("CarePlan", {"category": [], "code": None}, Said("", "CarePlan", "", "")),
        (
            "Condition",
            {"code": CODE, "recordedDate": "9999-12-31T23:00:00Z"},
            Said("99991231000000", "血红蛋白", "", ""),
        ),
        (
            "Condition",
            {"code": CODE, "recordedDate": "0001-01-01T00:00:00+08:00"},
            Said("00010101000000", "血红蛋白", "", ""),
        ),
    ],
)
def test_a_resource_is_told_in_a_line(kind: str, resource: dict[str, Any], expected: Said) -> None:
    assert TELL(kind, json.dumps(resource).encode()) == expected
