"""The data set of a kept object, read where it lies: in ranges, never as a whole."""

from __future__ import annotations

import io
from functools import partial

from exchange.retrieval import Held
from exchange_dicom import data_set
from exchange_dicom.character_sets import CharacterSet, determine
from exchange_dicom.header import DEFLATED, EXPLICIT_VR_BIG_ENDIAN
from exchange_dicom.part10 import file_meta


def offset(held: Held) -> int:
    """Where the data set begins, in bytes of the object."""
    return len(file_meta(held.sop_class_uid, held.sop_instance_uid, held.transfer_syntax_uid))


def reading(held: Held, inflated_limit: int) -> data_set.Read:
    """How the data set is read; up to `inflated_limit` bytes where it is to be inflated.

    What it gives raises Unavailable, and of a deflated data set MalformedDataSet.
    """
    start = offset(held)
    if held.transfer_syntax_uid in DEFLATED:
        return data_set.Inflated(held.stream(start), inflated_limit)
    return partial(_part, held, start)


def little_endian(held: Held) -> bool:
    """Whether the numbers of the data set are little endian."""
    return held.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN


def _part(held: Held, offset: int, start: int, length: int) -> bytes:
    return held.read(offset + start, length)


def character_set(held: Held) -> CharacterSet:
    """How the index read the instance's text, so that both say the same."""
    repair = held.character_set_repair
    if repair is None:
        return determine(held.character_set, ())
    return CharacterSet(held.character_set, repair["used"], repair["reason"])


class Reader(io.BufferedIOBase):
    """The data set as a file, still deflated where it is; each `read` is one from the store."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._offset = offset(held)
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, all of the rest if negative. Raises Unavailable."""
        length = None if size is None or size < 0 else size
        found = self._held.read(self._offset + self._at, length)
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place that is told from the beginning, from here, or from the end."""
        size = self._held.size - self._offset
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        return self._at

    def tell(self) -> int:
        """The next byte that is read."""
        return self._at

    def seekable(self) -> bool:
        """It is."""
        return True
