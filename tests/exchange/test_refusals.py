"""A stranger who calls all day adds a few records to the trail, and is counted all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from region import Region
from sqlalchemy import select

from exchange import organizations, refusals
from exchange.errors import Unavailable
from exchange_storage.records import AuditRecord


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(refusals, "monotonic", made)
    return made


def trail(city: Region) -> list[dict[str, Any]]:
    """The refused calls, in the order in which they were recorded."""
    with city.exchange.database.reading() as session:
        contents = session.scalars(select(AuditRecord.content).order_by(AuditRecord.sequence))
        records = [json.loads(one) for one in contents]
    return [one for one in records if one["action"] == "authenticate"]


def call(city: Region, title: str, address: str = "192.0.2.9") -> None:
    assert organizations.caller(city.exchange, title, address) is None


def test_the_first_refusals_are_records_and_the_others_one_record_with_their_count(
    clock: Clock, city: Region
) -> None:
    for _ in range(refusals.OF_NAME + 5):
        call(city, "STRANGER")
    assert len(trail(city)) == refusals.OF_NAME

    clock.now += refusals.WINDOW
    call(city, "STRANGER")

    told, next_one = trail(city)[refusals.OF_NAME :]
    assert (told["requester"], told["role"], told["door"]) == ("exchange", "exchange", "dimse")
    assert told["detail"] == {"count": 5, "addresses": {"192.0.2.9": 5}}
    assert (next_one["requester"], next_one["reason"]) == ("STRANGER", "unknown AE title")


def test_the_count_is_told_when_a_known_hospital_calls_next(clock: Clock, city: Region) -> None:
    for _ in range(refusals.OF_NAME + 1):
        call(city, "STRANGER")
    clock.now += refusals.WINDOW

    assert organizations.caller(city.exchange, "NANHU", "127.0.0.1") is not None
    assert organizations.caller(city.exchange, "NANHU", "127.0.0.1") is not None

    assert [one["detail"].get("count") for one in trail(city)] == [None] * refusals.OF_NAME + [1]


def test_another_name_at_every_call_does_not_grow_the_trail(clock: Clock, city: Region) -> None:
    for number in range(refusals.OF_ADDRESS + 20):
        call(city, f"STRANGER{number}")
    call(city, "STRANGER", "192.0.2.10")

    recorded = [one["address"] for one in trail(city)]
    assert recorded == ["192.0.2.9"] * refusals.OF_ADDRESS + ["192.0.2.10"]


def test_another_address_at_every_call_does_not_grow_it_either(clock: Clock, city: Region) -> None:
    for number in range(refusals.OF_ALL + 20):
        call(city, "STRANGER", f"2001:db8::{number:x}")
    assert len(trail(city)) == refusals.OF_ALL

    clock.now += refusals.WINDOW
    refusals.settle(city.exchange)

    told = trail(city)[-1]["detail"]
    assert (told["count"], len(told["addresses"])) == (20, refusals.NAMED)


def test_who_calls_a_malformed_title_or_another_node_is_in_the_trail_too(
    clock: Clock, city: Region
) -> None:
    call(city, "NAN\\HU")
    organizations.refused(city.exchange, "\ud800\0", "::ffff:192.0.2.9", "wrong called AE title")

    assert [(one["requester"], one["address"], one["reason"]) for one in trail(city)] == [
        ("NAN\\HU", "192.0.2.9", "malformed AE title"),
        ("\ud800\0", "192.0.2.9", "wrong called AE title"),
    ]


def test_a_count_that_could_not_be_recorded_is_told_later(clock: Clock, city: Region) -> None:
    for _ in range(refusals.OF_NAME + 4):
        call(city, "STRANGER")
    clock.now += refusals.WINDOW

    def away() -> None:
        raise Unavailable("the index does not answer")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(city.exchange), "on_behalf_of", lambda *_: away())
        with pytest.raises(Unavailable):
            refusals.settle(city.exchange)
    clock.now += refusals.WINDOW
    refusals.settle(city.exchange)

    assert trail(city)[-1]["detail"]["count"] == 4
