"""Patients and hospitals whom nobody wrote have a version too: of the exchange's records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fhir_door import Asker, Door, link, outcome
from region import ADMINISTRATOR
from sqlalchemy import select

from exchange import consent, membership
from exchange_storage.records import AuditRecord

GENDER = [{"op": "replace", "path": "/gender", "value": "male"}]
PATCH = "application/json-patch+json"


@pytest.fixture
def system(door: Door) -> Asker:
    """beicheng, whose Patient/1 came with images."""
    door.city.send("beicheng", patient="P1")
    return door.system("beicheng")


@pytest.mark.parametrize(
    "path", ["Patient/1", "Organization/beicheng", "Endpoint/dicomweb-beicheng"]
)
def test_what_nobody_wrote_has_a_version_that_can_be_read_again(system: Asker, path: str) -> None:
    response = system.get(path)
    told = response.json()
    version = told["meta"]["versionId"]
    assert response.headers["etag"] == f'W/"{version}"'
    assert "last-modified" in response.headers
    assert system.get(path).headers["etag"] == response.headers["etag"]
    assert system.get(path, If_None_Match=response.headers["etag"]).status_code == 304

    assert system.read(f"{path}/_history/{version}") == told
    system.refused(f"{path}/_history/1", 404, "not-found")
    (entry,) = system.bundle(f"{path}/_history", mode_of="history")["entry"]
    assert entry["resource"] == told
    assert entry["response"]["etag"] == f'W/"{version}"'
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    later = now.replace("20", "29", 1)
    assert "entry" not in system.bundle(f"{path}/_history?_since={later}", mode_of="history")
    assert "entry" not in system.bundle(f"{path}/_history?_at=2020", mode_of="history")


def test_the_version_changes_with_the_record(door: Door, system: Asker) -> None:
    before = [system.get(path).headers["etag"] for path in ("Patient/1", "Organization/nanhu")]

    door.city.send("beicheng", patient="P1", instance="1.4.2", PatientAddress="沈阳")
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.deactivate(access, "nanhu")

    after = [system.get(path).headers["etag"] for path in ("Patient/1", "Organization/nanhu")]
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_the_first_write_may_name_the_version_that_it_relies_on(system: Asker, method: str) -> None:
    told = system.read("Patient/1")
    etag = system.get("Patient/1").headers["etag"]
    media_type = PATCH if method == "PATCH" else "application/fhir+json"
    body: Any = {"PUT": told | {"gender": "male"}, "PATCH": GENDER, "DELETE": None}[method]

    for wrong in ('W/"1"', 'W/"0"', 'W/"7777777777777777"'):
        headers = {"Content_Type": media_type, "If_Match": wrong}
        refused = system.send(method, "Patient/1", body, **headers)
        assert outcome(refused, 412, "conflict")
    headers = {"Content_Type": media_type, "If_Match": etag}
    done = system.send(method, "Patient/1", body, **headers)

    if method == "DELETE":
        assert outcome(done, 409, "conflict")  # images are held of the patient
        return
    assert (done.status_code, done.headers["etag"]) == (200, 'W/"1"')
    assert system.read("Patient/1")["gender"] == "male"
    assert system.read("Patient/1/_history/1")["gender"] == "male"
    system.refused(f"Patient/1/_history/{told['meta']['versionId']}", 404, "not-found")
    again = system.send(method, "Patient/1", body, **headers)
    assert outcome(again, 412, "conflict")


def test_versions_are_counted_where_none_is_asked_for(system: Asker) -> None:
    made = system.made({"resourceType": "Location", "name": "CT"})
    path = f"Location/{made['id']}"
    assert system.send("PUT", path, made | {"name": "MR"}).status_code == 200

    for where, total in ((path, 2), ("Location", 2), ("Patient/1", 1)):
        told = system.bundle(f"{where}/_history?_count=0", mode_of="history")
        assert told["total"] == total
        assert "entry" not in told
    assert "total" not in system.bundle(f"{path}/_history", mode_of="history")


STUDIES = ("1.2.1", "1.2.2", "1.2.3")


@pytest.fixture
def studies(door: Door) -> Asker:
    """A clinician of nanhu, whom beicheng shows studies of three patients."""
    for number, study in enumerate(STUDIES):
        patient, instance = f"P{number}", f"1.4.{number}"
        door.city.send("beicheng", patient=patient, study=study, instance=instance)
    return door.clinician("nanhu")


def opt_out(door: Door, number: str) -> None:
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", number)


def test_of_a_study_the_current_version_is_read_and_an_earlier_one_is_said_not_to_be_kept(
    door: Door, studies: Asker
) -> None:
    first = studies.read("ImagingStudy/1.2.1")["meta"]["versionId"]
    door.city.send("beicheng", patient="P0", study="1.2.1", instance="1.4.9")
    told = studies.read("ImagingStudy/1.2.1")
    version = told["meta"]["versionId"]
    assert int(version) > int(first)

    assert studies.read(f"ImagingStudy/1.2.1/_history/{version}") == told
    refused = studies.refused(f"ImagingStudy/1.2.1/_history/{first}", 404, "not-found")
    assert "only the current version" in refused
    (entry,) = studies.bundle("ImagingStudy/1.2.1/_history", mode_of="history")["entry"]
    assert entry["resource"] == told
    assert (entry["request"]["method"], entry["response"]["etag"]) == ("PUT", f'W/"{version}"')
    later = told["meta"]["lastUpdated"].replace("20", "29", 1)
    for none in (f"_since={later}", "_at=2020"):
        past = studies.bundle(f"ImagingStudy/1.2.1/_history?{none}", mode_of="history")
        assert "entry" not in past
    opt_out(door, "P0")
    for hidden in ("_history", f"_history/{version}"):
        studies.refused(f"ImagingStudy/1.2.1/{hidden}", 404, "not-found")
    studies.refused("ImagingStudy/1.2.404/_history", 404, "not-found")
    studies.refused("AuditEvent/_history", 404, "not-supported")


def test_studies_that_changed_since_are_told_page_by_page_to_whom_they_may_be(
    door: Door, studies: Asker
) -> None:
    def told(query: str) -> list[str]:
        found: list[str] = []
        following: str | None = f"ImagingStudy/_history?{query}"
        while following:
            page = studies.bundle(following, mode_of="history")
            found += [one["resource"]["id"] for one in page.get("entry", ())]
            following = link(page, "next")
        return found

    assert told("_count=2") == [*reversed(STUDIES)]
    since = studies.read("ImagingStudy/1.2.3")["meta"]["lastUpdated"]
    door.city.send("beicheng", patient="P0", study="1.2.1", instance="1.4.9")
    assert told(f"_since={since}&_count=1") == ["1.2.1", "1.2.3"]
    assert told("_at=2020") == []
    assert studies.bundle("ImagingStudy/_history?_count=0", mode_of="history")["total"] == 3

    opt_out(door, "P2")
    assert told(f"_since={since}") == ["1.2.1"]
    assert studies.bundle("ImagingStudy/_history?_count=0", mode_of="history")["total"] == 2
    with door.city.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    assert (last.action, last.outcome) == ("search", "success")
    following = link(studies.bundle("ImagingStudy/_history?_count=1", mode_of="history"), "next")
    assert following is not None
    door.clinician("dongshan").refused(following, 403, "forbidden")
