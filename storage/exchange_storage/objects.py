"""Object stores: bytes under a key, durable before the caller is told so.

Every store keeps the promises in the docstrings of `ObjectStore` and `Staged`; one test file,
tests/storage/test_objects.py, holds each of them to every promise. The stores inherit from the two
protocols, which carry what is the same everywhere (`put`, `get`, `digest`).
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

CHUNK = 1 << 20
"""Bytes read or sent at a time where the caller does not choose."""

KEY_LENGTH = 512
"""Characters of the longest key. S3 allows 1,024 bytes; ours stay portable to file systems."""

Bytes = bytes | bytearray | memoryview
Source = Path | BinaryIO | bytes | Iterable[bytes]

_SEGMENT = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,199}")


class ObjectStoreError(Exception):
    """The root of what a store can answer instead of what was asked for."""


class ObjectNotFound(ObjectStoreError):
    """No object has this key."""


class ObjectDiffers(ObjectStoreError):
    """The key is taken by an object with another digest; the one that was there is untouched."""


class InvalidKey(ObjectStoreError):
    """Not a key: empty, too long, absolute, or with a segment that a file system could misread."""


class StoreFull(ObjectStoreError):
    """The store has no room (ENOSPC, EDQUOT); nothing was kept."""


class StoreUnavailable(ObjectStoreError):
    """The store cannot be reached or does not answer; what was asked may be asked again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as the store knows it: its key, its size in bytes and when it was kept (UTC)."""

    key: str
    size: int
    kept: datetime


def checked_key(key: str) -> str:
    """Return `key` if every store can keep it. Raises InvalidKey.

    A key is one or more segments of ASCII letters, digits, ``_``, ``-`` and ``.`` (not first),
    joined by ``/``: nothing that a path, a URL or a shell could read in another way. An object's
    key is never the folder of another's (``a`` beside ``a/b``): a store may refuse the second.
    """
    if len(key) > KEY_LENGTH or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise InvalidKey(f"not a key that every store can keep ({len(key)} characters)")
    return key


def chunks(source: Source) -> Iterator[bytes]:
    """The bytes of `source`, in order; a file in pieces of at most `CHUNK`, others as they come."""
    match source:
        case bytes():
            yield source
        case Path():
            with source.open("rb") as file:
                yield from iter(lambda: file.read(CHUNK), b"")
        case io.IOBase():
            yield from iter(lambda: source.read(CHUNK), b"")
        case _:
            yield from source


def digest_of(pieces: Iterable[bytes]) -> str:
    """SHA-256 of `pieces` joined, 64 lower-case hex digits."""
    running = hashlib.sha256()
    for piece in pieces:
        running.update(piece)
    return running.hexdigest()


def span(size: int, start: int, length: int | None) -> tuple[int, int]:
    """First byte and end of a range within `size` bytes. Raises ValueError for negative bounds."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError("a range starts at byte 0 or later and is not shorter than nothing")
    end = size if length is None else min(size, start + length)
    return min(start, end), end


def free(directory: Path) -> int:
    """Bytes that this process may still write below `directory`; 0 where it may write nothing.

    Raises OSError.
    """
    found = os.statvfs(directory)
    if found.f_flag & os.ST_RDONLY:
        return 0
    return found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)


class Descriptor:
    """An open file, closed when the last to use it lets go: threads share open directories."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close it; harmless when repeated."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class Staged(Protocol):
    """An object on its way in: written piece by piece, then kept under a key or discarded.

    As a context manager it discards itself unless it was kept. Nothing of it can be read through
    the store before `keep` returned, and a crash before that leaves nothing but staging files,
    which the store clears when it is next opened. It belongs to one thread at a time. After `keep`
    returned, after `discard` and after StoreFull or StoreUnavailable it is spent: `write`,
    `reader` and `keep` then raise ValueError, so that a part is never kept for the whole.
    """

    @property
    def size(self) -> int:
        """Bytes written so far."""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes written so far, 64 lower-case hex digits."""

    def write(self, piece: Bytes) -> None:
        """Append `piece`. Raises StoreFull, StoreUnavailable."""

    def reader(self) -> BinaryIO:
        """A seekable file over what was written so far; the caller closes it."""

    def keep(self, key: str) -> Stored:
        """Make the bytes durable under `key`: when this returns, a power cut does not lose them.

        A key that holds the same bytes already is left as it is. Raises ObjectDiffers when it
        holds others, InvalidKey (another key may be tried after either), StoreFull,
        StoreUnavailable. What raised kept nothing, save that StoreUnavailable may come when the
        bytes were already on their way: ask again, and the same bytes make no difference.
        """

    def discard(self) -> None:
        """Forget the bytes; harmless after `keep` and when repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def folder_of(keys: Collection[str]) -> str:
    """The prefix, up to a slash, that all keys have: the longest; "" where there is none."""
    folder = posixpath.commonpath([key.rpartition("/")[0] for key in keys])
    return f"{folder}/" if folder else ""


class ObjectStore(Protocol):
    """Bytes under keys. Safe to use from many threads; several processes may share one store.

    Every method that is given a key raises InvalidKey for what `checked_key` refuses, and every
    method that is given a range raises ValueError for negative bounds.
    """

    def stage(self) -> Staged:
        """Begin an object. Raises StoreFull, StoreUnavailable."""

    def put(self, key: str, source: Source) -> Stored:
        """Keep all of `source` under `key`: `stage`, `write` and `keep` in one call."""
        checked_key(key)
        with self.stage() as staged:
            for piece in chunks(source):
                staged.write(piece)
            return staged.keep(key)

    def put_many(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Keep each of these contents under its key, as `put` does; all are durable, or may be
        asked for again. Raises what `put` raises for one of them."""
        for key, content in objects:
            self.put(key, content)

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """`length` bytes (default: all) from byte `start`, in pieces; fewer where the object ends.

        Raises ObjectNotFound at the call, not at the first piece; StoreUnavailable at either.
        An object deleted meanwhile is still streamed to its end, or StoreUnavailable is raised.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The same bytes in one piece. Raises ObjectNotFound, StoreUnavailable."""
        return b"".join(self.stream(key, start, length))

    def file(self, key: str) -> Descriptor | None:  # noqa: ARG002 - most have none
        """The object as an open file of this machine, where it lies in one: to be read by places,
        and closed. An object deleted meanwhile is still there to its end.

        None says nothing of whether there is such an object. Raises ObjectNotFound,
        StoreUnavailable.
        """
        return None

    def stat(self, key: str) -> Stored:
        """What the store knows of `key`. Raises ObjectNotFound, StoreUnavailable."""

    def missing(self, keys: Collection[str]) -> frozenset[str]:
        """Which of the keys, best of one folder, nothing is kept under.

        Asked at once, and once more of each that is not listed. Raises StoreUnavailable.
        """
        listed = {one.key for one in self.list(folder_of(keys))} if keys else set()
        return frozenset(key for key in keys if key not in listed and not self._keeps(key))

    def _keeps(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectNotFound:
            return False
        return True

    def settled(self, key: str) -> bool:
        """Whether the object lies where it will stay, and not on its way there.

        Raises ObjectNotFound, StoreUnavailable.
        """
        self.stat(key)
        return True

    def may_come(self) -> bool:
        """Whether an object that is not found here may be on its way from another machine."""
        return False

    def digest(self, key: str) -> str:
        """SHA-256 computed from the bytes as they lie there now, never from a label."""
        return digest_of(self.stream(key))

    def delete(self, key: str) -> None:
        """Remove the object, durably. Raises ObjectNotFound, StoreUnavailable."""

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Every kept object whose key starts with `prefix`, each once, in the order of the keys.

        In a bucket the order is the server's: SeaweedFS goes folder by folder (`a/1` before
        `a-b/1`), against the S3 API. What is kept or deleted meanwhile may or may not be listed.
        """

    def free(self) -> int | None:
        """Bytes for which there is room where objects come in; None where nobody knows.

        Raises StoreUnavailable.
        """
        return None

    def try_out(self) -> None:
        """Do what it takes for an object to come in, as far as to the disk, and leave nothing.

        Raises StoreFull, StoreUnavailable.
        """
        self.stage().discard()

    def close(self) -> None:
        """Let go of files and connections; what was kept stays kept."""


class MemoryStore(ObjectStore):
    """Objects in this process' memory, for tests and trials: durable until the process ends."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[Stored, bytes]] = {}
        self._lock = threading.Lock()

    def stage(self) -> Staged:
        return _StagedBytes(self)

    def keep(self, key: str, content: bytes) -> Stored:
        """Keep `content` under `key` unless the key is taken. Raises InvalidKey, ObjectDiffers."""
        offered = Stored(checked_key(key), len(content), datetime.now(UTC))
        with self._lock:
            stored, held = self._objects.setdefault(key, (offered, content))
        if held != content:
            raise ObjectDiffers(key)
        return stored

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        _, content = self._held(key)
        first, end = span(len(content), start, length)
        return (content[at : min(at + CHUNK, end)] for at in range(first, end, CHUNK))

    def stat(self, key: str) -> Stored:
        return self._held(key)[0]

    def delete(self, key: str) -> None:
        with self._lock:
            self._held(key)
            del self._objects[key]

    def list(self, prefix: str = "") -> Iterator[Stored]:
        with self._lock:
            found = sorted(key for key in self._objects if key.startswith(prefix))
            return iter([self._objects[key][0] for key in found])

    def close(self) -> None:
        """Nothing is open."""

    def _held(self, key: str) -> tuple[Stored, bytes]:
        try:
            return self._objects[checked_key(key)]
        except KeyError:
            raise ObjectNotFound(key) from None


class _StagedBytes(Staged):
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._content = bytearray()
        self._spent = False

    @property
    def size(self) -> int:
        return len(self._content)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self._content).hexdigest()

    def write(self, piece: Bytes) -> None:
        self._written().extend(piece)

    def reader(self) -> BinaryIO:
        return io.BytesIO(self._written())

    def keep(self, key: str) -> Stored:
        stored = self._store.keep(key, bytes(self._written()))
        self._spent = True
        return stored

    def discard(self) -> None:
        self._spent = True

    def _written(self) -> bytearray:
        if self._spent:
            raise ValueError("this staged object was kept or discarded")
        return self._content
