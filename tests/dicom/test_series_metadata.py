"""What is told of a series is made once and kept; it is never out of date, and never unasked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import AnyHttpUrl
from region import ADMINISTRATOR, WORKER
from sqlalchemy import delete, select, update
from web_door import IMAGE, SERIES, STUDY, Door, ct, data_set, file

from exchange import conflicts, consent, destruction, jobs, rejection, retrieval
from exchange.errors import Refused
from exchange_dicom import series_metadata
from exchange_dicom.resources import Root
from exchange_dicom.telling import Telling
from exchange_server.composition import worker
from exchange_server.settings import Settings
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import StoreFull
from exchange_storage.records import Conflict, Job, Study

WHOLE = f"studies/{STUDY}/series/{SERIES}/metadata"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that were read from the store."""
    keys: list[str] = []
    stream = FilesystemStore.stream

    def noted(self: FilesystemStore, key: str, *asked: Any) -> Iterator[bytes]:
        found = stream(self, key, *asked)
        keys.append(key)
        return found

    monkeypatch.setattr(FilesystemStore, "stream", noted)
    return keys


def documents(door: Door) -> list[str]:
    return [one.key for one in door.city.exchange.objects.list("derived/")]


def told(door: Door, path: str = WHOLE, **headers: str) -> list[Any]:
    answer = door.get(path, Accept_Encoding=headers.pop("Accept_Encoding", "identity"), **headers)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def uids(found: list[Any]) -> list[str]:
    return [one["00080018"]["Value"][0].removeprefix(f"{SERIES}.") for one in found]


def test_a_series_is_described_once_and_then_served_as_it_lies(door: Door, read: list[str]) -> None:
    assert door.send(ct(1), ct(2), ct(3)).status_code == 200
    first = told(door)
    (kept,) = documents(door)
    read.clear()

    packed = door.http.get(
        f"{door.root}/{WHOLE}",
        headers={"Authorization": "Bearer dr.beicheng", "Accept-Encoding": "br, gzip;q=0.5"},
    )
    plain = door.get(WHOLE, Accept_Encoding="gzip;q=0")

    assert read == [kept, kept]
    assert packed.json() == plain.json() == first
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == (
        "gzip",
        "Accept, Accept-Encoding",
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["etag"] != plain.headers["etag"]
    for tag in (packed.headers["etag"], plain.headers["etag"]):
        assert door.get(WHOLE, If_None_Match=tag).status_code == 304
    lying = door.city.exchange.objects.get(kept)
    assert json.loads(gzip.decompress(lying)) == first


def test_the_worker_describes_a_series_before_anybody_asks(door: Door, read: list[str]) -> None:
    other = f"{STUDY}.2"
    assert door.send(ct(1), ct(2), ct(3, SeriesInstanceUID=other)).status_code == 200
    with door.city.exchange.on_behalf_of(WORKER) as access:
        study = access.session.scalars(select(Study.id)).one()
        held = retrieval.of_study(access, study)

    assert series_metadata.derive(door.city.exchange, held, Root(door.root)) == 2

    assert series_metadata.derive(door.city.exchange, held, Root(door.root)) == 0
    read.clear()
    assert uids(told(door)) == ["1", "2"]
    assert uids(told(door, f"studies/{STUDY}/metadata")) == ["1", "2", "3"]
    assert all(key.startswith("derived/") for key in read)
    with (
        pytest.raises(Refused),
        door.city.exchange.on_behalf_of(door.city.clinician("beicheng")) as access,
    ):
        retrieval.of_study(access, study)


def test_what_arrives_or_is_rejected_is_told_at_once(door: Door) -> None:
    assert door.send(ct(1), ct(2)).status_code == 200
    assert uids(told(door)) == ["1", "2"]
    tag = door.get(WHOLE).headers["ETag"]

    assert door.send(ct(3)).status_code == 200
    assert uids(door.get(WHOLE, If_None_Match=tag).json()) == ["1", "2", "3"]
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", [IMAGE])
    assert uids(told(door)) == ["2", "3"]
    assert len(documents(door)) == 1


def test_a_conflict_that_is_settled_is_told_at_once(door: Door) -> None:
    assert door.send(ct(1)).status_code == 200
    assert told(door)[0]["00081030"]["Value"] == ["胸部CT平扫"]
    assert door.send(ct(1, StudyDescription="头颅CT平扫")).status_code == 202
    assert told(door)[0]["00081030"]["Value"] == ["胸部CT平扫"]

    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.promote(access, access.session.scalars(select(Conflict.id)).one())

    assert told(door)[0]["00081030"]["Value"] == ["头颅CT平扫"]


def test_a_document_does_not_outlive_what_it_tells_of(door: Door) -> None:
    assert door.send(ct(1), ct(2)).status_code == 200
    assert uids(told(door)) == ["1", "2"]
    assert door.send(ct(1, StudyDescription="另一")).status_code == 202
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.discard(access, access.session.scalars(select(Conflict.id)).one())

    with door.city.exchange.on_behalf_of(WORKER) as access:
        assert access.session.scalars(select(Job.subject).where(Job.kind == jobs.DESTROY)).all()
        destruction.remove_objects(access, STUDY)

    assert documents(door) == []
    assert uids(told(door)) == ["1", "2"]


@pytest.mark.parametrize("taken_out", ["rejected", "deleted"])
@pytest.mark.parametrize("before", ["the last instance was read", "the document was kept"])
def test_what_is_taken_out_while_it_is_described_is_in_no_document(
    door: Door, monkeypatch: pytest.MonkeyPatch, taken_out: str, before: str
) -> None:
    assert door.send(ct(1), ct(2)).status_code == 200
    objects = door.city.exchange.objects
    code = {"rejected": "113001", "deleted": "113039"}[taken_out]

    def take_out() -> None:
        monkeypatch.undo()
        with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            rejection.reject(access, "beicheng", code, [IMAGE])
        with door.city.exchange.on_behalf_of(WORKER) as access:
            destruction.remove_objects(access, STUDY)

    if before == "the document was kept":
        put = type(objects).put

        def putting(self: object, key: str, content: bytes) -> object:
            if key.startswith("derived/"):
                take_out()
            return put(objects, key, content)

        monkeypatch.setattr(type(objects), "put", putting)
        told(door)
    else:
        with door.city.exchange.on_behalf_of(door.city.clinician("beicheng")) as access:
            held = retrieval.instances(access, STUDY, SERIES).instances
        root = Root(door.root)
        pieces = series_metadata.array(door.city.exchange, held, root, Telling(root))
        assert next(pieces) == b"["
        next(pieces)  # the first of two
        take_out()
        list(pieces)

    assert documents(door) == []
    assert uids(told(door)) == ["2"]


def test_what_is_kept_is_shown_to_nobody_who_may_not_see_it(door: Door) -> None:
    assert door.send(ct(1)).status_code == 200
    assert door.get(WHOLE, "dr.nanhu").status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    assert door.get(WHOLE, "dr.nanhu").status_code == 404
    assert door.get(WHOLE, "stranger").status_code == 401
    assert uids(told(door)) == ["1"]


def test_addresses_that_askers_make_up_do_not_fill_the_store(door: Door) -> None:
    assert door.send(ct(1)).status_code == 200

    for number in range(9):
        assert told(door, Host=f"host{number}")[0]["7FE00010"]["BulkDataURI"].startswith(
            f"http://host{number}/"
        )

    assert len(documents(door)) == 1


def test_a_store_that_is_full_keeps_nobody_from_the_metadata(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreFull("no room")

    assert door.send(ct(1)).status_code == 200
    monkeypatch.setattr(FilesystemStore, "stage", full)

    assert uids(told(door)) == ["1"]
    assert documents(door) == []


def test_a_very_long_series_is_told_and_not_kept(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_metadata, "DOCUMENT_LIMIT", 2000)
    assert door.send(*(ct(number) for number in range(1, 6))).status_code == 200
    other = data_set(SOPInstanceUID="1.9", SeriesInstanceUID="1.8", InstanceNumber="9")
    assert door.send(file(other)).status_code == 200

    assert len(told(door, f"studies/{STUDY}/metadata")) == 6
    assert [key.split("/")[2] for key in documents(door)] == ["1.8"]


def test_a_worker_makes_the_document_once_no_more_of_the_study_comes(
    door: Door, tmp_path: Path
) -> None:
    assert door.send(ct(1)).status_code == 200
    address = door.root.removesuffix("/dicom-web")
    one = worker(door.city.exchange, Settings(data=tmp_path, public_url=AnyHttpUrl(address)))

    def work(kind: str) -> None:
        with door.city.exchange.database.writing() as session:
            session.execute(delete(Job).where(Job.kind != kind))
            session.execute(update(Job).values(due=datetime.now(UTC)))
        assert one.run_once()

    work(jobs.REFRESH)
    work(jobs.DESCRIBE)
    assert documents(door) == []  # it would be made again for each image that comes

    with door.city.exchange.database.writing() as session:
        session.execute(update(Study).values(changed=datetime.now(UTC) - retrieval.SETTLED))
    work(jobs.DESCRIBE)

    (kept,) = documents(door)
    assert told(door)[0]["00080018"]["Value"] == [IMAGE]
    assert documents(door) == [kept]
