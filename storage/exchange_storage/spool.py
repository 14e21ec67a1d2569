"""A durable local spool in front of a remote store, so that no answer waits for the network.

Life of an object: `keep` makes it durable in the spool, and the sender is answered; `drain`, called
by the worker, uploads it, sees that the remote store has it whole, and only then removes it from
the spool: a copy that was there before is read for that, whatever its label says. So at any time it
is in the spool, in the remote store, or in both; it moves one way, and whoever looks in the spool
first and then in the remote store finds it.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import (
    Descriptor,
    ObjectDiffers,
    ObjectNotFound,
    ObjectStore,
    Source,
    Stored,
    StoreFull,
    StoreUnavailable,
)
from exchange_storage.staging import StagedFile

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Drained:
    """What one `drain` did: how many objects it moved, and what it had to leave in the spool."""

    moved: int
    differing: tuple[str, ...]
    """Keys under which the remote store holds other bytes; a person has to look at them."""
    stopped_by: StoreUnavailable | StoreFull | None
    """Why it ended early: the remote store is down or full; the rest waits for the next call."""


class SpooledStore(ObjectStore):
    """Keeps in `spool`, reads from `spool` and `remote`, and moves from the one to the other.

    The spool knows what it holds and not what the remote store holds: a key that the remote store
    has with other bytes is found out by `drain`. Ours take their place where the key carries the
    digest of ours; else `drain` leaves ours in the spool and reports it.
    """

    def __init__(self, spool: FilesystemStore, remote: ObjectStore, *, uploads: int = 4) -> None:
        """Own both stores; `drain` sends `uploads` objects at a time."""
        self._spool = spool
        self._remote = remote
        self._uploads = uploads
        self._counting = threading.Lock()
        self._counted = 0
        self._counted_at = -math.inf

    def stage(self) -> StagedFile:
        return self._spool.stage()

    def put(self, key: str, source: Source) -> Stored:
        return self._spool.put(key, source)

    def put_many(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Keep them in the remote store itself: they are durable where they come from, and the
        spool of this machine could not be read by others."""
        with ThreadPoolExecutor(self._uploads, "put") as uploads:
            for put in [uploads.submit(self._remote.put, *one) for one in objects]:
                put.result()

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._found(lambda store: store.stream(key, start, length))

    def file(self, key: str) -> Descriptor | None:
        try:
            return self._spool.file(key)
        except ObjectNotFound:
            return None

    def stat(self, key: str) -> Stored:
        return self._found(lambda store: store.stat(key))

    def missing(self, keys: Collection[str]) -> frozenset[str]:
        # The spool first: what moves meanwhile is then found in the remote store, which is not
        # asked, and may be away, where the spool has all.
        left = self._spool.missing(keys)
        return self._remote.missing(left) if left else left

    def settled(self, key: str) -> bool:
        try:
            self._spool.stat(key)
        except ObjectNotFound:
            self._remote.stat(key)
            return True
        return False

    def may_come(self) -> bool:
        return True  # other machines have spools of their own

    def delete(self, key: str) -> None:
        """Remove the object from both stores, after an upload of it that is under way.

        Where the remote store is unavailable, nothing is removed.
        """
        try:
            with self._spool.claim(key, wait=True):
                with suppress(ObjectNotFound):  # which is: not uploaded yet
                    self._remote.delete(key)
                self._spool.delete(key)
        except ObjectNotFound:  # not in the spool, or gone from it while this waited
            self._remote.delete(key)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        # The whole spool first: what moves while the remote store is read is then not missed.
        spooled = {stored.key: stored for stored in self._spool.list(prefix)}
        remote = (one for one in self._remote.list(prefix) if one.key not in spooled)
        yield from heapq.merge(spooled.values(), remote, key=lambda stored: stored.key)

    def free(self) -> int:
        return self._spool.free()

    def try_out(self) -> None:
        self._spool.try_out()

    def close(self) -> None:
        self._spool.close()
        self._remote.close()

    def waiting(self, age: float = 0.0) -> int:
        """How many objects are in the spool, as counted at most `age` seconds ago.

        To count them is to list the whole spool, which is long when it matters: after an outage.
        """
        with self._counting:
            if time.monotonic() - self._counted_at >= age:
                self._counted = sum(1 for _ in self._spool.list())
                self._counted_at = time.monotonic()
            return self._counted

    def drain(
        self, limit: int | None = None, *, proceed: Callable[[int], bool] | None = None
    ) -> Drained:
        """Move up to `limit` objects (default: all), the longest spooled first.

        Lists the whole spool once per call, and drains the list to its end: listed anew for every
        few objects, a spool of many would not catch up. `proceed` is called after each batch of
        uploads with how many of it were moved; where it says False the call ends. May be called at
        any time and by several processes at once: an object that another is moving is passed over.
        Never raises for the remote store.
        """
        waiting = iter(sorted(self._spool.list(), key=lambda one: (one.kept, one.key)))
        moved = 0
        differing: list[str] = []
        stopped_by: StoreUnavailable | StoreFull | None = None
        with ThreadPoolExecutor(self._uploads, "drain") as uploads:
            while stopped_by is None:
                room = self._uploads if limit is None else min(self._uploads, limit - moved)
                batch = [
                    (one.key, uploads.submit(self._move, one)) for one in islice(waiting, room)
                ]
                if not batch:
                    break
                before = moved
                for key, upload in batch:
                    try:
                        moved += upload.result()
                    except ObjectDiffers:
                        differing.append(key)
                    except (StoreUnavailable, StoreFull) as error:
                        stopped_by = error
                if proceed is not None and not proceed(moved - before):
                    break
        return Drained(moved, tuple(differing), stopped_by)

    def _move(self, stored: Stored) -> bool:
        """Upload one object and remove it from the spool; False where another did so."""
        try:
            with self._spool.claim(stored.key, wait=False) as path:
                if path is None:
                    return False
                try:
                    kept = self._remote.put(stored.key, path)
                except ObjectDiffers:
                    # Where the key names the digest of ours, theirs has been damaged since.
                    if self._spool.digest(stored.key) not in stored.key:
                        raise
                    log.warning("an object was damaged in the remote store, and is replaced")
                    self._remote.delete(stored.key)
                    kept = self._remote.put(stored.key, path)
                if kept.size != stored.size:
                    raise ObjectDiffers(stored.key)
                self._spool.delete(stored.key)
        except ObjectNotFound:
            return False
        return True

    def _found(self, look: Callable[[ObjectStore], _T]) -> _T:
        # The third look is for an object that was deleted and kept anew between the first two.
        for store in (self._spool, self._remote):
            try:
                return look(store)
            except ObjectNotFound:
                continue
        return look(self._spool)
