"""AuditEvent: administrators read by FHIR who did what, and are recorded in doing so."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door, entries, outcome
from region import ADMINISTRATOR

from exchange import consent, retrieval
from exchange.audit import Outcome
from exchange.policy import Action, Person
from exchange.retrieval import Tally
from exchange_fhir import trail_search
from exchange_fhir.resources import audit_event


def of_hospital(door: Door, code: str) -> Asker:
    """The administrator of one hospital."""
    return door.asker(
        replace(ADMINISTRATOR, name=f"admin.{code}", organization=door.city.ids[code])
    )


def found(asker: Asker, query: str) -> list[dict[str, Any]]:
    return [one["resource"] for one in entries(asker.bundle(f"AuditEvent?{query}"))]


def names(events: list[dict[str, Any]]) -> set[str]:
    return {one["agent"][0]["name"] for one in events}


@pytest.fixture(scope="module")
def looked_at(hospital: Door) -> Door:
    """A clinician of nanhu searched for Wang and read beicheng's record of her."""
    clinician = hospital.clinician("nanhu")
    assert clinician.ids("Patient?name=王小东")
    clinician.read("Patient/1")
    clinician.read("ImagingStudy/1.2.1")
    hospital.system("beicheng").made(WEIGHT)
    hospital.clinician("dongshan").refused("AuditEvent", 403, "forbidden")
    return hospital


def test_every_act_and_every_outcome_has_its_codes() -> None:
    assert set(audit_event.ACTS) == set(Action)
    assert set(audit_event.OUTCOMES) == set(Outcome)


def test_an_administrator_finds_who_looked_at_a_patient(looked_at: Door) -> None:
    admin = looked_at.administrator()

    read = found(admin, "patient=Patient/1&action=R&agent-name=dr.nanhu&type=rest")

    assert {one["subtype"][0]["code"] for one in read} == {"read"}
    event = next(one for one in read if len(one["entity"]) == 1)
    assert event["entity"][0]["what"]["reference"] == "Patient/1"
    assert event["agent"][1]["who"]["reference"] == "Organization/nanhu"
    assert event["outcome"] == "0"
    assert event["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    assert admin.read(f"AuditEvent/{event['id']}") == event
    number = "urn:oid:2.25.101|W1"
    by_number = found(admin, f"patient.identifier={number}&action=R&agent-name=dr.nanhu")
    assert {one["id"] for one in read} <= {one["id"] for one in by_number}
    assert names(found(admin, "entity=ImagingStudy/1.2.1&action=R")) == {"dr.nanhu"}
    for nobody in ("urn:oid:2.25.101|nobody", "urn:oid:2.25.9|W1", "nobody", ","):
        assert found(admin, f"patient.identifier={nobody}") == []


def test_who_found_a_patient_among_others_is_found_by_that_patient(looked_at: Door) -> None:
    clinician = looked_at.clinician("nanhu")
    people = [one.removeprefix("Patient/") for one in clinician.ids("Patient")]
    assert len(people) > 1

    for person in people:
        (newest, *_) = found(looked_at.administrator(), f"patient=Patient/{person}&altid=dr.nanhu")
        of = [one["what"]["reference"] for one in newest["entity"] if "what" in one]
        assert {f"Patient/{one}" for one in people} <= {*of}


def test_a_study_that_was_withheld_leads_to_who_asked_for_it(door: Door) -> None:
    for number in (1, 2):
        door.city.send("beicheng", patient="W1", study=f"1.2.{number}", instance=f"1.4.{number}")
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "W1")
    door.system("beicheng").made(WEIGHT)
    clinician = door.clinician("nanhu")
    assert not clinician.ids("ImagingStudy?modality=CT")
    assert not clinician.ids("Observation?code=29463-7")

    for admin in (door.administrator(), of_hospital(door, "beicheng")):
        for study in ("1.2.1", "1.2.2"):
            (event,) = found(admin, f"entity=ImagingStudy/{study}&outcome=4")
            assert names([event]) == {"dr.nanhu"}
            assert event["outcomeDesc"] == "the patient has not consented to sharing"
            assert event in found(admin, "patient=Patient/1&outcome=4")
        assert len(found(admin, "patient=Patient/1&outcome=4")) == 2  # and the observation
    assert found(of_hospital(door, "nanhu"), "entity=ImagingStudy/1.2.1&outcome=4") == []


def test_who_read_what_is_about_several_is_found_by_each(door: Door) -> None:
    for number in (1, 2):
        door.city.send(
            "beicheng", patient=f"W{number}", study=f"1.2.{number}", instance=f"1.4.{number}"
        )
    made = door.system("beicheng").made(
        {
            "resourceType": "Provenance",
            "recorded": "2026-11-28T08:00:00Z",
            "target": [{"reference": "Patient/1"}, {"reference": "Patient/2"}],
            "agent": [{"who": {"display": "x"}, "type": {"coding": [{"code": "author"}]}}],
        }
    )
    door.clinician("dongshan").read(f"Provenance/{made['id']}")

    for patient in (1, 2):
        asked = f"patient=Patient/{patient}&entity=Provenance/{made['id']}&action=R"
        assert names(found(door.administrator(), asked)) == {"dr.dongshan"}


def test_a_search_is_told_with_its_question_and_without_its_answer(looked_at: Door) -> None:
    events = found(looked_at.administrator(), "subtype=search-type&agent-name=dr.nanhu")

    queries = [one["query"] for event in events for one in event["entity"] if "query" in one]
    told = [b64decode(one).decode() for one in queries]
    assert any(one.startswith("Patient?name=") for one in told)


def test_each_parameter_of_the_standard_narrows_the_trail(looked_at: Door) -> None:
    admin = looked_at.administrator()
    everything = {one["id"] for one in found(admin, "_count=500&date=gt2000-01-01")}

    for query, expected in {
        "altid=dr.nanhu": {"dr.nanhu"},
        "agent:identifier=dr.nanhu": {"dr.nanhu"},
        "agent-role=clinician&action=R": {"dr.nanhu"},
        "agent=Organization/nanhu&agent-role=clinician": {"dr.nanhu"},
        "outcome=4": {"dr.dongshan"},
        "site=dimse&type=http://dicom.nema.org/resources/ontology/DCM|110104": {
            "BEICHENG",
            "NANHU",
        },
        "entity-type=1&entity-role=1&action=C&type=rest": {"BEICHENG"},
        "subtype=create": {"BEICHENG"},
        "entity:Observation=none": set(),
        "address=10.": set(),
        "policy=http://example.org/policy": set(),
        "source:identifier=imaging-exchange&altid=dr.nanhu": {"dr.nanhu"},
        "date=lt2000-01-01": set(),
        "_lastUpdated=gt2999": set(),
        "_id=1": {"test:admin"},
    }.items():
        events = found(admin, f"_count=500&{query}")
        assert names(events) == expected, query
        assert {one["id"] for one in events} <= everything, query
    assert admin.bundle("AuditEvent?altid=dr.nanhu&_total=accurate")["total"] >= 3
    assert admin.bundle("AuditEvent?altid=dr.nanhu&_summary=count")["total"] >= 3


def test_the_trail_is_paged_in_its_order(looked_at: Door) -> None:
    admin = looked_at.administrator()

    newest = [one["id"] for page in admin.pages("AuditEvent?altid=dr.nanhu&_count=2")
              for one in (entry["resource"] for entry in entries(page))]  # fmt: skip
    oldest = [one["id"] for one in found(admin, "altid=dr.nanhu&_sort=date&_count=500")]

    assert newest == sorted(newest, key=int, reverse=True)
    assert oldest[: len(newest)] == newest[::-1]
    admin.refused("AuditEvent?_sort=agent-name", 400, "invalid")


def test_a_page_that_has_looked_long_enough_ends_and_leads_on(
    looked_at: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = looked_at.administrator()
    whole = {one["id"] for one in found(admin, "agent-role=clinician&_count=500&date=lt2999")}
    monkeypatch.setattr(trail_search, "LOOKED_AT", 5)
    monkeypatch.setattr(trail_search, "COUNTED", 5)

    pages = list(admin.pages("AuditEvent?agent-role=clinician&_sort=date"))

    told = [entry["resource"]["id"] for page in pages for entry in entries(page)]
    assert whole <= set(told)
    assert len(told) == len(set(told))
    assert len(pages) > 3
    admin.refused("AuditEvent?agent-role=clinician&_total=accurate", 400, "too-costly")


def test_to_read_the_trail_is_recorded_in_it(looked_at: Door) -> None:
    admin = looked_at.asker(replace(ADMINISTRATOR, name="curious", door="fhir"))
    found(admin, "patient=Patient/1")

    (event,) = found(looked_at.administrator(), "altid=curious&type=110101")

    asked = next(one["query"] for one in event["entity"] if "query" in one)
    assert b64decode(asked).decode().startswith("AuditEvent?patient=Patient%2F1")


def test_a_hospitals_administrator_reads_of_its_people_and_its_patients(looked_at: Door) -> None:
    """Refused beside permitted: what is others' is as if it were not there."""
    beicheng, dongshan = of_hospital(looked_at, "beicheng"), of_hospital(looked_at, "dongshan")

    of_nanhu = found(beicheng, "agent=Organization/nanhu&_count=500")

    assert of_nanhu
    whose = {one["what"]["reference"] for event in of_nanhu for one in event.get("entity", ())
             if one.get("role", {}).get("code") == "1"}  # fmt: skip
    assert whose == {"Patient/1"}
    assert found(dongshan, "agent=Organization/nanhu") == []
    assert found(dongshan, "patient.identifier=urn:oid:2.25.101|W1") == []
    assert found(dongshan, "patient=Patient/1") == []
    assert names(found(dongshan, "outcome=4")) == {"dr.dongshan"}
    of_beicheng = of_nanhu[0]["id"]
    assert beicheng.read(f"AuditEvent/{of_beicheng}")["id"] == of_beicheng
    dongshan.refused(f"AuditEvent/{of_beicheng}", 404, "not-found")


@pytest.mark.parametrize("path", ["AuditEvent", "AuditEvent/1", "Patient/1/AuditEvent"])
def test_who_is_no_administrator_reads_nothing_of_the_trail(looked_at: Door, path: str) -> None:
    for asker in (looked_at.clinician("beicheng"), looked_at.system("beicheng")):
        asker.refused(path, 403, "forbidden")


def test_a_patients_compartment_holds_what_was_done_with_the_record(looked_at: Door) -> None:
    admin = looked_at.administrator()

    assert "dr.nanhu" in names(found(admin, "patient=Patient/1&_count=500"))
    in_compartment = entries(admin.bundle("Patient/1/AuditEvent?_count=500"))
    assert "dr.nanhu" in names([one["resource"] for one in in_compartment])


def test_what_comes_along_is_of_the_directory_only(looked_at: Door) -> None:
    admin = looked_at.administrator()

    bundle = admin.bundle(
        "AuditEvent?altid=dr.nanhu&action=R&_include=AuditEvent:agent&_include=AuditEvent:patient"
    )

    along = [one["resource"] for one in entries(bundle, "include")]
    assert [one["id"] for one in along] == ["nanhu"]


def along(asker: Asker, query: str) -> list[dict[str, Any]]:
    return [one["resource"] for one in entries(asker.bundle(query), "include")]


def test_what_happened_comes_along_with_the_directory_for_who_reads_the_trail(
    looked_at: Door,
) -> None:
    made = looked_at.system("beicheng").made({"resourceType": "Practitioner", "active": True})
    place = f"Practitioner/{made['id']}"
    looked_at.clinician("nanhu").read(place)
    admin, query = looked_at.administrator(), f"Practitioner?_id={made['id']}"

    events = along(admin, f"{query}&_revinclude=AuditEvent:entity")
    assert {"dr.nanhu", "BEICHENG"} <= names(events)
    assert all(place in {one["what"]["reference"] for one in event["entity"]} for event in events)
    assert admin.ids(f"{query}&_revinclude=AuditEvent:entity&_total=accurate") == [place]

    of_nanhu = along(admin, "Organization?_id=nanhu&_revinclude=AuditEvent:agent")
    assert "dr.nanhu" in names(of_nanhu)
    for event in of_nanhu:
        told = {one.get("who", {}).get("reference") for one in event["agent"]}
        assert "Organization/nanhu" in told
    back = along(
        admin,
        f"{query}&_revinclude=AuditEvent:entity&_include:iterate=AuditEvent:agent"
        "&_include:iterate=AuditEvent:patient",
    )
    kinds = {one["resourceType"] for one in back}
    assert kinds == {"AuditEvent", "Organization"}

    last = found(admin, "agent-name=dr.nanhu&_count=1")[0]["id"]
    admin.read(f"AuditEvent/{last}")
    (event, *_) = along(admin, f"AuditEvent?_id={last}&_revinclude=AuditEvent:entity")
    assert event["agent"][0]["role"][0]["coding"][0]["code"] == "administrator"


def test_nothing_of_the_trail_comes_along_for_who_may_not_read_it(looked_at: Door) -> None:
    made = looked_at.system("beicheng").made({"resourceType": "Practitioner", "active": True})
    query = f"Practitioner?_id={made['id']}&_revinclude=AuditEvent:entity"
    for asker in (looked_at.clinician("beicheng"), looked_at.system("beicheng")):
        assert along(asker, query) == []
        assert along(asker, "Organization?_revinclude=AuditEvent:*") == []
        asker.refused(
            "Patient?_revinclude=AuditEvent:patient", 400, "invalid", Prefer="handling=strict"
        )
    of_other = of_hospital(looked_at, "dongshan")
    assert "BEICHENG" not in names(along(of_other, query))
    assert along(of_other, "Organization?_id=nanhu&_revinclude=AuditEvent:agent") == []


def test_a_look_into_the_trail_beside_a_search_is_in_the_trail(looked_at: Door) -> None:
    admin = looked_at.administrator()
    along(admin, "Organization?_id=beicheng&_revinclude=AuditEvent:agent")

    event = found(admin, "agent-role=administrator&type=110101")[0]
    asked = b64decode(next(one["query"] for one in event["entity"] if "query" in one)).decode()
    assert asked == "_revinclude=AuditEvent.agent of Organization/beicheng"


def test_that_more_of_the_trail_would_come_along_is_told(
    looked_at: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_search, "LOOKED_AT", 1)
    query = "Organization?_id=nanhu&_revinclude=AuditEvent:agent"
    bundle = looked_at.administrator().bundle(query)
    (told,) = entries(bundle, "outcome")
    assert "there are more" in told["resource"]["issue"][0]["diagnostics"]
    assert len(entries(bundle, "include")) == 1


@pytest.mark.parametrize(("verified", "told"), [(True, "verified"), (False, "as the system says")])
def test_who_used_the_system_that_asked_is_told_beside_it(
    hospital: Door, verified: bool, told: str
) -> None:
    name = f"dr.wang-{verified}"
    pacs = replace(hospital.city.system("beicheng"), person=Person(name=name, verified=verified))
    with hospital.city.exchange.on_behalf_of(pacs) as access:
        access.note(Action.SEARCH)

    event = found(hospital.administrator(), "agent-name=BEICHENG&_sort=-date")[0]

    (user,) = (one for one in event["agent"] if one.get("name") == name)
    assert (user["role"][0]["text"], user["requestor"]) == (told, False)


def test_what_arrived_somewhere_is_a_transfer_of_its_own(hospital: Door) -> None:
    pacs = replace(hospital.city.system("beicheng"), name="transfers")
    with hospital.city.exchange.on_behalf_of(pacs) as access:
        tally = Tally(study_instance_uid="1.2.1", patient=1, completed=2, failed=1)
        retrieval.sent(access, [tally], to="WS", reason="answered with status A700")

    (event,) = found(hospital.administrator(), "agent-name=transfers")

    assert (event["type"]["code"], event["outcome"]) == ("110104", "8")
    assert event["outcomeDesc"] == "answered with status A700"


def test_nobody_writes_the_trail_by_fhir(looked_at: Door) -> None:
    system, admin = looked_at.system("beicheng"), looked_at.administrator()
    event = found(admin, "altid=dr.nanhu")[0]

    for asker in (system, admin):
        for method, path in (
            ("POST", "AuditEvent"),
            ("PUT", f"AuditEvent/{event['id']}"),
            ("DELETE", f"AuditEvent/{event['id']}"),
        ):
            outcome(asker.send(method, path, event), 405, "not-supported")
    for path in ("AuditEvent?agent.name=x", "AuditEvent?patient.name=x"):
        admin.refused(path, 400, "invalid")
    assert admin.get("AuditEvent/99999999999999999").status_code == 404
    assert admin.get("AuditEvent/x1").status_code == 404
