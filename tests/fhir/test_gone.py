"""Who exports what has changed since is told what was deleted too (Bulk Data Access 2.0)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from bundles import WEIGHT
from exporting import ASYNC, kicked_off, lines, manifest, named, work
from fhir_door import Asker, Door, is_fhir, outcome
from region import ADMINISTRATOR, ID_CARD

from exchange import bulk, consent, organizations, rejection, restoration
from exchange.policy import REPORTING, Purpose
from exchange_fhir import bulk_export


@pytest.fixture
def hospital(door: Door) -> Door:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2), Zhao at nanhu only (Patient/3)."""
    city = door.city
    city.send("beicheng", patient="W1", card=ID_CARD)
    city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("nanhu", patient="Z1", study="1.2.3", instance="1.4.3", PatientName="Zhao")
    city.identify()
    return door


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def weighed(asker: Asker, patient: int) -> str:
    made = asker.made(WEIGHT | {"subject": {"reference": f"Patient/{patient}"}})
    return f"Observation/{made['id']}"


def removed(asker: Asker, name: str) -> None:
    assert asker.send("DELETE", name).status_code == 204


def told(door: Door, asker: Asker, path: str) -> tuple[list[str], list[str]]:
    """What an export says is deleted, and what it holds."""
    address = kicked_off(asker.get(path, Prefer=ASYNC))
    work(door)
    made = manifest(asker, address)
    found: list[str] = []
    for bundle in lines(asker, made["deleted"]):
        is_fhir(bundle)
        assert bundle["type"] == "transaction"
        for entry in bundle["entry"]:
            assert entry["request"]["method"] == "DELETE"
            found.append(entry["request"]["url"])
    return found, named(lines(asker, made["output"]))


def test_an_export_since_a_moment_tells_what_was_deleted_since(hospital: Door) -> None:
    beicheng = hospital.system("beicheng")
    before, early, kept = (weighed(beicheng, 1) for _ in range(3))
    removed(beicheng, before)
    since = now()
    removed(beicheng, early)
    again = {**WEIGHT, "subject": {"reference": "Patient/1"}, "id": "again"}
    beicheng.send("PUT", "Observation/again", again)
    removed(beicheng, "Observation/again")
    beicheng.send("PUT", "Observation/again", again)
    place = beicheng.made({"resourceType": "Location", "name": "Ward"})
    removed(beicheng, f"Location/{place['id']}")

    deleted, output = told(hospital, beicheng, f"$export?_since={since}")
    assert deleted == [early, f"Location/{place['id']}"]
    assert "Observation/again" in output
    assert not set(deleted) & set(output)
    assert told(hospital, beicheng, f"Patient/$export?_since={since}")[0] == [early]
    assert told(hospital, beicheng, f"$export?_since={since}&_type=Location,Patient")[0] == [
        f"Location/{place['id']}"
    ]
    narrowed = f"$export?_since={since}&_type=Observation&_typeFilter=Observation?status=final"
    assert told(hospital, beicheng, f"{narrowed}&_elements=status") == (
        [early], ["Observation/again"],
    )  # fmt: skip
    assert told(hospital, beicheng, f"$export?_since={since}&_until={since}")[0] == []
    assert kept not in output
    address = kicked_off(beicheng.get("$export", Prefer=ASYNC))
    work(hospital)
    assert "deleted" not in manifest(beicheng, address)


def test_studies_and_patients_that_were_taken_back_are_told_of(hospital: Door) -> None:
    nanhu = hospital.system("nanhu")
    number = {"system": "urn:oid:2.25.102", "value": "New"}
    made = nanhu.send("POST", "Patient", {"resourceType": "Patient", "identifier": [number]})
    patient = f"Patient/{made.json()['id']}"
    since = now()
    removed(nanhu, patient)
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "nanhu", "113001", study="1.2.3")

    deleted, output = told(hospital, nanhu, f"$export?_since={since}")
    assert deleted == [patient, "ImagingStudy/1.2.3"]
    assert not set(deleted) & set(output)
    assert told(hospital, hospital.system("beicheng"), f"$export?_since={since}")[0] == []
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "nanhu", study="1.2.3")
    assert told(hospital, nanhu, f"$export?_since={since}")[0] == [patient]


def test_of_a_group_is_told_what_was_deleted_of_whom_the_asker_sees(hospital: Door) -> None:
    beicheng, nanhu = hospital.system("beicheng"), hospital.system("nanhu")
    group: dict[str, Any] = {"resourceType": "Group", "type": "person", "actual": True}
    group["member"] = [{"entity": {"reference": "Patient/1"}}]
    path = f"Group/{beicheng.made(group)['id']}/$export"
    own, others, strangers = weighed(beicheng, 1), weighed(nanhu, 2), weighed(nanhu, 3)
    since = now()
    removed(beicheng, own)
    removed(nanhu, others)
    removed(nanhu, strangers)

    doctor = hospital.clinician("beicheng")
    assert told(hospital, doctor, f"{path}?_since={since}")[0] == [own, others]
    address = kicked_off(doctor.get(f"{path}?_since={since}", Prefer=ASYNC))
    work(hospital)
    (file,) = manifest(doctor, address)["deleted"]
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")
    assert "changed since" in outcome(doctor.get(file["url"]), 410, "deleted")


def test_what_is_gone_is_told_page_by_page_and_ends_with_the_export(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    beicheng = hospital.system("beicheng")
    names = [weighed(beicheng, 1) for _ in range(5)]
    since = now()
    for one in names:
        removed(beicheng, one)
    monkeypatch.setattr(bulk_export, "GONE", 2)
    monkeypatch.setattr(bulk_export, "SEGMENT", 1)
    address = kicked_off(beicheng.get(f"$export?_since={since}", Prefer=ASYNC))
    work(hospital)
    bundles = lines(beicheng, manifest(beicheng, address)["deleted"])
    assert [one["request"]["url"] for each in bundles for one in each["entry"]] == names

    assert beicheng.send("DELETE", address).status_code == 202
    work(hospital)
    assert list(hospital.city.exchange.objects.list(bulk.PREFIX)) == []


def test_public_health_is_told_of_what_others_deleted_only_by_the_agreement(
    hospital: Door,
) -> None:
    nanhu = hospital.system("nanhu")
    name = weighed(nanhu, 3)
    since = now()
    removed(nanhu, name)
    asker = replace(hospital.city.system("beicheng"), purpose=Purpose.PUBLIC_HEALTH)
    figures = hospital.asker(asker)
    assert told(hospital, figures, f"$export?_since={since}")[0] == []
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code in ("beicheng", "nanhu"):
            organizations.join_agreement(access, code, REPORTING)
    assert told(hospital, figures, f"$export?_since={since}")[0] == [name]
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "Z1")
    assert told(hospital, figures, f"$export?_since={since}")[0] == []
