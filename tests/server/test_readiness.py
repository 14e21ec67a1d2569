"""An exchange says that it is ready when it could receive, and says so soon, whatever hangs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ready
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.access import Exchange
from exchange_server.observability import exposition
from exchange_server.readiness import ROOM, SILENT, Readiness
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, ObjectStore, Stored, StoreFull
from exchange_storage.spool import SpooledStore

READY = {"index": "", "reception": "", "objects": ""}
SOON = 0.2


class Filling(MemoryStore):
    """A store with so much room, and whose disk takes what is tried out, or says why not."""

    def __init__(self, free: int = ROOM, error: Exception | None = None) -> None:
        super().__init__()
        self._free = free
        self._error = error

    def free(self) -> int:
        return self._free

    def try_out(self) -> None:
        if self._error is not None:
            raise self._error


class Hanging(MemoryStore):
    """A remote store that is there, and does not say anything until it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = threading.Event()
        self.asked = 0

    def stat(self, key: str) -> Stored:
        self.asked += 1
        self.woken.wait()
        return super().stat(key)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[ObjectStore], Exchange]]:
    ready.sqlite(tmp_path / "index.sqlite")
    made: list[Exchange] = []

    def of(objects: ObjectStore) -> Exchange:
        database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
        made.append(Exchange(database, objects, Ed25519PrivateKey.generate()))
        made[-1].prepare()
        return made[-1]

    yield of
    for one in made:
        one.close()


Opened = Callable[[ObjectStore], Exchange]


def metrics(readiness: Readiness) -> str:
    return exposition(readiness)[0].decode()


def test_a_disk_with_room_receives_and_nothing_of_the_trial_is_left(
    opened: Opened, tmp_path: Path
) -> None:
    spool = SpooledStore(FilesystemStore(tmp_path / "spool"), MemoryStore())
    readiness = Readiness(opened(spool))
    assert readiness.parts() == READY
    assert [path.name for path in (tmp_path / "spool").rglob("*") if path.is_file()] == ["lock"] * 2
    assert list(spool.list()) == []
    for part in ("index", "reception"):
        assert f'exchange_free_bytes{{part="{part}"}}' in metrics(readiness)


@pytest.mark.parametrize(
    ("store", "wrong"),
    [
        (Filling(ROOM - 1), "its disk is full, or may not be written to"),
        (Filling(error=StoreFull("Disk quota exceeded")), "Disk quota exceeded"),
        (Filling(), ""),
    ],
)
def test_where_no_instance_could_be_received_it_is_not_ready_for_one(
    opened: Opened, store: Filling, wrong: str
) -> None:
    readiness = Readiness(opened(store))
    assert readiness.parts() == READY | {"reception": wrong}
    told = metrics(readiness)
    assert f'part_ready{{part="reception"}} {float(not wrong)}' in told
    free = re.search(r'^exchange_free_bytes\{part="reception"\} (\S+)$', told, re.MULTILINE)
    assert free is not None
    assert float(free[1]) == store.free()


def test_where_the_index_has_no_room_its_disk_is_what_is_full(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = opened(MemoryStore())
    monkeypatch.setattr(Database, "free", lambda _: ROOM - 1)
    wrong = Readiness(exchange).parts()
    assert wrong == READY | {"index": "its disk is full, or may not be written to"}


def test_a_remote_store_that_hangs_is_told_soon_and_holds_one_thread(
    opened: Opened, tmp_path: Path
) -> None:
    remote = Hanging()
    exchange = opened(SpooledStore(FilesystemStore(tmp_path / "spool"), remote))
    readiness = Readiness(exchange, seconds=SOON)
    try:
        assert [readiness.parts() for _ in range(20)] == [READY | {"objects": SILENT}] * 20
        assert remote.asked == 1
        looking = [one for one in threading.enumerate() if one.name == "look at objects"]
        assert len(looking) == 1
    finally:
        remote.woken.set()
    looking[0].join()
    assert readiness.parts() == READY


def test_while_the_index_hangs_metrics_tell_what_they_can_without_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = opened(MemoryStore())
    woken = threading.Event()
    found = exchange.database.revision()

    def hang(_: Database) -> tuple[str | None, str]:
        woken.wait()
        return found

    monkeypatch.setattr(Database, "revision", hang)
    readiness = Readiness(exchange, seconds=SOON)
    try:
        told = metrics(readiness)
    finally:
        woken.set()
    assert 'exchange_part_ready{part="index"} 0.0' in told
    assert 'exchange_part_ready{part="reception"} 1.0' in told
    assert "exchange_jobs{" not in told
