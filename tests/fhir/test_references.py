"""What leads nowhere is not kept: references that only a transaction resolves, and wrong hashes."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from bundles import WEIGHT, answered, entry, newest, sent, statuses
from fhir_door import Door, outcome

BY_NUMBER = {"reference": "Patient?identifier=urn:oid:2.25.101|W1"}
NAME = "urn:uuid:7f3c1d8e-0000-4000-8000-000000000a01"
LETTER = b"a letter of discharge"
SHA1 = base64.b64encode(hashlib.sha1(LETTER).digest()).decode()  # noqa: S324
BINARY: dict[str, Any] = {
    "resourceType": "Binary",
    "contentType": "text/plain",
    "data": base64.b64encode(LETTER).decode(),
}


def document(**attachment: str) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": "Patient/1"},
        "content": [{"attachment": {"contentType": "text/plain", **attachment}}],
    }


@pytest.mark.parametrize("link", [BY_NUMBER["reference"], NAME, "urn:oid:1.2.3"])
@pytest.mark.parametrize("way", ["POST", "PUT", "PATCH", "POST in a batch", "PUT in a batch"])
def test_nothing_is_kept_that_is_about_whom_only_a_transaction_would_find(
    hospital: Door, link: str, way: str
) -> None:
    system = hospital.system("beicheng")
    about = WEIGHT | {"subject": {"reference": link}}
    held = system.made(WEIGHT)["id"]
    before = newest(system)
    method, _, batch = way.partition(" ")
    url = "Observation" if method == "POST" else f"Observation/{held}"
    told = about if method == "POST" else about | {"id": held}

    if batch:
        (one,) = answered(sent(system, "batch", entry(method, url, told)))
        assert one["response"]["status"].startswith("400")
        issues = one["response"]["outcome"]["issue"]
    elif method == "PATCH":
        change = {"subject": {"reference": link}}
        response = system.send("PATCH", url, change, Content_Type="application/merge-patch+json")
        outcome(response, 400, "invalid")
        issues = response.json()["issue"]
    else:
        response = system.send(method, url, told)
        outcome(response, 400, "invalid")
        issues = response.json()["issue"]

    assert [one["expression"] for one in issues] == [["Observation.subject"]]
    assert newest(system) == before


def test_a_patient_says_nothing_that_only_a_transaction_would_find(hospital: Door) -> None:
    system = hospital.system("beicheng")
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:2.25.101", "value": "R1"}],
        "name": [{"text": "王小东"}],
        "generalPractitioner": [{"reference": "Practitioner?identifier=7"}],
    }

    told = system.send("POST", "Patient", patient)

    outcome(told, 400, "invalid")
    assert told.json()["issue"][0]["expression"] == ["Patient.generalPractitioner[0]"]


def test_what_a_transaction_resolves_is_kept(hospital: Door) -> None:
    system = hospital.system("beicheng")

    (one,) = answered(
        sent(
            system,
            "transaction",
            entry("POST", "Observation", WEIGHT | {"subject": BY_NUMBER}),
            Prefer="return=representation",
        )
    )

    assert one["resource"]["subject"]["reference"] == "Patient/1"


def test_a_document_whose_content_no_entry_has_is_not_kept(hospital: Door) -> None:
    system = hospital.system("beicheng")
    before = newest(system)

    together = sent(system, "transaction", entry("POST", "DocumentReference", document(url=NAME)))
    alone = system.send("POST", "DocumentReference", document(url=NAME))

    assert NAME in outcome(together, 400, "not-found")
    outcome(alone, 400, "invalid")
    assert alone.json()["issue"][0]["expression"] == ["DocumentReference.content[0].attachment"]
    assert newest(system) == before


def test_a_document_is_what_its_hash_says(hospital: Door) -> None:
    system = hospital.system("beicheng")
    other = base64.b64encode(hashlib.sha1(b"another").digest()).decode()  # noqa: S324
    before = newest(system)
    for wrong in (other, base64.b64encode(b"no digest").decode()):
        together = sent(
            system,
            "transaction",
            entry("POST", "Binary", BINARY, NAME),
            entry("POST", "DocumentReference", document(url=NAME, hash=wrong)),
        )

        outcome(together, 422, "value")
        place = "Bundle.entry[1].resource.content[0].attachment.hash"
        assert together.json()["issue"][0]["expression"] == [place]
        assert newest(system) == before

    together = sent(
        system,
        "transaction",
        entry("POST", "Binary", BINARY, NAME),
        entry("POST", "DocumentReference", document(url=NAME, hash=SHA1)),
    )
    assert statuses(together) == ["201", "201"]
    assert system.made(document(url="https://archive.example/letter", hash=SHA1))
