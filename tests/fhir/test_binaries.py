"""What a Binary holds lies in the object store; the index keeps all the rest of every version."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from fhir_door import BASE, SHANGHAI, Door
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import func, select

from exchange import attachments, recording
from exchange.check import Finding, check
from exchange_fhir import writing
from exchange_fhir.writing import Place
from exchange_storage.records import Revision

PDF = b"%PDF-1.7 " + random.Random(1).randbytes(200_000)
OTHER = b"%PDF-1.7 " + random.Random(2).randbytes(100_000)
FHIR = "application/fhir+json"


def binary(content: bytes = PDF, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Binary",
        "contentType": "application/pdf",
        "securityContext": {"reference": "Patient/1"},
        "data": base64.b64encode(content).decode(),
        **more,
    }


def lying(city: Region) -> set[str]:
    """The keys of what is attached."""
    return {one.key for one in city.exchange.objects.list(f"{attachments.PREFIX}/")}


def largest(city: Region) -> int:
    """Bytes of the largest version in the index."""
    with city.exchange.database.reading() as session:
        return session.scalar(select(func.max(func.length(Revision.content)))) or 0


def test_a_large_document_is_whole_wherever_it_is_read_and_not_in_the_index(
    hospital: Door,
) -> None:
    beicheng = hospital.system("beicheng")
    made = beicheng.send("POST", "Binary", binary(), Prefer="return=representation").json()
    assert made["data"] == binary()["data"]
    path = f"Binary/{made['id']}"
    second = beicheng.send("PUT", path, binary(OTHER, id=made["id"]))
    assert (second.status_code, second.json()["meta"]["versionId"]) == (200, "2")

    assert beicheng.get(path, Accept=FHIR).json()["data"] == binary(OTHER)["data"]
    assert beicheng.get(path, Accept="application/pdf").content == OTHER
    assert beicheng.get(f"{path}/_history/1", Accept=FHIR).json()["data"] == binary()["data"]
    history = beicheng.get(f"{path}/_history").json()["entry"]
    assert [one["resource"]["data"] for one in history] == [
        binary(OTHER)["data"], binary()["data"],
    ]  # fmt: skip
    (found,) = beicheng.get(f"Binary?_id={made['id']}").json()["entry"]
    assert found["resource"]["data"] == binary(OTHER)["data"]
    patch = [{"op": "replace", "path": "/contentType", "value": "application/x-pdf"}]
    patched = beicheng.client.patch(
        f"/fhir/{path}",
        content=orjson.dumps(patch),
        headers=beicheng.headers | {"Content-Type": "application/json-patch+json"},
    )
    assert patched.json()["data"] == binary(OTHER)["data"]
    assert len(lying(hospital.city)) == 3
    assert largest(hospital.city) < 50_000


def test_a_document_is_nobodys_who_may_not_see_its_patient(hospital: Door) -> None:
    mine = hospital.system("beicheng").send("POST", "Binary", binary()).json()
    assert hospital.system("beicheng").get(f"Binary/{mine['id']}").status_code == 200
    assert hospital.asker(None).get(f"Binary/{mine['id']}").status_code == 401
    public = binary()
    del public["securityContext"]
    alone = hospital.system("beicheng").send("POST", "Binary", public).json()
    answer = hospital.clinician("dongshan").get(f"Binary/{alone['id']}")
    assert answer.status_code == 404


@pytest.mark.parametrize("how", ["stale", "there already", "transaction"])
def test_what_is_not_taken_leaves_nothing_in_the_store(hospital: Door, how: str) -> None:
    beicheng = hospital.system("beicheng")
    there = beicheng.send("POST", "Binary", binary(b"little")).json()["id"]
    before = lying(hospital.city)
    match how:
        case "stale":
            answer = beicheng.send("PUT", f"Binary/{there}", binary(id=there), If_Match='W/"7"')
            assert answer.status_code == 412
        case "there already":
            answer = beicheng.send("POST", "Binary", binary(), If_None_Exist=f"_id={there}")
            assert answer.status_code == 200
        case _:
            entry = [
                {"resource": binary(), "request": {"method": "POST", "url": "Binary"}},
                {"request": {"method": "DELETE", "url": "Observation/none"}},
            ]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
            assert beicheng.send("POST", "", bundle).status_code == 404
    assert lying(hospital.city) == before


def test_a_deleted_document_keeps_its_versions_and_a_forgotten_one_goes(hospital: Door) -> None:
    beicheng = hospital.system("beicheng")
    before = lying(hospital.city)
    made = beicheng.send("POST", "Binary", binary()).json()
    assert beicheng.send("DELETE", f"Binary/{made['id']}").status_code == 204
    old = beicheng.get(f"Binary/{made['id']}/_history/1", Accept=FHIR)
    assert old.json()["data"] == binary()["data"]
    kept = lying(hospital.city)
    assert len(kept - before) == 1

    def derive(*acts: recording.Act) -> Sequence[Any]:
        with hospital.city.exchange.on_behalf_of(WORKER) as access:
            return recording.several(access, acts)

    place = Place(base=BASE, timezone=SHANGHAI)
    derived = binary(id="derived")
    draft = writing.draft(derived, place, "derived")
    derive(recording.Derive(draft))
    assert len(lying(hospital.city) - kept) == 1
    derive(recording.Derive(writing.draft(derived, place, "derived")))  # says the same
    assert len(lying(hospital.city) - kept) == 1
    derive(recording.Forget("Binary", "derived"))
    assert lying(hospital.city) == kept


def test_a_check_reads_documents_and_tells_of_what_is_wrong(hospital: Door) -> None:
    objects = hospital.city.exchange.objects
    hospital.system("beicheng").send("POST", "Binary", binary())
    assert findings(hospital.city) == set()
    damaged, gone, *_ = sorted(lying(hospital.city))
    content = objects.get(damaged)
    objects.delete(damaged)
    objects.put(damaged, content[:-1] + b"?")
    lost = objects.get(gone)
    objects.delete(gone)
    assert findings(hospital.city) == {
        (damaged, "its bytes do not have the digest that they came with"),
        (gone, "the object is missing"),
    }
    objects.delete(damaged)
    objects.put(damaged, content)
    objects.put(gone, lost)
    assert findings(hospital.city) == set()


def findings(city: Region) -> set[tuple[str, str]]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = [one for one in check(access) if isinstance(one, Finding)]
    return {(one.key, one.what) for one in found if one.key.startswith(attachments.PREFIX)}
