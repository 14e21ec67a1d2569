"""The official R4 examples go in and come back equal; a foreign validator takes what is told.

The examples are HL7's own (npm: hl7.fhir.r4.examples), the validator is Lantana's (npm: fhir).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import fhirkit
import orjson
import pytest
from fhir_door import Asker, Door, opened
from javascript import examples, validated
from region import ID_CARD, region

from exchange_fhir import capability, described, subset
from exchange_fhir.serving import Conduct
from exchange_fhir.subset import Summary, Wanted

NUMBERS = "urn:oid:2.25.101"
WRITTEN = [kind for kind in capability.served() if "create" in capability.interactions(kind)]
WRONG = {
    "MedicationRequest-medrx0301": "MedicationRequest.dispenseRequest.performer",
    "Observation-clinical-gender": "Observation.performer[0]",
    "Questionnaire-qs1": "Questionnaire.item[0].item[0].linkId",
    "Questionnaire-zika-virus-exposure-assessment": "Questionnaire.text.div",
}
"""Examples that break R4's own rules, and where: a Practitioner where only an Organization may be,
an Encounter that performs, items without linkId, a narrative without content."""
NO_TOPIC = {"Subscription-example", "Subscription-example-error"}
"""Examples that ask for what is not served: their criteria are no topic."""
MISTAKEN = {
    ("MedicationRequest.substitution.allowed[x]", "Missing property"),
    ("OrganizationAffiliation.network[0]", "Invalid type for reference"),
}
"""What the validator says without cause: it takes ``false`` for nothing, and an address that is
absolute for one of a type."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Wang is Patient/1 of beicheng; references may lead to what is not here."""
    index = tmp_path_factory.mktemp("examples") / "index.sqlite"
    with region(f"sqlite:///{index}") as city:
        city.send("beicheng", patient="W1", card=ID_CARD, study="1.2.1", instance="1.4.1")
        city.identify()
        yield opened(city)


def of_wang(example: dict[str, Any]) -> dict[str, Any]:
    """An example of this hospital: about its patient, who is registered by a number.

    Which records are of one person is for the exchange to tell.
    """
    told = re.sub(
        rb'"Patient/[A-Za-z0-9.-]+(/_history/\d+)?"', b'"Patient/1"', orjson.dumps(example)
    )
    ours: dict[str, Any] = orjson.loads(told)
    if ours["resourceType"] == "Patient":
        number = {"system": NUMBERS, "value": f"N-{example['id']}"}
        ours["identifier"] = [*ours.get("identifier", []), number]
        same = {"other": {"reference": "Patient/1"}, "type": "seealso"}
        links = [one for one in ours.pop("link", []) if one != same]
        ours |= {"link": links} if links else {}
    return ours


def plain(resource: dict[str, Any]) -> dict[str, Any]:
    """Without what the server gives."""
    return {key: value for key, value in resource.items() if key not in {"id", "meta"}}


def kept(asker: Asker, location: str) -> dict[str, Any]:
    answer = asker.get(location.partition("/fhir/")[2], Accept="application/fhir+json")
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_official_examples_go_in_and_come_back_equal(door: Door, kind: str) -> None:
    hospital = door.system("beicheng")
    came_back = []
    for name, example in examples(kind):
        ours = of_wang(example)
        answer = hospital.send("POST", kind, ours)
        if name in WRONG or name in NO_TOPIC:
            assert answer.status_code in {400, 422}, answer.text
            places = [one["expression"][0] for one in answer.json()["issue"]]
            assert WRONG.get(name, "Subscription.criteria") in places
            continue
        assert answer.status_code == 201, (name, answer.text)
        told = kept(hospital, answer.headers["location"])
        assert plain(told) == plain(ours), name
        came_back.append(told)
    assert came_back or kind == "Subscription"
    assert [one for one in validated(came_back) if not mistaken(one)] == []


@pytest.mark.parametrize("kind", capability.served())
@pytest.mark.parametrize("summary", [Summary.TRUE, Summary.TEXT, Summary.DATA])
def test_what_is_shown_of_an_official_example_is_fhir_too(kind: str, summary: Summary) -> None:
    for name, example in examples(kind):
        wrong = set(map(str, fhirkit.validate(example)))
        shown = subset.part(example, Wanted(summary))
        assert set(map(str, fhirkit.validate(shown))) <= wrong, name


def mistaken(found: tuple[str, str, str]) -> bool:
    _, location, message = found
    return any(location == at and message.startswith(says) for at, says in MISTAKEN)


def test_what_the_exchange_itself_tells_passes_a_validator_of_others(door: Door) -> None:
    hospital, administrator = door.system("beicheng"), door.administrator()
    hospital.get("Observation?code=nothing")
    told = [hospital.get("metadata").json()]
    for kind in ("Patient", "ImagingStudy", "Organization", "Endpoint", "Person"):
        bundle = hospital.get(f"{kind}?_count=5").json()
        assert bundle["entry"]
        told += [bundle, *(one["resource"] for one in bundle["entry"])]
    trail = administrator.get("AuditEvent?_count=40").json()
    told += [trail, *(one["resource"] for one in trail["entry"])]
    for kind in described.KINDS:
        told += [one["resource"] for one in hospital.get(f"{kind}?_count=20").json()["entry"]]
    told += [hospital.get("Nothing").json(), hospital.get("Patient/1/$everything").json()]
    told.append(hospital.get("Patient/1/_history").json())
    assert [one for one in validated(told) if not mistaken(one)] == []


def test_references_that_lead_nowhere_are_refused_where_a_setting_says_so(door: Door) -> None:
    strict = opened(door.city, Conduct(dangling=False)).system("beicheng")
    (example,) = (one for name, one in examples("Observation") if name == "Observation-f001")
    answer = strict.send("POST", "Observation", of_wang(example))
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (422, "not-found")
