"""Patients and hospitals whom nobody wrote have a version too: of the exchange's records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fhir_door import Asker, Door, outcome
from region import ADMINISTRATOR

from exchange import membership

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
