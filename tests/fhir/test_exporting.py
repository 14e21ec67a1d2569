"""Who may have many records written out at once, of whom, and for how long the files are theirs."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from bundles import WEIGHT
from exporting import ASYNC, exported, kicked_off, lines, manifest, named, of, work
from fhir_door import Asker, Door, is_fhir, outcome
from region import ADMINISTRATOR, ID_CARD, WORKER
from sqlalchemy import update

from exchange import attachments, bulk, consent, organizations, users
from exchange.policy import REPORTING, Purpose, Role
from exchange_storage.records import Organization, Patient, User


@pytest.fixture
def hospital(door: Door) -> Door:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2), Zhao at nanhu only (Patient/3)."""
    city = door.city
    city.send("beicheng", patient="W1", card=ID_CARD)
    city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("nanhu", patient="Z1", study="1.2.3", instance="1.4.3", PatientName="Zhao")
    city.identify()
    return door


def group(asker: Asker, *members: int) -> str:
    told: dict[str, Any] = {"resourceType": "Group", "type": "person", "actual": True}
    told["member"] = [{"entity": {"reference": f"Patient/{one}"}} for one in members]
    return f"Group/{asker.made(told)['id']}/$export"


def test_a_clinician_has_no_hospital_written_out_and_a_system_only_its_own(
    hospital: Door,
) -> None:
    for path in ("$export", "Patient/$export"):
        refused = hospital.clinician("beicheng").get(path, Prefer=ASYNC)
        assert "may not export" in outcome(refused, 403, "forbidden")
        assert of("Patient", exported(hospital, hospital.system("beicheng"), path)) == ["Patient/1"]


def test_others_records_are_exported_for_public_health_by_an_agreement_of_both(
    hospital: Door,
) -> None:
    figures = hospital.asker(
        replace(hospital.city.system("beicheng"), purpose=Purpose.PUBLIC_HEALTH)
    )
    assert of("Patient", exported(hospital, figures, "$export")) == ["Patient/1"]
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code in ("beicheng", "nanhu"):
            organizations.join_agreement(access, code, REPORTING)
        consent.opt_out(access, "nanhu", "Z1")
    address = kicked_off(figures.get("$export", Prefer=ASYNC))
    work(hospital)
    files = manifest(figures, address)["output"]
    assert of("Patient", named(lines(figures, files))) == ["Patient/1", "Patient/2"]

    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")
    for path in (address, files[0]["url"]):
        assert "changed since" in outcome(figures.get(path), 410, "deleted")


SHARING: dict[str, Any] = {
    "resourceType": "Consent",
    "status": "active",
    "scope": {"coding": [{"code": "patient-privacy"}]},
    "category": [{"text": "sharing"}],
    "patient": {"reference": "Patient/3"},
    "policyRule": {"text": "sharing between hospitals"},
}
DENIED: dict[str, Any] = SHARING | {"provision": {"type": "deny"}}
PERMITTED: dict[str, Any] = SHARING | {
    "provision": {"type": "permit", "period": {"end": "2999-12-31"}}
}


def for_public_health(hospital: Door) -> tuple[Asker, str]:
    """Who asks for the patients of both hospitals, and where their export is followed."""
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code in ("beicheng", "nanhu"):
            organizations.join_agreement(access, code, REPORTING)
    figures = hospital.asker(
        replace(hospital.city.system("beicheng"), purpose=Purpose.PUBLIC_HEALTH)
    )
    address = kicked_off(figures.get("Patient/$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    return figures, address


def test_the_files_for_public_health_are_void_once_a_permit_is_over(hospital: Door) -> None:
    nanhu = hospital.system("nanhu")
    nanhu.made(DENIED)
    permit = nanhu.made(PERMITTED)
    figures, address = for_public_health(hospital)
    assert "Patient/3" in named(lines(figures, manifest(figures, address)["output"]))

    over = {"provision": {"type": "permit", "period": {"end": "2020-01-01"}}}
    nanhu.send("PUT", f"Consent/{permit['id']}", permit | over)

    assert "changed since" in outcome(figures.get(address), 410, "deleted")


def test_files_without_who_had_denied_before_are_not_void(hospital: Door) -> None:
    nanhu = hospital.system("nanhu")
    nanhu.made(PERMITTED)
    nanhu.made(DENIED)

    figures, address = for_public_health(hospital)

    assert "Patient/3" not in named(lines(figures, manifest(figures, address)["output"]))


def test_a_clinician_exports_of_a_group_whom_the_hospital_treats(hospital: Door) -> None:
    nanhu = hospital.system("nanhu")
    system = hospital.system("beicheng")
    doctor = hospital.clinician("beicheng")
    whole = group(nanhu, 2, 3)  # which beicheng may see, since nanhu shares

    assert of("Patient", exported(hospital, doctor, whole)) == ["Patient/1", "Patient/2"]
    strangers = group(nanhu, 3)
    refused = doctor.get(strangers, Prefer=ASYNC)
    assert "treats none" in outcome(refused, 403, "forbidden")
    assert of("Patient", exported(hospital, system, group(system, 1))) == ["Patient/1", "Patient/2"]


def test_a_filter_finds_what_is_about_any_member_of_the_group(hospital: Door) -> None:
    nanhu = hospital.system("nanhu")
    both = nanhu.made(
        {
            "resourceType": "Appointment",
            "status": "booked",
            "start": "2026-11-27T09:00:00+08:00",
            "end": "2026-11-27T09:20:00+08:00",
            "participant": [
                {"actor": {"reference": f"Patient/{row}"}, "status": "accepted"} for row in (3, 2)
            ],
        }
    )
    path = f"{group(nanhu, 2)}?_type=Appointment"
    for query in (path, f"{path}&_typeFilter=Appointment?status=booked"):
        names = exported(hospital, hospital.clinician("nanhu"), query)
        assert names == [f"Appointment/{both['id']}"], query


def test_the_files_of_an_export_are_void_once_somebody_in_it_opts_out(hospital: Door) -> None:
    hospital.system("nanhu").made(WEIGHT | {"subject": {"reference": "Patient/2"}})
    doctor = hospital.clinician("beicheng")
    address = kicked_off(doctor.get(group(hospital.system("beicheng"), 1), Prefer=ASYNC))
    work(hospital)
    files = manifest(doctor, address)["output"]
    assert lines(doctor, files)

    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")

    for path in (address, files[0]["url"]):
        assert "changed since" in outcome(doctor.get(path), 410, "deleted")
    with hospital.city.exchange.on_behalf_of(WORKER) as access:
        assert bulk.tidy(access) == 1
    assert list(hospital.city.exchange.objects.list(bulk.PREFIX)) == []
    outcome(doctor.get(address), 404, "not-found")


def test_the_files_of_an_export_are_void_once_a_record_turns_out_to_be_of_who_opted_out(
    hospital: Door,
) -> None:
    city = hospital.city
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code in ("beicheng", "nanhu"):
            organizations.join_agreement(access, code, REPORTING)
        consent.opt_out(access, "beicheng", "W1")  # and so for who is the same person
    figures = hospital.asker(replace(city.system("beicheng"), purpose=Purpose.PUBLIC_HEALTH))
    address = kicked_off(figures.get("Patient/$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    files = manifest(figures, address)["output"]
    assert of("Patient", named(lines(figures, files))) == ["Patient/1", "Patient/3"]

    with city.exchange.database.writing() as session:
        session.execute(update(Patient).where(Patient.id == 3).values(sex="F"))
    city.send("nanhu", patient="Z1", study="1.2.4", instance="1.4.4", card=ID_CARD)
    city.identify()

    for path in (address, files[0]["url"]):
        assert "changed since" in outcome(figures.get(path), 410, "deleted")


def test_the_files_of_an_export_are_void_once_a_hospital_leaves_the_agreement(
    hospital: Door,
) -> None:
    doctor = hospital.clinician("beicheng")
    address = kicked_off(doctor.get(group(hospital.system("beicheng"), 1), Prefer=ASYNC))
    work(hospital)
    assert manifest(doctor, address)["output"]
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "nanhu")
    outcome(doctor.get(address), 410, "deleted")


@pytest.mark.parametrize(
    "change", [{"active": False}, {"role": Role.CLINICIAN}, {"organization_id": 2}]
)
def test_who_is_no_longer_who_they_were_has_nothing_exported_and_keeps_no_files(
    hospital: Door, change: dict[str, Any]
) -> None:
    requester = replace(hospital.city.system("beicheng"), name="ris")
    with hospital.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.add(
            access,
            name="ris",
            display_name="",
            role=Role.SYSTEM,
            organization="beicheng",
            password="long enough",
        )
    asker = hospital.asker(requester)
    done = kicked_off(asker.get("$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    assert manifest(asker, done)["output"]
    going_on = kicked_off(asker.get("$export?_type=Patient", Prefer=ASYNC))
    with hospital.city.exchange.database.writing() as session:
        session.execute(update(User).values(change))
    work(hospital)
    outcome(asker.get(going_on), 404, "not-found")
    with hospital.city.exchange.on_behalf_of(WORKER) as access:
        bulk.tidy(access)
    assert list(hospital.city.exchange.objects.list(bulk.PREFIX)) == []


def test_an_export_of_a_hospital_is_not_another_hospitals(hospital: Door) -> None:
    asker = hospital.system("beicheng")
    address = kicked_off(asker.get("$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    with hospital.city.exchange.database.reading() as session:
        other = session.query(Organization.id).filter_by(code="nanhu").scalar()
    moved = replace(hospital.city.system("beicheng"), organization=other, door="fhir")
    outcome(hospital.asker(moved).get(address), 404, "not-found")


@pytest.mark.parametrize("filtered", ["", "&_typeFilter=Binary?_id=small,lost,whole"])
def test_what_can_no_longer_be_read_is_told_in_the_errors_of_an_export(
    door: Door, filtered: str
) -> None:
    door.city.send("beicheng", patient="W1")
    beicheng, objects = door.system("beicheng"), door.city.exchange.objects
    for name, size in (("small", 100), ("lost", 200_000), ("whole", 200_000)):
        content = {
            "resourceType": "Binary",
            "id": name,
            "contentType": "application/pdf",
            "securityContext": {"reference": "Patient/1"},
            "data": base64.b64encode(name.encode() * size).decode(),
        }
        assert beicheng.send("PUT", f"Binary/{name}", content).status_code == 201
        if name == "lost":
            (stored,) = objects.list(f"{attachments.PREFIX}/")
            objects.delete(stored.key)
    beicheng.made(WEIGHT)
    address = kicked_off(beicheng.get(f"$export?_type=Binary,Observation{filtered}", Prefer=ASYNC))
    work(door)

    told = manifest(beicheng, address)
    (file,) = told["error"]
    assert (file["type"], file["count"]) == ("OperationOutcome", 1)
    (error,) = lines(beicheng, [file])
    is_fhir(error)
    (issue,) = error["issue"]
    assert (issue["severity"], issue["code"]) == ("error", "exception")
    assert "Binary/lost: its content is missing" in issue["diagnostics"]
    names = named(lines(beicheng, told["output"]))
    assert of("Binary", names) == ["Binary/small", "Binary/whole"]
    assert len(of("Observation", names)) == 1
    assert beicheng.send("DELETE", address).status_code == 202
    work(door)
    assert list(objects.list(bulk.PREFIX)) == []
