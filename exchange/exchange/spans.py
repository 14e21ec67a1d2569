"""Bytes that lie in a file, for whoever sends them from there; in our words where they fail."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exchange.access import translated
from exchange.errors import Unavailable
from exchange_storage.objects import Descriptor, ObjectStore

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of an open file, which whoever takes them sends from there (sendfile(2)) or reads."""

    file: Descriptor
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def rest(self, done: int) -> Span:
        """What is left when the first `done` bytes are dealt with."""
        return Span(self.file, self.start + done, self.length - done)

    def read(self) -> bytes:
        """The first of the bytes, as many as one piece has. Raises Unavailable."""
        try:
            found = os.pread(self.file.number, min(_PIECE, self.length), self.start)
        except OSError as error:
            raise Unavailable("the object store does not answer; try again later") from error
        if not found:
            raise Unavailable("the object is shorter than when it was opened")
        return found

    def pieces(self) -> Iterator[bytes]:
        """The bytes, read; closes the file. Raises Unavailable."""
        left = self
        try:
            while left:
                piece = left.read()
                yield piece
                left = left.rest(len(piece))
        finally:
            self.file.close()


def lying(objects: ObjectStore, key: str, size: int, start: int = 0) -> Span | None:
    """The bytes of an object of `size` bytes from `start`, open; None where it lies in no file.

    Raises Unavailable.
    """
    with translated():
        file = objects.file(key)
    if file is None:
        return None
    if os.fstat(file.number).st_size != size:
        file.close()
        raise Unavailable("the object is not as long as what was received")
    return Span(file, start, size - start)


def in_our_words(pieces: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """The same pieces, which are `size` bytes where that is known. Raises Unavailable."""
    left = size
    with translated():
        for piece in pieces:
            left = left and left - len(piece)
            yield piece
    if left:
        raise Unavailable("the object is not as long as what was received")


def read(pieces: Iterable[bytes | memoryview | Span]) -> Iterator[bytes | memoryview]:
    """The same bytes, of which none lie in a file any more. Raises Unavailable."""
    for piece in pieces:
        if isinstance(piece, Span):
            yield from piece.pieces()
        else:
            yield piece
