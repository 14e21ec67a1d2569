"""What came and went is counted once, to the image, whenever somebody looks and whoever counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import Select, select, text, update

from exchange import operation, rejection, retrieval, traffic
from exchange.errors import Refused
from exchange_storage.records import AuditRecord, Change, Traffic, TrafficCounted

SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture
def busy(city: Region) -> Region:
    """A region in which Beicheng has sent three images, of which Nanhu has fetched some."""
    for number in range(3):
        city.send("beicheng", study="1.2.1", instance=f"1.2.1.1.{number}")
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        retrieval.instances(access, "1.2.1", purpose="study")
    return city


def seen(city: Region, code: str) -> tuple[int, int, int, int]:
    """What the administrators of a hospital see of today."""
    today = datetime.now(SHANGHAI).date()
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        hours = traffic.of_day(access, today, code, timezone=SHANGHAI)
    assert len(hours) == 24
    return (
        sum(one.received for one in hours),
        sum(one.size for one in hours),
        sum(one.fetched for one in hours),
        sum(one.fetched_by_others for one in hours),
    )


def count(city: Region) -> None:
    whole = False
    while not whole:
        with city.exchange.on_behalf_of(WORKER) as access:
            whole = traffic.count(access)


def test_a_day_is_the_same_before_and_after_it_is_counted(
    busy: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {code: seen(busy, code) for code in ("beicheng", "nanhu")}
    assert before["beicheng"][0] == 3
    assert before["beicheng"][1] > 0
    assert before["nanhu"][0] == 0
    assert before["nanhu"][2] > 0
    assert before["beicheng"][3] == before["nanhu"][2]

    monkeypatch.setattr(traffic, "BATCH", 2)
    count(busy)
    count(busy)

    assert {code: seen(busy, code) for code in ("beicheng", "nanhu")} == before
    busy.send("beicheng", study="1.2.1", instance="1.2.1.1.9")
    assert seen(busy, "beicheng")[0] == 4
    count(busy)
    assert seen(busy, "beicheng")[0] == 4
    with busy.exchange.on_behalf_of(ADMINISTRATOR) as access:
        state = operation.state(access, days=3, timezone=SHANGHAI)
    assert [one.instances for one in state.growth] == [0, 0, 4]
    assert state.growth[-1].size == seen(busy, "beicheng")[1]


@pytest.mark.parametrize("counted_first", [True, False])
def test_what_came_and_was_deleted_came_all_the_same(busy: Region, counted_first: bool) -> None:
    """As the ledger has it, whenever the worker counted."""
    if counted_first:
        count(busy)
    with busy.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113039", ["1.2.1.1.0", "1.2.1.1.1"])
    assert (seen(busy, "beicheng")[0], seen(busy, "nanhu")[0]) == (3, 0)
    busy.send("beicheng", study="1.2.1", instance="1.2.1.1.0", body=b"anew")
    assert seen(busy, "beicheng")[0] == 4
    count(busy)
    assert seen(busy, "beicheng")[0] == 4


def test_two_workers_count_nothing_twice(busy: Region) -> None:
    with (
        busy.exchange.on_behalf_of(WORKER) as slow,
        busy.exchange.on_behalf_of(WORKER) as quick,
    ):
        assert slow.session.execute(select(TrafficCounted)).all() == []
        traffic.count(quick)
        traffic.count(slow)

    assert seen(busy, "beicheng")[0] == 3


def test_a_page_does_not_look_through_what_a_worker_has_still_to_count(
    busy: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "LOOKED_AT", 1)
    assert seen(busy, "beicheng")[0] == 1
    count(busy)
    assert seen(busy, "beicheng")[0] == 3


def test_nobody_but_the_exchange_counts(busy: Region) -> None:
    with pytest.raises(Refused), busy.exchange.on_behalf_of(ADMINISTRATOR) as access:
        traffic.count(access)


def test_a_day_of_another_time_zone_begins_where_it_does(busy: Region) -> None:
    count(busy)
    with busy.exchange.database.writing() as session:
        # A quarter of an hour in which it is today in Kathmandu, and yesterday in UTC.
        session.execute(update(Traffic).values(begins=datetime(2026, 10, 31, 18, 15, tzinfo=UTC)))
    with busy.exchange.on_behalf_of(ADMINISTRATOR) as access:
        hours = traffic.of_day(
            access,
            datetime(2026, 11, 1).date(),  # noqa: DTZ001 - a date has no zone
            "beicheng",
            timezone=ZoneInfo("Asia/Kathmandu"),
        )
    assert [one.received for one in hours[:2]] == [3, 0]


@pytest.mark.parametrize("what", ["counted", "feed", "trail", "wrong"])
def test_what_is_asked_of_the_index_walks_no_table(busy: Region, what: str) -> None:
    now = datetime.now(UTC)
    asked: dict[str, Select[*tuple[Any, ...]]] = {
        "counted": select(Traffic).where(Traffic.organization_id == 1, Traffic.begins >= now),
        "feed": traffic._came(Change.sequence > 5, Change.sequence <= 9),
        "trail": traffic._fetched(AuditRecord.sequence > 5, AuditRecord.sequence <= 9),
        "wrong": select(AuditRecord.sequence).where(
            AuditRecord.recorded >= now, AuditRecord.outcome != operation._SUCCESS
        ),
    }
    with busy.exchange.database.reading() as session:
        sqlite = session.get_bind().dialect.name == "sqlite"
        if not sqlite:
            session.execute(text("SET LOCAL enable_seqscan = off"))
        written = asked[what].compile(
            session.get_bind(), compile_kwargs={"literal_binds": True, "render_postcompile": True}
        )
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        plan = "\n".join(str(row) for row in session.execute(text(f"{explain} {written}")))
    assert "SCAN audit_record" not in plan
    assert "SCAN change" not in plan
    assert "Seq Scan" not in plan, plan
    if what == "wrong":
        assert "ix_audit_record_wrong" in plan, plan
