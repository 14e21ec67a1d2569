"""What a hospital should have sent on a day, against what came: gap by gap, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import update

from exchange import ledger, orders, performed, retention
from exchange.errors import Invalid, NotFound
from exchange.ledger import Gap, Line, Missing
from exchange_storage.records import Instance

ZONE = ZoneInfo("Asia/Shanghai")
TODAY = datetime.now(ZONE).date()
DAY = f"{TODAY:%Y%m%d}"


def ordered(city: Region, accession: str) -> None:
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        orders.place(
            access,
            orders.Placed(
                patient_id="P1",
                accession_number=accession,
                modality="CT",
                station_ae_title="CT1",
                scheduled_date=DAY,
            ),
        )


def announced(city: Region, *instances: str) -> None:
    """A modality says that it has made these, in one step."""
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        begun = performed.Told(
            status=performed.Status.IN_PROGRESS,
            study_instance_uid="1.2.1",
            station_ae_title="CT1",
            modality="CT",
            started=f"{DAY}101500",
        )
        performed.begin(access, "1.9.1", begun, {})
        ended = performed.Told(
            status=performed.Status.COMPLETED,
            expected=tuple(("1.2.1.1", uid) for uid in instances),
        )
        performed.change(access, "1.9.1", ended, {performed.SERIES: {"Value": [{}]}})


def line(city: Region) -> Line:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (told,) = ledger.lines(access, TODAY, TODAY, timezone=ZONE, organization="beicheng")
    return told


def gaps(city: Region) -> list[Gap]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = ledger.gaps(access, TODAY, timezone=ZONE)
    assert {code for code, _ in found} <= {"beicheng"}
    return [gap for _, gap in found]


def verified(city: Region) -> None:
    with city.exchange.database.writing() as session:
        session.execute(update(Instance).values(verified=datetime.now(UTC)))


def test_a_quiet_day_is_complete(city: Region) -> None:
    assert line(city).complete
    assert gaps(city) == []


def test_every_gap_says_what_is_missing_of_what(city: Region) -> None:
    ordered(city, "A1")
    announced(city, "1.4.1", "1.4.2")
    city.send("beicheng", instance="1.4.1")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        ledger.tell(access, TODAY, "PACS", studies=2, instances=None, organization="beicheng")

    told = line(city)
    assert (told.scheduled, told.not_begun) == (1, 1)
    assert (told.expected, told.received, told.committed) == (2, 1, 0)
    assert (told.arrived, told.counted) == (1, None)
    assert (told.arrived_studies, told.counted_studies) == (1, 2)
    assert not told.complete
    assert [(gap.missing, gap.accession_number or gap.sop_instance_uid) for gap in gaps(city)] == [
        (Missing.BEGINNING, "A1"),
        (Missing.INSTANCE, "1.4.2"),
        (Missing.COUNT, ""),
        (Missing.VERIFICATION, "1.4.1"),
    ]
    assert gaps(city)[2].counts == "studies: 1 of 2"


def test_what_came_and_is_not_verified_yet_is_not_told_where_only_what_is_missing_is_asked(
    city: Region,
) -> None:
    announced(city, "1.4.1", "1.4.2")
    city.send("beicheng", instance="1.4.1")

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = ledger.gaps(access, TODAY, timezone=ZONE, missing=True)

    assert [gap.sop_instance_uid for _, gap in found] == ["1.4.2"]


def test_when_all_has_come_and_was_read_back_the_day_is_complete(city: Region) -> None:
    announced(city, "1.4.1", "1.4.2")
    for uid in ("1.4.1", "1.4.2"):
        city.send("beicheng", instance=uid, body=uid.encode())
        city.send("beicheng", instance=uid, body=b"and another version")
    verified(city)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        ledger.tell(access, TODAY, "PACS", studies=1, instances=2, organization="beicheng")
        ledger.tell(access, TODAY, "CT1", studies=None, instances=2, organization="beicheng")
    told = line(city)
    assert (told.expected, told.received, told.committed) == (2, 2, 2)
    assert (told.arrived, told.counted) == (4, 4)
    assert told.complete
    assert gaps(city) == []


def test_an_order_is_begun_when_its_images_come_from_a_modality_without_mpps(
    city: Region,
) -> None:
    ordered(city, "A1")
    ordered(city, "A2")
    city.send("nanhu", study="1.2.9", instance="1.4.9", AccessionNumber="A1")  # not theirs
    assert line(city).not_begun == 2
    city.send("beicheng", AccessionNumber="A1")
    assert line(city).not_begun == 1
    assert [gap.accession_number for gap in gaps(city)] == ["A2"]


def test_what_was_deleted_by_rule_has_come_all_the_same(city: Region) -> None:
    announced(city, "1.4.1")
    city.send("beicheng", instance="1.4.1")
    verified(city)
    before = line(city)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "", 1)
    with city.exchange.on_behalf_of(WORKER) as access:
        access.now += timedelta(days=30)
        (study,) = retention.expired(access)
    with city.exchange.on_behalf_of(WORKER) as access:
        retention.destroy(access, study)
    city.send("nanhu", study="1.2.9", instance="1.4.9")  # may get the number of the old row
    assert line(city) == before
    assert gaps(city) == []


def test_a_count_that_says_nothing_is_refused(city: Region) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        with pytest.raises(Invalid, match="of both"):
            ledger.tell(access, TODAY, "PACS", studies=None, instances=None, organization="nanhu")
        with pytest.raises(Invalid, match="name one"):
            ledger.tell(access, TODAY, "PACS", studies=1, instances=None)
        with pytest.raises(NotFound):
            ledger.tell(access, TODAY, "PACS", studies=1, instances=None, organization="nowhere")
