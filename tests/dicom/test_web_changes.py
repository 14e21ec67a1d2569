"""Who follows the change feed knows what is held, and learns of nothing that was withheld."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from region import ADMINISTRATOR
from sqlalchemy import select
from web_door import IMAGE, SERIES, STUDY, Door, ct, fill

from exchange import changes, conflicts, consent, rejection, restoration, trail
from exchange_storage.records import AuditRecord, Patient

OTHER = {"StudyInstanceUID": "1.2.6", "SeriesInstanceUID": "1.2.6.1"}


def read(door: Door, query: str = "", who: str = "beicheng") -> dict[str, Any]:
    answer = door.get(f"changefeed?{query}", who)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def told(page: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (one["sopInstanceUID"].removeprefix(f"{SERIES}."), one["action"], one["state"])
        for one in page["changes"]
    ]


def reject(door: Door, code: str, *uids: str) -> None:
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", code, uids)


def test_what_came_is_told_in_the_order_in_which_it_came(door: Door) -> None:
    door.send(ct(2), ct(1))
    door.send(ct(3))

    page = read(door)

    assert told(page) == [("2", "create", "current"), ("1", "create", "current"),
                          ("3", "create", "current")]  # fmt: skip
    numbers = [one["sequence"] for one in page["changes"]]
    assert numbers == sorted(set(numbers))
    assert (page["through"], page["more"]) == (numbers[-1], False)
    last = page["changes"][1]
    assert last["retrieveURL"] == (f"{door.root}/studies/{STUDY}/series/{SERIES}/instances/{IMAGE}")
    assert datetime.fromisoformat(last["recorded"]).tzinfo is not None
    assert door.http.get(last["retrieveURL"], headers={"Authorization": "Bearer beicheng"})


def test_the_state_is_that_of_the_moment_of_reading(door: Door) -> None:
    door.send(ct(1), ct(2), ct(3))
    reject(door, "113001", f"{SERIES}.1")
    reject(door, "113039", f"{SERIES}.2")
    assert door.send(ct(3, StudyDescription="other")).status_code == 202
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
        conflicts.promote(access, waiting.number)

    assert told(read(door)) == [
        ("1", "create", "deleted"),
        ("2", "create", "deleted"),
        ("3", "create", "replaced"),
        ("1", "reject", "deleted"),
        ("2", "reject", "deleted"),
        ("2", "delete", "deleted"),
        ("3", "conflict", "current"),
        ("3", "replace", "current"),
    ]

    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", [f"{SERIES}.1"])
    # Again, under a UID whose image was deleted.
    assert door.send(ct(2, StudyDescription="again")).status_code == 200
    page = read(door)
    assert ("1", "create", "current") in told(page)
    assert told(page)[1] == ("2", "create", "replaced")
    assert told(page)[-2:] == [("1", "restore", "current"), ("2", "create", "current")]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_reader_that_goes_on_from_its_number_misses_nothing(door: Door, size: int) -> None:
    door.send(*(ct(number) for number in range(1, 6)))
    whole = read(door)["changes"]

    seen: list[Any] = []
    link = f"{door.root}/changefeed?limit={size}"
    more = True
    while more:
        answer = door.http.get(link, headers={"Authorization": "Bearer beicheng"})
        page = answer.json()
        assert len(page["changes"]) <= size
        seen += page["changes"]
        link, more = answer.headers["Link"].partition(">")[0].removeprefix("<"), page["more"]

    assert seen == whole
    door.send(ct(6))
    (new,) = door.http.get(link, headers={"Authorization": "Bearer beicheng"}).json()["changes"]
    assert new["sopInstanceUID"] == f"{SERIES}.6"


def test_entries_that_are_withheld_do_not_hold_up_the_reader(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOKED_AT", 2)
    fill(door)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
        consent.opt_out(access, "beicheng", "P2")

    first = read(door, who="nanhu")
    assert (first["changes"], first["more"]) == ([], True)
    second = read(door, f"after={first['through']}", who="nanhu")

    assert [one["studyInstanceUID"] for one in second["changes"]] == ["1.2.6"]
    assert second["more"] is False
    assert len(read(door)["changes"]) == 2  # at home everything shows, in two pages


def test_a_reader_can_begin_with_what_comes_from_now_on(door: Door) -> None:
    assert door.get("changefeed/latest", "beicheng").json() == {"through": 0}
    door.send(ct(1))
    last = door.get("changefeed/latest", "beicheng").json()["through"]
    door.send(ct(2))

    assert told(read(door, f"after={last}")) == [("2", "create", "current")]


def test_a_span_of_time_is_half_open(door: Door) -> None:
    door.send(ct(1))
    door.send(ct(2))
    door.send(ct(3))
    first, second, third = (one["recorded"] for one in read(door)["changes"])

    def between(**span: str) -> list[str]:
        query = "&".join(f"{name}={quote(value)}" for name, value in span.items())
        return [number for number, _, _ in told(read(door, query))]

    assert between(since=second) == ["2", "3"]
    assert between(before=second) == ["1"]
    assert between(since=second, before=third) == ["2"]
    assert between(since=first, before=first) == []
    assert between(since=(datetime.now(UTC) + timedelta(days=1)).isoformat()) == []
    # Beijing time, and a plus that was not escaped.
    there = datetime.fromisoformat(third) + timedelta(hours=8)
    local = there.replace(tzinfo=None).isoformat() + "+08:00"
    assert [number for number, _, _ in told(read(door, f"since={local}"))] == ["3"]
    page = read(door, f"since={quote(first)}&before={quote(third)}&limit=1")
    assert (told(page)[0][0], page["more"]) == ("1", True)


def test_that_something_waits_for_review_is_told_to_its_sender_alone(door: Door) -> None:
    door.send(ct(1))
    stray = ct(1, StudyDescription="other")
    assert door.send(stray, who="nanhu").status_code == 202

    assert ("1", "conflict", "replaced") in told(read(door, who="nanhu"))
    assert "conflict" not in {action for _, action, _ in told(read(door))}


def test_the_feed_is_read_on_the_record(door: Door) -> None:
    door.send(ct(1))
    read(door, "limit=1")

    with door.city.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    assert (last.action, last.outcome, last.requester) == ("search", "success", "BEICHENG")
    assert '"what":"changes"' in last.content


def test_the_record_says_about_whom_a_page_was_and_how_much_it_withheld(door: Door) -> None:
    door.send(ct(1))
    with door.city.exchange.database.reading() as session:
        (patient,) = session.scalars(select(Patient.id)).all()

    def recorded(who: str) -> tuple[int | None, list[int], int]:
        read(door, who=who)
        with door.city.exchange.database.reading() as session:
            newest = select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(1)
            last = session.scalars(newest).one()
        detail = json.loads(last.content)["detail"]
        return last.patient_id, detail["patients"], detail["withheld"]

    assert recorded("nanhu") == (patient, [patient], 0)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    assert recorded("nanhu") == (None, [], 1)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        newest, *_ = trail.records(access, study=STUDY)
    assert (newest["outcome"], newest["patient"]) == ("refused", patient)


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        "after=" + "9" * 30,
        "limit=0",
        "since=yesterday",
        "since=2026-11-26T08:00:00",
        "since=0001-01-01T00:00:00%2B14:00",
        "before=9999-12-31T23:00:00-12:00",
        "after=1&after=2",
    ],
)
def test_a_feed_that_makes_no_sense_is_refused(door: Door, query: str) -> None:
    answer = door.get(f"changefeed?{query}", "beicheng")

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_nobody_in_particular_learns_of_changes(door: Door) -> None:
    assert door.get("changefeed", "stranger").status_code == 401
    assert door.get("changefeed/latest", "stranger").status_code == 401
    assert door.get("changefeed", "beicheng", Accept="text/html").status_code == 406
    unknown = door.get("changefeed?includeMetadata=true", "beicheng")
    assert "ignored" in unknown.headers["Warning"]
