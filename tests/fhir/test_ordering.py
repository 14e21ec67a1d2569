"""Requests for images by FHIR fill the worklist, and what comes of orders is told in FHIR."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_door import SHANGHAI, Door, entries, name, opened, outcome
from region import HOSPITALS, WORKER, credit_code
from serving import Served, serving
from sqlalchemy import select

from exchange import jobs, orders, performed
from exchange.orders import Placed
from exchange.performed import Status, Told
from exchange_fhir import ordered
from exchange_storage.records import Job

IMAGING = {"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}
MODALITY = "http://dicom.nema.org/resources/ontology/DCM"
ACCESSION = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]
}
SCHEDULED = "ScheduledProcedureStepSequence[0]"


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    with serving(tmp_path, database_url=database_url) as made:
        made.city.send("beicheng", patient="P1", AccessionNumber="A0")
        yield made


@pytest.fixture
def door(served: Served) -> Door:
    return opened(served.city)


def request(**told: Any) -> dict[str, Any]:
    """A CT of the thorax of beicheng's patient P1, tomorrow at its CT."""
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"type": ACCESSION, "value": "A1"}],
        "status": "active",
        "intent": "order",
        "category": [IMAGING],
        "priority": "stat",
        "code": {
            "coding": [{"system": MODALITY, "code": "CT"}],
            "text": "胸部平扫",
        },
        "subject": {"reference": "Patient/1"},
        "occurrenceDateTime": "2026-11-27T09:30:00+08:00",
        "requester": {"display": "李医生"},
        "performer": [
            {
                "type": "Device",
                "identifier": {"system": "urn:dicom:ae-title", "value": "CT1"},
                "display": "一号CT",
            }
        ],
        "reasonCode": [{"text": "咳嗽"}],
    } | told


def consent(patient: str) -> dict[str, Any]:
    """The patient's records stay in their own hospitals."""
    terminology = "http://terminology.hl7.org/CodeSystem"
    scope = {"system": f"{terminology}/consentscope", "code": "patient-privacy"}
    rule = {"system": f"{terminology}/v3-ActCode", "code": "OPTOUT"}
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": patient},
        "policyRule": {"coding": [rule]},
        "provision": {"type": "deny"},
    }


def worklist(served: Served, *keys: str) -> list[dict[str, str]]:
    """What DCMTK finds on beicheng's worklist."""
    wanted = [
        *("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID"),
        *("RequestedProcedureID", "RequestedProcedurePriority"),
        *(
            f"{SCHEDULED}.{one}"
            for one in (
                *("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepID"),
                *("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"),
                "ScheduledProcedureStepDescription",
            )
        ),
        *keys,
    ]
    done = subprocess.run(
        ["findscu", "-W", "-aet", "BEICHENG", "-aec", "EXCHANGE",
         *(part for key in wanted for part in ("-k", key)), "127.0.0.1", str(served.port)],
        check=True, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    told = (done.stdout + done.stderr).decode(errors="replace")
    return [
        {found[2]: found[1].strip(" \0") for found in re.finditer(r"\[([^\]]*)\].*# .* (\w+)", one)}
        for one in re.split(r"Find Response: \d+", told)[1:]
    ]


def tell(door: Door) -> None:
    """Do the worker's telling of orders."""
    for kind in (jobs.REQUEST, jobs.REFRESH):
        with door.city.exchange.database.reading() as session:
            found = session.scalars(select(Job.subject).where(Job.kind == kind)).all()
        for subject in found:
            if kind == jobs.REFRESH:
                door.refresh_study(int(subject))
                continue
            with door.city.exchange.on_behalf_of(WORKER) as access:
                ordered.refresh(
                    access, int(subject), base="https://exchange.example/fhir", timezone=SHANGHAI
                )


def test_a_request_for_images_is_on_the_worklist_and_dcmtk_finds_it(
    served: Served, door: Door
) -> None:
    made = door.system("beicheng").made(request())

    (entry,) = worklist(
        served, f"{SCHEDULED}.Modality=CT", f"{SCHEDULED}.ScheduledStationAETitle=CT1"
    )

    assert (entry["PatientID"], entry["AccessionNumber"]) == ("P1", "A1")
    assert (entry["Modality"], entry["ScheduledStationAETitle"]) == ("CT", "CT1")
    assert entry["ScheduledProcedureStepStartDate"] == "20261127"
    assert entry["ScheduledProcedureStepStartTime"] == "093000"
    assert entry["RequestedProcedurePriority"] == "STAT"
    assert entry["StudyInstanceUID"].startswith("2.25.")
    tell(door)
    asker = door.clinician("beicheng")
    assert asker.ids("ServiceRequest?identifier=A1") == [f"ServiceRequest/{made['id']}"]
    (task,) = entries(asker.bundle(f"Task?focus=ServiceRequest/{made['id']}"))
    assert task["resource"]["status"] == "requested"


def test_a_request_that_no_modality_could_read_is_refused_with_what_is_wrong(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    number = {"type": ACCESSION, "value": "B\\78"}
    station = {"identifier": {"system": "urn:dicom:ae-title", "value": "CT1\\CT2"}}
    long = {"identifier": {"system": "urn:dicom:ae-title", "value": "TOOLONGSTATIONNAME"}}
    for told, said in (
        ({"identifier": [number]}, "the accession number is one line without a backslash"),
        ({"performer": [station]}, "the station's AE title is one line without a backslash"),
        ({"performer": [long]}, "the station's AE title is at most 16 characters long"),
    ):
        answer = hospital.send("POST", "ServiceRequest", request(**told))
        assert answer.status_code == 400
        assert said in answer.text.replace("\\\\", "\\")
    assert worklist(served) == []

    made = hospital.made(request())
    answer = hospital.send(
        "POST",
        "Appointment",
        {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [{"reference": f"ServiceRequest/{made['id']}"}],
            "start": "2026-11-30T14:00:00+08:00",
            "end": "2026-11-30T14:20:00+08:00",
            "participant": [{"actor": {"type": "Device"} | long, "status": "accepted"}],
        },
    )
    assert answer.status_code == 400
    assert "the station's AE title is at most 16 characters long" in answer.text
    assert [one["ScheduledStationAETitle"] for one in worklist(served)] == ["CT1"]


def test_a_change_of_the_request_reschedules_and_a_revoked_one_is_taken_off_the_worklist(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    made = hospital.made(request())
    (before,) = worklist(served)

    later = made | {"occurrenceDateTime": "2026-11-28"}
    assert hospital.send("PUT", f"ServiceRequest/{made['id']}", later).status_code == 200
    (after,) = worklist(served)
    assert after["ScheduledProcedureStepStartDate"] == "20261128"
    assert after["StudyInstanceUID"] == before["StudyInstanceUID"]

    for status, entered in (("revoked", 0), ("active", 1), ("on-hold", 0), ("active", 1)):
        hospital.send("PUT", f"ServiceRequest/{made['id']}", later | {"status": status})
        assert len(worklist(served)) == entered
    assert hospital.send("DELETE", f"ServiceRequest/{made['id']}").status_code in {200, 204}
    assert worklist(served) == []


def test_only_what_a_hospital_orders_of_itself_with_an_accession_number_is_on_its_worklist(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    for code in ("beicheng", "nanhu"):
        department = {"resourceType": "Organization", "id": f"{code}-radiology", "name": "放射科"}
        answer = door.system(code).send("PUT", f"Organization/{code}-radiology", department)
        assert answer.status_code == 201
        service = {"resourceType": "HealthcareService", "id": f"{code}-ct", "name": "CT"}
        answer = door.system(code).send("PUT", f"HealthcareService/{code}-ct", service)
        assert answer.status_code == 201
    for keeper, above in (("beicheng", "nanhu"), ("nanhu", "beicheng")):
        # Whoever keeps the entry: it is whose it says.
        role = {
            "resourceType": "PractitionerRole",
            "id": f"{above}-role",
            "organization": {"reference": f"Organization/{above}-radiology"},
        }
        answer = door.system(keeper).send("PUT", f"PractitionerRole/{above}-role", role)
        assert answer.status_code == 201
    for told in (
        {"identifier": [{"value": "A1"}]},
        {"intent": "proposal"},
        {"doNotPerform": True},
        {"category": [], "code": {"text": "血常规"}},
        {"performer": [{"reference": "Organization/nanhu"}]},
        {"performer": [{"reference": "Organization/nanhu-radiology"}]},
        {"performer": [{"reference": "HealthcareService/nanhu-ct"}]},
        {"performer": [{"reference": "PractitionerRole/nanhu-role"}]},
        {"performer": [{"identifier": {"value": credit_code("12120000123450001")}}]},
        {"performer": [{"identifier": {"value": f"urn:oid:{HOSPITALS['nanhu'][1]}"}}]},
        {"status": "draft"},
    ):
        hospital.made({name: value for name, value in request(**told).items() if value})
    assert worklist(served) == []

    for number, own in enumerate(
        (
            "Organization/beicheng-radiology",
            "HealthcareService/beicheng-ct",
            "PractitionerRole/beicheng-role",
        )
    ):
        hospital.made(request(performer=[{"reference": own}]))
        assert len(worklist(served)) == number + 1


def test_two_requests_with_one_accession_number_are_two_steps_of_one_study(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    hospital.made(request())
    hospital.made(request(code={"coding": [{"system": MODALITY, "code": "MR"}]}))
    served.city.send("beicheng", patient="P2", study="1.2.9", instance="1.4.9")
    refused = hospital.send("POST", "ServiceRequest", request(subject={"reference": "Patient/2"}))
    assert refused.status_code in {400, 422}, refused.text

    found = worklist(served)
    assert sorted(one["ScheduledProcedureStepID"] for one in found) == ["A1", "A1-2"]
    assert len({one["StudyInstanceUID"] for one in found}) == 1


def test_an_appointment_says_when_and_one_that_is_cancelled_leaves_the_request_waiting(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    unscheduled = {name: told for name, told in request().items() if name != "occurrenceDateTime"}
    made = hospital.made(unscheduled)
    assert worklist(served) == []

    appointment = hospital.made(
        {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [{"reference": f"ServiceRequest/{made['id']}"}],
            "start": "2026-11-30T14:00:00+08:00",
            "end": "2026-11-30T14:20:00+08:00",
            "participant": [
                {"actor": {"reference": "Patient/1"}, "status": "accepted"},
                {
                    "actor": {
                        "type": "Device",
                        "identifier": {"system": "urn:dicom:ae-title", "value": "CT2"},
                    },
                    "status": "accepted",
                },
            ],
        }
    )
    (entry,) = worklist(served)
    assert entry["ScheduledProcedureStepStartDate"] == "20261130"
    assert (entry["ScheduledProcedureStepStartTime"], entry["ScheduledStationAETitle"]) == (
        "140000",
        "CT2",
    )

    urgent = made | {"occurrenceDateTime": "2026-12-24", "priority": "routine"}
    hospital.send("PUT", f"ServiceRequest/{made['id']}", urgent)
    (entry,) = worklist(served)  # its appointment still says when
    assert entry["ScheduledProcedureStepStartDate"] == "20261130"
    assert entry["RequestedProcedurePriority"] == "ROUTINE"

    gone = appointment | {"status": "cancelled"}
    assert hospital.send("PUT", f"Appointment/{appointment['id']}", gone).status_code == 200
    assert worklist(served) == []


def test_what_a_modality_performed_is_told_by_a_task_and_the_request_stays_as_it_was_written(
    served: Served, door: Door
) -> None:
    made = door.system("beicheng").made(request())
    step = {"scheduled_procedure_step_id": "A1", "started": "20261127093500", "modality": "CT"}
    modality = served.city.system("beicheng")
    with served.city.exchange.on_behalf_of(modality) as access:
        performed.begin(access, "1.9.1", Told(status=Status.IN_PROGRESS, **step), {})  # type: ignore[arg-type]
    tell(door)
    asker = door.clinician("beicheng")
    task = f"Task?based-on=ServiceRequest/{made['id']}"
    (begun,) = entries(asker.bundle(task))
    assert begun["resource"]["status"] == "in-progress"
    assert begun["resource"]["executionPeriod"]["start"] == "2026-11-27T09:35:00+08:00"

    with served.city.exchange.on_behalf_of(modality) as access:
        performed.change(
            access,
            "1.9.1",
            Told(status=Status.COMPLETED, ended="20261127094500"),
            {performed.SERIES: {"vr": "SQ", "Value": [{}]}},
        )
    tell(door)
    (ended,) = entries(asker.bundle(f"{task}&status=completed"))
    assert ended["resource"]["id"] == begun["resource"]["id"]
    assert ended["resource"]["executionPeriod"]["end"] == "2026-11-27T09:45:00+08:00"
    assert asker.read(f"ServiceRequest/{made['id']}") == made
    refused = door.system("beicheng").send(
        "PUT", f"Task/{ended['resource']['id']}", ended["resource"]
    )
    assert refused.status_code == 403


def test_one_question_shows_orders_of_the_command_line_and_of_fhir_and_what_came_of_them(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    written = hospital.made(request())
    placed = Placed(
        patient_id="P1", accession_number="A2", modality="MR", scheduled_date="20261128",
        scheduled_time="0800", procedure_description="头部平扫", body_part_examined="HEAD",
    )  # fmt: skip
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        study = orders.place(access, placed).study_instance_uid
    served.city.send("beicheng", patient="P1", study=study, instance="1.4.2", Modality="MR")
    served.city.send(
        "beicheng", patient="P1", study="1.2.3", instance="1.4.3", AccessionNumber="A1"
    )
    tell(door)
    asker = door.clinician("beicheng")

    bundle = asker.bundle("ServiceRequest?patient=1&_sort=occurrence")
    first, derived = (entry["resource"] for entry in entries(bundle))
    assert first["id"] == written["id"]
    assert derived["occurrenceDateTime"] == "2026-11-28T08:00:00+08:00"
    assert derived["identifier"][0]["value"] == "A2"
    image = asker.read(f"ImagingStudy/{study}")
    assert image["basedOn"][0]["reference"] == f"ServiceRequest/{derived['id']}"
    assert image["basedOn"][0]["identifier"]["value"] == "A2"
    assert asker.read("ImagingStudy/1.2.3")["basedOn"][0]["reference"] == name(entries(bundle)[0])

    found = asker.bundle("ImagingStudy?patient=1&_include=ImagingStudy:basedon")
    brought = sorted(name(entry) for entry in entries(found, "include"))
    assert brought == sorted(f"ServiceRequest/{one['id']}" for one in (written, derived))
    back = asker.bundle("ServiceRequest?identifier=A2&_revinclude=ImagingStudy:basedon")
    assert [name(entry) for entry in entries(back, "include")] == [f"ImagingStudy/{study}"]
    for query in (
        f"basedon=ServiceRequest/{written['id']}",
        "basedon:ServiceRequest.identifier=A1",
        "basedon.code:text=胸部",
    ):
        assert asker.ids(f"ImagingStudy?{query}") == ["ImagingStudy/1.2.3"]
    has = asker.ids("ServiceRequest?_has:ImagingStudy:basedon:modality=MR")
    assert has == [f"ServiceRequest/{derived['id']}"]

    path = f"ServiceRequest/{derived['id']}"
    assert hospital.send("PUT", path, derived | {"status": "revoked"}).status_code == 403
    assert hospital.send("DELETE", path).status_code == 403
    named = request(id="order-1")
    outcome(hospital.send("PUT", "ServiceRequest/order-1", named), 400, "invalid")


def test_a_request_takes_the_place_of_the_order_that_was_entered_for_it_by_hand(
    served: Served, door: Door
) -> None:
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        placed = Placed(
            patient_id="P1", accession_number="A1", modality="CT", scheduled_date="20261126"
        )
        study = orders.place(access, placed).study_instance_uid
    tell(door)
    hospital = door.system("beicheng")
    (derived,) = hospital.ids("ServiceRequest?identifier=A1")

    made = hospital.made(request())
    tell(door)

    (entry,) = worklist(served)
    assert entry["StudyInstanceUID"] == study
    assert entry["ScheduledProcedureStepStartDate"] == "20261127"
    assert hospital.ids("ServiceRequest?identifier=A1") == [f"ServiceRequest/{made['id']}"]
    assert hospital.get(derived).status_code == 410
    (task,) = entries(hospital.bundle("Task?patient=1"))
    assert task["resource"]["focus"]["reference"] == f"ServiceRequest/{made['id']}"


def test_another_hospital_sees_no_order_of_a_patient_who_does_not_share(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    made = hospital.made(request())
    served.city.send(
        "beicheng", patient="P1", study="1.2.3", instance="1.4.3", AccessionNumber="A1"
    )
    tell(door)
    other = door.clinician("nanhu")
    assert other.ids(f"ImagingStudy?basedon=ServiceRequest/{made['id']}") == ["ImagingStudy/1.2.3"]
    hospital.made(consent("Patient/1"))
    for query in (
        f"ImagingStudy?basedon=ServiceRequest/{made['id']}",
        "ImagingStudy?basedon.identifier=A1",
        "ServiceRequest?_has:ImagingStudy:basedon:modality=CT",
        "ServiceRequest?identifier=A1",
        f"Task?focus=ServiceRequest/{made['id']}",
    ):
        assert other.ids(query) == []


def test_a_request_brings_the_priors_as_an_order_does(served: Served, door: Door) -> None:
    door.system("beicheng").made(request())
    with served.city.exchange.database.reading() as session:
        asked = session.scalars(select(Job.subject).where(Job.kind == jobs.PRIORS)).all()
    assert asked == ["1"]
