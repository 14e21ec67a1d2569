"""Documents that a hospital's systems provide and consume, over HTTP: IHE MHD (ITI-65 to ITI-68).

Each test is a transaction as its profile writes it, and answers as the profile expects them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from bundles import answered, sent
from fhir_door import Door, entries, name, outcome
from profiles import CDA, ISSUER, PDF, provided, served


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with served(f"sqlite:///{tmp_path_factory.mktemp('profiles') / 'exchange.sqlite'}") as door:
        yield door


def delivered(hospital: Door, content: bytes, media_type: str) -> dict[str, str]:
    """What was provided: addresses by type, and the number and author of the document."""
    source = hospital.system("beicheng")
    doctor = source.made(
        {"resourceType": "Practitioner", "name": [{"family": "吴", "given": ["用"]}]}
    )
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"
    response = sent(source, "transaction", *provided(content, media_type, author, number))
    made = answered(response)
    assert [one["response"]["status"][:3] for one in made] == ["201"] * 3
    places = [one["response"]["location"].rpartition("/_history")[0] for one in made]
    told = {one.split("/")[-2]: "/".join(one.split("/")[-2:]) for one in places}
    return told | {"author": author, "number": number}


@pytest.fixture(scope="module")
def document(hospital: Door) -> dict[str, str]:
    return delivered(hospital, PDF, "application/pdf")


def test_iti_65_keeps_a_document_with_its_metadata_as_one(
    hospital: Door, document: dict[str, str]
) -> None:
    consumer = hospital.clinician("nanhu")

    reference = consumer.read(document["DocumentReference"])
    submission_set = consumer.read(document["List"])

    assert reference["content"][0]["attachment"]["url"].endswith(document["Binary"])
    assert submission_set["entry"][0]["item"]["reference"] == document["DocumentReference"]
    source = hospital.system("beicheng")
    wrong = provided(PDF, "application/pdf", "Practitioner/none", "2.25.7")
    wrong[1]["resource"]["status"] = "finished"
    before = source.bundle("DocumentReference?_total=accurate&_count=0")["total"]
    assert sent(source, "transaction", *wrong).status_code in {400, 422}
    assert source.bundle("DocumentReference?_total=accurate&_count=0")["total"] == before


ITI_67 = [
    "patient=Patient/1&status=current",
    "patient.identifier={issuer}|W1&status=current",
    "author.family=吴&author.given=用",
    "category=11490-0",
    "creation=2026-11-19",
    "date=ge2026-11-20&date=lt2026-11-22",
    "event=48768-6",
    "facility=HOSP",
    "format=urn:ihe:iti:xds:2017:mimeTypeSufficient",
    "identifier=urn:oid:{number}.1",
    "period=ge2026-11-01",
    "related:identifier={number}",
    "security-label=N",
    "setting=394802001",
    "type=http://loinc.org|18842-5",
]


@pytest.mark.parametrize("query", ITI_67)
def test_iti_67_finds_the_document(hospital: Door, document: dict[str, str], query: str) -> None:
    consumer = hospital.clinician("nanhu")
    query = query.format(issuer=ISSUER, number=document["number"])
    if "patient" not in query:
        query = f"patient=Patient/1&status=current&{query}"

    found = consumer.bundle(f"DocumentReference?{query}", Prefer="handling=strict")
    form = "application/x-www-form-urlencoded"
    posted = consumer.post("DocumentReference/_search", query, form)

    assert document["DocumentReference"] in [name(one) for one in entries(found)]
    assert entries(posted.json()) == entries(found)


@pytest.mark.parametrize(
    "query",
    [
        "patient=Patient/1&status=current&code=submissionset",
        "patient.identifier={issuer}|W1&status=current",
        "date=2026-11-20&status=current&patient=Patient/1",
        "identifier=urn:oid:{number}&patient=Patient/1",
        "source.family=吴&source.given=用&patient=Patient/1&status=current",
        "designationType=http://loinc.org|18842-5&patient=Patient/1&status=current",
        "sourceId=urn:oid:2.25.101.1&patient=Patient/1",
    ],
)
def test_iti_66_finds_the_submission_set(
    hospital: Door, document: dict[str, str], query: str
) -> None:
    query = query.format(issuer=ISSUER, number=document["number"])
    assert document["List"] in hospital.clinician("nanhu").ids(f"List?{query}")


@pytest.mark.parametrize("lacking", ["ihe-sourceId", "ihe-designationType"])
def test_iti_65_needs_to_know_where_a_submission_set_is_from_and_what_led_to_it(
    hospital: Door, lacking: str
) -> None:
    wrong = provided(PDF, "application/pdf", "Practitioner/none", "2.25.8")
    submission_set = wrong[0]["resource"]
    submission_set["extension"] = [
        one for one in submission_set["extension"] if not one["url"].endswith(lacking)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": wrong}
    refused = hospital.system("beicheng").send("POST", "", bundle)
    assert lacking.removeprefix("ihe-") in outcome(refused, 422, "business-rule")


def test_iti_68_gives_out_the_document_as_what_it_is(
    hospital: Door, document: dict[str, str]
) -> None:
    consumer = hospital.clinician("nanhu")
    (content,) = consumer.read(document["DocumentReference"])["content"]
    place = "/".join(content["attachment"]["url"].split("/")[-2:])

    raw = consumer.get(place, Accept="application/pdf")
    whatever = consumer.get(place, Accept="*/*")

    assert (raw.content, raw.headers["content-type"]) == (PDF, "application/pdf")
    assert whatever.content == PDF
    resource = consumer.get(place, Accept="application/fhir+json").json()
    assert resource["contentType"] == "application/pdf"
    assert hospital.asker(None).get(place).status_code == 401


def test_a_cda_document_comes_in_and_goes_out_as_it_was(hospital: Door) -> None:
    made = delivered(hospital, CDA, "text/xml")
    consumer = hospital.clinician("nanhu")

    for accepted in ("text/xml", "*/*", "text/xml, application/fhir+json;q=0.1"):
        assert consumer.get(made["Binary"], Accept=accepted).content == CDA
    as_fhir = consumer.get(made["Binary"], Accept="application/fhir+xml")
    assert as_fhir.text.count("<Binary ") == 1
    found = consumer.ids("DocumentReference?contenttype=text/xml&patient=Patient/1")
    assert made["DocumentReference"] in found


def test_iti_65_keeps_a_document_once_however_often_it_is_sent(hospital: Door) -> None:
    """A source that had no answer sends again: the uniqueId says that it is the same."""
    source, consumer = hospital.system("beicheng"), hospital.clinician("nanhu")
    doctor = source.made({"resourceType": "Practitioner", "name": [{"family": "吴"}]})
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"

    def provide(content: bytes, **other: Any) -> httpx2.Response:
        entries = provided(content, "application/pdf", author, number)
        for one in entries:
            if one["resource"]["resourceType"] == "List":
                one["resource"] |= other
        return sent(source, "transaction", *entries)

    first, again = answered(provide(PDF)), answered(provide(PDF))

    assert [one["response"]["status"][:3] for one in first] == ["201"] * 3
    assert [one["response"]["status"][:3] for one in again] == ["200"] * 3
    assert [one["response"]["location"] for one in again] == [
        one["response"]["location"] for one in first
    ]
    refused = provide(PDF + b"another")
    assert outcome(refused, 409, "duplicate")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource"]
    another = {"identifier": [{"use": "usual", "value": f"urn:oid:{number}.9"}]}
    more = answered(provide(PDF, **another))
    assert [one["response"]["status"][:3] for one in more] == ["201", "200", "200"]
    found = consumer.ids(f"DocumentReference?identifier=urn:oid:{number}.1")
    assert len(found) == 1
    binary = first[2]["response"]["location"].partition("/fhir/")[2].partition("/_history")[0]
    assert consumer.get(binary).content == PDF
    # Of one message too.
    twice = provided(PDF, "application/pdf", author, f"{number}.7")
    more_of_it = provided(PDF, "application/pdf", author, f"{number}.7")[1:]
    assert outcome(sent(source, "transaction", *twice, *more_of_it), 400, "invalid")


def test_iti_65_refuses_another_submission_under_a_number_that_is_taken(hospital: Door) -> None:
    source = hospital.system("beicheng")
    doctor = source.made({"resourceType": "Practitioner", "name": [{"family": "吴"}]})
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"
    entries = provided(PDF, "application/pdf", author, number)
    answered(sent(source, "transaction", *entries))

    entries[1]["resource"]["masterIdentifier"]["value"] = f"urn:oid:{number}.2"

    refused = sent(source, "transaction", *entries)
    assert outcome(refused, 409, "duplicate")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource"]
    assert source.ids(f"DocumentReference?identifier=urn:oid:{number}.2") == []
