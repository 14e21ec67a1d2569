"""A disk that gives out all but one object: that one is damaged, and the hospital can heal it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from region import ADMINISTRATOR, WORKER, Region, region

from exchange import check, conflicts, retention, scrub
from exchange.check import Finding
from exchange.errors import Invalid, NotFound, Refused, Unavailable
from exchange.ingest import ANOTHER, Outcome
from exchange_storage.carried import LARGEST
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, Stored, StoreUnavailable
from exchange_storage.spool import SpooledStore

IMAGE = bytes(LARGEST + 1)


class Disk:
    """Whose sectors below some files cannot be read any more, as open(2) does not tell."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._bad: set[int] = set()
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, file: int, count: int, at: int) -> bytes:
        if os.fstat(file).st_ino in self._bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._pread(file, count, at)

    def fails(self, instance: str = "") -> str:
        """From now on below this instance, or all; the key of one of them."""
        found = sorted((self._root / "objects").rglob(f"{instance or '*'}.*.dcm"))
        self._bad |= {one.stat().st_ino for one in found}
        return str(found[0].relative_to(self._root / "objects"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def filled(root: Path, database_url: str) -> Iterator[Region]:
    with region(database_url, FilesystemStore(root)) as city:
        for number in range(5):
            city.send("beicheng", instance=f"1.4.{number}", body=IMAGE + bytes([number]))
        yield city


@pytest.fixture
def disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(root, monkeypatch)


def scrubbed(city: Region) -> list[tuple[str, str]]:
    soon = datetime.now(UTC) + timedelta(days=1)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = list(scrub.scrub(access, before=soon, limit=100))
    return [(one.key, one.what) for one in found if isinstance(one, scrub.Damage)]


def findings(city: Region) -> list[Finding]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return [one for one in check.check(access) if isinstance(one, Finding)]


def test_a_scrub_names_what_cannot_be_read_and_goes_on_to_the_end(
    filled: Region, disk: Disk
) -> None:
    first, last = disk.fails("1.4.1"), disk.fails("1.4.4")
    assert scrubbed(filled) == [(first, scrub.UNREADABLE), (last, scrub.UNREADABLE)]
    assert findings(filled) == [Finding(one, "the object cannot be read") for one in (first, last)]
    with filled.exchange.on_behalf_of(WORKER) as access:
        assert scrub.known_damages(access) == 2


def test_a_disk_that_gives_nothing_out_is_away_and_nothing_on_it_is_called_damaged(
    filled: Region, disk: Disk
) -> None:
    disk.fails()
    with pytest.raises(Unavailable):
        scrubbed(filled)
    with pytest.raises(Unavailable):
        findings(filled)
    with filled.exchange.on_behalf_of(WORKER) as access:
        assert scrub.known_damages(access) == 0


def test_what_cannot_be_read_is_whole_again_once_it_is_sent_again(
    filled: Region, disk: Disk
) -> None:
    disk.fails("1.4.2")
    assert len(scrubbed(filled)) == 1
    again = filled.send("beicheng", instance="1.4.2", body=IMAGE + bytes([2]))
    assert again.outcome is Outcome.HELD
    assert scrubbed(filled) == []
    assert findings(filled) == []


# What is damaged and no longer in use


@pytest.fixture(params=[b"first", IMAGE], ids=["small", "large"])
def replaced(database_url: str, root: Path, request: pytest.FixtureRequest) -> Iterator[Region]:
    """Of one instance the file is gone; another was promoted to its place."""
    with region(database_url, FilesystemStore(root)) as city:
        assert city.send("beicheng", body=request.param).outcome is Outcome.KEPT
        city.exchange.objects.put_down()
        (kept,) = (root / "objects").rglob("1.4.1.*.dcm")
        kept.unlink()
        assert len(scrubbed(city)) == 1
        assert city.send("beicheng", body=b"other").outcome is Outcome.CONFLICT
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            conflicts.promote(access, conflicts.waiting(access)[0].number)
        city.exchange.objects.put_down()
        yield city


def test_what_was_replaced_is_whole_again_once_it_is_sent_again(
    replaced: Region, request: pytest.FixtureRequest
) -> None:
    ((key, _),) = scrubbed(replaced)
    body = request.node.callspec.params["replaced"]

    again = replaced.send("beicheng", body=body)

    assert (again.outcome, again.reason) == (Outcome.CONFLICT, ANOTHER)
    with replaced.exchange.on_behalf_of(WORKER) as access:
        assert scrub.known_damages(access) == 0
        assert access.objects.get(key) == body
    assert scrubbed(replaced) == []
    assert findings(replaced) == []


def test_what_was_replaced_and_nobody_has_any_more_is_discarded(replaced: Region) -> None:
    ((key, _),) = scrubbed(replaced)
    with replaced.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, "1.2.1", "court")
        with pytest.raises(Invalid, match="legal hold"):
            scrub.discard(access, key)
        retention.lift(access, "1.2.1")
        scrub.discard(access, key)
        with pytest.raises(NotFound, match="--list"):
            scrub.discard(access, key)

    with replaced.exchange.on_behalf_of(WORKER) as access:
        assert scrub.known_damages(access) == 0
    assert scrubbed(replaced) == []
    assert findings(replaced) == []


def test_what_is_damaged_and_in_use_is_its_hospitals_to_send_again(
    filled: Region, disk: Disk
) -> None:
    key = disk.fails("1.4.2")
    assert len(scrubbed(filled)) == 1
    for asker, answer in ((ADMINISTRATOR, Invalid), (filled.clinician("beicheng"), Refused)):
        with filled.exchange.on_behalf_of(asker) as access, pytest.raises(answer):
            scrub.discard(access, key)


class Away(MemoryStore):
    """A remote store that does not answer any more."""

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:  # noqa: ARG002
        raise StoreUnavailable("away")

    def stat(self, key: str) -> Stored:  # noqa: ARG002
        raise StoreUnavailable("away")


def test_what_waits_in_the_spool_does_not_make_damaged_what_lies_in_a_store_that_is_away(
    tmp_path: Path, database_url: str
) -> None:
    store = SpooledStore(FilesystemStore(tmp_path / "spool"), Away())
    with region(database_url, store) as city:
        for number in range(3):
            city.send("beicheng", instance=f"1.4.{number}", body=IMAGE + bytes([number]))
        (first,) = (tmp_path / "spool" / "objects").rglob("1.4.0.*.dcm")
        first.unlink()  # it has been moved to where it stays
        with pytest.raises(Unavailable):
            scrubbed(city)
        with city.exchange.on_behalf_of(WORKER) as access:
            assert scrub.known_damages(access) == 0
