"""Small objects that the index carries until they are put into the object store.

A small object costs less to write than to make durable: its file, its name and its directories are
each synced by themselves. So its bytes are committed in the transaction of its row, with the sync
that the row needs anyway, and a worker puts many of them into the store together. An object moves
one way: first the index has it, then both, then the store alone; whoever looks into the store, then
into the index and then into the store again finds it.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from exchange_storage.database import Database, Lock
from exchange_storage.objects import (
    Descriptor,
    ObjectDiffers,
    ObjectNotFound,
    ObjectStore,
    Source,
    Staged,
    Stored,
    StoreUnavailable,
    checked_key,
    span,
)
from exchange_storage.prepared import Prepared
from exchange_storage.records import Carried

LARGEST = 32 << 10
"""Bytes of the largest object that is carried: a report, a presentation state, not an image."""

BACKLOG = 20_000
"""Objects that the index carries, about; when nobody puts them down, no more are taken up."""

TOGETHER = 64
"""Objects put into the store together: what bounds how long their removal holds up a writer."""

COMING = timedelta(seconds=2)
"""After the last one for so long no more is taken to come, and what is carried is put down."""

GATHERED = 4_000
"""Objects that gather while more of them come, about; then some are put down meanwhile."""

LONGEST = timedelta(seconds=15)
"""How long the first of them waits for the others."""

LOOKED = 1.0
"""Seconds for which it is believed how many are carried."""

CONNECTIONS = 4
"""To the index, for reading what is carried: whoever reads an object may have one of the others
already, and waiting for a second while holding a first would end in a deadlock."""

_CARRY = Prepared(
    lambda dialect: (
        {"postgresql": postgresql, "sqlite": sqlite}[dialect]
        .insert(Carried)
        .on_conflict_do_nothing(index_elements=[Carried.key])
    ),
    ["key", "content", "carried"],
)
_FOUND = Prepared(select(Carried.content, Carried.carried).where(Carried.key == bindparam("key")))
_STAT = Prepared(
    select(func.length(Carried.content).label("size"), Carried.carried).where(
        Carried.key == bindparam("key")
    )
)
_SPAN = Prepared(select(func.min(Carried.id), func.max(Carried.id)))
_WHEN = Prepared(select(Carried.carried).where(Carried.id == bindparam("row")))
_NEXT = Prepared(
    select(Carried.id, Carried.key, Carried.content)
    .where(Carried.id > bindparam("behind"))
    .order_by(Carried.id)
    .limit(TOGETHER)
)
_REMOVE = Prepared(delete(Carried).where(Carried.id == bindparam("row")))
_FORGET = Prepared(delete(Carried).where(Carried.key == bindparam("key")).returning(Carried.id))


@dataclass(frozen=True, slots=True)
class PutDown:
    """What one `put_down` did."""

    moved: int
    differing: tuple[str, ...]
    """Keys under which the store holds other bytes; a person has to look at them."""


class CarryingStore(ObjectStore):
    """A `store` whose small objects may be on their way through the index of `database`.

    Only objects whose keys start with `prefix` are: others are not looked for there.
    """

    def __init__(self, store: ObjectStore, database: Database, *, prefix: str = "studies/") -> None:
        """Own the store, not the database."""
        self.store = store
        self._database = database
        self._aside = database.sibling(CONNECTIONS)
        self._prefix = prefix
        self._counting = threading.Lock()
        self._counted = 0
        self._counted_at = float("-inf")

    def carries(self, size: int) -> bool:
        """Whether an object of so many bytes is to be carried. Raises what a database raises."""
        return size <= LARGEST and self._roughly() < BACKLOG

    def carry(self, connection: Connection, key: str, content: bytes) -> None:
        """Have the index carry an object, in the transaction of `connection`: it is durable, and
        can be read, once that is committed. What has the same key is the same object and is left
        as it is. Raises InvalidKey."""
        given = {"key": checked_key(key), "content": content, "carried": datetime.now(UTC)}
        _CARRY.run(connection, given)

    def stage(self) -> Staged:
        return self.store.stage()

    def put(self, key: str, source: Source) -> Stored:
        return self.store.put(key, source)

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            return self.store.stream(key, start, length)
        except ObjectNotFound:
            found = self._carried(_FOUND, key)
            if found is None:
                return self.store.stream(key, start, length)
        except StoreUnavailable:  # which does not matter to what is here
            found = self._carried(_FOUND, key)
            if found is None:
                raise
        content: bytes = found.content
        first, end = span(len(content), start, length)
        return iter((content[first:end],) if first < end else ())

    def file(self, key: str) -> Descriptor | None:
        try:
            return self.store.file(key)
        except (ObjectNotFound, StoreUnavailable):
            return None  # it may be carried

    def stat(self, key: str) -> Stored:
        try:
            return self.store.stat(key)
        except ObjectNotFound:
            found = self._carried(_STAT, key)
            return Stored(key, found.size, found.carried) if found else self.store.stat(key)
        except StoreUnavailable:
            if (found := self._carried(_STAT, key)) is None:
                raise
            return Stored(key, found.size, found.carried)

    def missing(self, keys: Collection[str]) -> frozenset[str]:
        left = self.store.missing(keys)
        carried = [key for key in left if self._carried(_STAT, key) is not None]
        left = left.difference(carried)
        return self.store.missing(left) if left else left

    def settled(self, key: str) -> bool:
        try:
            return self.store.settled(key)
        except ObjectNotFound:
            return self._carried(_STAT, key) is None and self.store.settled(key)
        except StoreUnavailable:
            if self._carried(_STAT, key) is None:
                raise
            return False

    def may_come(self) -> bool:
        return self.store.may_come()

    def digest(self, key: str) -> str:
        try:
            return self.store.digest(key)
        except (ObjectNotFound, StoreUnavailable):
            return super().digest(key)

    def delete(self, key: str) -> None:
        """Remove the object wherever it is, after it was put down if that is under way."""
        if not key.startswith(self._prefix):
            self.store.delete(key)
            return
        checked_key(key)
        with self._aside.alone(Lock.CARRIED):
            with self._aside.writing() as session:
                forgotten = _FORGET.all(session.connection(), {"key": key})
            try:
                self.store.delete(key)
            except ObjectNotFound:
                if not forgotten:
                    raise

    def free(self) -> int | None:
        return self.store.free()

    def try_out(self) -> None:
        self.store.try_out()

    def close(self) -> None:
        self.store.close()
        self._aside.close()

    def gathers(self) -> bool:
        """Whether putting down what is carried can wait: more of it comes just now.

        Many together cost less, and until then the disk is for what arrives.
        """
        with self._aside.reading() as session:
            connection = session.connection()
            first, last = _SPAN.first(connection, {})
            if last is None or last - first >= GATHERED:
                return False
            oldest, newest = (
                _WHEN.first(connection, {"row": row}).carried for row in (first, last)
            )
        now = datetime.now(UTC)
        return bool(newest > now - COMING and oldest > now - LONGEST)

    def put_down(self, *, proceed: Callable[[], bool] = lambda: True) -> PutDown:
        """Put what is carried now into the store, the longest carried first.

        Ends early where `proceed` says so after one lot, and does nothing where another is at it.
        Raises StoreUnavailable, StoreFull, and what a database raises; what has not been put down
        is carried on.
        """
        moved, behind = 0, 0
        differing: list[str] = []
        while True:
            with self._aside.alone(Lock.CARRIED, wait=False) as alone:
                rows = self._lot(behind) if alone else []
                if not rows:
                    break
                refused = self._put(rows)
                with self._aside.writing() as session:
                    done = [{"row": row.id} for row in rows if row.key not in refused]
                    _REMOVE.run_many(session.connection(), done)
            moved += len(done)
            differing += refused
            behind = rows[-1].id
            if len(rows) < TOGETHER or not proceed():
                break
        return PutDown(moved, tuple(differing))

    def waiting(self) -> int:
        """How many objects are carried."""
        with self._aside.reading() as session:
            return session.scalar(select(func.count()).select_from(Carried)) or 0

    def _lot(self, behind: int) -> Sequence[Carried]:
        with self._aside.reading() as session:
            return _NEXT.all(session.connection(), {"behind": behind})

    def _put(self, rows: Sequence[Carried]) -> list[str]:
        """Put these into the store; returns the keys that it has with other bytes."""
        try:
            self.store.put_many([(row.key, row.content) for row in rows])
        except ObjectDiffers:
            refused = []
            for row in rows:
                try:
                    self.store.put(row.key, row.content)
                except ObjectDiffers:
                    refused.append(row.key)
            return refused
        return []

    def _carried(self, statement: Prepared, key: str) -> Any:
        if not key.startswith(self._prefix):
            return None
        with self._aside.reading() as session:
            return statement.first(session.connection(), {"key": key})

    def _listed(self, prefix: str) -> list[Stored]:
        if not (prefix.startswith(self._prefix) or self._prefix.startswith(prefix)):
            return []
        size = func.length(Carried.content)
        with self._aside.reading() as session:
            rows = session.execute(select(Carried.key, size, Carried.carried)).all()
        return [Stored(*row) for row in sorted(rows) if row[0].startswith(prefix)]

    def _roughly(self) -> int:
        """How many are carried, as estimated at most `LOOKED` seconds ago."""
        if time.monotonic() - self._counted_at >= LOOKED and self._counting.acquire(blocking=False):
            try:
                with self._aside.reading() as session:
                    first, last = _SPAN.first(session.connection(), {})
                self._counted = last - first + 1 if last is not None else 0
                self._counted_at = time.monotonic()
            finally:
                self._counting.release()
        return self._counted

    def list(self, prefix: str = "") -> Iterator[Stored]:
        # What is carried first: what moves while the store is read is then not missed.
        carried = {one.key: one for one in self._listed(prefix)}
        others = (one for one in self.store.list(prefix) if one.key not in carried)
        yield from heapq.merge(carried.values(), others, key=lambda one: one.key)
