"""A hospital takes its own images out of use, or has them deleted, through the web door."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, WORKER
from sqlalchemy import func, select
from web_door import IMAGE, SERIES, STUDY, Door, ct, fill

from exchange import consent, destruction, restoration, retention
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import AuditRecord, Destroyed, Instance

HEADERS = {"Authorization": "Bearer beicheng"}
PLACES = [
    (f"studies/{STUDY}", 2),
    (f"studies/{STUDY}/series/{SERIES}", 2),
    (f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}", 1),
]


def served(door: Door) -> int:
    with door.city.exchange.database.reading() as session:
        primary = select(func.count()).select_from(Instance).where(Instance.is_primary)
        return session.execute(primary).scalar_one()


def trail(door: Door) -> list[tuple[str, str]]:
    with door.city.exchange.database.reading() as session:
        rows = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence)).all()
        return [(row.action, row.outcome) for row in rows]


@pytest.mark.parametrize(("place", "count"), PLACES)
@pytest.mark.parametrize("code", ["113001", "113037%5EDCM", "113038^DCM"])
def test_what_is_rejected_is_hidden_and_can_be_brought_back(
    door: Door, place: str, count: int, code: str
) -> None:
    fill(door)

    answer = door.http.post(f"{door.root}/{place}/reject/{code}", headers=HEADERS)

    assert (answer.status_code, answer.json()) == (200, {"count": count})
    assert served(door) == 4 - count
    assert ("reject", "success") in trail(door)
    one = door.get(f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}")
    assert one.status_code == 410
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", study=STUDY, reason="the wrong side it was not")
    assert served(door) == 4


@pytest.mark.parametrize("deleted", [False, True], ids=["rejected", "deleted"])
@pytest.mark.parametrize("place", [place for place, _ in PLACES[:2]], ids=["study", "series"])
def test_a_study_or_series_is_gone_once_all_of_it_was_rejected_or_deleted(
    door: Door, place: str, deleted: bool
) -> None:
    fill(door)
    series = f"studies/{STUDY}/series/{SERIES}"
    if deleted:
        assert door.http.delete(f"{door.root}/{place}", headers=HEADERS).status_code == 204
    else:
        door.http.post(f"{door.root}/{place}/reject/113001", headers=HEADERS)

    for resource in (f"studies/{STUDY}", series, f"{series}/instances/{IMAGE}"):
        for part in ("", "/metadata", "/rendered", "/thumbnail", "/bulkdata", "/pixeldata"):
            assert door.get(resource + part).status_code == 410, resource + part
    assert door.get(f"{series}/instances/{IMAGE}/frames/1").status_code == 410
    wado = f"wado?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={IMAGE}"
    assert door.get(wado).status_code == 410
    assert door.get(f"studies/{STUDY}/series/1.2.3").status_code == 404
    assert door.get(f"studies/{STUDY}/series/1.2.3/instances/{IMAGE}").status_code == 404
    assert door.found(f"studies/{STUDY}/instances") == []
    assert door.get(f"studies/{STUDY}", "quality.nanhu").status_code == 404
    again = door.http.delete(f"{door.root}/{place}", headers=HEADERS)
    assert again.status_code == (410 if deleted else 204)
    other = door.http.delete(f"{door.root}/{place}", headers={"Authorization": "Bearer nanhu"})
    assert other.status_code == 404


def test_that_a_study_is_gone_is_told_to_nobody_who_might_not_have_had_it(door: Door) -> None:
    door.send(ct(1, PatientID="P9"))
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P9")
    for path in (f"studies/{STUDY}", f"studies/{STUDY}/series/{SERIES}"):
        before = door.get(path, "dr.nanhu")
        door.http.post(f"{door.root}/studies/{STUDY}/reject/113001", headers=HEADERS)
        withheld, unknown = door.get(path, "dr.nanhu"), door.get("studies/1.2.99", "dr.nanhu")

        assert door.get(path).status_code == 410
        assert withheld.status_code == before.status_code == 404
        assert withheld.content == before.content == unknown.content


@pytest.mark.parametrize(("place", "count"), PLACES)
def test_what_is_deleted_is_gone_from_the_store(door: Door, place: str, count: int) -> None:
    fill(door)
    with door.city.exchange.database.reading() as session:
        keys = set(session.scalars(select(Instance.key).where(Instance.key.contains(STUDY))))

    answer = door.http.delete(f"{door.root}/{place}", headers=HEADERS)

    assert (answer.status_code, answer.content) == (204, b"")
    assert door.instances() == 4 - count
    with door.city.exchange.on_behalf_of(WORKER) as access:
        destruction.remove_objects(access, STUDY)
    with door.city.exchange.database.reading() as session:
        gone = set(session.scalars(select(Destroyed.key)))
    assert len(gone) == count
    assert gone <= keys
    for key in gone:
        with pytest.raises(ObjectNotFound):
            door.city.exchange.objects.get(key)
    assert ("destroy", "success") in trail(door)


def test_a_legal_hold_keeps_what_is_deleted_out_of_use(door: Door) -> None:
    fill(door)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, STUDY, "a court asks for it")

    answer = door.http.delete(f"{door.root}/studies/{STUDY}", headers=HEADERS)

    assert answer.status_code == 202
    assert "legal hold" in answer.headers["Warning"]
    assert (door.instances(), served(door)) == (4, 2)
    assert ("destroy", "refused") in trail(door)


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_nobody_rejects_what_another_hospital_has(door: Door, method: str) -> None:
    fill(door)
    path = f"studies/{STUDY}" + "/reject/113001" * (method == "POST")

    answer = door.http.request(
        method, f"{door.root}/{path}", headers={"Authorization": "Bearer nanhu"}
    )

    assert answer.status_code == 403
    assert "another hospital" in answer.json()["detail"]
    assert served(door) == 4
    assert trail(door)[-1] == ("reject", "refused")


@pytest.mark.parametrize(("who", "http"), [("dr.beicheng", 403), ("stranger", 401)])
@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_clinicians_and_strangers_reject_nothing(
    door: Door, who: str, http: int, method: str
) -> None:
    fill(door)
    path = f"studies/{STUDY}" + "/reject/113001" * (method == "POST")

    answer = door.http.request(
        method, f"{door.root}/{path}", headers={"Authorization": f"Bearer {who}"}
    )

    assert answer.status_code == http
    assert served(door) == 4


def test_what_is_not_there_cannot_be_deleted_and_what_was_deleted_is_gone(door: Door) -> None:
    door.send(ct(1), ct(2))
    place = f"{door.root}/studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"

    assert door.http.delete(f"{door.root}/studies/1.2.3", headers=HEADERS).status_code == 404
    wrong = f"{door.root}/studies/{STUDY}/series/1.2.3/instances/{IMAGE}"
    assert door.http.delete(wrong, headers=HEADERS).status_code == 404
    assert door.http.delete(place, headers=HEADERS).status_code == 204
    assert door.http.delete(place, headers=HEADERS).status_code == 410
    assert served(door) == 1


@pytest.mark.parametrize("code", ["1", "113001^SRT", "113000", "x"])
def test_only_the_reasons_of_the_standard_count(door: Door, code: str) -> None:
    door.send(ct(1))

    answer = door.http.post(f"{door.root}/studies/{STUDY}/reject/{code}", headers=HEADERS)

    assert answer.status_code == 400
    assert "113001" in answer.json()["detail"]
    assert door.http.delete(f"{door.root}/studies/x", headers=HEADERS).status_code == 400
    assert served(door) == 1


def test_who_looks_after_quality_finds_and_gets_what_the_hospital_has_rejected(door: Door) -> None:
    fill(door)
    one = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"
    metadata = f"studies/{STUDY}/series/{SERIES}/metadata"

    def found(who: str) -> list[str]:
        """The instances of the series, as they are searched for and as they are told of."""
        searched = [
            row["00080018"]["Value"][0]
            for row in door.found(f"studies/{STUDY}/series/{SERIES}/instances", who)
        ]
        answer = door.get(metadata, who)
        told = answer.json() if answer.status_code == 200 else []
        assert sorted(row["00080018"]["Value"][0] for row in told) == sorted(searched)
        return searched

    in_use = found("dr.beicheng")
    assert len(in_use) == 2
    assert found("quality.beicheng") == []
    door.http.post(f"{door.root}/{one}/reject/113001", headers=HEADERS)

    assert found("quality.beicheng") == [IMAGE]
    assert found("dr.beicheng") == [uid for uid in in_use if uid != IMAGE]
    assert found("quality.nanhu") == []  # others' are no quality of its own
    for resource in (one, f"{one}/metadata", f"{one}/rendered", f"{one}/thumbnail"):
        assert door.get(resource, "quality.beicheng").status_code == 200, resource
        assert door.get(resource, "dr.beicheng").status_code == 410, resource
        assert door.get(resource, "quality.nanhu").status_code == 404, resource
    (study,) = door.found("studies?includefield=NumberOfStudyRelatedInstances", "quality.beicheng")
    assert study["00201208"]["Value"] == [1]
    rejected = list(door.city.exchange.objects.list(f"derived/{STUDY}/"))
    assert len(rejected) == 1  # of what is in use; nothing is kept of what is not
    with door.city.exchange.database.reading() as session:
        records = session.scalars(select(AuditRecord.content)).all()
    assert any('"rejected":true' in one and '"what":"images"' in one for one in records)
    assert any('"rejected":true' in one and '"action":"search"' in one for one in records)

    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", [IMAGE])
    assert found("quality.beicheng") == []
    assert found("dr.beicheng") == in_use
