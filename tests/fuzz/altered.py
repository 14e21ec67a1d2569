"""FHIR resources that are almost as they should be: most of them are taken, and worked through.

A tree into which anything is put is refused at its first element. Here an official example of R4 is
altered where R4 allows it, mostly: something is left out, told twice, told otherwise in the same
type, nested deeper, or extended.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fhir_door import SHANGHAI
from javascript import examples
from target import Target

from exchange.errors import ExchangeError
from exchange_fhir import json_format, readable, summary, writing, xml_format
from exchange_fhir.outcome import Problem
from exchange_fhir.writing import Place

KINDS = (
    *("AllergyIntolerance", "Appointment", "Binary", "Composition", "Condition", "Consent"),
    *("Coverage", "Device", "DiagnosticReport", "DocumentReference", "Encounter", "Endpoint"),
    *(
        "Group",
        "HealthcareService",
        "Immunization",
        "List",
        "Location",
        "MeasureReport",
        "MedicationRequest",
    ),
    *("MedicationStatement", "Observation", "Organization", "OrganizationAffiliation", "Patient"),
    *("Practitioner", "PractitionerRole", "Procedure", "Provenance", "Questionnaire"),
    *("QuestionnaireResponse", "ServiceRequest", "Specimen", "Task"),
)
PLACE = Place(base="http://exchange.example/fhir", timezone=SHANGHAI)
NOW = datetime(2026, 11, 27, tzinfo=UTC)
TEXTS = (
    *(
        "王",
        "a\u0301",
        "\u202e",
        "x" * 5000,
        "%_\\",
        "a|b,c$d",
        "' or 1=1",
        "\U0001f600",
        "9" * 300,
    ),
    *("Patient/1", "Patient/999999999999999999999", "#x", "urn:uuid:x", "http://x/y|1", "../x"),
)
NUMBERS = (0, -1, 1e-300, 1e308, 10**40, 0.1 + 0.2, 2**53 + 1, -0.0)
TIMES = (
    *("0001-01-01", "9999-12-31", "2026", "2026-02", "2024-02-29T23:59:60Z"),
    *("1900-01-01T00:00:00.123456789+14:00", "9999-12-31T23:59:59-12:00"),
)
UNITS = ("10*-99/L", "[pH]", "Cel", "kg.m/s2", "{x}", "m[IU]/mL", "(((g)))", "1", "%")
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?")


@cache
def sound() -> list[dict[str, Any]]:
    """The examples, as a hospital would write them of its patient."""
    found = []
    for kind in KINDS:
        for _, example in examples(kind):
            text = re.sub(r'"Patient/[A-Za-z0-9.-]+"', '"Patient/1"', json.dumps(example))
            if len(text) < 30_000:
                found.append(json.loads(text))
    return found


def altered(chance: random.Random) -> dict[str, Any]:
    """A resource after one to three alterations."""
    resource: dict[str, Any] = json.loads(json.dumps(chance.choice(sound())))
    if resource["resourceType"] == "Patient":
        number = {"system": "urn:oid:2.25.101", "value": f"F{chance.randrange(200)}"}
        resource["identifier"] = [*resource.get("identifier", []), number]
    for _ in range(chance.choice((1, 1, 2, 3))):
        _alter(resource, chance)
    return resource


def work_through(seed: bytes) -> None:
    """Have an altered resource validated, indexed, kept, told in both formats and shown."""
    sent = json_format.parse(json.dumps(altered(random.Random(seed))).encode())
    draft = writing.draft(sent, PLACE, "fuzzed")
    kept = draft.render("fuzzed", 1, NOW)
    if draft.attachment is not None:
        draft.attachment.key = "resources/fuzzed"
        assert draft.attachment.without(kept) is not None
    told = json_format.parse(kept)
    in_xml = xml_format.parse(xml_format.serialize(told))
    assert in_xml | {"text": None} == told | {"text": None}  # narratives are XML of another way
    assert set(writing.said(kept, PLACE).values) == set(draft.values)
    readable.read(kept, base=PLACE.base, timezone=SHANGHAI)
    summary.said(SHANGHAI)(sent["resourceType"], kept)


def altered_targets() -> list[Target]:
    """What is done with a resource without anybody being asked."""
    seeds = [f"a resource that is altered {number:08}".encode() for number in range(50)]
    declared = (Problem, ExchangeError)
    return [Target("altered FHIR resources", seeds, work_through, declared)]


def _alter(resource: dict[str, Any], chance: random.Random) -> None:
    objects = [one for one in _objects(resource) if one.get("status") != "generated"]
    here = chance.choice(objects)
    key = chance.choice([one for one in here if one not in {"resourceType", "url"}] or [None])
    match chance.randrange(9):
        case 0 if key and here is not resource:
            del here[key]
        case 1 if key and isinstance(here[key], list):
            here[key] = here[key] * chance.choice((2, 2, 20))
        case 2 if key:
            here[f"_{key}"] = {"extension": [_extension(chance)]}
        case 3:
            nested = _extension(chance)
            for _ in range(chance.choice((1, 5, 15))):
                nested = {"url": "http://x/nested", "extension": [nested]}
            here.setdefault("extension", []).append(nested)
        case 4 if here is resource and resource["resourceType"] != "Binary":
            inner = {"resourceType": "Basic", "id": "in", "code": {"text": "x"}}
            resource.setdefault("contained", []).append(inner)
            resource.setdefault("extension", []).append(
                {"url": "http://x/in", "valueReference": {"reference": "#in"}}
            )
        case 5:
            other = chance.choice(objects)
            same = [name for name in here.keys() & other.keys() if name != "resourceType"]
            if same:
                name = chance.choice(sorted(same))
                here[name] = json.loads(json.dumps(other[name]))
        case 6 if "value" in here and "code" in here:
            here |= {"system": "http://unitsofmeasure.org", "code": chance.choice(UNITS)}
        case _ if key:
            here[key] = _otherwise(here[key], chance)


def _otherwise(value: Any, chance: random.Random) -> Any:
    """A value of the same type that is seldom told."""
    match value:
        case bool():
            return not value
        case int() | float():
            return chance.choice(NUMBERS)
        case str() if _TIME.fullmatch(value):
            return chance.choice(TIMES)
        case str() if "/" not in value or chance.random() < 0.3:
            return chance.choice(TEXTS)
    return value


def _extension(chance: random.Random) -> dict[str, Any]:
    return {
        "url": "http://x/y",
        **chance.choice(
            (
                {"valueString": chance.choice(TEXTS)},
                {"valueDecimal": chance.choice(NUMBERS)},
                {"valueDateTime": chance.choice(TIMES)},
                {"valueReference": {"reference": chance.choice(TEXTS)}},
                {"valueQuantity": {"value": 1, "code": chance.choice(UNITS)}},
                {"extension": [{"url": "z", "valueBoolean": True}]},
            )
        ),
    }


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for name, one in value.items():
            if name != "text":  # a narrative is a matter of its own
                yield from _objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from _objects(one)
