"""A document without a security context is seen with what attaches it (FHIR R4 2.22, MHD)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bundles import answered, entry, sent
from exporting import exported, of
from fhir_door import BASE, SHANGHAI, Asker, Door, entries, name
from region import ADMINISTRATOR, ID_CARD, WORKER
from sqlalchemy import text

from exchange import consent, reindex
from exchange_fhir import writing

CONTENT = b"%PDF-1.7 " + b"0123456789" * 20_000
FHIR = "application/fhir+json"
PLACE = writing.Place(base=BASE, timezone=SHANGHAI)


def binary(content: bytes = CONTENT, **more: Any) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return {"resourceType": "Binary", "contentType": "application/pdf", "data": data} | more


def reference(url: str, patient: str = "Patient/1", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": patient},
        "content": [{"attachment": {"contentType": "application/pdf", "url": url}}],
    } | more


@pytest.fixture
def region(door: Door) -> Door:
    """Wang is Patient/1 at beicheng and Patient/2 at nanhu, Li is Patient/3 at beicheng."""
    door.city.send("beicheng", patient="W1", card=ID_CARD)
    door.city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    door.city.send("beicheng", patient="L1", study="1.2.3", instance="1.4.3", PatientName="Li^Na")
    door.city.identify()
    return door


def put(asker: Asker, path: str, resource: dict[str, Any]) -> None:
    response = asker.send("PUT", path, resource | {"id": path.partition("/")[2]})
    assert response.status_code in {200, 201}, response.text


def is_seen(asker: Asker, path: str) -> bool:
    """By all ways in which a document is read; by none of them, or by all."""
    part = asker.get(path, Accept="application/pdf", Range="bytes=0-3")
    ways = {
        asker.get(path, Accept="application/pdf").content == CONTENT,
        asker.get(path, Accept=FHIR).status_code == 200,
        part.status_code in {200, 206} and part.content[:4] == b"%PDF",
        path in asker.ids(f"Binary?_id={path.partition('/')[2]}"),
    }
    assert len(ways) == 1
    return ways.pop()


@pytest.mark.parametrize("first", ["DocumentReference", "Binary"])
def test_a_document_that_comes_with_its_reference_is_fetched_by_who_treats_the_patient(
    region: Door, first: str
) -> None:
    uuid = "urn:uuid:4d1c3c2e-0b0e-4f0e-9a38-5b6d1f5c0a11"
    pair = [
        entry("POST", "DocumentReference", reference(uuid)),
        entry("POST", "Binary", binary(), uuid),
    ]
    response = sent(
        region.system("beicheng"), "transaction", *(pair if first != "Binary" else pair[::-1])
    )
    places = ["/".join(one["response"]["location"].split("/")[-4:-2]) for one in answered(response)]
    (path,) = [one for one in places if one.startswith("Binary/")]
    doctor = region.clinician("nanhu")

    assert is_seen(doctor, path)
    everything = doctor.bundle("Patient/2/$everything")
    assert path in [name(one) for one in entries(everything)]
    assert path in doctor.ids("Patient/1/$everything?_type=Binary")
    told = region.administrator().bundle(f"AuditEvent?entity={path}&agent-name=dr.nanhu")
    assert told["entry"]

    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")
    assert not is_seen(doctor, path)
    assert is_seen(region.clinician("beicheng"), path)


@pytest.mark.parametrize("address", ["Binary/b1", f"{BASE}/Binary/b1", "Binary/b1/_history/1"])
def test_what_was_sent_before_its_reference_is_seen_with_it_and_no_longer(
    region: Door, address: str
) -> None:
    beicheng, doctor = region.system("beicheng"), region.clinician("nanhu")
    put(beicheng, "Binary/b1", binary())
    assert not is_seen(doctor, "Binary/b1")

    put(beicheng, "DocumentReference/d1", reference(address))
    assert is_seen(doctor, "Binary/b1")
    assert doctor.get("Binary/b1/_history/1", Accept=FHIR).status_code == 200
    put(beicheng, "Binary/b1", binary(language="zh"))
    assert is_seen(doctor, "Binary/b1")

    put(beicheng, "DocumentReference/d1", reference("Binary/other"))
    assert not is_seen(doctor, "Binary/b1")
    put(beicheng, "DocumentReference/d1", reference(address))
    report = {
        "resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"},
        "subject": {"reference": "Patient/1"}, "presentedForm": [{"url": address}],
    }  # fmt: skip
    put(beicheng, "DiagnosticReport/r1", report)
    assert beicheng.send("DELETE", "DocumentReference/d1").status_code in {200, 204}
    assert is_seen(doctor, "Binary/b1")
    assert beicheng.send("DELETE", "DiagnosticReport/r1").status_code in {200, 204}
    assert not is_seen(doctor, "Binary/b1")
    assert is_seen(region.clinician("beicheng"), "Binary/b1")


def test_another_hospitals_reference_shows_nobody_a_document_that_it_guessed(region: Door) -> None:
    beicheng, nanhu = region.system("beicheng"), region.system("nanhu")
    put(beicheng, "Binary/b1", binary())

    put(nanhu, "DocumentReference/d1", reference("Binary/b1", "Patient/2"))

    for asker in (nanhu, region.clinician("nanhu"), region.clinician("dongshan")):
        assert not is_seen(asker, "Binary/b1")
    assert "Binary/b1" not in nanhu.ids("Patient/2/$everything")
    put(beicheng, "Binary/b1", binary())
    assert not is_seen(nanhu, "Binary/b1")


def test_documents_are_written_out_with_what_attaches_them(region: Door) -> None:
    """In the exports of a hospital, of its patients, and of a group that another one treats."""
    beicheng, nanhu = region.system("beicheng"), region.system("nanhu")
    put(beicheng, "Binary/b1", binary())
    put(beicheng, "DocumentReference/d1", reference("Binary/b1"))
    put(beicheng, "Binary/b2", binary())
    member = [{"entity": {"reference": "Patient/2"}}]
    group = {"resourceType": "Group", "type": "person", "actual": True, "member": member}
    of_group = f"Group/{nanhu.made(group)['id']}/$export"

    for asker, path in (
        (region.clinician("nanhu"), of_group),
        (beicheng, "Patient/$export"),
        (beicheng, "Patient/$export?_type=Binary"),
    ):
        assert of("Binary", exported(region, asker, path)) == ["Binary/b1"]
    assert of("Binary", exported(region, beicheng, "$export")) == ["Binary/b1", "Binary/b2"]
    assert of("Binary", exported(region, nanhu, "$export")) == []


def test_a_security_context_decides_alone(region: Door) -> None:
    """Also one that is no patient: then the document is its hospital's own."""
    beicheng, doctor = region.system("beicheng"), region.clinician("nanhu")
    put(beicheng, "DocumentReference/d1", reference("Binary/b1"))
    for context, seen in (("Patient/1", True), ("DocumentReference/d1", False)):
        put(beicheng, "Binary/b1", binary(securityContext={"reference": context}))
        assert is_seen(doctor, "Binary/b1") is seen
        put(beicheng, "DocumentReference/d1", reference("Binary/b1", "Patient/3"))
        put(beicheng, "DocumentReference/d1", reference("Binary/b1"))
        assert is_seen(doctor, "Binary/b1") is seen
    put(beicheng, "Binary/b1", binary())
    assert is_seen(doctor, "Binary/b1")


def test_a_document_for_several_patients_is_seen_by_who_may_see_all_of_them(region: Door) -> None:
    beicheng, doctor = region.system("beicheng"), region.clinician("nanhu")
    put(beicheng, "Binary/b1", binary())
    put(beicheng, "DocumentReference/d1", reference("Binary/b1"))
    put(beicheng, "DocumentReference/d3", reference("Binary/b1", "Patient/3"))
    assert is_seen(doctor, "Binary/b1")

    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "L1")

    assert not is_seen(doctor, "Binary/b1")
    assert beicheng.send("DELETE", "DocumentReference/d3").status_code in {200, 204}
    assert is_seen(doctor, "Binary/b1")


def test_documents_of_an_earlier_release_are_seen_once_resources_are_indexed_anew(
    region: Door,
) -> None:
    beicheng, doctor = region.system("beicheng"), region.clinician("nanhu")
    put(beicheng, "Binary/b1", binary())
    put(beicheng, "DocumentReference/d1", reference("Binary/b1"))
    put(beicheng, "Binary/b2", binary(securityContext={"reference": "Group/1"}))
    put(beicheng, "DocumentReference/d2", reference("Binary/b2"))
    with region.city.exchange.database.writing() as session:
        session.execute(text("DELETE FROM search_reference WHERE parameter LIKE 'Binary:%'"))
        session.execute(text("UPDATE resource SET patient_id = NULL WHERE kind = 'Binary'"))
    assert not is_seen(doctor, "Binary/b1")

    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        reindex.ask(access)
    until = datetime.now(UTC) + timedelta(days=1)
    with region.city.exchange.on_behalf_of(WORKER) as access:
        assert reindex.walk(access, lambda content: writing.said(content, PLACE), until=until)

    assert is_seen(doctor, "Binary/b1")
    assert not is_seen(doctor, "Binary/b2")
