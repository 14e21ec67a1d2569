"""What a Binary holds lies in the object store; the index keeps all the rest of every version."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from fhir_door import BASE, SHANGHAI, Asker, Door, is_fhir, opened, outcome
from httpx2 import Response
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import func, select, update

from exchange import attachments, recording, scrub
from exchange.check import Finding, check
from exchange.errors import TooLarge, Unavailable
from exchange.policy import Action
from exchange_fhir import writing
from exchange_fhir.serving import Conduct
from exchange_fhir.writing import Place
from exchange_server import ranges
from exchange_storage.objects import ObjectStoreError
from exchange_storage.records import AuditRecord, Revision, Scrub

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


@pytest.mark.parametrize("size", [2_000_000, 2_000_001, 2_000_002])
def test_a_large_document_leaves_piece_by_piece_as_fhir(hospital: Door, size: int) -> None:
    beicheng = hospital.system("beicheng")
    content = random.Random(size).randbytes(size)
    made = sent(beicheng, content, "POST", "Binary", X_Security_Context="Patient/1")
    path, expected = f"Binary/{made.json()['id']}", binary(content)["data"]

    for query, accept in (
        ("", FHIR),
        ("?_pretty=true", FHIR),
        ("", "application/fhir+xml"),
        ("?_format=xml&_pretty=true", "*/*"),
    ):
        response = beicheng.get(f"{path}{query}", Accept=accept)
        assert int(response.headers["content-length"]) == len(response.content)
        if "xml" in response.headers["content-type"]:
            assert f'<data value="{expected}"/>' in response.text
        else:
            assert response.json() == beicheng.get(f"{path}/_history/1", Accept=FHIR).json()
            assert response.json()["data"] == expected
    part = beicheng.get(f"{path}?_elements=contentType", Accept=FHIR).json()
    assert (part["contentType"], "data" in part) == ("application/pdf", False)
    pieces = asyncio.run(pieces_of(hospital, beicheng, path))
    assert sum(pieces) > size
    assert max(pieces) < 2 << 20


async def pieces_of(hospital: Door, asker: Asker, path: str) -> list[int]:
    """In how large pieces an answer leaves the application."""
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        if found:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        found.append(len(message.get("body", b"")))

    told = {**asker.headers, "Accept": FHIR, "Host": "exchange.example"}
    headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
    }
    scope |= {"http_version": "1.1", "scheme": "https", "root_path": "", "query_string": b""}
    scope |= {"path": f"/fhir/{path}", "raw_path": f"/fhir/{path}".encode(), "headers": headers}
    scope |= {"server": ("exchange.example", 443), "client": ("127.0.0.1", 0)}
    await hospital.client.app(scope, receive, send)
    return found


def sent(beicheng: Asker, content: bytes, method: str, path: str, **more: str) -> Response:
    """A document sent in its own type."""
    told = {name.replace("_", "-"): value for name, value in more.items()}
    headers = beicheng.headers | {"Content-Type": "application/pdf"} | told
    return beicheng.client.request(method, f"/fhir/{path}", content=content, headers=headers)


def test_a_document_that_is_sent_as_itself_is_what_the_same_is_as_fhir(hospital: Door) -> None:
    beicheng = hospital.system("beicheng")
    for content in (PDF, b"%PDF-1.7 little"):
        made = sent(beicheng, content, "POST", "Binary", X_Security_Context="Patient/1")
        assert made.status_code == 201, made.text
        told = made.json()
        is_fhir(told)
        assert {key: told[key] for key in binary()} == binary(content)
        path = f"Binary/{told['id']}"
        assert beicheng.get(path, Accept=FHIR).json() == told
        assert beicheng.get(path, Accept="application/pdf").content == content

        second = sent(beicheng, OTHER, "PUT", path, Prefer="return=minimal", If_Match='W/"1"')
        assert (second.status_code, second.content) == (204, b"")
        assert beicheng.get(path, Accept="application/pdf").content == OTHER
        first = beicheng.get(f"{path}/_history/1", Accept="application/pdf")
        assert first.content == content
        assert sent(beicheng, PDF, "PUT", path, If_Match='W/"1"').status_code == 412
        assert sent(beicheng, PDF, "PUT", path, Content_Encoding="gzip").status_code == 400
        packed = sent(beicheng, gzip.compress(PDF), "PUT", path, Content_Encoding="gzip")
        assert packed.json()["data"] == binary()["data"]
    assert largest(hospital.city) < 50_000
    assert findings(hospital.city) == set()


def test_what_is_sent_and_not_taken_leaves_nothing_in_the_store(hospital: Door) -> None:
    beicheng, limit = hospital.system("beicheng"), Conduct().binary_limit
    there = beicheng.send("POST", "Binary", binary(b"little")).json()["id"]
    before = lying(hospital.city)
    assert sent(beicheng, PDF, "PUT", f"Binary/{there}", If_Match='W/"7"').status_code == 412
    found = sent(beicheng, PDF, "POST", "Binary", If_None_Exist=f"_id={there}")
    assert (found.status_code, found.json()["data"]) == (200, binary(b"little")["data"])
    assert sent(beicheng, PDF, "PUT", "Binary/a_b").status_code == 404
    assert sent(beicheng, PDF, "POST", "Binary", Content_Type="nothing").status_code == 415
    assert sent(beicheng, PDF, "POST", "Observation").status_code == 415
    assert sent(hospital.asker(None), PDF, "POST", "Binary").status_code == 401
    assert lying(hospital.city) == before

    with attachments.Arriving(hospital.city.exchange.objects, limit) as arriving:
        arriving.write(PDF)
        with pytest.raises(TooLarge):
            arriving.write(bytes(limit))
    assert lying(hospital.city) == before


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
                {"request": {"method": "DELETE", "url": "Observation/none", "ifMatch": "*"}},
            ]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
            assert beicheng.send("POST", "", bundle).status_code == 412
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
    for _ in range(2):
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


def test_a_scrub_reads_documents_as_it_reads_images(hospital: Door) -> None:
    city, objects = hospital.city, hospital.city.exchange.objects
    beicheng = hospital.system("beicheng")
    before = lying(city)
    made = [beicheng.send("POST", "Binary", binary()).json()["id"] for _ in range(2)]
    damaged, gone = lying(city) - before
    kept = {key: objects.get(key) for key in (damaged, gone)}
    assert walked(city).damaged == 0
    objects.delete(damaged)
    objects.put(damaged, PDF[:-1] + b"?")
    objects.delete(gone)
    wrong = {damaged: "not the bytes that were received", gone: "missing"}

    assert walked(city).damaged == 0  # all of it was read lately
    assert dict(scrubbed(city)) == wrong
    assert walked(city, days=0).damaged == 2
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        latest = scrub.walks(access)[0]
        assert latest.finished is not None
        assert (latest.read, latest.damaged) == (len({*lying(city), gone}), 2)
        assert {one.key: one.what for one in scrub.damages(access)} == wrong
        assert scrub.known_damages(access) == 2
    told = [one for one in verified(city) if one["outcome"] == "failed"]
    assert {one["detail"]["what"] for one in told} == {f"Binary/{one}" for one in made}

    objects.delete(damaged)
    for key, content in kept.items():
        objects.put(key, content)
    assert scrubbed(city) == []
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert scrub.damages(access) == []
        assert scrub.known_damages(access) == 0


def test_a_walk_that_was_interrupted_among_documents_goes_on_there(
    hospital: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = hospital.city
    beicheng = hospital.system("beicheng")
    before = lying(city)
    walked(city)
    for _ in range(3):
        assert beicheng.send("POST", "Binary", binary()).status_code == 201
    monkeypatch.setattr(scrub, "BATCH", 1)
    seen: list[str] = []
    digest = city.exchange.objects.digest
    away = True

    def noted(key: str) -> str:
        if away and len(seen) == 2:
            raise ObjectStoreError("the disk is away for a moment")
        seen.append(key)
        return digest(key)

    monkeypatch.setattr(city.exchange.objects, "digest", noted)
    with pytest.raises(Unavailable):
        walked(city)
    away = False
    walked(city, again=False)
    assert sorted(seen) == sorted(lying(city) - before)


def test_what_was_damaged_and_is_forgotten_is_on_no_list(hospital: Door) -> None:
    city = hospital.city
    before = lying(city)
    place = Place(base=BASE, timezone=SHANGHAI)
    draft = writing.draft(binary(id="derived"), place, "derived")
    with city.exchange.on_behalf_of(WORKER) as access:
        recording.several(access, [recording.Derive(draft)])
    (key,) = lying(city) - before
    city.exchange.objects.delete(key)
    assert scrubbed(city) == [(key, "missing")]
    with city.exchange.on_behalf_of(WORKER) as access:
        recording.several(access, [recording.Forget("Binary", "derived")])
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert scrub.known_damages(access) == 0


def walked(city: Region, *, days: int = 90, again: bool = True) -> scrub.Walked:
    """What a walk found; with `again` as if the last one had been begun long ago."""
    now = datetime.now(UTC)
    if again:
        with city.exchange.database.writing() as session:
            session.execute(update(Scrub).values(begun=now - timedelta(days=2)))
    with city.exchange.on_behalf_of(WORKER) as access:
        return scrub.walk(access, days=days, until=now + timedelta(seconds=60))


def scrubbed(city: Region) -> list[tuple[str, str]]:
    soon = datetime.now(UTC) + timedelta(days=1)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        told = list(scrub.scrub(access, before=soon, limit=1000))
    return [(one.key, one.what) for one in told if isinstance(one, scrub.Damage)]


def verified(city: Region) -> list[dict[str, Any]]:
    """What the trail has of objects that were read again."""
    with city.exchange.database.reading() as session:
        kept = session.scalars(
            select(AuditRecord.content).where(AuditRecord.action == Action.VERIFY)
        )
        return [orjson.loads(one) for one in kept]


def findings(city: Region) -> set[tuple[str, str]]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = [one for one in check(access) if isinstance(one, Finding)]
    return {(one.key, one.what) for one in found if one.key.startswith(attachments.PREFIX)}


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_part_of_a_document_is_sent_whether_it_is_small_or_large(city: Region, size: int) -> None:
    """RFC 9110 14."""
    city.send("beicheng")
    beicheng = opened(city, send=ranges.send).system("beicheng")
    content = PDF[:size]
    path = f"Binary/{beicheng.send('POST', 'Binary', binary(content)).json()['id']}"

    for asked, part, where in (
        ("bytes=0-9", content[:10], "0-9"),
        ("bytes=990-", content[990:], f"990-{size - 1}"),
        ("bytes=-7", content[-7:], f"{size - 7}-{size - 1}"),
        (f"bytes=0-{size * 2}", content, f"0-{size - 1}"),
    ):
        for at in (path, f"{path}/_history/1"):
            answer = beicheng.get(at, Accept="application/pdf", Range=asked, Accept_Encoding="gzip")
            assert (answer.status_code, answer.content) == (206, part), asked
            assert answer.headers["content-range"] == f"bytes {where}/{size}"
            assert "content-encoding" not in answer.headers
    for ignored in ("bytes=5-2", "bytes=0-1,3-4", "lines=1-2"):
        answer = beicheng.get(path, Accept="application/pdf", Range=ignored)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["accept-ranges"] == "bytes"
    whole = beicheng.get(path, Accept="application/pdf", Range="bytes=0-9", If_Range='W/"1"')
    assert (whole.status_code, whole.content) == (200, content)
    beyond = beicheng.get(path, Accept="application/pdf", Range=f"bytes={size}-")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    outcome(beyond, 416, "invalid")
    resource = beicheng.get(path, Accept=FHIR, Range="bytes=0-9")
    assert (resource.status_code, resource.json()["data"]) == (200, binary(content)["data"])
