"""Bulk Data: what is exported is decided for the asker, and a broken line keeps no other out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from bundles import WEIGHT
from exporting import (
    ASYNC,
    NDJSON,
    exported,
    going_on,
    kicked_off,
    lines,
    manifest,
    named,
    of,
    work,
)
from fhir_door import BASE, Asker, Door, is_fhir, opened, outcome
from region import ID_CARD, WORKER, region
from sqlalchemy import select, update

from exchange import bulk, jobs
from exchange.errors import Unavailable
from exchange.policy import Purpose
from exchange_fhir import bulk_export, bulk_import
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.records import BulkJob, Job


@pytest.fixture(scope="module")
def hospital(lasting_database_url: str) -> Iterator[Door]:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2), Li at beicheng (Patient/3)."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.send("beicheng", patient="L1", study="1.2.3", instance="1.4.3", PatientName="Li^Na")
        city.identify()
        door = opened(city)
        for code, patient in (("beicheng", 1), ("nanhu", 2), ("beicheng", 3)):
            weight = WEIGHT | {"subject": {"reference": f"Patient/{patient}"}}
            for _ in range(2):
                door.system(code).made(weight)
        door.system("beicheng").made({"resourceType": "Practitioner"})
        yield door


def waiting(door: Door) -> bool:
    """Whether a worker has something to do, which is then due."""
    with door.city.exchange.database.writing() as session:
        session.execute(update(Job).values(due=datetime.now(UTC)))
        return session.scalars(select(Job).where(Job.kind == jobs.BULK)).first() is not None


def test_an_export_is_followed_until_its_files_are_there(hospital: Door) -> None:
    doctor = hospital.system("beicheng")

    address = kicked_off(doctor.get("$export", Prefer=ASYNC))
    waiting = doctor.get(address)
    assert (waiting.status_code, waiting.headers["x-progress"]) == (202, "0 resources")
    assert waiting.headers["retry-after"] == "5"
    work(hospital)

    told = manifest(doctor, address)
    assert told["request"] == f"{BASE}/$export"
    assert told["error"] == []
    resources = lines(doctor, told["output"])
    for one in resources:
        is_fhir(one)
    names = named(resources)
    assert of("Patient", names) == ["Patient/1", "Patient/3"]
    assert len(of("ImagingStudy", names)) == 2
    assert len(of("Observation", names)) == 4
    assert len(of("Organization", names)) == len(of("Endpoint", names)) == 3
    assert len(of("Practitioner", names)) == 1


def test_an_export_holds_only_what_its_asker_may_see(hospital: Door) -> None:
    system = replace(hospital.city.system("beicheng"), purpose=Purpose.PUBLIC_HEALTH)
    figures = hospital.asker(system)  # there is no agreement on that

    names = exported(hospital, figures, "Patient/$export")

    assert of("Patient", names) == ["Patient/1", "Patient/3"]
    assert of("ImagingStudy", names) == ["ImagingStudy/1.2.1", "ImagingStudy/1.2.3"]
    assert len(of("Observation", names)) == 4
    assert not of("Practitioner", names)
    outcome(hospital.administrator().get("$export", Prefer=ASYNC), 403, "forbidden")


def test_an_export_is_narrowed(hospital: Door) -> None:
    doctor = system = hospital.system("beicheng")
    pulse = WEIGHT | {"code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}}
    made = f"Observation/{system.made(pulse)['id']}"

    export = "$export?_type=Observation,Patient"
    filtered = exported(
        hospital, doctor, f"{export}&_typeFilter=Observation?code=8867-4,Patient?gender=female"
    )
    assert filtered == [made, "Patient/1", "Patient/3"]
    since = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    later = f"Observation/{system.made(pulse)['id']}"
    assert exported(hospital, doctor, f"{export}&_since={since}") == [later]
    assert later not in exported(hospital, doctor, f"{export}&_until={since}")
    address = kicked_off(doctor.get("$export?_type=Observation&_elements=status", Prefer=ASYNC))
    system.made(pulse)  # after the moment of the export
    work(hospital)
    told = manifest(doctor, address)
    assert told["request"] == f"{BASE}/$export?_type=Observation&_elements=status"
    parts = lines(doctor, told["output"])
    assert all("subject" not in one and "status" in one for one in parts)
    assert len(parts) == 6
    for name in named(parts):
        assert system.get(name).status_code == 200
        assert system.send("DELETE", name).status_code == 204 if name in {made, later} else True


def test_a_group_is_exported_with_its_members_other_records(hospital: Door) -> None:
    system = hospital.system("beicheng")
    group = system.made(
        {
            "resourceType": "Group",
            "type": "person",
            "actual": True,
            "member": [{"entity": {"reference": "Patient/1"}}],
        }
    )

    doctor = hospital.clinician("beicheng")
    names = exported(hospital, doctor, f"Group/{group['id']}/$export")

    assert of("Patient", names) == ["Patient/1", "Patient/2"]
    assert of("ImagingStudy", names) == ["ImagingStudy/1.2.1", "ImagingStudy/1.2.2"]
    assert len(of("Observation", names)) >= 4
    outcome(doctor.get("Group/unknown/$export", Prefer=ASYNC), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("$export?_type=Colour", 400, "not-supported"),
        ("Patient/$export?_type=Practitioner", 400, "not-supported"),
        ("$export?_outputFormat=text/csv", 400, "not-supported"),
        ("$export?_since=yesterday", 400, "invalid"),
        ("$export?includeAssociatedData=x", 400, "not-supported"),
        ("$export?_typeFilter=code=x", 400, "invalid"),
        ("$export?_typeFilter=Observation?colour=x", 400, "invalid"),
    ],
)
def test_an_export_that_cannot_be_done_is_not_begun(
    hospital: Door, path: str, status: int, code: str
) -> None:
    doctor = hospital.system("beicheng")
    outcome(doctor.get(path, Prefer=ASYNC), status, code)
    outcome(doctor.get("$export"), 400, "required")


def test_files_are_their_askers_alone_until_they_are_cancelled(hospital: Door) -> None:
    doctor, other = hospital.system("beicheng"), hospital.system("nanhu")
    address = kicked_off(doctor.get("Patient/$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    url = manifest(doctor, address)["output"][0]["url"]

    for path in (address, url):
        outcome(other.get(path), 404, "not-found")
        assert hospital.asker(None).get(path).status_code == 401
    outcome(other.send("DELETE", address), 404, "not-found")
    outcome(doctor.get(f"{url}99"), 404, "not-found")

    assert doctor.send("DELETE", address).status_code == 202
    for path in (address, url):
        outcome(doctor.get(path), 404, "not-found")
    before = len(list(hospital.city.exchange.objects.list(bulk.PREFIX)))
    work(hospital)
    assert len(list(hospital.city.exchange.objects.list(bulk.PREFIX))) < before


def test_what_has_expired_is_removed(hospital: Door) -> None:
    doctor = hospital.system("beicheng")
    address = kicked_off(doctor.get("Patient/$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    with hospital.city.exchange.database.writing() as session:
        session.execute(update(BulkJob).values(expires=datetime.now(UTC) - timedelta(seconds=1)))

    outcome(doctor.get(address), 404, "not-found")
    with hospital.city.exchange.on_behalf_of(WORKER) as access:
        assert bulk.tidy(access) > 0
    assert list(hospital.city.exchange.objects.list(bulk.PREFIX)) == []


def test_what_is_written_of_a_cancelled_export_does_not_stay(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor, objects = hospital.system("beicheng"), hospital.city.exchange.objects
    address = kicked_off(doctor.get("$export", Prefer=ASYNC))
    written = bulk.Files.kept

    def cancelled_meanwhile(files: bulk.Files) -> list[bulk.Written]:
        doctor.send("DELETE", address)
        with hospital.city.exchange.on_behalf_of(WORKER) as access:
            bulk.tidy(access)  # as another worker does
        return written(files)

    monkeypatch.setattr(bulk.Files, "kept", cancelled_meanwhile)
    before = {one.key for one in objects.list(bulk.PREFIX)}
    work(hospital)

    assert {one.key for one in objects.list(bulk.PREFIX)} <= before


def test_a_worker_that_comes_late_takes_nothing_from_an_export_that_is_complete(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = hospital.system("beicheng")
    address = kicked_off(doctor.get("$export", Prefer=ASYNC))
    written = bulk.Files.kept
    late = True

    def slow(files: bulk.Files) -> list[bulk.Written]:
        nonlocal late
        if late:
            late = False
            going_on(hospital.city.exchange, files._job.id)  # as another does after a lease
        return written(files)

    monkeypatch.setattr(bulk.Files, "kept", slow)
    work(hospital)

    told = manifest(doctor, address)["output"]
    assert lines(doctor, told)
    with hospital.city.exchange.database.reading() as session:
        token = address.rpartition("/")[2]
        job = session.scalars(select(BulkJob).where(BulkJob.token == token)).one()
    there = list(hospital.city.exchange.objects.list(f"{bulk.PREFIX}/{job.token}/"))
    assert len(there) == len(told)


def test_files_to_which_nothing_leads_are_removed(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor, exchange = hospital.system("beicheng"), hospital.city.exchange
    address = kicked_off(doctor.get("Patient/$export?_type=Patient", Prefer=ASYNC))
    work(hospital)
    exchange.objects.put(f"{bulk.PREFIX}/nobodys/0", b"what came before a crash")

    with exchange.on_behalf_of(WORKER) as access:
        assert bulk.sweep(access) == 0  # its row may be on its way
        monkeypatch.setattr(bulk, "ON_ITS_WAY", timedelta(0))
        assert bulk.sweep(access) == 1
        assert bulk.sweep(access) == 0

    assert lines(doctor, manifest(doctor, address)["output"])


def test_an_export_goes_on_where_a_worker_died(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = hospital.system("beicheng")
    whole = exported(hospital, doctor, "$export")
    monkeypatch.setattr(bulk_export, "SEGMENT", 2)
    monkeypatch.setattr(bulk_export, "PAGE", 2)
    address = kicked_off(doctor.get("$export", Prefer=ASYNC))
    kept = bulk.kept
    died = 0

    def dies(*given: Any, **told: Any) -> None:
        nonlocal died
        died += 1
        if died % 2:
            raise Unavailable("the power went")  # the files are there, nothing leads to them
        kept(*given, **told)

    monkeypatch.setattr(bulk, "kept", dies)
    while waiting(hospital):
        work(hospital)

    assert died > 4
    told = manifest(doctor, address)
    assert named(lines(doctor, told["output"])) == whole


def imported(door: Door, asker: Asker, *sent: Any) -> dict[str, Any]:
    content = b"\n".join(one if isinstance(one, bytes) else orjson.dumps(one) for one in sent)
    response = asker.client.post(
        "/fhir/$import",
        content=content,
        headers=asker.headers | {"Content-Type": NDJSON, "Prefer": ASYNC},
    )
    address = kicked_off(response)
    work(door)
    return manifest(asker, address)


def test_a_broken_line_is_told_by_its_number_and_the_rest_is_taken(hospital: Door) -> None:
    system = hospital.system("beicheng")
    patient = {
        "resourceType": "Patient",
        "id": "x",
        "identifier": [{"system": "urn:oid:2.25.101", "value": "Z7"}],
        "name": [{"family": "郑", "given": ["七"]}],
        "birthDate": "1970-01-01",
    }
    about = WEIGHT | {"subject": {"reference": "Patient?identifier=urn:oid:2.25.101|Z7"}}
    theirs = WEIGHT | {"subject": {"reference": "Patient/2"}}
    good = WEIGHT | {"id": "taken-in-1"}

    told = imported(
        hospital,
        system,
        patient,
        good,
        b'{"resourceType": "Observation"',
        b"",
        WEIGHT | {"status": "done"},
        theirs,
        about,
        WEIGHT,
        [1],
        WEIGHT | {"subject": {"reference": "Patient/999"}},
    )

    assert told["output"] == [
        {"type": "Observation", "count": 3},
        {"type": "Patient", "count": 1},
    ]
    wrong = lines(system, told["error"])
    for one in wrong:
        is_fhir(one)
    numbers = sorted(one["issue"][0]["diagnostics"].partition(":")[0] for one in wrong)
    assert numbers == ["line 10", "line 3", "line 5", "line 6", "line 9"]
    places = {
        one["issue"][0]["diagnostics"].partition(":")[0]: one["issue"][0].get("expression")
        for one in wrong
    }
    assert places["line 5"] == ["Observation.status"]
    assert places["line 10"] == ["Observation.subject"]
    assert places["line 3"] is None
    assert (
        next(one for one in wrong if "line 5" in one["issue"][0]["diagnostics"])["issue"][0]["code"]
        == "code-invalid"
    )
    assert system.read("Observation/taken-in-1")["meta"]["versionId"] == "1"
    found = system.ids("Patient?identifier=urn:oid:2.25.101|Z7")
    assert len(found) == 1


def test_a_line_that_is_too_long_is_told_wherever_it_stands(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_import, "LINE", 1 << 10)
    longest = 3 << 20  # comes in several pieces
    long = [orjson.dumps(WEIGHT | {"x": "y" * size}) for size in (2 << 10, longest)]
    system = hospital.system("beicheng")

    for sent, wrong in (
        ([long[1], WEIGHT, long[0], WEIGHT], ["line 1", "line 3"]),
        ([WEIGHT, WEIGHT, long[1]], ["line 3"]),
        ([WEIGHT, WEIGHT, b'{"resourceType": ' + b" " * longest + b'"Patient"}'], ["line 3"]),
    ):
        told = imported(hospital, system, *sent)

        assert told["output"] == [{"type": "Observation", "count": 2}]
        issues = [one["issue"][0] for one in lines(system, told["error"])]
        assert sorted(one["diagnostics"].partition(":")[0] for one in issues) == wrong
        assert {one["code"] for one in issues} == {"too-long"}


def test_lines_that_are_taken_again_are_the_same_resources(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = hospital.system("beicheng")
    monkeypatch.setattr(bulk_import, "TOGETHER", 2)
    monkeypatch.setattr(bulk_import, "SEGMENT", 2)
    before = len(of("Observation", exported(hospital, system, "$export?_type=Observation")))

    told = imported(hospital, system, *[WEIGHT] * 5)

    assert told["output"] == [{"type": "Observation", "count": 5}]
    after = len(of("Observation", exported(hospital, system, "$export?_type=Observation")))
    assert after == before + 5


def test_what_is_no_ndjson_or_nobodys_to_write_is_not_taken(hospital: Door) -> None:
    system = hospital.system("beicheng")
    told = system.headers | {"Prefer": ASYNC}
    for media_type, content, status in (
        ("application/fhir+json", b"{}", 415),
        (NDJSON, b" ", 400),
    ):
        response = system.client.post(
            "/fhir/$import", content=content, headers=told | {"Content-Type": media_type}
        )
        assert response.status_code == status
    administrator = hospital.administrator()
    response = administrator.client.post(
        "/fhir/$import",
        content=b"{}",
        headers=administrator.headers | {"Prefer": ASYNC, "Content-Type": NDJSON},
    )
    outcome(response, 403, "forbidden")


def test_a_file_is_compressed_for_who_takes_that(hospital: Door) -> None:
    asker = hospital.system("beicheng")
    address = kicked_off(asker.get("$export?_type=Observation", Prefer=ASYNC))
    work(hospital)
    (file,) = manifest(asker, address)["output"]
    zipped = asker.get(file["url"], Accept_Encoding="gzip")
    plain = asker.get(file["url"], Accept_Encoding="identity")
    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-length"] == str(len(plain.content))
    assert zipped.content == plain.content  # which the client has inflated


KILLED = """
import os, signal, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exchange.access import Exchange
from exchange_fhir import bulk_import
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exporting import going_on

bulk_import.SEGMENT = bulk_import.TOGETHER = 2
taken, done = 0, bulk_import._done

def deadly(*given):
    global taken
    done(*given)
    taken += 1
    if taken == 3:  # taken in, and not yet noted
        os.kill(os.getpid(), signal.SIGKILL)

bulk_import._done = deadly
store = FilesystemStore(Path(sys.argv[2]))
going_on(Exchange(Database(sys.argv[1]), store, Ed25519PrivateKey.generate()))
"""
"""A worker that is killed behind the sixth line."""


def test_an_import_goes_on_where_its_worker_was_killed(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_import, "SEGMENT", 2)
    monkeypatch.setattr(bulk_import, "TOGETHER", 2)
    with region(database_url, FilesystemStore(tmp_path / "store")) as city:
        city.send("beicheng", patient="W1")
        door = opened(city)
        system = door.system("beicheng")
        one = WEIGHT | {"subject": {"reference": "Patient/1"}}
        response = system.client.post(
            "/fhir/$import",
            content=b"\n".join([orjson.dumps(one)] * 10),
            headers=system.headers | {"Content-Type": NDJSON, "Prefer": ASYNC},
        )
        address = kicked_off(response)
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, database_url, str(tmp_path / "store")],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support")},
            timeout=300,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
        assert system.get(address).headers["x-progress"] == "4 lines read"

        while waiting(door):
            work(door)

        told = manifest(system, address)
        assert (told["output"], told["error"]) == ([{"type": "Observation", "count": 10}], [])
        found = system.ids("Observation?_count=50")
        assert len(found) == 10  # those that were taken twice are the same resources


@pytest.mark.parametrize("asked", ["_sort=date", "_include=Observation:subject", "_count=1"])
def test_a_filter_of_an_export_only_says_what_is_meant(hospital: Door, asked: str) -> None:
    """Bulk Data 2.0: result parameters are not used in a _typeFilter."""
    path = f"$export?_type=Observation&_typeFilter=Observation%3F{asked}%26status%3Dfinal"

    refused = hospital.system("beicheng").get(path, Prefer=ASYNC)

    assert asked.partition("=")[0] in outcome(refused, 400, "not-supported")


def test_what_an_export_leaves_out_of_a_lenient_request_is_told_in_its_errors(
    hospital: Door,
) -> None:
    """Bulk Data 2.0: includeAssociatedData may be refused, or ignored with a warning."""
    doctor = hospital.system("beicheng")
    path = "$export?_type=Practitioner,Colour&includeAssociatedData=LatestProvenanceResources"
    lenient = f"{ASYNC}, handling=lenient"
    outcome(doctor.get(path, Prefer=ASYNC), 400, "not-supported")

    address = kicked_off(doctor.get(path, Prefer=lenient))
    work(hospital)
    told = manifest(doctor, address)

    (warning,) = lines(doctor, told["error"])
    is_fhir(warning)
    assert {(one["severity"], one["code"]) for one in warning["issue"]} == {
        ("warning", "not-supported")
    }
    names = [one["diagnostics"].rpartition(" ")[2] for one in warning["issue"]]
    assert names == ["includeAssociatedData", "_type=Colour"]
    assert [one["type"] for one in told["output"]] == ["Practitioner"]
