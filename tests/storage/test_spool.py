"""What is promised of the spool: the answer does not wait for the network, and nothing is lost."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from real_parts import S3Address, SeaweedFS

from exchange_storage import s3
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, ObjectNotFound, StoreUnavailable
from exchange_storage.s3 import S3Store
from exchange_storage.spool import Drained, SpooledStore

IMAGE = random.Random(1).randbytes(526_000)
MOVED_NONE = Drained(0, (), None)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def spool(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "spool")


@pytest.fixture
def store(spool: FilesystemStore, s3_store: S3Store) -> Iterator[SpooledStore]:
    store = SpooledStore(spool, s3_store)
    yield store
    store.close()


def test_an_image_waits_in_the_spool_until_it_is_drained(
    store: SpooledStore, s3_store: S3Store
) -> None:
    stored = store.put("image", IMAGE)
    assert store.waiting() == 1
    with pytest.raises(ObjectNotFound):
        s3_store.stat("image")
    assert store.drain() == Drained(1, (), None)
    assert store.waiting() == 0
    assert s3_store.digest("image") == sha256(IMAGE)
    assert store.get("image") == IMAGE
    assert store.stat("image").size == stored.size
    assert store.drain() == MOVED_NONE


def test_the_longest_waiting_are_drained_first(
    store: SpooledStore, spool: FilesystemStore, s3_store: S3Store
) -> None:
    keys = [f"images/{number}" for number in (5, 3, 9, 1, 7, 4, 8)]
    for second, key in enumerate(keys):
        store.put(key, key.encode())
        os.utime(spool.path(key), (second, second))
    assert store.drain(5).moved == 5
    assert {stored.key for stored in s3_store.list()} == set(keys[:5])
    assert store.drain(0) == MOVED_NONE
    assert [stored.key for stored in store.list()] == sorted(keys)


def test_a_count_of_the_spool_serves_for_as_long_as_the_asker_allows(
    spool: FilesystemStore,
) -> None:
    store = SpooledStore(spool, MemoryStore())
    store.put("images/1", IMAGE)
    assert store.waiting(3600) == 1
    store.put("images/2", IMAGE)
    assert store.waiting(3600) == 1
    assert store.waiting() == 2
    store.close()


def test_an_image_in_both_stores_is_listed_once_and_deleted_from_both(
    store: SpooledStore, spool: FilesystemStore, s3_store: S3Store
) -> None:
    for place in (spool, s3_store):
        place.put("images/both", IMAGE)
    spool.put("images/spooled", IMAGE)
    s3_store.put("images/drained", IMAGE)
    keys = ["images/both", "images/drained", "images/spooled"]
    assert [stored.key for stored in store.list("images/")] == keys
    for key in keys:
        store.delete(key)
        with pytest.raises(ObjectNotFound):
            store.delete(key)
    assert [*spool.list(), *s3_store.list()] == []


def test_other_bytes_under_a_key_of_the_remote_store_are_reported_and_not_lost(
    store: SpooledStore, spool: FilesystemStore, s3_store: S3Store
) -> None:
    s3_store.put("images/1", b"theirs")
    store.put("images/1", b"ours")
    store.put("images/2", IMAGE)
    assert store.drain(1) == Drained(1, ("images/1",), None)  # it does not bar the way
    assert store.drain() == Drained(0, ("images/1",), None)
    assert (spool.get("images/1"), s3_store.get("images/1")) == (b"ours", b"theirs")


def rot(s3_store: S3Store, key: str) -> bytes:
    """One byte of an object in the bucket changes; its size and its label do not."""
    content = s3_store.get(key)
    rotten = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    s3_store.delete(key)
    s3_store._client.put_object(
        s3_store._bucket,
        key,
        io.BytesIO(rotten),
        len(rotten),
        metadata={s3.LABEL: sha256(content)},
    )
    return rotten


def test_an_image_that_has_rotted_in_the_bucket_is_replaced_when_it_is_sent_again(
    store: SpooledStore, s3_store: S3Store
) -> None:
    key = f"studies/1/2/3.{sha256(IMAGE)}.dcm"
    for _ in range(2):
        store.put(key, IMAGE)
        assert store.drain() == Drained(1, (), None)
        assert s3_store.digest(key) == sha256(IMAGE)
        assert store.settled(key)
        rot(s3_store, key)
        assert store.digest(key) != sha256(IMAGE)


def test_the_spool_does_not_let_go_of_an_image_for_a_label_on_bytes_that_nobody_has_read(
    store: SpooledStore, spool: FilesystemStore, s3_store: S3Store
) -> None:
    s3_store.put("images/1", IMAGE)  # a key that does not say whose bytes are the right ones
    rotten = rot(s3_store, "images/1")
    store.put("images/1", IMAGE)
    assert store.drain() == Drained(0, ("images/1",), None)
    assert (spool.get("images/1"), s3_store.get("images/1")) == (IMAGE, rotten)


def test_an_image_that_the_bucket_does_not_give_out_any_more_is_replaced_and_bars_no_ones_way(
    store: SpooledStore, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*_: object) -> Iterator[bytes]:
        raise StoreUnavailable("the S3 store answered InternalError")

    key = f"studies/1/2/3.{sha256(IMAGE)}.dcm"
    for one in (key, "images/1"):
        s3_store.put(one, IMAGE)
        store.put(one, IMAGE)
    store.put("images/2", IMAGE)
    with monkeypatch.context() as damaged:
        damaged.setattr(S3Store, "stream", stream)
        assert store.drain() == Drained(2, ("images/1",), None)
    assert s3_store.get(key) == IMAGE


def test_an_image_that_has_rotted_in_the_spool_replaces_nothing(
    store: SpooledStore, spool: FilesystemStore, s3_store: S3Store
) -> None:
    key = f"studies/1/2/3.{sha256(IMAGE)}.dcm"
    s3_store.put(key, IMAGE)
    store.put(key, IMAGE[:-1] + b"!")
    assert store.drain() == Drained(0, (key,), None)
    assert s3_store.get(key) == IMAGE


def test_an_image_is_not_read_back_when_it_is_first_uploaded(
    store: SpooledStore, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("images/1", IMAGE)
    with monkeypatch.context() as reading:
        reading.setattr(S3Store, "stream", None)
        assert store.drain() == Drained(1, (), None)
    assert s3_store.get("images/1") == IMAGE


def test_two_workers_that_drain_at_once_move_each_image_once(
    store: SpooledStore, tmp_path: Path, s3_store: S3Store
) -> None:
    for number in range(40):
        store.put(f"images/{number}", IMAGE[: 1000 * number])
    other = FilesystemStore(tmp_path / "spool")
    workers = [store, SpooledStore(other, s3_store), store]
    with ThreadPoolExecutor(3) as pool:
        drained = list(pool.map(SpooledStore.drain, workers))
    assert sum(one.moved for one in drained) == 40
    assert all(not one.differing and one.stopped_by is None for one in drained)
    assert store.waiting() == 0
    assert sum(1 for _ in s3_store.list()) == 40
    other.close()


def test_an_image_is_found_at_every_moment_of_its_way(store: SpooledStore) -> None:
    keys = [f"studies/{number % 5}/{number}" for number in range(40)]
    for key in keys:
        store.put(key, key.encode())
    drained = threading.Event()

    def look(seed: int) -> int:
        some = random.Random(seed)
        looks = 0
        while not drained.is_set() or looks == 0:
            key = some.choice(keys)
            assert store.get(key) == key.encode()
            assert store.stat(key).size == len(key)
            assert [stored.key for stored in store.list()] == sorted(keys)
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as viewers:
        looking = [viewers.submit(look, seed) for seed in range(2)]
        try:
            assert store.drain().moved == 40
        finally:
            drained.set()
        assert all(one.result() for one in looking)


def test_an_image_deleted_while_it_is_drained_does_not_come_back(spool: FilesystemStore) -> None:
    uploading, proceed = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def keep(self, key: str, content: bytes):  # type: ignore[no-untyped-def]
            uploading.set()
            assert proceed.wait(180)
            return super().keep(key, content)

    remote = Slow()
    store = SpooledStore(spool, remote)
    store.put("images/1", IMAGE)
    with ThreadPoolExecutor(2) as pool:
        draining = pool.submit(store.drain)
        assert uploading.wait(180)
        deleting = pool.submit(store.delete, "images/1")
        proceed.set()
        deleting.result()
        assert draining.result().stopped_by is None
    assert [*spool.list(), *remote.list()] == []
    store.close()


def test_receiving_goes_on_while_the_s3_server_is_down_and_draining_when_it_is_back(
    tmp_path: Path,
) -> None:
    server = SeaweedFS(tmp_path)
    address = server.address
    remote = S3Store.connect(
        address.endpoint,
        address.access_key,
        address.secret_key,
        "exchange",
        secure=False,
        staging=tmp_path / "staging",
    )
    store = SpooledStore(FilesystemStore(tmp_path / "spool"), remote)
    try:
        store.put("images/1", IMAGE)
        down = store.drain()
        assert down.moved == 0
        assert isinstance(down.stopped_by, StoreUnavailable)
        assert store.get("images/1") == IMAGE
        with pytest.raises(StoreUnavailable):  # it may be in the remote store: who knows
            store.get("images/2")
        with pytest.raises(StoreUnavailable):
            list(store.list())
        with pytest.raises(StoreUnavailable):
            store.delete("images/1")
        assert store.get("images/1") == IMAGE
        server.start()
        assert store.drain() == Drained(1, (), None)
        server.kill()
        store.put("images/2", IMAGE)
        assert isinstance(store.drain().stopped_by, StoreUnavailable)
        server.start()
        assert store.drain() == Drained(1, (), None)
        assert [stored.key for stored in store.list()] == ["images/1", "images/2"]
        assert {store.digest(stored.key) for stored in store.list()} == {sha256(IMAGE)}
    finally:
        store.close()
        server.stop()


NODE = """
import random, sys, threading
from pathlib import Path
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.s3 import S3Store
from exchange_storage.spool import SpooledStore
root, life, endpoint, access_key, secret_key = sys.argv[1:]
remote = S3Store.connect(endpoint, access_key, secret_key, "exchange-tests", secure=False,
                         region="us-east-1", staging=Path(root) / "staging")
store = SpooledStore(FilesystemStore(Path(root) / "spool"), remote)
some = random.Random(int(life))

def drain():
    while True:
        store.drain(10)

threading.Thread(target=drain, daemon=True).start()
while True:
    with store.stage() as staged:
        for _ in range(some.randrange(1, 6)):
            staged.write(some.randbytes(some.randrange(100_000)))
        stored = staged.keep(f"studies/{some.randrange(5)}/{staged.digest}")
    print(stored.key, flush=True)
"""


def test_a_node_killed_while_receiving_and_draining_loses_nothing_that_it_answered(
    tmp_path: Path, s3_server: S3Address, s3_store: S3Store
) -> None:
    some = random.Random(7)
    answered: set[str] = set()
    account = [s3_server.endpoint, s3_server.access_key, s3_server.secret_key]
    for life in range(20):
        command = [sys.executable, "-c", NODE, str(tmp_path / "node"), str(life), *account]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None
            for _ in range(some.randrange(25)):
                answered.add(node.stdout.readline().strip())
            with pytest.raises(subprocess.TimeoutExpired):
                node.wait(some.random() / 20)
            node.kill()
            answered.update(line.strip() for line in node.stdout if line.endswith("\n"))
    spool = FilesystemStore(tmp_path / "node" / "spool")
    store = SpooledStore(spool, s3_store)
    assert answered <= {stored.key for stored in store.list()}
    drained = store.drain()
    assert (drained.differing, drained.stopped_by, store.waiting()) == ((), None, 0)
    listed = list(s3_store.list())
    assert answered <= {stored.key for stored in listed}
    for stored in listed:
        assert s3_store.digest(stored.key) == stored.key.rpartition("/")[2]
    store.close()
    assert [path.name for path in (tmp_path / "node/spool/staging").iterdir()] == ["lock"]
