"""Small objects go through the index into the store: nobody loses sight of one on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from exchange_storage import carried
from exchange_storage.carried import LARGEST, TOGETHER, CarryingStore
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import (
    InvalidKey,
    MemoryStore,
    ObjectNotFound,
    ObjectStore,
    Stored,
    StoreUnavailable,
    digest_of,
)
from exchange_storage.records import Carried
from exchange_storage.spool import SpooledStore

KEY = "studies/1.2/1.2.1/1.2.1.1.dcm"


class Hooked(MemoryStore):
    """A store in which something happens before many objects are put into it, or one is looked
    for."""

    def __init__(self) -> None:
        super().__init__()
        self.before_putting: Callable[[], object] = lambda: None
        self.after_missing: Callable[[], object] = lambda: None

    def put_many(self, objects: Sequence[tuple[str, bytes]]) -> None:
        self.before_putting()
        super().put_many(objects)

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            return super().stream(key, start, length)
        except ObjectNotFound:
            after, self.after_missing = self.after_missing, lambda: None
            after()
            raise


@pytest.fixture
def store() -> Hooked:
    return Hooked()


@pytest.fixture
def objects(store: Hooked, database: Database) -> Iterator[CarryingStore]:
    opened = CarryingStore(store, database)
    yield opened
    opened.close()


def carry(objects: CarryingStore, database: Database, **contents: bytes) -> None:
    """Have the index carry objects, named by the last part of their keys."""
    with database.writing() as session:
        for name, content in contents.items():
            objects.carry(session.connection(), key(name), content)


def key(name: str) -> str:
    return f"studies/1.2/1.2.1/{name}.dcm"


def keys(objects: ObjectStore) -> list[str]:
    return [one.key for one in objects.list("studies/")]


def test_what_is_carried_is_read_as_what_lies_in_the_store_and_settled_only_there(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    carry(objects, database, report=b"no finding")

    for settled in (False, True):
        assert objects.get(key("report")) == b"no finding"
        assert objects.get(key("report"), 3, 4) == b"find"
        assert objects.get(key("report"), 10) == b""
        assert objects.stat(key("report")).size == 10
        assert objects.digest(key("report")) == digest_of([b"no finding"])
        assert objects.settled(key("report")) is settled
        assert keys(objects) == [key("report")]
        assert keys(store) == keys(objects) * settled
        assert objects.waiting() == 1 - settled
        assert objects.put_down().moved == 1 - settled
    with pytest.raises(ValueError, match="starts at byte 0"):
        objects.stream(key("report"), -1)


def test_what_is_not_committed_is_not_there(objects: CarryingStore, database: Database) -> None:
    def fails() -> None:
        with database.writing() as session:
            objects.carry(session.connection(), KEY, b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fails()

    for look in (objects.stat, objects.get, objects.digest, objects.settled, objects.delete):
        with pytest.raises(ObjectNotFound):
            look(KEY)
    assert keys(objects) == []


def test_the_same_object_is_carried_once(objects: CarryingStore, database: Database) -> None:
    carry(objects, database, report=b"x")
    carry(objects, database, report=b"x")

    assert objects.waiting() == 1


def test_a_key_that_no_store_could_keep_is_not_carried(
    objects: CarryingStore, database: Database
) -> None:
    with pytest.raises(InvalidKey), database.writing() as session:
        objects.carry(session.connection(), "studies/../x", b"x")


@pytest.mark.parametrize("put_down", [False, True])
def test_what_is_deleted_is_gone_wherever_it_was(
    objects: CarryingStore, database: Database, *, put_down: bool
) -> None:
    carry(objects, database, gone=b"x", kept=b"y")
    if put_down:
        objects.put_down()

    objects.delete(key("gone"))

    objects.put_down()
    assert keys(objects) == [key("kept")]
    with pytest.raises(ObjectNotFound):
        objects.delete(key("gone"))


def test_what_is_deleted_while_it_is_put_down_does_not_come_back(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    carry(objects, database, gone=b"x")
    with ThreadPoolExecutor(1) as other:
        asked = threading.Event()

        def delete() -> None:
            asked.set()
            objects.delete(key("gone"))

        def meanwhile() -> None:
            deleted.append(other.submit(delete))
            assert asked.wait(180)

        deleted: list[object] = []
        store.before_putting = meanwhile
        assert objects.put_down().moved == 1

    assert keys(objects) == []
    assert objects.waiting() == 0


def test_two_do_not_put_down_the_same(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    carry(objects, database, report=b"x")
    others = []
    store.before_putting = lambda: others.append(objects.put_down().moved)

    assert objects.put_down().moved == 1
    assert others == [0]


def test_what_is_put_down_while_somebody_looks_for_it_is_found(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    carry(objects, database, report=b"x")
    store.after_missing = objects.put_down

    assert objects.get(key("report")) == b"x"


def test_each_object_is_listed_once_while_it_is_in_both(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    carry(objects, database, b=b"1", a=b"2")
    store.put(key("b"), b"1")
    store.put(key("c"), b"3")

    assert keys(objects) == [key("a"), key("b"), key("c")]
    assert list(objects.list("derived/")) == []


def test_a_store_that_does_not_answer_loses_nothing(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    def fail() -> None:
        raise StoreUnavailable

    carry(objects, database, report=b"x")
    store.before_putting = fail
    with pytest.raises(StoreUnavailable):
        objects.put_down()
    assert objects.get(key("report")) == b"x"

    store.before_putting = lambda: None
    assert objects.put_down().moved == 1


def test_what_is_carried_is_read_while_the_store_does_not_answer(
    objects: CarryingStore, store: Hooked, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable

    carry(objects, database, report=b"x")
    for question in ("stream", "stat"):
        monkeypatch.setattr(store, question, away)

    assert objects.get(key("report")) == b"x"
    assert objects.stat(key("report")).size == 1
    assert objects.digest(key("report")) == digest_of([b"x"])
    assert not objects.settled(key("report"))
    for look in (objects.get, objects.stat, objects.digest, objects.settled):
        with pytest.raises(StoreUnavailable):
            look(key("other"))


def test_what_the_store_has_with_other_bytes_is_named_and_the_others_go_on(
    objects: CarryingStore, store: Hooked, database: Database
) -> None:
    store.put(key("odd"), b"other bytes")
    carry(objects, database, odd=b"x", report=b"y")

    done = objects.put_down()

    assert (done.moved, done.differing) == (1, (key("odd"),))
    assert objects.waiting() == 1
    assert store.get(key("report")) == b"y"


def test_many_are_put_down_in_lots_until_somebody_says_stop(
    objects: CarryingStore, database: Database
) -> None:
    carry(objects, database, **{f"r{number}": b"x" for number in range(2 * TOGETHER + 1)})

    assert objects.put_down(proceed=lambda: False).moved == TOGETHER
    assert objects.put_down().moved == TOGETHER + 1


def test_only_small_objects_are_carried_and_none_when_nobody_puts_them_down(
    objects: CarryingStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert objects.carries(LARGEST)
    assert not objects.carries(LARGEST + 1)

    monkeypatch.setattr(carried, "LOOKED", 0.0)
    monkeypatch.setattr(carried, "BACKLOG", 2)
    carry(objects, database, a=b"x")
    assert objects.carries(1)
    carry(objects, database, b=b"x")
    assert not objects.carries(1)
    objects.put_down()
    assert objects.carries(1)


def test_what_is_carried_waits_while_more_comes_but_not_for_ever_nor_for_too_many(
    objects: CarryingStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def age(name: str, by: timedelta) -> None:
        with database.writing() as session:
            held = update(Carried).where(Carried.key == key(name))
            session.execute(held.values(carried=datetime.now(UTC) - by))

    assert not objects.gathers()  # there is nothing
    carry(objects, database, a=b"x", b=b"x")
    assert objects.gathers()
    age("b", carried.COMING)
    assert not objects.gathers()  # no more comes
    carry(objects, database, c=b"x")
    assert objects.gathers()
    monkeypatch.setattr(carried, "GATHERED", 2)
    assert not objects.gathers()
    monkeypatch.undo()
    age("a", carried.LONGEST)
    assert not objects.gathers()
    objects.put_down()
    assert not objects.gathers()


def test_many_files_are_made_together(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    store.put(key("b"), b"there already")
    contents = [(key(name), name.encode()) for name in "ac"]
    contents += [(key("b"), b"there already"), ("studies/9/9.1/d.dcm", b"d")]

    store.put_many(contents)

    assert {one.key: store.get(one.key) for one in store.list()} == dict(contents)
    assert [path.name for path in (tmp_path / "staging").rglob("*") if path.is_file()] == [
        "lock",
        "lock",
    ]
    store.close()


def test_files_are_made_in_a_folder_that_another_has_emptied_meanwhile(tmp_path: Path) -> None:
    store, other = FilesystemStore(tmp_path), FilesystemStore(tmp_path)
    store.put_many([(key("a"), b"a")])
    other.delete(key("a"))  # and the folder, which the first still has open

    store.put_many([(key("b"), b"b"), (key("c"), b"c")])

    assert [one.key for one in other.list()] == [key("b"), key("c")]
    store.close()
    other.close()


def test_what_is_put_down_goes_past_the_spool_of_this_machine(
    tmp_path: Path, database: Database
) -> None:
    remote = MemoryStore()
    objects = CarryingStore(SpooledStore(FilesystemStore(tmp_path), remote), database)
    carry(objects, database, a=b"1", b=b"2")

    objects.put_down()

    assert list(remote.list()) == [Stored(one.key, one.size, one.kept) for one in objects.list()]
    assert objects.settled(key("a"))
    objects.close()
