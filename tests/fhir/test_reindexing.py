"""Resources are found under what the definitions say now: indexed anew while others write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fhir_door import Asker, Door
from region import ADMINISTRATOR
from reindexing import named, read, walk
from sqlalchemy import text
from whose import WAYS, way

from exchange import reindex
from exchange.reindex import Said


def observation(code: str, subject: str = "Patient/1") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": subject},
        "effectiveDateTime": "2026-11-26T08:00:00+08:00",
    }


@pytest.fixture
def hospital(door: Door) -> Asker:
    door.city.send("beicheng", patient="P1")
    return door.system("beicheng")


def forget(door: Door) -> None:
    """As if the definitions had said nothing of codes and subjects when all this was written."""
    with door.city.exchange.database.writing() as session:
        session.execute(text("DELETE FROM search_token WHERE parameter = 'Observation.code'"))
        session.execute(text("UPDATE search_reference SET target = 'X' WHERE target_kind <> ''"))


def test_what_was_written_is_found_under_what_the_definitions_say_now_and_the_check_names_it(
    door: Door, hospital: Asker
) -> None:
    first, second = (hospital.made(observation(code)) for code in ("8867-4", "8310-5"))
    assert named(door) == named(door, every=False) == []
    forget(door)
    assert hospital.ids("Observation?code=8867-4") == []
    assert named(door) == [f"Observation/{one['id']}" for one in (first, second)]

    come = walk(door)

    assert (come.read, come.total, come.changed, come.finished) == (2, 2, 2, True)
    assert hospital.ids("Observation?code=8867-4") == [f"Observation/{first['id']}"]
    assert len(hospital.ids("Observation?subject=Patient/1")) == 2
    assert named(door) == []
    assert walk(door).changed == 0
    assert hospital.read(f"Observation/{first['id']}") == first


def test_who_a_release_before_left_unsaid_is_said_again(door: Door, hospital: Asker) -> None:
    hospital.made(observation("8867-4"))
    with door.city.exchange.database.writing() as session:
        session.execute(text("UPDATE search_token SET patient_id = NULL"))

    assert len(named(door)) == 1
    assert walk(door).changed == 1
    assert named(door) == []


@pytest.mark.parametrize("own", [["Patient/1"], []], ids=["a patient's", "nobody's"])
def test_what_turns_out_to_name_another_hospitals_patient_is_found_by_that_patient(
    door: Door, hospital: Asker, own: list[str]
) -> None:
    door.city.send("nanhu", patient="N1", study="1.2.2", instance="1.4.2", PatientName="Li^Na")
    performers = {"performer": [{"display": "Patient/2"}]}
    subject = {"subject": {"reference": own[0]}} if own else {"subject": {"display": "x"}}
    named_ = f"Observation/{hospital.made(observation('8867-4') | subject | performers)['id']}"

    def since_performers_count(content: bytes) -> Said:
        return read(content.replace(b'"display":"Patient/2"', b'"reference":"Patient/2"'))

    assert walk(door, since_performers_count).changed == 1

    for question in (
        "Observation?code=8867-4&performer:Patient.name=li",
        "Observation?status=final&code=8867-4&performer:Patient.name=li",
    ):
        for called in WAYS:
            with way(called):
                assert hospital.ids(question) == [named_], called
    for called in WAYS:
        with way(called):
            question = "Patient?name=li&_has:Observation:performer:code=8867-4"
            assert hospital.ids(question) == ["Patient/2"], called
    seen = door.clinician("nanhu").ids("Observation")
    assert seen == ([named_] if own else [])


def test_what_is_written_while_its_index_is_computed_is_not_put_back(
    door: Door, hospital: Asker
) -> None:
    made = hospital.made(observation("8867-4"))
    forget(door)

    def meanwhile(content: bytes) -> Said:
        said = read(content)
        later = made | observation("9279-1")
        assert hospital.send("PUT", f"Observation/{made['id']}", later).status_code == 200
        return said

    assert walk(door, meanwhile).changed == 0
    assert hospital.ids("Observation?code=9279-1") == [f"Observation/{made['id']}"]
    assert hospital.ids("Observation?code=8867-4") == []


KILLED = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exchange import reindex
from exchange.access import Exchange
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore
from region import WORKER
from reindexing import read

def deadly(content, looked_at=[]):
    looked_at.append(content)
    if len(looked_at) == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(content)

exchange = Exchange(Database(sys.argv[1]), MemoryStore(), Ed25519PrivateKey.generate())
with exchange.on_behalf_of(WORKER) as access:
    reindex.walk(access, deadly, until=datetime.now(UTC) + timedelta(days=1))
"""
"""A worker that is killed at the 150th resource."""


def test_a_walk_that_was_killed_goes_on_where_it_had_come(
    door: Door, hospital: Asker, database_url: str
) -> None:
    entries = [
        {"resource": observation("8867-4"), "request": {"method": "POST", "url": "Observation"}}
        for _ in range(250)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert hospital.send("POST", "", bundle).status_code == 200
    forget(door)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        number = reindex.ask(access)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "support")])
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, database_url],
        env=os.environ | {"PYTHONPATH": path},
        timeout=300,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        broken_off = reindex.progress(access, number)
    assert (broken_off.read, broken_off.changed, broken_off.finished) == (100, 100, False)
    assert broken_off.total == 250

    looked_at: list[bytes] = []

    def counting(content: bytes) -> Said:
        looked_at.append(content)
        return read(content)

    assert walk(door, counting).changed == 250
    assert len(looked_at) == 150
    assert len(hospital.ids("Observation?code=8867-4&_count=300")) == 250


def test_what_of_the_directory_names_a_patient_is_no_longer_shown_to_the_region(
    door: Door, hospital: Asker
) -> None:
    device = hospital.made(
        {"resourceType": "Device", "patient": {"reference": "Patient/1"}, "lotNumber": "7"}
    )
    other = hospital.made({"resourceType": "Device", "lotNumber": "8"})
    # As an earlier release kept it.
    with door.city.exchange.database.writing() as session:
        session.execute(
            text("UPDATE resource SET patient_id = NULL, is_directory = true WHERE kind = 'Device'")
        )
    stranger = door.administrator()
    assert stranger.get(f"Device/{device['id']}").status_code == 200
    assert named(door) == [f"Device/{device['id']}"]
    door.city.exchange.database.take_back("0023")
    door.city.exchange.database.migrate()
    assert stranger.get(f"Device/{device['id']}").status_code in {403, 404}
    assert door.clinician("nanhu").get(f"Device/{device['id']}").status_code in {403, 404}

    assert walk(door).changed == 1

    assert stranger.get(f"Device/{device['id']}").status_code in {403, 404}
    assert stranger.get(f"Device/{other['id']}").status_code == 200
    assert door.clinician("nanhu").get(f"Device/{device['id']}").status_code == 200  # shared
    assert hospital.ids("Device?patient=Patient/1") == [f"Device/{device['id']}"]


def test_whom_a_provenance_is_about_by_its_targets_is_known_afterwards(
    door: Door, hospital: Asker
) -> None:
    about = hospital.made(observation("8867-4"))
    target = {"reference": f"Observation/{about['id']}"}
    agent = {"who": {"display": "检验科"}}
    made = hospital.made(
        {
            "resourceType": "Provenance",
            "target": [target],
            "recorded": "2026-11-26T08:00:00+08:00",
            "agent": [agent],
        }
    )
    assert named(door) == []
    # As an earlier release kept it.
    with door.city.exchange.database.writing() as session:
        session.execute(text("UPDATE resource SET patient_id = NULL WHERE kind = 'Provenance'"))
    path, other = f"Provenance/{made['id']}", door.clinician("nanhu")
    assert other.get(path).status_code == 404
    assert named(door) == [path]

    assert walk(door).changed == 1

    assert other.get(path).status_code == 200
