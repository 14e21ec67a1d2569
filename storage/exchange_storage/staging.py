"""Objects on their way in: gathered in memory, then written past the page cache (open(2), Linux).

An image is written once, and read back, if at all, much later: its way through the page cache
costs more than to receive it, and crowds out what is read often. So blocks go to the disk by direct
I/O while the next ones arrive, and the first block stays in memory until the object is kept: what
is indexed is read from there. The file has no name before it is kept (O_TMPFILE), so that a crash
leaves nothing behind. A file system that lacks one or the other is used as it can be.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import mmap
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from exchange_storage.objects import (
    Bytes,
    Descriptor,
    ObjectStoreError,
    Staged,
    Stored,
    StoreFull,
    StoreUnavailable,
    checked_key,
)

FIRST = 544 << 10
"""Bytes of an object gathered before the first are written: a slice of 512² pixels is written while
it is indexed."""

NEXT = 256 << 10
"""Bytes gathered after that; an object on its way in holds two blocks at most."""

SPARE_BLOCKS = 32
"""Blocks of each kind kept for the next objects: memory that was touched once is touched for
good."""

DIRECT = 1 << 16
"""Bytes from which direct I/O is the shorter way to the disk."""

ALIGNED = 4096
"""What direct I/O asks of the place and length of each write."""

_NAMES_ONLY = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
"""What open(2) answers where there are no files without a name."""

# EFBIG: the process may not write files that large (RLIMIT_FSIZE), or the file system has no more.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def answer_to(error: OSError) -> ObjectStoreError:
    """What a store says when the operating system says `error`; without paths or file names."""
    reason = error.strerror or type(error).__name__
    return StoreFull(reason) if error.errno in _NO_ROOM else StoreUnavailable(reason)


class StagingArea:
    """A directory of files on their way in, shared by processes; each opener has its own folder.

    The folder's `lock` is held (flock) as long as its process lives, however it dies, so an
    opener can tell what others left behind from what they are writing. `staging/lock` is held while
    folders are made and cleared, so that none is cleared between its making and its locking.
    """

    def __init__(self, directory: Path) -> None:
        """Make `directory` and an own folder in it; clear the folders of the dead.

        Raises StoreFull, StoreUnavailable.
        """
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            gate = _locked(directory / "lock")
            for folder in [entry for entry in directory.iterdir() if entry.is_dir()]:
                try:
                    abandoned = _locked(folder / "lock", wait=False)
                except (BlockingIOError, FileNotFoundError):
                    continue  # its owner lives, or has just removed it
                shutil.rmtree(folder, ignore_errors=True)
                abandoned.close()
            self.path.mkdir(mode=0o750)
            self._lock = _locked(self.path / "lock")
            self._folder = Descriptor(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY))
            gate.close()
        except OSError as error:
            raise answer_to(error) from error

        self.direct = True
        """Whether the file system has done direct I/O so far."""
        self._nameless = True
        self._spare: dict[int, list[memoryview]] = {FIRST: [], NEXT: []}

    @property
    def folder(self) -> int:
        """The descriptor of the own folder."""
        return self._folder.number

    def take_block(self, size: int) -> memoryview:
        """`FIRST` or `NEXT` bytes of memory, aligned; what is in them is of no meaning."""
        try:
            return self._spare[size].pop()
        except IndexError:
            return memoryview(mmap.mmap(-1, size))

    def give_back(self, block: memoryview) -> None:
        """`block` may be taken by the next."""
        spare = self._spare[len(block)]
        if len(spare) < SPARE_BLOCKS:
            spare.append(block)

    def open(self, beside: int | None = None) -> tuple[Descriptor, str]:
        """A new file, and its name in the folder: "" where the file system needs none.

        Then it lies in the directory `beside`, where that is known already: with its neighbours,
        and not all new files in one group of the disk. Raises OSError, FileNotFoundError where that
        directory was removed.
        """
        if self._nameless:
            at = self.folder if beside is None else beside
            try:
                return Descriptor(os.open(".", os.O_RDWR | os.O_TMPFILE, 0o640, dir_fd=at)), ""
            except OSError as error:
                if os.fstat(at).st_nlink == 0:  # ext4 says EPERM of a directory that was removed
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
                if error.errno not in _NAMES_ONLY:
                    raise
                self._nameless = False
        name = secrets.token_hex(8)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        return Descriptor(os.open(name, flags, 0o640, dir_fd=self.folder)), name

    def close(self) -> None:
        """Remove the own folder with all that was neither kept nor discarded."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._folder.close()
        self._lock.close()


def _locked(path: Path, *, wait: bool = True) -> Descriptor:
    """`path`, made where missing and locked until closed. Raises BlockingIOError unless `wait`."""
    # Opened for writing because NFS grants an exclusive flock to nobody else.
    lock = Descriptor(os.open(path, os.O_RDWR | os.O_CREAT, 0o640))
    fcntl.flock(lock.number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    return lock


class StagedFile(Staged):
    """An object being written to a staging area; the store that began it does the keeping."""

    def __init__(self, area: StagingArea, keep: Callable[[StagedFile, str], Stored]) -> None:
        self._area = area
        self._keep = keep
        self._size = 0
        self._digest = hashlib.sha256()
        self._spent = False
        self._first: memoryview | None = None
        """The first bytes of the object; stays until the object is kept."""
        self._block: memoryview | None = None
        """What is being filled: the first block, or one for all that come after it."""
        self._filled = 0
        self._base = 0
        """Bytes of the object before the block that is being filled."""
        self._flushed = -1
        """The size of the object when all of it was in the file."""
        self._synced = -1
        """The same of what is on the disk."""
        self._file = Descriptor(-1)
        self._name = ""
        self._direct = False

    @property
    def number(self) -> int:
        """The descriptor of the open file. Raises ValueError once it was kept or discarded."""
        self._check()
        if self._file.number < 0:
            self._open()
        return self._file.number

    @property
    def size(self) -> int:
        return self._size

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def write(self, piece: Bytes) -> None:
        self._check()
        rest = memoryview(piece).cast("B")
        self._digest.update(rest)
        self._size += len(rest)
        block, filled = self._block, self._filled
        while rest:
            if block is None or filled == len(block):
                block, filled = self._next_block(), 0
            some = rest[: len(block) - filled]
            block[filled : filled + len(some)] = some
            filled += len(some)
            rest = rest[len(some) :]
        self._filled = filled

    def reader(self) -> BinaryIO:
        self._check()
        return cast(BinaryIO, _Reader(self))

    def sync(self, beside: int | None = None) -> None:
        """Bring all that was written to the disk; see `flush`. Raises OSError."""
        self.flush(beside)
        if self._synced != self._size:
            os.fdatasync(self.number)
            self._synced = self._size

    def flush(self, beside: int | None = None) -> None:
        """Bring what is still in memory to the file, which is made in the directory `beside` if
        there is none yet. Raises OSError."""
        if self._file.number < 0:
            self._open(beside)
        block, filled, number = self._block, self._filled, self.number
        if block is None or self._flushed == self._size:
            return
        # Not padded and cut off again: to cut within a block the kernel reads it from the disk.
        whole = filled - filled % ALIGNED if self._direct else filled
        self._put(block[:whole], self._base)
        if whole < filled:
            self._direct = False
            fcntl.fcntl(number, fcntl.F_SETFL, 0)
            self._put(block[whole:filled], self._base + whole)
        self._flushed = self._size

    def link(self, directory: Descriptor, name: str) -> None:
        """Name the file in `directory`. Raises OSError, FileExistsError where it is taken."""
        if self._name:
            os.link(self._name, name, src_dir_fd=self._area.folder, dst_dir_fd=directory.number)
        else:
            os.link(f"/proc/self/fd/{self.number}", name, dst_dir_fd=directory.number)

    def keep(self, key: str) -> Stored:
        self._check()
        try:
            stored = self._keep(self, checked_key(key))
        except (StoreFull, StoreUnavailable):
            # After a failed sync the kernel forgets which pages were lost: never sync it again.
            self.discard()
            raise
        self.discard()
        return stored

    def discard(self) -> None:
        self._spent = True
        self._file.close()
        if self._name:
            with suppress(OSError):  # a later opener clears what cannot be removed now
                os.unlink(self._name, dir_fd=self._area.folder)
            self._name = ""
        first, block = self._first, self._block
        self._first = self._block = None
        if first is not None:
            self._area.give_back(first)
        if block is not None and block is not first:
            self._area.give_back(block)

    def _check(self) -> None:
        if self._spent:
            raise ValueError("this staged object was kept or discarded")

    def _open(self, beside: int | None = None) -> None:
        self._check()
        self._file, self._name = self._area.open(beside)
        if self._area.direct and self._size > DIRECT:
            self._direct = True
            try:
                fcntl.fcntl(self._file.number, fcntl.F_SETFL, os.O_DIRECT)
            except OSError:
                self._area.direct = self._direct = False

    def _next_block(self) -> memoryview:
        """A block to fill, when there is none or it is full. Raises StoreFull, StoreUnavailable."""
        if self._block is None:
            self._first = self._block = self._area.take_block(FIRST)
            return self._block
        try:
            self._put(self._block, self._base)
        except OSError as error:
            self.discard()
            raise answer_to(error) from error
        self._base += len(self._block)
        if self._block is self._first:
            self._block = self._area.take_block(NEXT)
        return self._block

    def _put(self, block: memoryview, at: int) -> None:
        """Write `block` at its place: directly, as long as the file system does so."""
        number = self.number
        while block:
            try:
                written = os.pwrite(number, block, at)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._area.direct, written = False, 0
            at += written
            block = block[written:]
            if block and self._direct:  # what remains is no longer aligned, or was refused
                self._direct = False
                fcntl.fcntl(number, fcntl.F_SETFL, 0)


class _Reader(io.RawIOBase):
    """A reader over a staged object: its first and last bytes from memory, the rest from disk."""

    def __init__(self, staged: StagedFile) -> None:
        self._staged = staged
        self._position = 0
        self._file = Descriptor(-1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._staged.size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._staged.size - self._position)
        left = left if size is None or size < 0 else min(size, left)
        piece = self._piece(left)
        if len(piece) == left:
            return bytes(piece)
        pieces = [bytes(piece)]
        while left := left - len(piece):
            piece = self._piece(left)
            pieces.append(bytes(piece))
        return b"".join(pieces)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _piece(self, most: int) -> Bytes:
        """Some of the next `most` bytes. Raises OSError, ValueError for what is spent."""
        staged, at = self._staged, self._position
        staged._check()
        first, block = staged._first, staged._block
        if first is None or block is None or not most:
            return b""
        in_first = staged._filled if block is first else len(first)
        if at < in_first:
            piece: Bytes = first[at : min(in_first, at + most)]
        elif at >= (beyond := staged._base):
            piece = block[at - beyond : min(at - beyond + most, staged._filled)]
        else:
            if self._file.number < 0:
                # Anew, and not directly: this one reads at any place.
                path = f"/proc/self/fd/{staged.number}"
                self._file = Descriptor(os.open(path, os.O_RDONLY))
            piece = os.pread(self._file.number, min(most, beyond - at), at)
            if not piece:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._position += len(piece)
        return piece
