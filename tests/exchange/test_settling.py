"""What waits in another machine's spool is not there yet; what has waited for too long is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from region import ADMINISTRATOR, CT_IMAGE_STORAGE, WORKER, Region, region
from sqlalchemy import update

from exchange import check, commitment, jobs, scrub
from exchange.access import Exchange
from exchange.check import COMING, Finding
from exchange.settling import SETTLING
from exchange_storage.carried import LARGEST
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore
from exchange_storage.records import Instance, Scrub
from exchange_storage.spool import SpooledStore

IMAGE = bytes(LARGEST + 1)


@dataclass
class Machines:
    """Two machines with spools of their own before one bucket: the images come to the `far` one."""

    near: Region
    far: Region
    spool: SpooledStore
    """The far one's."""


@pytest.fixture
def machines(database_url: str, tmp_path: Path) -> Iterator[Machines]:
    bucket = MemoryStore()
    spools = [
        SpooledStore(FilesystemStore(tmp_path / name, durable=False), bucket)
        for name in ("near", "far")
    ]
    with region(database_url, spools[0]) as near:
        key = near.exchange.signing_key
        far = Exchange(Database(database_url), spools[1], key)
        try:
            made = Machines(near, Region(far, near.ids), spools[1])
            made.far.send("beicheng", body=IMAGE)
            yield made
        finally:
            far.close()


def scrubbed(city: Region) -> list[str]:
    soon = datetime.now(UTC) + timedelta(days=1)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = list(scrub.scrub(access, before=soon, limit=100))
    return [one.what for one in found if isinstance(one, scrub.Damage)]


def walked(city: Region) -> int:
    now = datetime.now(UTC)
    with city.exchange.database.writing() as session:  # as if the last one had been long ago
        session.execute(update(Scrub).values(begun=now - timedelta(days=2)))
    with city.exchange.on_behalf_of(WORKER) as access:
        return scrub.walk(access, days=90, until=now + timedelta(seconds=60)).damaged


def findings(city: Region) -> list[tuple[str, bool]]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = [one for one in check.check(access) if isinstance(one, Finding)]
    return [(one.what, one.harmless) for one in found]


def known(city: Region) -> int:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return scrub.known_damages(access)


def asked(city: Region, transaction: str) -> int:
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        return commitment.ask(access, transaction, [(CT_IMAGE_STORAGE, "1.4.1")])


def failed(city: Region, number: int) -> list[int]:
    with city.exchange.on_behalf_of(WORKER) as access:
        assert commitment.check(access, number)
    with city.exchange.on_behalf_of(WORKER) as access:
        return [reason for _, reason in commitment.report(access, number).failed]


@contextmanager
def long_ago(machines: Machines) -> Iterator[None]:
    """As if the image had come longer ago than it may be on its way, and then as if it came now."""
    for ago in (SETTLING, timedelta(0)):
        with machines.near.exchange.database.writing() as session:
            session.execute(update(Instance).values(received=datetime.now(UTC) - ago))
        if ago:
            yield


def test_what_waits_in_another_machines_spool_is_neither_damaged_nor_lost(
    machines: Machines,
) -> None:
    assert scrubbed(machines.near) == []
    assert findings(machines.near) == [(COMING, True)]
    assert known(machines.near) == 0
    machines.spool.drain()
    assert scrubbed(machines.near) == []
    assert findings(machines.near) == []


def test_a_commitment_waits_for_what_is_in_another_machines_spool(machines: Machines) -> None:
    number = asked(machines.near, "1.2.3")
    with (
        pytest.raises(jobs.Later) as later,
        machines.near.exchange.on_behalf_of(WORKER) as access,
    ):
        commitment.check(access, number)
    assert later.value.seconds == commitment.SPOOL_SECONDS
    machines.spool.drain()
    assert failed(machines.near, number) == []


def test_what_has_not_come_for_a_day_is_lost_until_somebody_finds_it(machines: Machines) -> None:
    near = machines.near
    with long_ago(machines):
        assert failed(near, asked(near, "1.2.3")) == [commitment.PROCESSING_FAILURE]
        assert findings(near) == [("the object is missing", False)]
        assert scrubbed(near) == ["missing"]
    machines.spool.drain()
    assert known(near) == 1
    assert findings(near) == []
    assert known(near) == 0


def test_a_walk_takes_what_is_whole_again_off_the_list_of_what_is_damaged(
    machines: Machines,
) -> None:
    with long_ago(machines):
        assert walked(machines.near) == 1
    machines.spool.drain()
    assert (known(machines.near), walked(machines.near), known(machines.near)) == (1, 0, 0)


def test_a_commitment_takes_what_is_whole_again_off_that_list(machines: Machines) -> None:
    with long_ago(machines):
        assert scrubbed(machines.near) == ["missing"]
    machines.spool.drain()
    assert failed(machines.near, asked(machines.near, "1.2.3")) == []
    assert known(machines.near) == 0
