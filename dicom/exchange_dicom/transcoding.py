"""An instance in a transfer syntax that its receiver takes, without loss (PS3.5 10 and annex A).

Native data sets are written anew element by element, with a window of them in memory. Compressed
pixels are decompressed by pydicom and its plug-ins, frame after frame into one value; nothing is
ever compressed, so that no pixel changes.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from math import prod
from typing import Protocol

from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from exchange_dicom import codestream, data_set, part10
from exchange_dicom.coercion import Coercion, coerced
from exchange_dicom.data_set import Inflated, Read
from exchange_dicom.header import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    DataSetError,
    MalformedDataSet,
)
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

DECOMPRESSED_LIMIT = 1 << 30
"""Bytes of the largest pixel data that is decompressed: it is in memory as a whole."""

INFLATED_LIMIT = 1 << 30
"""Bytes of the largest data set that is inflated."""

NATIVE = frozenset(
    {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, *DEFLATED}
)
"""Transfer syntaxes whose pixels are not compressed by themselves."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_WRITERS = {
    EXPLICIT_VR_LITTLE_ENDIAN: data_set.explicit,
    IMPLICIT_VR_LITTLE_ENDIAN: data_set.implicit,
}

Pieces = Iterator[bytes | memoryview]


class Lying(Protocol):
    """An instance as it lies in a Part 10 file, ours or another."""

    @property
    def transfer_syntax_uid(self) -> str:
        """The syntax of its data set."""

    def stream(self) -> Iterator[bytes]:
        """The file in pieces, of which the first holds all of the Part 10 header."""

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The file, or a part of it, in one piece."""


class CannotTranscode(Exception):
    """The instance cannot be had in any of the transfer syntaxes that were offered."""


def choose(
    transfer_syntax_uid: str, offered: Sequence[str], coercion: Coercion | None = None
) -> str:
    """The one of the offered syntaxes in which an instance goes out: its own, else a native one.

    With `coercion` big endian ones are written anew. Raises CannotTranscode.
    """
    as_it_is = coercion is None or transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    if transfer_syntax_uid in offered and as_it_is:
        return transfer_syntax_uid
    if transfer_syntax_uid in NATIVE or decodes(transfer_syntax_uid):
        for native in _WRITERS:
            if native in offered:
                return native
    raise CannotTranscode("no transfer syntax that the receiver takes can be made without loss")


def data_set_of(held: Lying, transfer_syntax_uid: str, coercion: Coercion | None = None) -> Pieces:
    """The data set of a kept instance, in pieces, in a syntax that `choose` has named.

    With `coercion` its patient's number is coerced. Raises CannotTranscode, DataSetError or
    Unavailable, all but the last at the first piece.
    """
    kept = held.transfer_syntax_uid
    if transfer_syntax_uid == kept and coercion is None:
        return _stripped(held)
    if kept in DEFLATED or (kept == EXPLICIT_VR_BIG_ENDIAN and transfer_syntax_uid != kept):
        plain = _written(held, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid)
        return _finished(plain, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid, coercion)
    if transfer_syntax_uid == kept:
        if kept == EXPLICIT_VR_BIG_ENDIAN:
            raise CannotTranscode("a big endian instance cannot be coerced as it is")
        return coerced(_stripped(held), kept, coercion) if coercion else _stripped(held)
    if kept in NATIVE:
        return _finished(
            _written(held, transfer_syntax_uid, transfer_syntax_uid),
            transfer_syntax_uid,
            transfer_syntax_uid,
            coercion,
        )
    rewritten = transfer_syntax_uid != EXPLICIT_VR_LITTLE_ENDIAN
    plain = _decompressed(held, rewritten=rewritten)
    return _finished(plain, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid, coercion)


def _finished(plain: Pieces, written: str, wanted: str, coercion: Coercion | None) -> Pieces:
    pieces = plain if coercion is None else coerced(plain, written, coercion)
    if wanted in DEFLATED:
        return _deflated(pieces)
    if wanted == written:
        return pieces
    return _WRITERS[wanted](data_set.walk(read := _reading(pieces), written), read)


def _stripped(held: Lying) -> Pieces:
    """The kept bytes behind the Part 10 header."""
    pieces = iter(held.stream())
    first = next(pieces, b"")
    start = part10.read_file_meta(io.BytesIO(first)).data_set_offset
    yield memoryview(first)[start:]
    yield from pieces


def _written(held: Lying, transfer_syntax_uid: str, wanted: str) -> Pieces:
    """A native data set written anew, which will go out in the syntax that is `wanted`.

    It is gone through before, since a sequence that is none is as well kept as any, and whoever
    has half of an instance has nothing.
    """
    deflated = held.transfer_syntax_uid in DEFLATED
    kept = EXPLICIT_VR_LITTLE_ENDIAN if deflated else held.transfer_syntax_uid
    write = _WRITERS.get(wanted, data_set.explicit)
    data_set.check(_inflated(held) if deflated else _ranges(held), kept, write)
    read = _inflated(held) if deflated else _reading(_stripped(held))
    yield from _WRITERS[transfer_syntax_uid](data_set.walk(read, kept), read)


def _inflated(held: Lying) -> Read:
    return Inflated((bytes(piece) for piece in _stripped(held)), INFLATED_LIMIT)


def _ranges(held: Lying) -> Read:
    """The data set where it lies."""
    head = io.BytesIO(held.read(0, 2 * part10.META_LIMIT))
    start = part10.read_file_meta(head).data_set_offset
    return lambda at, length: held.read(start + at, length)


class _Window:
    """A `Read` over pieces that come in order; what lies before the last place is forgotten."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = iter(pieces)
        self._base = 0
        self._ahead = bytearray()

    def __call__(self, start: int, length: int) -> bytes:
        self._forget(start)
        while self._base + len(self._ahead) < start + length:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._ahead += piece
            self._forget(start)
        return bytes(memoryview(self._ahead)[:length])

    def _forget(self, before: int) -> None:
        surplus = min(before - self._base, len(self._ahead))
        if surplus > 0:
            del self._ahead[:surplus]
            self._base += surplus


def _reading(pieces: Iterable[bytes | memoryview]) -> Read:
    return _Window(pieces)


def _deflated(pieces: Pieces) -> Pieces:
    """PS3.5 A.5: a raw deflate stream, padded to an even length."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for piece in pieces:
        out = stream.compress(piece)
        size += len(out)
        yield out
    out = stream.flush()
    yield out + b"\0" * ((size + len(out)) % 2)


def _decompressed(held: Lying, *, rewritten: bool) -> Pieces:
    """The data set without compression; gone through as a whole before it is `rewritten`."""
    file = held.read()
    plain = _without_compression(file)
    # A report in a syntax of images: its data set is in Explicit VR all the same.
    whole = file if plain is None else plain
    found = memoryview(whole)[part10.read_file_meta(io.BytesIO(whole)).data_set_offset :]
    if rewritten:
        read: Read = lambda at, length: bytes(found[at : at + length])  # noqa: E731
        data_set.check(read, EXPLICIT_VR_LITTLE_ENDIAN, data_set.implicit)
    yield found


def _without_compression(file: bytes) -> bytes | None:
    """A Part 10 file with its pixels decompressed; None where it has none."""
    try:
        # Warnings are of a sender's odd values, which stay.
        with warnings.catch_warnings(action="ignore"), codestream.coding():
            found = dcmread(io.BytesIO(file), force=True)
            if not any(keyword in found for keyword in _PIXELS):
                return None
            judge(found, DECOMPRESSED_LIMIT)
            found.decompress(as_rgb=False, generate_instance_uid=False)
            if found.PhotometricInterpretation == "YBR_FULL_422":
                # The decoder has given each pixel its colours: they are halved no longer.
                found.PhotometricInterpretation = "YBR_FULL"
            written = io.BytesIO()
            found.save_as(written, enforce_file_format=False)
    except CannotTranscode:
        raise
    except Exception as error:  # a decoder may raise anything about bytes that it cannot read
        raise CannotTranscode(
            f"its pixels cannot be decompressed: {codestream.UNREADABLE}"
        ) from error
    return written.getvalue()


def judge(found: Dataset, limit: int) -> None:
    """Raises CannotTranscode where compressed pixels are not to be decoded.

    It is before their decoder makes more of them than `limit` bytes, or than the image says; what
    it raises of a data set that does not say how large its pixels are can be anything.
    """
    frames = int(found.get("NumberOfFrames", 1) or 1)
    size = int(found.Rows), int(found.Columns), int(found.SamplesPerPixel)
    if prod(size) * frames * int(found.BitsAllocated) // 8 > limit:
        raise CannotTranscode("the decompressed pixels would be too large")
    for frame in generate_frames(
        found.PixelData, number_of_frames=frames, extended_offsets=_offsets(found)
    ):
        if why := codestream.objection(frame, *size):
            raise CannotTranscode(why)


def _offsets(found: Dataset) -> tuple[bytes, bytes] | None:
    """The extended offset table (PS3.3 C.7.6.3.1.8), if there is one."""
    if "ExtendedOffsetTable" not in found or "ExtendedOffsetTableLengths" not in found:
        return None
    return found.ExtendedOffsetTable, found.ExtendedOffsetTableLengths


@cache
def decodes(transfer_syntax_uid: str) -> bool:
    """Whether there is a decoder for pixels that are compressed so."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(UID(transfer_syntax_uid)).is_available)
    except NotImplementedError:
        return False


__all__ = [
    "NATIVE",
    "CannotTranscode",
    "DataSetError",
    "MalformedDataSet",
    "choose",
    "data_set_of",
    "decodes",
    "judge",
]
