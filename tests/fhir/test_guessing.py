"""Who guesses the names of resources learns nothing: what may not be seen is as if not there."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from fhir_door import Asker, Door, opened, outcome
from region import ADMINISTRATOR, HOSPITALS, ID_CARD
from sqlalchemy import select, text

from exchange import consent
from exchange_fhir.serving import Conduct
from exchange_storage.records import AuditRecord

JSON_PATCH = "application/json-patch+json"


def observation(logical_id: str, subject: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "resourceType": "Observation",
        "id": logical_id,
        "status": "final",
        "code": {"text": "心率"},
    }
    return told | ({"subject": {"reference": subject}} if subject else {})


@pytest.fixture
def hospital(door: Door) -> Asker:
    """beicheng has written of a patient who does not share, and of nobody."""
    door.city.send("beicheng", patient="P1")
    system = door.system("beicheng")
    for named, subject in (("secret", "Patient/1"), ("nobody", None)):
        made = system.send("PUT", f"Observation/{named}", observation(named, subject))
        assert made.status_code == 201, made.text
    with door.city.exchange.database.writing() as session:
        session.execute(
            text(
                "INSERT INTO consent (patient_id, decision, recorded, recorded_by)"
                " VALUES (1, 'deny', '2026-11-26 00:00:00+00:00', 'test')"
            )
        )
    return system


@pytest.mark.parametrize("named", ["secret", "nobody"])
def test_what_may_not_be_seen_is_answered_as_what_is_not_there(
    door: Door, hospital: Asker, named: str
) -> None:
    other = door.system("nanhu")
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]

    def answers(logical_id: str) -> list[tuple[int, str]]:
        path = f"Observation/{logical_id}"
        sent = [
            other.get(path),
            other.get(f"{path}/_history/1"),
            other.get(f"{path}/_history"),
            other.send("PATCH", path, patch, Content_Type=JSON_PATCH),  # type: ignore[arg-type]
            other.send("PATCH", path, patch, Content_Type=JSON_PATCH, If_Match='W/"7"'),  # type: ignore[arg-type]
        ]
        return [(one.status_code, one.json()["issue"][0]["diagnostics"]) for one in sent]

    assert answers(named) == answers("nothing-of-this-name")
    assert {status for status, _ in answers(named)} == {404}
    # A write cannot make another resource of the same name: it is told no more than that.
    for headers in ({}, {"If_Match": 'W/"7"'}, {"If_None_Match": "*"}):
        refused = other.send("PUT", f"Observation/{named}", observation(named, None), **headers)
        assert outcome(refused, 404, "not-found") == "no such resource"
    assert hospital.read(f"Observation/{named}")["meta"]["versionId"] == "1"


def test_where_a_put_creates_nothing_no_id_is_told_to_be_taken(door: Door, hospital: Asker) -> None:
    other = opened(door.city, Conduct(update_creates=False)).system("nanhu")
    told = []
    for named in ("secret", "nobody", "nothing-of-this-name"):
        answer = other.send("PUT", f"Observation/{named}", observation(named, None))
        told.append((answer.status_code, answer.content))
    assert told[0][0] == 404
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(
    ("name", "nothing"),
    [
        ("Observation/secret", "Observation/nothing"),
        ("Observation/nobody", "Observation/nothing"),
        ("Patient/1", "Patient/987"),
    ],
)
def test_who_deletes_what_may_not_be_seen_is_answered_as_if_there_were_nothing(
    door: Door, hospital: Asker, name: str, nothing: str
) -> None:
    """An answer that is the same for both, and says that it is gone (R4 3.1.0.7)."""
    other = door.system("nanhu")

    def answers(path: str) -> list[tuple[int, dict[str, str], bytes]]:
        entry = [{"request": {"method": "DELETE", "url": path}}]
        bundle = {"resourceType": "Bundle", "entry": entry}
        sent = [
            other.send("DELETE", path),
            other.send("DELETE", path),
            other.send("DELETE", path, Prefer="return=OperationOutcome"),
            other.send("DELETE", path, If_Match='W/"7"'),
            other.send("DELETE", path, If_Match="*"),
            other.send("POST", "", bundle | {"type": "batch"}),
            other.send("POST", "", bundle | {"type": "transaction"}),
        ]
        return [(one.status_code, dict(one.headers), one.content) for one in sent]

    told = answers(name)
    assert told == answers(nothing)
    assert [status for status, _, _ in told] == [204, 204, 200, 412, 412, 200, 200]
    assert hospital.read(name)["meta"]["versionId"]
    with door.city.exchange.database.reading() as session:
        trail = session.scalars(select(AuditRecord)).all()
    attempts = {
        path: [one.outcome for one in trail if f'"{path}"' in one.content]
        for path in (name, nothing)
    }
    assert attempts[name].count("refused") == 7
    assert len(attempts[nothing]) >= 5
    assert set(attempts[nothing]) == {"failed"}


def test_that_it_was_refused_and_why_stands_in_the_trail(door: Door, hospital: Asker) -> None:
    assert door.clinician("nanhu").get("Observation/secret").status_code == 404
    with door.city.exchange.database.reading() as session:
        told = session.execute(
            text("SELECT outcome, content FROM audit_record ORDER BY sequence DESC LIMIT 1")
        ).one()
    assert told.outcome == "refused"
    assert "the patient has not consented to sharing" in told.content


def test_who_may_see_it_is_told_why_they_may_not_change_it(door: Door, hospital: Asker) -> None:
    door.city.send("beicheng", patient="P2", study="1.2.2", instance="1.4.2")
    shared = hospital.made(observation("shared", "Patient/2"))
    refused = door.system("nanhu").send("DELETE", f"Observation/{shared['id']}")
    assert "only who wrote it" in outcome(refused, 403, "forbidden")


DIRECT = (
    "Patient/{}",
    "Patient/{}/_history",
    "Patient/{}/_history/1",
    "Patient/{}/$everything",
    "Patient/{}/$summary",
    "Patient/{}/Observation",
    "Patient/{}/ImagingStudy",
    "Observation/$lastn?patient={}",
    "DocumentReference/$docref?patient={}",
    "Observation?patient={}",
    "ImagingStudy?patient={}&_include=ImagingStudy:subject",
    "Patient?_id={}&_revinclude=ImagingStudy:patient",
    "ImagingStudy/1.2.{}",
    "Person?patient=Patient/{}",
    "Patient/{}/$purge",
)
"""Ways to ask for a patient by the number of the record."""


def told(response: Any, number: str) -> tuple[int, bytes]:
    """What an answer says but for the number that was asked for, and when it was asked."""
    content = response.json()
    content.pop("id", None)
    content.pop("meta", None)
    return response.status_code, orjson.dumps(content).replace(number.encode(), b"#")


@pytest.mark.parametrize("path", DIRECT)
def test_who_counts_the_numbers_of_patients_does_not_learn_who_opted_out(
    door: Door, hospital: Asker, path: str
) -> None:
    for asker in (door.system("nanhu"), door.clinician("nanhu")):
        withheld, nowhere = (asker.get(path.format(number)) for number in ("1", "987"))
        assert told(withheld, "1") == told(nowhere, "987")


def test_who_changes_patients_by_counted_numbers_learns_as_little(
    door: Door, hospital: Asker
) -> None:
    other = door.system("nanhu")
    patch = [{"op": "replace", "path": "/gender", "value": "male"}]
    number = {"system": f"urn:oid:{HOSPITALS['nanhu'][1]}", "value": "N1"}
    for method, header in (("PUT", {}), ("PATCH", {"Content_Type": JSON_PATCH})):
        answers = []
        for row in ("1", "987"):
            body: Any = {"resourceType": "Patient", "id": row, "identifier": [number]}
            sent = {"PUT": body, "PATCH": patch}[method]
            answers.append(told(other.send(method, f"Patient/{row}", sent, **header), row))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


def test_who_knows_the_patient_is_told_why_and_both_attempts_stand_in_the_trail(
    door: Door,
) -> None:
    """Wang is known at beicheng (Patient/1) and nanhu; dongshan has never seen her."""
    door.city.send("beicheng", patient="W1", card=ID_CARD)
    door.city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    door.city.identify()
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "W1")

    for path in ("Patient/1", "Patient/1/$everything", "Observation/$lastn?patient=1"):
        why = door.clinician("nanhu").refused(path, 403, "forbidden")
        assert why == "the patient has not consented to sharing"
        assert (
            door.clinician("dongshan").refused(path, 404, "not-found") == "no such patient record"
        )
    assert door.clinician("beicheng").read("Patient/1")["id"] == "1"
    with door.city.exchange.database.reading() as session:
        refused = session.scalars(select(AuditRecord).filter_by(outcome="refused")).all()
    assert len(refused) == 6
    assert {one.requester for one in refused} == {"dr.nanhu", "dr.dongshan"}
    assert all("has not consented" in one.content for one in refused)
    assert {one.patient_id for one in refused} == {1}
