"""The promises of `ObjectStore` and `Staged`, each held by every store."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import minio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_parts import S3Address, SeaweedFS

from exchange_storage import filesystem, s3
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import (
    CHUNK,
    KEY_LENGTH,
    InvalidKey,
    MemoryStore,
    ObjectDiffers,
    ObjectNotFound,
    ObjectStore,
    StoreFull,
    StoreUnavailable,
)
from exchange_storage.s3 import S3Store

KEY = "studies/1.2.3/4.5.6/7.8.9.0123abcd.dcm"
NOT_KEYS = ["", "/etc/passwd", "a/", "a//b", "a/../b", ".hidden", "a b", "腹部", "a\0b", "a" * 201]
IMAGE = random.Random(1).randbytes(526_000)
LARGE = random.Random(2).randbytes(s3.PART_SIZE + CHUNK + 7)

each_example_on_one_store = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# What is kept can be read


def test_a_kept_image_is_read_back_as_it_was(object_store: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    stored = object_store.put(KEY, IMAGE)
    assert (stored.key, stored.size) == (KEY, len(IMAGE))
    assert before <= stored.kept <= datetime.now(UTC) + timedelta(seconds=2)
    assert object_store.stat(KEY) == stored
    assert object_store.get(KEY) == IMAGE
    assert object_store.digest(KEY) == sha256(IMAGE)


def test_an_image_may_come_as_bytes_as_pieces_as_a_file_or_as_a_path(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(IMAGE)
    object_store.put("from/bytes", IMAGE)
    object_store.put("from/pieces", (IMAGE[at : at + 65536] for at in range(0, len(IMAGE), 65536)))
    object_store.put("from/path", path)
    with path.open("rb") as file:
        object_store.put("from/file", file)
    for stored in object_store.list("from/"):
        assert object_store.digest(stored.key) == sha256(IMAGE), stored.key


def test_an_object_of_several_parts_is_read_back_in_pieces(object_store: ObjectStore) -> None:
    object_store.put(KEY, LARGE)
    pieces = list(object_store.stream(KEY))
    assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) <= CHUNK
    assert object_store.put(KEY, LARGE).size == len(LARGE)
    with pytest.raises(ObjectDiffers):
        object_store.put(KEY, LARGE[:-1] + b"!")


@each_example_on_one_store
@given(
    content=st.binary(max_size=300),
    start=st.integers(0, 320),
    length=st.none() | st.integers(0, 320),
)
def test_any_range_of_any_object_is_what_slicing_gives(
    object_store: ObjectStore, content: bytes, start: int, length: int | None
) -> None:
    key = f"property/{sha256(content)}"
    object_store.put(key, content)
    expected = content[start:] if length is None else content[start : start + length]
    assert object_store.get(key, start, length) == expected
    assert b"".join(object_store.stream(key, start, length)) == expected


def test_a_range_that_begins_before_the_object_is_refused(object_store: ObjectStore) -> None:
    object_store.put(KEY, IMAGE)
    for start, length in [(-1, None), (0, -1)]:
        with pytest.raises(ValueError, match="range"):
            object_store.stream(KEY, start, length)


def test_an_image_deleted_while_it_is_sent_is_sent_whole_or_the_break_is_told(
    object_store: ObjectStore,
) -> None:
    object_store.put(KEY, LARGE)
    sending = object_store.stream(KEY)
    received = next(sending)
    object_store.delete(KEY)
    try:
        assert received + b"".join(sending) == LARGE
    except StoreUnavailable:
        assert not isinstance(object_store, MemoryStore | FilesystemStore)


def test_an_image_that_lies_in_a_file_is_read_from_there_also_when_it_is_deleted(
    object_store: ObjectStore,
) -> None:
    object_store.put(KEY, IMAGE)
    file = object_store.file(KEY)
    object_store.delete(KEY)
    if isinstance(object_store, FilesystemStore):
        with pytest.raises(ObjectNotFound):
            object_store.file(KEY)
        with pytest.raises(InvalidKey):
            object_store.file("../passwd")
    if file is None:
        assert not isinstance(object_store, FilesystemStore)
        return
    assert os.pread(file.number, len(IMAGE) + 1, 0) == IMAGE
    file.close()


# Receiving


def test_an_image_is_received_piece_by_piece_and_read_before_it_is_kept(
    object_store: ObjectStore,
) -> None:
    with object_store.stage() as staged:
        for piece in (b"DI", bytearray(b"CM"), memoryview(b"..images..")[2:-2]):
            staged.write(piece)
        assert (staged.size, staged.digest) == (10, sha256(b"DICMimages"))
        with staged.reader() as reader:
            assert reader.read(4) == b"DICM"
            reader.seek(0)
            assert reader.read() == b"DICMimages"
        staged.write(b"!")
        staged.keep(KEY)
    assert object_store.get(KEY) == b"DICMimages!"


def test_nothing_of_an_image_is_seen_before_it_is_kept(object_store: ObjectStore) -> None:
    with object_store.stage() as staged:
        staged.write(IMAGE)
        assert list(object_store.list()) == []
        with pytest.raises(ObjectNotFound):
            object_store.stat(KEY)
    assert list(object_store.list()) == []


def test_a_broken_association_leaves_nothing(object_store: ObjectStore) -> None:
    def association() -> Iterator[bytes]:
        yield IMAGE
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        object_store.put(KEY, association())
    assert list(object_store.list()) == []


def test_what_was_kept_or_discarded_is_spent(object_store: ObjectStore) -> None:
    kept, discarded = object_store.stage(), object_store.stage()
    kept.keep(KEY)
    discarded.discard()
    for staged in (kept, discarded):
        staged.discard()
        with pytest.raises(ValueError, match="kept or discarded"):
            staged.write(b"more")
        with pytest.raises(ValueError, match="kept or discarded"):
            staged.reader()
        with pytest.raises(ValueError, match="kept or discarded"):
            staged.keep("another")
    assert [stored.key for stored in object_store.list()] == [KEY]


# One key, one object


def test_an_image_sent_again_is_the_object_that_is_there(object_store: ObjectStore) -> None:
    first = object_store.put(KEY, IMAGE)
    assert object_store.put(KEY, IMAGE) == first


@pytest.mark.parametrize("other", [IMAGE[:-1] + b"!", IMAGE + b"!", b""])
def test_other_bytes_never_replace_what_is_kept(object_store: ObjectStore, other: bytes) -> None:
    object_store.put(KEY, IMAGE)
    with object_store.stage() as staged:
        staged.write(other)
        with pytest.raises(ObjectDiffers):
            staged.keep(KEY)
        staged.keep("conflicting/object")
    assert object_store.digest(KEY) == sha256(IMAGE)
    assert object_store.digest("conflicting/object") == sha256(other)


def test_of_many_modalities_that_send_to_one_key_at_once_one_wins(
    object_store: ObjectStore,
) -> None:
    together = threading.Barrier(8)

    def send(modality: int) -> bool:
        with object_store.stage() as staged:
            staged.write(bytes([modality]) * 1000)
            together.wait()
            try:
                staged.keep(KEY)
            except ObjectDiffers:
                return False
            return True

    with ThreadPoolExecutor(8) as modalities:
        won = list(modalities.map(send, range(8)))
    assert won.count(True) == 1
    assert object_store.get(KEY) == bytes([won.index(True)]) * 1000


def test_keeping_and_deleting_in_one_folder_at_once_loses_nothing(
    object_store: ObjectStore,
) -> None:
    def churn(modality: int) -> None:
        for number in range(10):
            key = f"studies/{number % 2}/{modality}-{number}"
            object_store.put(key, key.encode())
            assert object_store.get(key) == key.encode()
            object_store.delete(key)
            object_store.put(f"{key}-stays", b"")

    with ThreadPoolExecutor(4) as modalities:
        list(modalities.map(churn, range(4)))
    assert sum(1 for _ in object_store.list()) == 40


# Keys


@pytest.mark.parametrize("key", [*NOT_KEYS, "/".join(["a" * 150] * 4)])
def test_a_key_that_a_path_could_misread_is_refused(object_store: ObjectStore, key: str) -> None:
    for ask in (object_store.stat, object_store.get, object_store.delete, object_store.digest):
        with pytest.raises(InvalidKey):
            ask(key)
    with pytest.raises(InvalidKey):
        object_store.put(key, b"")
    assert list(object_store.list()) == []


def test_the_longest_key_is_kept(object_store: ObjectStore) -> None:
    key = "/".join(["a" * 127] * 4) + "a"
    assert len(key) == KEY_LENGTH
    object_store.put(key, IMAGE)
    assert [stored.key for stored in object_store.list()] == [key]


def test_what_is_not_there_is_not_found(object_store: ObjectStore) -> None:
    object_store.put("studies/1/image", IMAGE)
    for key in ("nothing", "studies", "studies/1", "studies/1/image/frame", "studies/1/imag"):
        for ask in (object_store.stat, object_store.stream, object_store.digest):
            with pytest.raises(ObjectNotFound):
                ask(key)
        with pytest.raises(ObjectNotFound):
            object_store.delete(key)
        with pytest.raises(ObjectNotFound):
            object_store.get(key, 0, 0)
    assert object_store.digest("studies/1/image") == sha256(IMAGE)


def test_which_images_of_a_study_are_missing_is_asked_at_once(object_store: ObjectStore) -> None:
    for series in (1, 2):
        object_store.put(f"studies/1.2/{series}/a", b"image")
    kept = [f"studies/1.2/{series}/a" for series in (1, 2)]
    lost = [f"studies/1.2/{series}/{name}" for series in (1, 3) for name in ("b", "aa")]
    for keys in ([], kept, kept[:1], lost, kept + lost, ["other/a", *kept]):
        assert object_store.missing(keys) == {*keys} - {*kept}


def test_a_deleted_image_is_gone_and_may_be_kept_anew(object_store: ObjectStore) -> None:
    object_store.put(KEY, b"first")
    object_store.delete(KEY)
    with pytest.raises(ObjectNotFound):
        object_store.delete(KEY)
    assert list(object_store.list()) == []
    object_store.put(KEY, b"second")
    assert object_store.get(KEY) == b"second"


def test_a_list_is_in_the_order_of_the_keys(object_store: ObjectStore) -> None:
    keys = ["a-b/1", "a.b", "a/1", "a/10/x", "a/2", "a0", "ab/1", "b/c/d/e", "b/c/d-e", "A/1"]
    for key in keys:
        object_store.put(key, key.encode())
    by_folder = isinstance(object_store, S3Store)  # as SeaweedFS orders them
    keys.sort(key=(lambda key: key.split("/")) if by_folder else None)
    stored = list(object_store.list())
    assert [(one.key, one.size) for one in stored] == [(key, len(key)) for key in keys]
    for prefix in "a", "a/", "a/1", "a/10/", "b/c/d", "b/c/d/e", "nothing", "../", "/", "a//", ".":
        listed = [one.key for one in object_store.list(prefix)]
        assert listed == [key for key in keys if key.startswith(prefix)], prefix


# The file system


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FilesystemStore]:
    store = FilesystemStore(tmp_path)
    yield store
    store.close()


def test_a_file_system_refuses_a_key_below_an_object(store: FilesystemStore) -> None:
    store.put("a", IMAGE)
    store.put("b/c", IMAGE)
    for key in ("a/b", "a/b/c", "b"):
        with pytest.raises(InvalidKey):
            store.put(key, IMAGE)
    assert [stored.key for stored in store.list()] == ["a", "b/c"]


def test_emptied_folders_are_removed(store: FilesystemStore, tmp_path: Path) -> None:
    store.put("studies/1/2/image", IMAGE)
    store.put("studies/2/image", IMAGE)
    store.delete("studies/1/2/image")
    assert [path.name for path in (tmp_path / "objects/studies").iterdir()] == ["2"]
    store.delete("studies/2/image")
    assert list((tmp_path / "objects").iterdir()) == []


def test_more_series_than_directories_kept_open(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "OPEN_DIRECTORIES", 4)
    keys = [f"studies/{number}/series/image" for number in range(20)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for key in keys * 2:
        store.put(key, key.encode())
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 20
    assert {stored.key for stored in store.list()} == set(keys)


def test_a_store_that_is_opened_leaves_alone_what_others_are_writing(tmp_path: Path) -> None:
    node = FilesystemStore(tmp_path)
    with node.stage() as staged:
        staged.write(IMAGE)
        worker = FilesystemStore(tmp_path)
        staged.keep(KEY)
    assert worker.digest(KEY) == sha256(IMAGE)
    worker.close()
    node.close()
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["lock"]


def test_nodes_that_start_and_stop_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    def node(number: int) -> None:
        for start in range(10):
            store = FilesystemStore(tmp_path)
            store.put(f"studies/{number}/{start}", IMAGE)
            store.close()

    with ThreadPoolExecutor(6) as nodes:
        list(nodes.map(node, range(6)))
    store = FilesystemStore(tmp_path)
    assert {stored.size for stored in store.list()} == {len(IMAGE)}
    assert sum(1 for _ in store.list()) == 60
    store.close()
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["lock"]


NODE = """
import random, sys
from pathlib import Path
from exchange_storage.filesystem import FilesystemStore
store = FilesystemStore(Path(sys.argv[1]))
some = random.Random(int(sys.argv[2]))
while True:
    with store.stage() as staged:
        for _ in range(some.randrange(1, 6)):
            staged.write(some.randbytes(some.randrange(200_000)))
        stored = staged.keep(f"studies/{some.randrange(5)}/{some.randrange(5)}/{staged.digest}")
    print(stored.key, flush=True)
"""


def test_a_node_killed_while_receiving_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    some = random.Random(7)
    answered: set[str] = set()
    for life in range(20):
        command = [sys.executable, "-c", NODE, str(tmp_path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None
            for _ in range(some.randrange(12)):
                answered.add(node.stdout.readline().strip())
            with pytest.raises(subprocess.TimeoutExpired):
                node.wait(some.random() / 50)
            node.kill()
            # The last line may have been cut short by the kill; what was printed whole counts.
            answered.update(line.strip() for line in node.stdout if line.endswith("\n"))
    store = FilesystemStore(tmp_path)
    assert answered <= {stored.key for stored in store.list()}
    for stored in store.list():  # what was not answered may be there too, but only whole
        assert store.digest(stored.key) == stored.key.rpartition("/")[2]
    store.close()
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["lock"]


# No room, no server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root; RLIMIT_FSIZE is tested all the same")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_nothing_and_harms_nothing(small_disk: Path) -> None:
    store = FilesystemStore(small_disk)
    store.put(KEY, IMAGE)
    with pytest.raises(StoreFull):
        store.put("another/image", LARGE)
    staged = store.stage()
    with pytest.raises(StoreFull):
        staged.write(LARGE)
    with pytest.raises(ValueError, match="discarded"):
        staged.keep("another/image")
    assert [stored.key for stored in store.list()] == [KEY]
    assert store.digest(KEY) == sha256(IMAGE)
    store.delete(KEY)
    store.put("another/image", IMAGE)
    store.close()


def test_a_store_says_how_much_room_it_has_and_whether_an_object_could_come_in(
    small_disk: Path,
) -> None:
    store = FilesystemStore(small_disk)
    store.try_out()
    assert 0 < store.free() <= 1 << 20
    with suppress(StoreFull):
        for number in range(1000):
            store.put(f"image/{number}", IMAGE[:8192])
    with suppress(StoreFull):
        store.put("image/last", IMAGE[:4096])
    assert store.free() == 0
    with pytest.raises(StoreFull):
        store.try_out()
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    assert store.free() == 1 << 20
    store.try_out()
    assert {stored.key.partition("/")[0] for stored in store.list()} == {"image"}
    store.close()


LIMITED = """
import sys
from pathlib import Path
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import StoreFull
store = FilesystemStore(Path(sys.argv[1]))
try:
    store.put("image", bytes(200_000))
except StoreFull:
    store.put("thumbnail", bytes(50_000))
    print(*(stored.key for stored in store.list()))
"""


def test_a_limit_on_file_sizes_is_a_store_without_room(tmp_path: Path) -> None:
    node = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert node.stdout == "thumbnail\n"


def test_a_failing_disk_is_an_unavailable_store_and_not_a_missing_image(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, IMAGE)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreUnavailable):
        store.get(KEY)
    with store.stage() as staged:
        staged.write(IMAGE)
        with pytest.raises(StoreUnavailable):
            staged.keep("another/image")
        with pytest.raises(ValueError, match="discarded"):  # a failed sync is never tried again
            staged.keep("another/image")
    assert [stored.key for stored in store.list()] == [KEY]


def test_an_object_that_another_system_uploaded_is_compared_by_its_bytes(
    s3_store: S3Store, s3_server: S3Address
) -> None:
    other = minio.Minio(
        s3_server.endpoint, s3_server.access_key, s3_server.secret_key, secure=False
    )
    other.put_object("exchange-tests", KEY, io.BytesIO(IMAGE), len(IMAGE))
    assert s3_store.put(KEY, IMAGE).size == len(IMAGE)
    with pytest.raises(ObjectDiffers):
        s3_store.put(KEY, IMAGE[:-1] + b"!")


def connected(address: S3Address, place: Path, bucket: str, secret_key: str = "") -> S3Store:
    return S3Store.connect(
        address.endpoint,
        address.access_key,
        secret_key or address.secret_key,
        bucket,
        secure=False,
        staging=place / "staging",
    )


def test_a_bucket_that_was_there_and_is_gone_is_named_and_not_made_again(
    s3_server: S3Address, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = minio.Minio(
        s3_server.endpoint, s3_server.access_key, s3_server.secret_key, secure=False
    )
    store = connected(s3_server, tmp_path, "exchange-gone")
    assert "exchange-gone was missing, and is made" in caplog.text
    store.put(KEY, IMAGE)
    store.delete(KEY)
    with pytest.raises(ObjectNotFound):
        store.stat(KEY)
    other.remove_bucket("exchange-gone")
    caplog.clear()
    again = connected(s3_server, tmp_path, "exchange-gone")  # the exchange is restarted
    for one in (store, again):
        for ask in (one.stat, one.get, one.delete, lambda key, one=one: one.put(key, IMAGE)):
            with pytest.raises(StoreUnavailable, match="exchange-gone is missing"):
                ask(KEY)
        with pytest.raises(StoreUnavailable, match="exchange-gone is missing"):
            list(one.list())
    assert caplog.text.count("exchange-gone is missing (NoSuchBucket)") == 2  # once for each
    assert not other.bucket_exists("exchange-gone")
    other.make_bucket("exchange-gone")  # an operator takes the loss
    assert again.put(KEY, IMAGE).size == len(IMAGE)
    for one in (store, again):
        assert one.get(KEY) == IMAGE
        one.close()
    other.remove_object("exchange-gone", KEY)
    other.remove_bucket("exchange-gone")


def test_a_refused_access_key_is_told_from_a_server_that_does_not_answer_and_shows_no_secret(
    s3_server: S3Address, s3_store: S3Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert s3_store.put(KEY, IMAGE)
    store = connected(s3_server, tmp_path, "exchange-tests", "not the secret key")
    assert "SignatureDoesNotMatch" in caplog.text
    for ask in (store.stat, store.get, store.delete, lambda key: store.put(key, IMAGE)):
        with pytest.raises(StoreUnavailable, match=r"refused .*SignatureDoesNotMatch") as refused:
            ask(KEY)
        assert "secret" not in str(refused.value)
    store.close()


def test_an_s3_server_that_is_down_is_unavailable_and_serves_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    server = SeaweedFS(tmp_path)
    address = server.address
    store = S3Store.connect(
        address.endpoint,
        address.access_key,
        address.secret_key,
        "exchange",
        secure=False,
        region="us-east-1",
        staging=tmp_path / "staging",
    )
    try:
        for ask in (store.stat, store.get, store.delete, store.digest):
            with pytest.raises(StoreUnavailable):
                ask(KEY)
        with pytest.raises(StoreUnavailable):
            store.put(KEY, IMAGE)
        with pytest.raises(StoreUnavailable):
            list(store.list())
        server.start()
        store.put(KEY, IMAGE)  # makes the bucket, too
        store.put("large/object", LARGE)
        sending = store.stream("large/object")
        next(sending)
        server.kill()
        with pytest.raises(StoreUnavailable):
            list(sending)
        with pytest.raises(StoreUnavailable):
            store.get(KEY)
        server.start()
        assert store.digest(KEY) == sha256(IMAGE)
        assert [stored.key for stored in store.list()] == ["large/object", KEY]
    finally:
        store.close()
        server.stop()
