"""Content of a clinical resource that is kept in the object store, not in the index.

A large PDF in a Binary is a quarter larger still as base64, in every version and every backup of
the index. So it is put into the object store before the version that names it is committed, and
the version keeps all but its text, and where that belongs. Whoever reads a version gets the whole.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import and_, bindparam, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from exchange import spans
from exchange.access import Access, translated
from exchange.errors import NotFound, TooLarge, Unavailable
from exchange.spans import Span
from exchange_storage.objects import (
    ObjectNotFound,
    ObjectStore,
    ObjectStoreError,
    Staged,
    digest_of,
)
from exchange_storage.prepared import Prepared
from exchange_storage.records import Attached, AttachedDamage, Revision

PREFIX = "resources"
"""Where it lies in the object store."""

LEAST = 64 << 10
"""Bytes from which content is attached; less costs the index less than another object."""

_MARK = b"\x00"
"""What a version without its content begins with: no JSON does."""


@dataclass(slots=True, eq=False)
class Attachment:
    """Content on its way into the store; whoever retries a write puts it there once."""

    content: bytes | Staged = field(repr=False)
    stands: str = ""
    """The text that stands for it in a resource that does not hold it."""
    key: str = ""
    """Where it lies, once it was put."""
    used: bool = False
    """Whether a version names it."""

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    @property
    def digest(self) -> str:
        """SHA-256 of it, 64 lower-case hex digits."""
        if isinstance(self.content, bytes):
            return digest_of([self.content])
        return self.content.digest

    def put(self, objects: ObjectStore) -> None:
        """Make it durable; what came piece by piece only once. Raises what a store raises."""
        if not self.key:
            key = f"{PREFIX}/{uuid.uuid4().hex}"
            if isinstance(self.content, bytes):
                objects.put(key, self.content)
            else:
                self.content.keep(key)
            self.key = key

    def without(self, whole: bytes) -> bytes | None:
        """A version without it, which says where it belongs; None where it does not hold it."""
        text = self.stands.encode()
        if isinstance(self.content, bytes):
            text = base64.b64encode(self.content)
        at = whole.find(text)
        if at < 0 and self.stands:
            raise ValueError("the resource does not hold what stands for its content")
        if at < 0:
            return None
        head = f"{self.key} {at}\n".encode()
        return _MARK + head + whole[:at] + whole[at + len(text) :]

    def lying(self, kept: bytes, objects: ObjectStore) -> Lying | None:
        """Where it lies beside a version without it, once that is committed; None where whoever
        wrote the version has it."""
        return Lying(self.key, _parts(kept)[1], self.size, objects) if self.stands else None


class Arriving:
    """Content that comes piece by piece: at most little of it is in memory, more goes on its way
    into the store at once. As a context manager it leaves nothing there that was not put."""

    def __init__(self, objects: ObjectStore, limit: int) -> None:
        """Of `limit` bytes at most."""
        self._objects = objects
        self._limit = limit
        self._little = bytearray()
        self._staged: Staged | None = None
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Append `piece`. Raises TooLarge, NoRoom, Unavailable."""
        self._size += len(piece)
        if self._size > self._limit:
            raise TooLarge(f"content may have at most {self._limit} bytes")
        if self._staged is None:
            self._little += piece
            if self._size < LEAST:
                return
            piece = bytes(self._little)
            self._little.clear()
            with translated():
                self._staged = self._objects.stage()
        with translated():
            self._staged.write(piece)

    def arrived(self) -> bytes | Attachment:
        """All of it, or what is to be attached, with a text to stand for it that nobody guesses."""
        if self._staged is None:
            return bytes(self._little)
        return Attachment(self._staged, base64.b64encode(secrets.token_bytes(33)).decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._staged is not None:
            self._staged.discard()


def attachment(text: str) -> Attachment | None:
    """What is attached of a text in base64; None where it stays: little, or written otherwise."""
    if len(text) * 3 // 4 < LEAST:
        return None
    content = base64.b64decode(text)
    if base64.b64encode(content) != text.encode() or len(content) < LEAST:
        return None
    return Attachment(content)


@dataclass(frozen=True, slots=True)
class Lying:
    """What is attached to a version that the asker may have, read after the gate has closed."""

    key: str
    at: int
    """Where its text belongs in the version."""
    size: int
    objects: ObjectStore = field(repr=False)

    def into(self, version: bytes) -> bytes:
        """The version with it. Raises Unavailable."""
        with translated():
            return _joined(version, self.at, self.objects.get(self.key))

    def standing(self, version: bytes, text: bytes) -> bytes:
        """The version with some text in its place."""
        return version[: self.at] + text + version[self.at :]

    @property
    def text_size(self) -> int:
        """Bytes of it as base64."""
        return (self.size + 2) // 3 * 4

    def text(self) -> Iterator[bytes]:
        """It as base64, piece by piece. Raises Unavailable, as `pieces`."""
        return _encoded(spans.read(self.pieces(0, self.size)))

    def pieces(self, start: int, stop: int) -> Iterator[bytes | Span]:
        """The bytes from `start` up to `stop`, as they lie in a file where they do.

        Raises Unavailable, what can be told before the file is read at the call.
        """
        span = spans.lying(self.objects, self.key, self.size, start)
        if span is not None:
            return iter((Span(span.file, start, stop - start),))
        with translated():
            pieces = self.objects.stream(self.key, start, stop - start)
        return spans.in_our_words(pieces, stop - start)


@contextmanager
def put(
    objects: ObjectStore, attached: Iterable[Attachment | None], released: Sequence[str]
) -> Iterator[None]:
    """What is written inside may name what is attached: it is durable before.

    What no version names in the end is removed, as is what was `released` meanwhile. Raises what a
    store raises.
    """
    found = [one for one in attached if one is not None]
    for one in found:
        one.put(objects)
    try:
        yield
    except (Unavailable, SQLAlchemyError):
        raise  # it may have been committed all the same
    except Exception:
        remove(objects, [one.key for one in found])
        for one in found:
            one.key, one.used = "", False
        raise
    remove(objects, [*released, *(one.key for one in found if not one.used)])


def whole(objects: ObjectStore, kept: bytes) -> bytes:
    """A version with all that belongs to it. Raises what a store raises."""
    if not kept.startswith(_MARK):
        return kept
    key, at, rest = _parts(kept)
    return _joined(rest, at, objects.get(key))


def unless_lost(objects: ObjectStore, kept: bytes) -> bytes:
    """The same; empty where what belongs to it is missing from the store."""
    try:
        return whole(objects, kept)
    except ObjectNotFound:
        return b""


def lying(access: Access, kept: bytes) -> Lying | None:
    """What is attached to a version; None where nothing is. Raises NotFound where the version was
    forgotten meanwhile."""
    if not kept.startswith(_MARK):
        return None
    key, at, _ = _parts(kept)
    rows = access.glance(_ONE, {"key": key})
    if not rows:
        raise NotFound("no such version")
    return Lying(key, at, rows[0].size, access.objects)


def without(kept: bytes) -> bytes:
    """A version as it is without what is attached to it: the text there is empty."""
    return _parts(kept)[2] if kept.startswith(_MARK) else kept


def note(session: Session, one: Attachment, resource: int, version: int) -> None:
    """That a version of the resource with this row number names what was put."""
    given = {
        "key": one.key,
        "digest": one.digest,
        "size": one.size,
        "resource_id": resource,
        "version": version,
    }
    _ADD.run(session.connection(), given)
    one.used = True


def release(session: Session, resource: int, before: int) -> list[str]:
    """Forget what versions before one name; the keys are for the caller to remove, once that is
    committed."""
    given = {"resource": resource, "before": before}
    connection = session.connection()
    keys = [row.key for row in _EARLIER.all(connection, given)]
    if keys:
        _WHOLE.run(connection, given)
        _REMOVE.run(connection, given)
    return keys


def remove(objects: ObjectStore, keys: Iterable[str]) -> None:
    """Remove what no version names any more; what cannot be removed now, a check tells of."""
    with suppress(ObjectStoreError):
        for key in keys:
            with suppress(ObjectNotFound):
                objects.delete(key)


def named(session: Session, last: int, limit: int) -> Iterator[tuple[int, str, str, int]]:
    """Row number, key, digest and size of what versions name, in their order behind `last`."""
    rows = _AFTER.all(session.connection(), {"last": last, "limit": limit})
    return ((row.id, row.key, row.digest, row.size) for row in rows)


def recorded(session: Session, number: int) -> datetime:
    """When the version was recorded that names what has this row number."""
    found = _RECORDED.first(session.connection(), {"row": number})
    return found.recorded if found is not None else datetime.min.replace(tzinfo=UTC)


def is_named(session: Session, key: str) -> bool:
    """Whether a version names an object."""
    return _ONE.first(session.connection(), {"key": key}) is not None


def _encoded(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Base64 of pieces, as of all of them together: three bytes are four letters."""
    left = b""
    for piece in pieces:
        held = left + piece
        whole = len(held) - len(held) % 3
        left = held[whole:]
        yield base64.b64encode(held[:whole])
    if left:
        yield base64.b64encode(left)


def _joined(version: bytes, at: int, content: bytes) -> bytes:
    return b"".join((version[:at], base64.b64encode(content), version[at:]))


def _parts(kept: bytes) -> tuple[str, int, bytes]:
    head, _, rest = kept[len(_MARK) :].partition(b"\n")
    key, _, at = head.decode().partition(" ")
    return key, int(at), rest


_ADD = Prepared(insert(Attached), ["key", "digest", "size", "resource_id", "version"])
_OF_EARLIER = (
    Attached.resource_id == bindparam("resource"),
    Attached.version < bindparam("before"),
)
_EARLIER = Prepared(select(Attached.key).where(*_OF_EARLIER))
_WHOLE = Prepared(
    delete(AttachedDamage).where(
        AttachedDamage.attached_id.in_(select(Attached.id).where(*_OF_EARLIER))
    )
)
_REMOVE = Prepared(delete(Attached).where(*_OF_EARLIER))
_ONE = Prepared(select(Attached.id, Attached.size).where(Attached.key == bindparam("key")))
_RECORDED = Prepared(
    select(Revision.recorded)
    .join(
        Attached,
        and_(Attached.resource_id == Revision.resource_id, Attached.version == Revision.version),
    )
    .where(Attached.id == bindparam("row"))
)
_AFTER = Prepared(
    select(Attached.id, Attached.key, Attached.digest, Attached.size)
    .where(Attached.id > bindparam("last"))
    .order_by(Attached.id)
    .limit(bindparam("limit"))
)
