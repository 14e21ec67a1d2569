"""Lines that are durable on this machine's disk before the index has them, and then once in it.

A commit of the index takes its turn behind all others: with images on their way a long time, for a
line that only has to outlast a crash. So each process adds its lines to a file of its own, and some
later transaction, which keeps every other writer out, takes them over and keeps how far it came
(`JournalFile`). Whatever ends when, each line is in the index once, in the order of its file.

Life of a file: made, and locked (flock(2)) by its process; lines are added, each with its CRC-32;
retired when it is long enough, when a line could not be added whole, or when its process ends;
removed when the index has all of it. Whoever can lock a file knows that its process has ended. A
line at the end that is not whole was never acknowledged; one before others was damaged on the disk,
and the file is kept for the operators, under a name that nobody reads.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from exchange_storage.objects import Descriptor
from exchange_storage.prepared import Prepared
from exchange_storage.records import JournalFile

log = logging.getLogger(__name__)

LENGTH = 1 << 20
"""Bytes of a file from which on the next line goes to a new one."""

_SUFFIX = ".journal"
_CHECKED = 9
"""Bytes of a line before its content: the CRC-32 as eight hexadecimal digits, and a space."""


@dataclass(slots=True, eq=False)
class _File:
    name: str
    descriptor: Descriptor
    length: int = 0
    """Bytes of whole lines."""
    taken: int = 0
    """Of those, as many as the index is known to have."""


@dataclass(slots=True)
class Taken:
    """What a transaction took over: `settle` when it is committed; else it is as if never taken."""

    read: Callable[[bytes], Any]
    lines: list[Any] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    ended: dict[str, Descriptor] = field(default_factory=dict)
    """Files of processes that have ended, all of which was taken; locked as long as this lives."""
    damaged: set[str] = field(default_factory=set)
    forgotten: tuple[str, ...] = ()
    """Files that were removed before, of which the index does not know any more."""


class Journal:
    """The files in one directory, and those of them that this process writes. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made before the first line."""
        self._directory = directory
        self._lock = threading.Lock()
        self._own: dict[str, _File] = {}
        self._current: _File | None = None
        self._gone: set[str] = set()
        """Files that were removed, of which the index still knows."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines without line breaks; they are durable when this returns.

        Raises OSError; some of them may be taken over all the same.
        """
        told = b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        with self._lock:
            file = self._current or self._begin()
            try:
                if os.write(file.descriptor.number, told) != len(told):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._current = None  # what follows half a line is not read
                raise
            file.length += len(told)
            if file.length >= LENGTH:
                self._current = None
        try:
            os.fdatasync(file.descriptor.number)
        except OSError:
            with self._lock:
                if self._current is file:  # nobody knows what of it is on the disk
                    self._current = None
            raise

    def behind(self, connection: Connection) -> bool:
        """Whether any process has added what the index does not have, as `connection` sees it."""
        lengths = self._lengths()
        if not lengths:
            return False
        reached = {row.name: row.reached for row in _ALL.all(connection, {})}
        return any(length > reached.get(name, 0) for name, length in lengths.items())

    def take(
        self,
        connection: Connection,
        *,
        everything: bool = False,
        read: Callable[[bytes], Any] = lambda line: line,
    ) -> Taken:
        """The lines that the index does not have, of this process, or with `everything` of all.

        In the transaction of `connection`, which must keep out every other that takes. They are
        as `read` makes them; where that is None, a line counts as damaged: none may keep others
        waiting for ever.
        """
        taken = Taken(read)
        for file in list(self._own.values()):
            if file.taken < file.length:
                self._take(connection, file.name, file.descriptor, taken)
        if everything:
            self._take_others(connection, taken)
        taken.forgotten = tuple(self._gone)
        for name in taken.forgotten:
            _FORGET.run(connection, {"gone": name})
        return taken

    def settle(self, taken: Taken) -> None:
        """The transaction is committed: remove the files of which the index has all now."""
        with self._lock:
            self._gone.difference_update(taken.forgotten)
            for name in taken.damaged:
                self._put_aside(name)
            for name, reached in taken.reached.items():
                if file := self._own.get(name):
                    file.taken = max(file.taken, reached)
            for file in list(self._own.values()):
                if file is not self._current and file.taken >= file.length:
                    self._remove(file.name)
                    del self._own[file.name]
            for name in taken.ended:
                self._remove(name)
        taken.ended.clear()

    def close(self) -> None:
        """Let go of this process's files; whoever comes next takes over what is left in them."""
        with self._lock:
            for file in self._own.values():
                if file.taken >= file.length:
                    self._remove(file.name)
            self._own.clear()
            self._current = None

    def _begin(self) -> _File:
        owner = self._directory.parent.stat()
        with suppress(FileExistsError):
            self._directory.mkdir(mode=0o700)
            with suppress(PermissionError):
                os.chown(self._directory, owner.st_uid, owner.st_gid)
        while True:
            name = uuid4().hex + _SUFFIX
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND
            descriptor = Descriptor(os.open(self._directory / name, flags, 0o600))
            with suppress(PermissionError):  # a command of root's writes for who runs the exchange
                os.fchown(descriptor.number, owner.st_uid, owner.st_gid)
            if _locked(descriptor) and os.fstat(descriptor.number).st_nlink:
                break  # and nobody took it for that of a process that has ended, just before
        folder = Descriptor(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY))
        os.fsync(folder.number)
        self._current = self._own[name] = _File(name, descriptor)
        return self._current

    def _lengths(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat().st_size
        return found

    def _take_others(self, connection: Connection, taken: Taken) -> None:
        there = self._lengths()
        for name in sorted(there.keys() - self._own.keys()):
            try:
                descriptor = Descriptor(os.open(self._directory / name, os.O_RDONLY))
            except FileNotFoundError:
                continue
            except PermissionError:
                log.error("%s belongs to another user: what is in it waits", self._directory / name)
                continue
            ended = _locked(descriptor)  # asked before it is read: nothing comes after that
            self._take(connection, name, descriptor, taken)
            if ended:
                taken.ended[name] = descriptor
        for row in _ALL.all(connection, {}):
            if row.name not in there:
                _FORGET.run(connection, {"gone": row.name})

    def _take(
        self, connection: Connection, name: str, descriptor: Descriptor, taken: Taken
    ) -> None:
        row = _ONE.first(connection, {"name": name})
        at = reached = row.reached if row else 0
        # Of a copy that is older than the index, the index has more than there is.
        length = max(at, os.fstat(descriptor.number).st_size)
        whole, lines = True, 0
        for line in os.pread(descriptor.number, length - at, at).split(b"\n"):
            at += len(line) + 1
            content = line[_CHECKED:]
            if line != b"%08x %b" % (zlib.crc32(content), content):
                whole = False
                continue
            if (made := taken.read(content)) is not None:
                taken.lines.append(made)
            if made is None or not whole:
                taken.damaged.add(name)
            reached, lines = at, lines + 1
        if lines:
            _REACH.run(connection, {"name": name, "reached": reached})
        taken.reached[name] = reached

    def _put_aside(self, name: str) -> None:
        log.error("a line of %s was damaged: it is kept as .damaged", self._directory / name)
        damaged = (self._directory / name).with_suffix(".damaged")
        try:
            damaged.hardlink_to(self._directory / name)
        except FileExistsError:
            pass
        except OSError as error:
            log.error("%s cannot be made: %s", damaged, error.strerror)

    def _remove(self, name: str) -> None:
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:  # what is committed is committed; and nothing of it comes twice
            log.error("%s cannot be removed: %s", self._directory / name, error.strerror)
        else:
            self._gone.add(name)


def _locked(descriptor: Descriptor) -> bool:
    try:
        fcntl.flock(descriptor.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reach(dialect: str) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    told = insert(JournalFile)
    return told.on_conflict_do_update(
        index_elements=["name"], set_={"reached": told.excluded.reached}
    )


_ALL = Prepared(select(JournalFile.name, JournalFile.reached))
_ONE = Prepared(select(JournalFile.reached).where(JournalFile.name == bindparam("name")))
_REACH = Prepared(_reach, ["name", "reached"])
_FORGET = Prepared(delete(JournalFile).where(JournalFile.name == bindparam("gone")))
