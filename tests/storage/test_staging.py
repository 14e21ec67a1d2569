"""Staging: what of an object is in memory, what on the disk, and what a file system cannot do."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange_storage import staging
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import ObjectDiffers

PATTERN = hashlib.shake_256(b"a slice").digest(staging.FIRST + 3 * staging.NEXT + 5000)
EDGES = (
    0,
    1,
    staging.DIRECT,
    staging.DIRECT + 1,
    staging.FIRST - 1,
    staging.FIRST,
    staging.FIRST + 1,
    staging.FIRST + staging.NEXT,
    staging.FIRST + 2 * staging.NEXT + 4097,
    len(PATTERN),
)
"""Sizes at which something else begins."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FilesystemStore]:
    opened = FilesystemStore(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesystemStore]:
    opened = FilesystemStore(tmp_path_factory.mktemp("lasting"), durable=False)
    yield opened
    opened.close()


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(EDGES),
    st.integers(5_000, 300_000),
    st.lists(st.tuples(st.integers(0, len(PATTERN)), st.integers(-1, 200_000)), max_size=5),
)
def test_an_object_reads_the_same_before_it_is_kept_and_after(
    lasting: FilesystemStore, size: int, piece: int, reads: list[tuple[int, int]]
) -> None:
    content = PATTERN[:size]
    with lasting.stage() as staged:
        for at in range(0, size, piece):
            staged.write(content[at : at + piece])
        with staged.reader() as reader:
            assert reader.seek(0, os.SEEK_END) == size
            for at, length in reads:
                reader.seek(at)
                assert reader.read(0) == b""
                wanted = content[at : at + length if length >= 0 else size]
                assert reader.read(length) == wanted
                assert reader.tell() == at + len(wanted)
        key = f"objects/{staged.digest}"
        staged.keep(key)
    assert lasting.get(key) == content


@pytest.mark.parametrize("size", EDGES)
def test_a_key_that_is_taken_may_be_followed_by_more_and_another(
    store: FilesystemStore, size: int
) -> None:
    store.put("taken", b"something else")
    with store.stage() as staged:
        staged.write(PATTERN[:size])
        with pytest.raises(ObjectDiffers):
            staged.keep("taken")
        staged.write(b"more")
        staged.keep("another")
    assert store.get("another") == PATTERN[:size] + b"more"
    assert store.get("taken") == b"something else"


@pytest.mark.parametrize("size", EDGES)
def test_a_file_system_without_nameless_files_gets_names(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    genuine = os.open

    def without(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return genuine(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", without)
    store.put("image", PATTERN[:size])
    assert store.get("image") == PATTERN[:size]
    with store.stage() as staged:
        staged.write(PATTERN)
    (folder,) = [path for path in (tmp_path / "staging").iterdir() if path.is_dir()]
    assert [path.name for path in folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("refused_by", ["fcntl", "pwrite"])
def test_a_file_system_without_direct_io_gets_the_page_cache(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    direct: set[int] = set()
    set_flags, write = fcntl.fcntl, os.pwrite

    def flags(file: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            if refused_by == "fcntl":
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            direct.add(file)
        elif command == fcntl.F_SETFL:
            direct.discard(file)
        return set_flags(file, command, argument)

    def refusing(file: int, block: memoryview, at: int) -> int:
        if file in direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(file, block, at)

    monkeypatch.setattr(fcntl, "fcntl", flags)
    monkeypatch.setattr(os, "pwrite", refusing)
    for size in EDGES:
        store.put(f"image/{size}", PATTERN[:size])
        assert store.get(f"image/{size}") == PATTERN[:size]


def test_a_write_that_the_disk_takes_in_parts_is_finished(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def some(file: int, block: memoryview, at: int) -> int:
        return write(file, block[: (len(block) + 1) // 2], at)

    monkeypatch.setattr(os, "pwrite", some)
    store.put("image", PATTERN)
    monkeypatch.undo()
    assert store.get("image") == PATTERN
