"""Documents that come with the fewest elements that IHE MHD allows (ITI-65, minimal metadata)."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import pytest
from bundles import answered, entry
from fhir_door import Asker, Door, outcome

MHD = "https://profiles.ihe.net/ITI/MHD"
PROFILES = f"{MHD}/StructureDefinition/IHE.MHD.Minimal"
PDF = b"%PDF-1.4 a discharge summary\n"


def provided(number: str, **subject: Any) -> dict[str, Any]:
    """A Provide Document Bundle: submission set, document entry and document."""
    reference, binary = (f"urn:uuid:{uuid4()}" for _ in range(2))
    list_type = {"system": f"{MHD}/CodeSystem/MHDlistTypes", "code": "submissionset"}
    uri = "urn:ietf:rfc:3986"
    source = {"system": uri, "value": "urn:oid:2.25.101.1"}
    submission_set = {
        "resourceType": "List",
        "meta": {"profile": [f"{PROFILES}.SubmissionSet"]},
        "extension": [
            {"url": f"{MHD}/StructureDefinition/ihe-sourceId", "valueIdentifier": source}
        ],
        "identifier": [
            {"use": "official", "system": uri, "value": f"urn:uuid:{uuid4()}"},
            {"use": "usual", "system": uri, "value": f"urn:oid:{number}"},
        ],
        "status": "current",
        "mode": "working",
        "code": {"coding": [list_type]},
        "date": "2026-11-20T10:00:00+08:00",
        "entry": [{"item": {"reference": reference}}],
        **subject,
    }
    document = {
        "resourceType": "DocumentReference",
        "meta": {"profile": [f"{PROFILES}.DocumentReference"]},
        "masterIdentifier": {"system": uri, "value": f"urn:oid:{number}.1"},
        "status": "current",
        "content": [{"attachment": {"contentType": "application/pdf", "url": binary}}],
        **subject,
    }
    data = base64.b64encode(PDF).decode()
    content = {"resourceType": "Binary", "contentType": "application/pdf", "data": data}
    return {
        "resourceType": "Bundle",
        "meta": {"profile": [f"{PROFILES}.ProvideBundle"]},
        "type": "transaction",
        "timestamp": "2026-11-20T10:00:00+08:00",
        "entry": [
            entry("POST", "List", submission_set, f"urn:uuid:{uuid4()}"),
            entry("POST", "DocumentReference", document, reference),
            entry("POST", "Binary", content, binary),
        ],
    }


def delivered(source: Asker, bundle: dict[str, Any]) -> list[str]:
    """The addresses of what was provided."""
    made = answered(source.send("POST", "", bundle))
    assert [one["response"]["status"][:3] for one in made] == ["201"] * 3
    places = [one["response"]["location"].partition("/_history")[0] for one in made]
    return ["/".join(one.split("/")[-2:]) for one in places]


@pytest.fixture
def number() -> str:
    return f"2.25.{uuid4().int}"


def test_a_document_without_a_hash_is_known_again_by_its_content(
    hospital: Door, number: str
) -> None:
    source = hospital.system("beicheng")
    bundle = provided(number, subject={"reference": "Patient/1"})
    made = delivered(source, bundle)

    again = answered(source.send("POST", "", bundle))
    bundle["entry"][2]["resource"]["data"] = base64.b64encode(PDF + b"%").decode()
    other = source.send("POST", "", bundle)

    assert [one["response"]["status"][:3] for one in again] == ["200"] * 3
    places = [one["response"]["location"].partition("/_history")[0] for one in again]
    assert ["/".join(one.split("/")[-2:]) for one in places] == made
    assert outcome(other, 409, "duplicate")


def test_a_document_of_which_little_is_said_is_found_by_its_patient(
    hospital: Door, number: str
) -> None:
    subject = {"reference": "Patient/1"}
    bundle = provided(number, subject=subject)
    made = delivered(hospital.system("beicheng"), bundle)
    submission_set, document, binary = made

    consumer = hospital.clinician("nanhu")
    of_wang = "patient.identifier=urn:oid:2.25.101|W1&status=current"
    assert document in consumer.ids(f"DocumentReference?{of_wang}")
    assert submission_set in consumer.ids(f"List?code=submissionset&{of_wang}")
    told = consumer.read(document)
    assert told["content"][0]["attachment"]["url"].endswith(binary)
    kept = {name for name in told if name not in {"id", "meta"}}
    assert kept == {name for name in bundle["entry"][1]["resource"] if name != "meta"}
    assert consumer.read(submission_set)["entry"] == [{"item": {"reference": document}}]
    assert consumer.get(binary, Accept="application/pdf").content == PDF


def test_a_document_of_nobody_is_its_hospitals_alone(hospital: Door, number: str) -> None:
    source, other = hospital.system("beicheng"), hospital.clinician("nanhu")
    bundle = provided(number)
    source_patient = {"resourceType": "Patient", "id": "source", "name": [{"text": "Wang"}]}
    document = bundle["entry"][1]["resource"]
    document["contained"] = [source_patient]
    document["context"] = {"sourcePatientInfo": {"reference": "#source"}}
    made = delivered(source, bundle)

    by_number = f"identifier=urn:oid:{number}.1&status=current"
    assert source.ids(f"DocumentReference?{by_number}") == [made[1]]
    assert source.ids(f"List?identifier=urn:oid:{number}") == [made[0]]
    assert source.get(made[2], Accept="application/pdf").content == PDF
    assert other.ids(f"DocumentReference?{by_number}") == []
    for one in made:
        other.refused(one, 404, "not-found")
