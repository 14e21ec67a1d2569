"""The invariants of R4: ours say what the standard's own FHIRPath does, and are told by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from bundles import WEIGHT
from fhir_door import Door, outcome
from fhirpathpy import compile as fhirpath
from fhirpathpy.models import models

from exchange_fhir import invariants
from exchange_fhir.invariants import INVARIANTS

EXPRESSIONS = Path(__file__).parents[1] / "golden" / "fhir_invariants.json"
"""What the standard's definitions write (ElementDefinition.constraint), by type and key."""

UCUM = {"system": invariants.UCUM}


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


ERROR = {"verificationStatus": concept(invariants.CONDITION_VERIFIED, "entered-in-error")}
NO_ALLERGY = {"verificationStatus": concept(invariants.ALLERGY_VERIFIED, "entered-in-error")}
ACTIVE = {"clinicalStatus": concept(invariants.CLINICAL, "active")}
RESOLVED = {"clinicalStatus": concept(invariants.CLINICAL, "resolved")}
PART = {"code": concept("urn:a", "x")}
ENTRY = [{"item": {"reference": "Patient/1"}}]

CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("Quantity", "qty-3", {"code": "kg", **UCUM}, {"code": "kg"}),
    ("Age", "age-1", {"value": 3, "code": "a", **UCUM}, {"value": -3, "code": "a", **UCUM}),
    ("Distance", "dis-1", {"value": 3, "code": "m", **UCUM}, {"value": 3}),
    ("Duration", "drt-1", {"value": 3, "code": "h", **UCUM}, {"code": "h", **UCUM}),
    ("Count", "cnt-3", {"value": 3, "code": "1", **UCUM}, {"value": 3, "code": "2", **UCUM}),
    ("Attachment", "att-1", {"data": "YQ==", "contentType": "a/b"}, {"data": "YQ=="}),
    ("ContactPoint", "cpt-2", {"value": "1", "system": "phone"}, {"value": "1"}),
    ("Expression", "exp-1", {"expression": "1"}, {"language": "text/fhirpath"}),
    ("Period", "per-1", {"start": "2026-01-01", "end": "2026-01-02"},
     {"start": "2026-01-03", "end": "2026-01-02"}),
    ("Range", "rng-2", {"low": {"value": 1}, "high": {"value": 2}},
     {"low": {"value": 3, "unit": "a"}, "high": {"value": 2, "unit": "a"}}),
    ("Ratio", "rat-1", {"numerator": {"value": 1}, "denominator": {"value": 2}},
     {"numerator": {"value": 1}}),
    ("Timing.repeat", "tim-1", {"duration": 1, "durationUnit": "h"}, {"duration": 1}),
    ("Timing.repeat", "tim-2", {"period": 1, "periodUnit": "h"}, {"period": 1}),
    ("Timing.repeat", "tim-4", {"duration": 1}, {"duration": -1}),
    ("Timing.repeat", "tim-5", {"period": 1}, {"period": -1}),
    ("Timing.repeat", "tim-6", {"period": 1, "periodMax": 2}, {"periodMax": 2}),
    ("Timing.repeat", "tim-7", {"duration": 1, "durationMax": 2}, {"durationMax": 2}),
    ("Timing.repeat", "tim-8", {"count": 1, "countMax": 2}, {"countMax": 2}),
    ("Timing.repeat", "tim-9", {"offset": 5, "when": ["ACM"]}, {"offset": 5, "when": ["CM"]}),
    ("Timing.repeat", "tim-10", {"timeOfDay": ["08:00:00"]},
     {"timeOfDay": ["08:00:00"], "when": ["ACM"]}),
    ("AllergyIntolerance", "ait-1", {**NO_ALLERGY}, {"code": PART["code"]}),
    ("AllergyIntolerance", "ait-2", {**ACTIVE}, {**NO_ALLERGY, **ACTIVE}),
    ("Appointment", "app-2", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"},
     {"start": "2026-01-01T00:00:00Z"}),
    ("Appointment", "app-3", {"status": "proposed"}, {"status": "booked"}),
    ("Appointment", "app-4", {"status": "noshow", "cancelationReason": PART["code"]},
     {"status": "booked", "cancelationReason": PART["code"]}),
    ("Appointment.participant", "app-1", {"actor": {"display": "a"}}, {"status": "accepted"}),
    ("Composition.section", "cmp-1", {"entry": ENTRY}, {"title": "a"}),
    ("Composition.section", "cmp-2", {"entry": ENTRY}, {"entry": ENTRY, "emptyReason": {}}),
    ("Condition", "con-4", {"abatementString": "a", **RESOLVED}, {"abatementAge": UCUM, **ACTIVE}),
    ("Condition", "con-5", {**ACTIVE}, {**ERROR, **ACTIVE}),
    ("Condition.stage", "con-1", {"summary": PART["code"]}, {"type": PART["code"]}),
    ("Condition.evidence", "con-2", {"detail": ENTRY}, {"id": "a"}),
    ("Consent", "ppc-1", {"policyRule": PART["code"]}, {"status": "active"}),
    ("Group", "grp-1", {"actual": True, "member": ENTRY}, {"actual": False, "member": ENTRY}),
    ("Immunization.education", "imm-1", {"documentType": "a"}, {"publicationDate": "2026"}),
    ("List", "lst-1", {"entry": ENTRY}, {"entry": ENTRY, "emptyReason": PART["code"]}),
    ("List", "lst-2", {"mode": "changes", "entry": [{"deleted": True}]},
     {"mode": "working", "entry": [{"deleted": True}]}),
    ("List", "lst-3", {"mode": "working", "entry": [{"date": "2026"}]},
     {"mode": "changes", "entry": [{"date": "2026"}]}),
    ("MeasureReport", "mrp-1", {"type": "summary", "group": [{"id": "a"}]},
     {"type": "data-collection", "group": [{"id": "a"}]}),
    ("MeasureReport", "mrp-2",
     {"group": [{"stratifier": [{"stratum": [{"value": PART["code"]}]}]}]},
     {"group": [{"stratifier": [{"stratum": [{"measureScore": UCUM}]}]}]}),
    ("Observation", "obs-6", {"valueString": "a"},
     {"valueString": "a", "dataAbsentReason": PART["code"]}),
    ("Observation", "obs-7", {**PART, "component": [PART]},
     {**PART, "valueString": "a", "component": [PART]}),
    ("Observation.referenceRange", "obs-3", {"text": "a"}, {"type": PART["code"]}),
    ("Organization", "org-1", {"name": "a"}, {"active": True}),
    ("Patient.contact", "pat-1", {"name": {"text": "a"}}, {"gender": "male"}),
    ("Questionnaire", "que-2", {"item": [{"linkId": "1"}, {"linkId": "2"}]},
     {"item": [{"linkId": "1", "item": [{"linkId": "1"}]}]}),
    ("Questionnaire.item", "que-1", {"type": "string"}, {"type": "group"}),
    ("Questionnaire.item", "que-3", {"type": "string", "code": [{"code": "a"}]},
     {"type": "display", "code": [{"code": "a"}]}),
    ("Questionnaire.item", "que-4", {"type": "choice", "answerValueSet": "urn:a"},
     {"type": "choice", "answerValueSet": "urn:a", "answerOption": [{"valueString": "a"}]}),
    ("Questionnaire.item", "que-5", {"type": "choice", "answerValueSet": "urn:a"},
     {"type": "boolean", "answerValueSet": "urn:a"}),
    ("Questionnaire.item", "que-6", {"type": "string", "required": True},
     {"type": "display", "required": True}),
    ("Questionnaire.item", "que-8", {"type": "string", "initial": [{"valueString": "a"}]},
     {"type": "group", "initial": [{"valueString": "a"}]}),
    ("Questionnaire.item", "que-9", {"type": "string", "readOnly": True},
     {"type": "display", "readOnly": True}),
    ("Questionnaire.item", "que-10", {"type": "string", "maxLength": 3},
     {"type": "date", "maxLength": 3}),
    ("Questionnaire.item", "que-11", {"type": "choice", "answerOption": [{"valueString": "a"}]},
     {"type": "choice", "answerOption": [{"valueString": "a"}], "initial": [{"valueString": "a"}]}),
    ("Questionnaire.item", "que-12",
     {"type": "string", "enableWhen": [{}, {}, {}], "enableBehavior": "all"},
     {"type": "string", "enableWhen": [{"id": "1"}, {"id": "2"}, {"id": "3"}]}),
    ("Questionnaire.item", "que-13",
     {"type": "string", "repeats": True, "initial": [{"valueString": "a"}, {"valueString": "b"}]},
     {"type": "string", "initial": [{"valueString": "a"}, {"valueString": "b"}]}),
    ("Questionnaire.item.enableWhen", "que-7", {"operator": "exists", "answerBoolean": True},
     {"operator": "exists", "answerString": "a"}),
    ("QuestionnaireResponse.item", "qrs-1", {"answer": [{"valueString": "a"}]},
     {"answer": [{"valueString": "a"}], "item": [{"linkId": "1"}]}),
    ("ServiceRequest", "prr-1", {**PART, "orderDetail": [PART["code"]]},
     {"orderDetail": [PART["code"]]}),
    ("Task", "inv-1", {"authoredOn": "2026-01-01", "lastModified": "2026-01-02"},
     {"authoredOn": "2026-01-03", "lastModified": "2026-01-02"}),
]  # fmt: skip
"""Type, key, an object for which it holds, and one for which it does not."""

BEYOND = {
    *(("Age", "age-1"), ("Count", "cnt-3"), ("Period", "per-1")),
    *(("Range", "rng-2"), ("Questionnaire.item.enableWhen", "que-7")),
}
"""What fhirpathpy does not evaluate: hasValue(), quantities and choices of an object by itself."""


def ours(structure: str, key: str, told: dict[str, Any]) -> bool:
    return key not in {one.key for one in invariants.broken(structure, told)}


def theirs(expression: str, structure: str, told: dict[str, Any]) -> bool:
    whole = structure[0].isupper() and "." not in structure and structure not in DATATYPES
    resource = ({"resourceType": structure} if whole else {}) | told
    asked = fhirpath(expression, models["r4"])
    answer = asked(resource, {"ucum": invariants.UCUM, "resource": resource})
    return bool(answer == [True])


DATATYPES = frozenset(
    {"Quantity", "Age", "Distance", "Duration", "Count", "Attachment", "ContactPoint"}
    | {"Expression", "Period", "Range", "Ratio"}
)


@pytest.mark.parametrize(("structure", "key", "good", "bad"), CASES)
def test_an_invariant_says_what_the_standard_writes(
    structure: str, key: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    expression = orjson.loads(EXPRESSIONS.read_bytes()).get(structure, {}).get(key)

    assert ours(structure, key, good)
    assert not ours(structure, key, bad)
    if (structure, key) not in BEYOND:
        assert theirs(expression, structure, good)
        assert not theirs(expression, structure, bad)


def test_every_invariant_is_the_standards_and_has_its_case() -> None:
    written = {
        (kind, key) for kind, keys in orjson.loads(EXPRESSIONS.read_bytes()).items() for key in keys
    }
    known = {(kind, one.key) for kind, listed in INVARIANTS.items() for one in listed}
    of_parts = {("Organization", "org-2"), ("Organization", "org-3")}  # written at its elements

    assert known - of_parts == written
    tried = {(kind, key) for kind, key, _, _ in CASES}
    of_units = {("Age", "qty-3"), ("Distance", "qty-3"), ("Duration", "qty-3"), ("Count", "qty-3")}
    assert written - tried == of_units


@pytest.mark.parametrize(
    ("told", "holds"),
    [
        ({"start": "2026-11-20", "end": "2026-11-20T01:00:00+08:00"}, True),
        ({"start": "2026-11", "end": "2026-11-01"}, True),
        ({"start": "2026-11-20T09:00:00+08:00", "end": "2026-11-20T02:00:00Z"}, True),
        ({"start": "2026-11-20T11:00:00+08:00", "end": "2026-11-20T02:00:00Z"}, False),
        ({"start": "2027", "end": "2026-11-01"}, False),
        ({"start": "2026"}, True),
    ],
)
def test_a_period_is_in_order_as_far_as_it_is_precise(told: dict[str, str], holds: bool) -> None:
    assert ours("Period", "per-1", told) is holds


def test_a_broken_invariant_is_told_by_its_key_and_place(hospital: Door) -> None:
    system = hospital.system("beicheng")
    wrong = WEIGHT | {
        "dataAbsentReason": {"text": "not done"},
        "referenceRange": [{"low": {"value": 3, "unit": "kg"}}, {"appliesTo": [{"text": "adult"}]}],
        "effectivePeriod": {"start": "2026-02-01", "end": "2026-01-01"},
    }

    response = system.send("POST", "Observation", wrong)

    assert response.status_code == 422
    told = {(one["code"], one["expression"][0], one["diagnostics"].rpartition("(")[2])
            for one in response.json()["issue"]}  # fmt: skip
    assert told == {
        ("invariant", "Observation", "obs-6)"),
        ("invariant", "Observation.referenceRange[1]", "obs-3)"),
        ("invariant", "Observation.effective", "per-1)"),
    }


def test_what_is_contained_leads_somewhere_or_is_led_to(hospital: Door) -> None:
    system = hospital.system("beicheng")
    inner = {"resourceType": "Practitioner", "id": "p"}
    back: dict[str, Any] = {"resourceType": "Provenance", "id": "p"}
    whole = WEIGHT | {"contained": [inner]}
    back |= {
        "target": [{"reference": "#"}],
        "recorded": "2026-11-26T08:00:00Z",
        "agent": [{"who": {"display": "x"}}],
    }

    refused = system.send("POST", "Observation", whole)

    assert "dom-3" in outcome(refused, 422, "invariant")
    assert refused.json()["issue"][0]["expression"] == ["Observation.contained[0]"]
    system.made(whole | {"performer": [{"reference": "#p"}]})
    system.made(whole | {"contained": [back]})
