"""Objects in a file system: written aside, synced, then linked under their key (POSIX.1-2017).

Life of an object: it is staged and its digest computed (see `staging`); `fdatasync`; a hard link
`objects/<key>`, which unlike a rename never replaces what is there; `fsync` of the directory that
now names it. A crash at any point leaves the object under its key, whole, or not at all; what
remains in staging is cleared when a store is next opened there.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from exchange_storage.objects import (
    CHUNK,
    Descriptor,
    InvalidKey,
    ObjectDiffers,
    ObjectNotFound,
    ObjectStore,
    Stored,
    StoreUnavailable,
    checked_key,
    digest_of,
    free,
    span,
)
from exchange_storage.staging import ALIGNED, StagedFile, StagingArea, answer_to

OPEN_DIRECTORIES = 256
"""Directories kept open for writing: about the series that arrive at one time."""


PART = 256 << 10
"""Bytes of an object from which on reading is left to run ahead."""


class FilesystemStore(ObjectStore):
    """Objects as files `root/objects/<key>`; several processes may share one root."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        """Open the store at `root`, which is made where missing.

        `durable=False` leaves syncing to the operating system: for trials and tests only.
        Raises StoreFull, StoreUnavailable.
        """
        self._objects = root / "objects"
        self._durable = durable
        self._directories: dict[str, Descriptor] = {}
        self._opening = threading.Lock()
        with _answering():
            self._make(self._objects)
            self._top = Descriptor(os.open(self._objects, os.O_RDONLY | os.O_DIRECTORY))
        self._staging = StagingArea(root / "staging")

    def stage(self) -> StagedFile:
        return StagedFile(self._staging, self._keep)

    def put_many(self, objects: Sequence[tuple[str, bytes]]) -> None:
        # Each step for all of them before the next: the file system's journal is then written for
        # many at once, which is most of what a sync costs.
        with ExitStack() as stack:
            lot = []
            for key, content in objects:
                folder, _, name = checked_key(key).rpartition("/")
                staged = stack.enter_context(self.stage())
                staged.write(content)
                lot.append((key, folder, name, staged))
            try:
                directories = {folder: self._directory(folder) for _, folder, _, _ in lot}
                for _, folder, _, staged in lot:
                    staged.flush(directories[folder].number)
                if self._durable:
                    for _, _, _, staged in lot:
                        staged.sync()
                for _, folder, name, staged in lot:
                    self._link(staged, directories[folder], name)
                for directory in directories.values():
                    self._sync(directory)
                return
            except FileNotFoundError:  # a folder was emptied and removed meanwhile
                for _, folder, _, _ in lot:
                    self._forget(folder)
            except NotADirectoryError as error:
                raise InvalidKey("the key runs through another object") from error
            except OSError as error:
                raise answer_to(error) from error
        super().put_many(objects)

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        file, size = self._open(key)
        first, end = span(size, start, length)
        if end - first < min(PART, size):
            # Of a header alone: a disk that reads ahead would read the pixels as well.
            os.posix_fadvise(file.number, 0, 0, os.POSIX_FADV_RANDOM)
        return _pieces(file, first, end)

    def file(self, key: str) -> Descriptor:
        return self._open(key)[0]

    def stat(self, key: str) -> Stored:
        with _answering(key):
            found = Path(self._objects, checked_key(key)).stat()
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(key)
        return _stored(key, found)

    def missing(self, keys: Collection[str]) -> frozenset[str]:
        # Each by itself costs less than to list their folder in its order.
        return frozenset(key for key in keys if not self._keeps(key))

    def _keeps(self, key: str) -> bool:
        with suppress(ObjectNotFound), _answering(key):
            return stat.S_ISREG(os.stat(f"{self._objects}/{checked_key(key)}").st_mode)  # noqa: PTH116 - thousands
        return False

    def path(self, key: str) -> Path:
        """The file that holds `key`, to be read only. Raises ObjectNotFound, StoreUnavailable."""
        self.stat(key)
        return Path(self._objects, key)

    @contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[Path | None]:
        """The file that holds `key`, claimed against every other `claim` until the block ends.

        None where another has it and the caller does not `wait`. Reading and keeping need no
        claim; who deletes objects that others move away must hold one. Raises ObjectNotFound.
        """
        while True:
            file, _ = self._open(key)
            try:
                fcntl.flock(file.number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
            path = Path(self._objects, key)
            with _answering(key):  # deleted while this waited, and perhaps kept anew
                if os.path.samestat(path.stat(), os.fstat(file.number)):
                    break
        try:
            yield path
        finally:
            file.close()

    def delete(self, key: str) -> None:
        folder, _, name = checked_key(key).rpartition("/")
        with _answering(key):
            # Not from the cache: what is opened here need not be durable to be emptied.
            flags = os.O_RDONLY | os.O_DIRECTORY
            directory = Descriptor(os.open(f"{self._objects}/{folder}", flags))
            os.unlink(name, dir_fd=directory.number)
            self._sync(directory)
        while folder:  # a folder that another process fills again just now is not empty, and stays
            try:
                Path(self._objects, folder).rmdir()
            except OSError:
                break
            with self._opening:
                self._directories.pop(folder, None)
            folder = folder.rpartition("/")[0]

    def list(self, prefix: str = "") -> Iterator[Stored]:
        folder, _, _ = prefix.rpartition("/")
        try:
            start = f"{checked_key(folder)}/" if folder else ""
        except InvalidKey:
            return iter(())  # no key starts so, and no such path is looked at
        return self._walk(start, prefix)

    def free(self) -> int:
        with _answering():
            return free(self._objects)

    def try_out(self) -> None:
        with self.stage() as staged, _answering():
            staged.write(bytes(ALIGNED))
            (staged.sync if self._durable else staged.flush)(self._top.number)

    def close(self) -> None:
        with self._opening:
            self._directories.clear()
            self._top.close()
        self._staging.close()

    def _keep(self, staged: StagedFile, key: str) -> Stored:
        folder, _, name = key.rpartition("/")
        try:
            for _ in range(100):
                try:
                    directory = self._directory(folder)
                    (staged.sync if self._durable else staged.flush)(directory.number)
                    found = self._link(staged, directory, name)
                except FileNotFoundError:  # the folder was emptied and removed meanwhile
                    self._forget(folder)
                    continue
                self._sync(directory)
                return _stored(key, found)
        except NotADirectoryError as error:
            raise InvalidKey("the key runs through another object") from error
        except OSError as error:
            raise answer_to(error) from error
        raise StoreUnavailable("the directory of the object cannot be made to stay")

    def _link(self, staged: StagedFile, directory: Descriptor, name: str) -> os.stat_result:
        """Name the staged file, or find the same bytes under that name already."""
        try:
            staged.link(directory, name)
            return os.fstat(staged.number)
        except FileExistsError:
            there = Descriptor(os.open(name, os.O_RDONLY, dir_fd=directory.number))
        found = os.fstat(there.number)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidKey("the key is a folder of other objects")
        size = found.st_size
        if size != staged.size or _digest(there, size) != staged.digest:
            raise ObjectDiffers(name)
        return found

    def _directory(self, folder: str) -> Descriptor:
        """The open directory of `folder`, made where missing and durable as far as to the root.

        Its parent is synced also when the directory was there already, since another process may
        have made it a moment ago. What is kept is the open directory and not its path: when it was
        removed and made anew meanwhile, linking into it fails, where the path would lead to a
        directory that nobody has synced. Raises FileNotFoundError in that case.
        """
        if not folder:
            return self._top
        known = self._directories.get(folder)
        if known is not None:
            return known
        above, _, name = folder.rpartition("/")
        parent = self._directory(above)
        with suppress(FileExistsError):
            os.mkdir(name, 0o750, dir_fd=parent.number)
        flags = os.O_RDONLY | os.O_DIRECTORY
        directory = Descriptor(os.open(name, flags, dir_fd=parent.number))
        self._sync(parent)
        with self._opening:
            if len(self._directories) >= OPEN_DIRECTORIES:
                del self._directories[next(iter(self._directories))]
            self._directories[folder] = directory
        return directory

    def _forget(self, folder: str) -> None:
        with self._opening:
            while folder:
                self._directories.pop(folder, None)
                folder = folder.rpartition("/")[0]

    def _make(self, directory: Path) -> None:
        """Make `directory` with all that is missing above it, durably."""
        if not directory.exists():
            self._make(directory.parent)
            directory.mkdir(mode=0o750, exist_ok=True)
            self._sync(Descriptor(os.open(directory.parent, os.O_RDONLY)))

    def _sync(self, directory: Descriptor) -> None:
        if self._durable:
            os.fsync(directory.number)

    def _open(self, key: str) -> tuple[Descriptor, int]:
        """The open object and its size in bytes. Raises ObjectNotFound, StoreUnavailable."""
        with _answering(key):
            file = Descriptor(os.open(f"{self._objects}/{checked_key(key)}", os.O_RDONLY))
            found = os.fstat(file.number)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(key)
        return file, found.st_size

    def _walk(self, folder: str, prefix: str) -> Iterator[Stored]:
        """The objects below `folder` (empty, or ending in ``/``) whose keys start with `prefix`."""
        with _answering():
            try:
                with os.scandir(f"{self._objects}/{folder}") as entries:
                    # With its slash a folder sorts as its keys do: "a-b" before "a/b" before "a0".
                    found = sorted(
                        (folder + entry.name + "/" * entry.is_dir(), entry) for entry in entries
                    )
            except (FileNotFoundError, NotADirectoryError):
                return
        for key, entry in found:
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                with suppress(ObjectNotFound), _answering(key):
                    yield _stored(key, entry.stat())


@contextmanager
def _answering(key: str = "") -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectNotFound(key) from error
    except OSError as error:
        raise answer_to(error) from error


def _stored(key: str, found: os.stat_result) -> Stored:
    return Stored(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _digest(file: Descriptor, size: int) -> str:
    """Of what is there; "" where it cannot be read, as from a bad sector. Closes the file."""
    try:
        return digest_of(_pieces(file, 0, size))
    except StoreUnavailable:
        return ""


def _pieces(file: Descriptor, start: int, end: int) -> Iterator[bytes]:
    """The bytes of `file` from `start` to `end`. Raises StoreUnavailable; closes the file."""
    try:
        while start < end:
            piece = os.pread(file.number, min(CHUNK, end - start), start)
            if not piece:
                raise StoreUnavailable("the object is shorter than when it was opened")
            yield piece
            start += len(piece)
    except OSError as error:
        raise answer_to(error) from error
    finally:
        file.close()
