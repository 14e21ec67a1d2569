"""Scanning the bytes of a data set for some of its elements (PS3.5 section 7).

Not a parser: what is not wanted is stepped over, without a data set object and without recursion
that a sender could deepen. Offsets count from the data set's first byte; for a deflated one, from
the first inflated byte.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, NoReturn

WINDOW = 64 * 1024
"""Bytes read at once; the header of a plain image fits into the first window."""

VALUE_LIMIT = 64 * 1024
"""Bytes of the longest value that is read; longer ones are stepped over."""

INFLATE_LIMIT = 64 * 1024 * 1024
"""Bytes a deflated data set may inflate to before its Pixel Data."""

DEPTH_LIMIT = 64
"""Sequences of undefined length that may lie within one another."""

ITEM_LIMIT = 64
"""Items of a sequence, and values of Other Patient IDs, that are read; the rest is not."""

EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})
"""Implicit VR Little Endian, and GE's private syntax that swaps the Pixel Data only."""

DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
"""Transfer syntaxes whose data set is one deflate stream (PS3.5 A.5; JPIP Referenced Deflate)."""

SHORT_FORM = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""PS3.5 Table 7.1-2: VRs whose value length is a 16-bit number."""

LONG_FORM = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""PS3.5 Table 7.1-1: VRs with two reserved bytes and a 32-bit value length."""

_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD

PIXEL_DATA_GROUP = 0x7FE0
NO_GROUP = 0x10000
"""Of what no tag is: a scan until there goes to the end."""


class DataSetError(ValueError):
    """The root of what can be wrong with received bytes. Messages name tags, never values."""


class MalformedDataSet(DataSetError):
    """The bytes break PS3.5 where reading on would be guessing.

    `what` says how, `offset` is where, in bytes from the beginning of the data set.
    """

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} (at byte {offset} of the data set)")
        self.what = what
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Encoding:
    """VR form and byte order, which an element of VR UN changes for what it contains."""

    implicit: bool
    order: str
    tag_vr_length: Callable[..., tuple[int, int, bytes, int]]
    tag_length: Callable[..., tuple[int, int, int]]
    length: Callable[..., tuple[int]]


def _encoding(implicit: bool, order: str) -> Encoding:
    return Encoding(
        implicit,
        order,
        Struct(order + "HH2sH").unpack_from,
        Struct(order + "HHL").unpack_from,
        Struct(order + "L").unpack_from,
    )


_EXPLICIT_LE = _encoding(False, "<")
_IMPLICIT_LE = _encoding(True, "<")
_EXPLICIT_BE = _encoding(False, ">")
_IMPLICIT_BE = _encoding(True, ">")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to take from a data set or item: values up to `longest` bytes, and items by tag.

    As deep as this is written down is as deep as the scan recurses.
    """

    values: frozenset[int]
    longest: int
    items: Mapping[int, Wanted]
    lenient: bool = False
    """Whether a sequence of such items is stepped over where it is malformed."""


@dataclass(slots=True)
class Found:
    """Wanted elements of one data set or item: VR and value bytes by tag, items by tag."""

    encoding: Encoding
    values: dict[int, tuple[bytes, bytes]]
    items: dict[int, list[Found]]


class Window:
    """The stretch of the data set held in memory: `buffer`, whose first byte is at `base`."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        self._start = reader.tell()
        self.buffer = reader.read(WINDOW)
        self.base = 0
        # One seek tells a length beyond the end before anything is allocated for it.
        self.end = reader.seek(0, os.SEEK_END) - self._start

    def show(self, position: int, count: int) -> tuple[bytes, int]:
        """Buffer and base such that `count` bytes from `position` are in it, or all there are."""
        reach = min(position + count, self.end)
        if position < self.base or reach > self.base + len(self.buffer):
            self._reader.seek(self._start + position)
            self.buffer = self._reader.read(max(count, WINDOW))
            self.base = position
        return self.buffer, self.base


class InflatedWindow(Window):
    """A window that moves forward over a deflate stream, in bounded memory (PS3.5 A.5)."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self.buffer = b""
        self.base = 0
        self.end = sys.maxsize  # until the stream's own end is seen
        self.show(0, WINDOW)

    def show(self, position: int, count: int) -> tuple[bytes, int]:
        while self.base + len(self.buffer) < position + count and (more := self._inflate()):
            kept = self.buffer[max(0, position - self.base) :]
            self.base += len(self.buffer) - len(kept)
            self.buffer = kept + more
        return self.buffer, self.base

    def _inflate(self) -> bytes:
        """The next bytes of the data set, at most a window; none at its end."""
        reached = self.base + len(self.buffer)
        if reached > INFLATE_LIMIT:
            raise MalformedDataSet(f"inflates to more than {INFLATE_LIMIT} bytes", reached)
        try:
            while not self._stream.eof:
                deflated = self._stream.unconsumed_tail or self._reader.read(WINDOW)
                if more := self._stream.decompress(deflated, WINDOW):
                    return more
                if not deflated:
                    raise MalformedDataSet("the deflate stream is cut off", reached)
        except zlib.error:
            raise MalformedDataSet("the deflate stream is damaged", reached) from None
        self.end = reached
        return b""


@dataclass(frozen=True, slots=True)
class Head:
    """Value bytes by tag of what precedes group 7FE0, which begins at `position`; their form."""

    values: Mapping[int, bytes]
    position: int
    implicit: bool
    order: str
    """``<`` or ``>``: the order of the bytes of numbers."""


def head(reader: BinaryIO, transfer_syntax_uid: str, tags: frozenset[int]) -> Head:
    """The values of `tags`, at most `VALUE_LIMIT` bytes each, before the pixels.

    Sequences are stepped over. Raises MalformedDataSet. The reader is left anywhere.
    """
    window, encoding = begun(reader, transfer_syntax_uid)
    taken = Wanted(tags, VALUE_LIMIT, {})
    found, position = elements(window, 0, window.end, encoding, taken, until=PIXEL_DATA_GROUP)
    values = {tag: value for tag, (_, value) in found.values.items()}
    return Head(values, position, encoding.implicit, encoding.order)


def begun(reader: BinaryIO, transfer_syntax_uid: str) -> tuple[Window, Encoding]:
    """The window at the beginning of a data set, and its encoding as it is found to be."""
    window = InflatedWindow(reader) if transfer_syntax_uid in DEFLATED else Window(reader)
    implicit = transfer_syntax_uid in IMPLICIT_VR
    if len(window.buffer) >= 6:
        # The first length of an implicit data set would have to exceed 16 KB to look like a VR.
        implicit = not _capitals(window.buffer[4:6])
    if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
        return window, _IMPLICIT_BE if implicit else _EXPLICIT_BE
    return window, _IMPLICIT_LE if implicit else _EXPLICIT_LE


def is_as_declared(beginning: bytes, transfer_syntax_uid: str) -> bool:
    """Whether a data set whose first 8 bytes these are has the VR form of its transfer syntax.

    What is deflated, or ends before its first value, is taken to have it.
    """
    if transfer_syntax_uid in DEFLATED or len(beginning) < 8:
        return True
    return _capitals(beginning[4:6]) != (transfer_syntax_uid in IMPLICIT_VR)


def _capitals(vr: bytes) -> bool:
    return len(vr) == 2 and 0x41 <= vr[0] <= 0x5A and 0x41 <= vr[1] <= 0x5A


def elements(
    window: Window,
    position: int,
    end: int,
    encoding: Encoding,
    wanted: Wanted,
    *,
    until: int = NO_GROUP,
    item: bool = False,
) -> tuple[Found, int]:
    """Scan a data set up to group `until`, or an item that ends at `end` or with its delimiter.

    Also returns where it ended. The hot loop of receiving: an ordinary element costs one unpack and
    a few comparisons.
    """
    found = Found(encoding, {}, {})
    values, sequences, longest = wanted.values, wanted.items, wanted.longest
    buffer, base = window.buffer, window.base
    size = len(buffer)
    unpack, unpack_implicit = encoding.tag_vr_length, encoding.tag_length
    implicit = encoding.implicit
    vr = b""
    previous = 0
    while position < end:
        at = position - base
        if at + 12 > size:
            buffer, base = window.show(position, 12)
            at, size = position - base, len(buffer)
            if at + 8 > size:
                if at > size or any(buffer[at:]) or item:
                    _malformed("ends within an element", position)
                break  # at the end, or padded with a few zeros
        if implicit:
            group, element, length = unpack_implicit(buffer, at)
            start = position + 8
        else:
            group, element, vr, length = unpack(buffer, at)
            start = position + 8
        if group >= PIXEL_DATA_GROUP:
            if group >= until:
                break
            if item and group == 0xFFFE and element == 0xE00D:
                return found, position + 8
        if group < previous:
            if previous >= PIXEL_DATA_GROUP and not item:
                break  # what some writers append to the pixels: kept as it is
            _malformed(f"group {group:04X} follows group {previous:04X}", position)
        previous = group
        tag = group << 16 | element
        if not implicit and vr not in SHORT_FORM:
            vr, length, start = _long_form(window, position, end, encoding)
        if length == _UNDEFINED or (tag in sequences and length):
            inside = _IMPLICIT_LE if vr == b"UN" else encoding
            stop = None if length == _UNDEFINED else _stop(tag, start, length, end, position)
            if tag in sequences:
                read, position = _sequence(window, start, stop, inside, sequences[tag])
                found.items[tag] = read
            else:
                position = _skip(window, start, inside)
            buffer, base = window.buffer, window.base
            size = len(buffer)
            continue
        stop = start + length
        if stop > end:
            _stop(tag, start, length, end, position)
        if tag in values and 0 < length <= longest:
            if stop - base > size:
                buffer, base = window.show(start, length)
                size = len(buffer)
                if stop - base > size:
                    _malformed(f"({group:04X},{element:04X}) ends within its value", position)
            found.values[tag] = vr, buffer[start - base : stop - base]
        position = stop
    return found, position


def _malformed(what: str, offset: int) -> NoReturn:
    raise MalformedDataSet(what, offset)


def _stop(tag: int, start: int, length: int, end: int, position: int) -> int:
    """Where a value of `length` stops. Raises MalformedDataSet if that is behind `end`."""
    if start + length > end:
        what = f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than what it lies in"
        raise MalformedDataSet(what, position)
    return start + length


def _long_form(
    window: Window, position: int, end: int, encoding: Encoding
) -> tuple[bytes, int, int]:
    """VR, length and value position of an explicit element whose VR is none of the short form."""
    buffer, base = window.show(position, 12)
    at = position - base
    _, _, vr, short = encoding.tag_vr_length(buffer, at)
    if not _capitals(vr):
        # Some writers fall back to implicit VR for single elements (pydicom issues 1035, 1067).
        length = encoding.tag_length(buffer, at)[2]
        if length != _UNDEFINED and position + 8 + length > end:
            raise MalformedDataSet("an element without a VR", position)
        return b"", length, position + 8
    whole = at + 12 <= len(buffer)
    length = encoding.length(buffer, at + 8)[0] if whole else 0
    fits = whole and (length == _UNDEFINED or position + 12 + length <= end)
    if vr not in LONG_FORM and (short or not fits):
        return vr, short, position + 8  # a VR that PS3.5 does not know, in the short form
    if not whole:
        raise MalformedDataSet("ends within an element", position)
    return vr, length, position + 12


def _sequence(
    window: Window, start: int, stop: int | None, encoding: Encoding, wanted: Wanted
) -> tuple[list[Found], int]:
    """The items of a wanted sequence, and where it ended; none where it may be stepped over."""
    try:
        return _items(window, start, stop, encoding, wanted)
    except MalformedDataSet:
        if not wanted.lenient:
            raise
        if stop is not None:
            return [], stop
        if isinstance(window, InflatedWindow) and window.base > start:
            raise  # it does not go back
        return [], _skip(window, start, encoding)


def _items(
    window: Window, position: int, end: int | None, encoding: Encoding, wanted: Wanted
) -> tuple[list[Found], int]:
    """The items of a sequence that ends at `end` or with its delimiter; also where it ended."""
    items: list[Found] = []
    limit = window.end if end is None else end
    while end is None or position < end:
        tag, length = _delimiter(window, position, encoding)
        if tag == _SEQUENCE_END and end is None:
            return items, position + 8
        if tag != _ITEM:
            raise MalformedDataSet("neither an item nor the end of a sequence", position)
        start = position + 8
        stop = limit if length == _UNDEFINED else _stop(tag, start, length, limit, position)
        item, position = elements(window, start, stop, encoding, wanted, item=True)
        if len(items) < ITEM_LIMIT:
            items.append(item)
    return items, position


def _delimiter(window: Window, position: int, encoding: Encoding) -> tuple[int, int]:
    """Tag and length of an item or delimiter, which have no VR in any encoding (PS3.5 7.5)."""
    buffer, base = window.show(position, 12)
    at = position - base
    if at + 8 > len(buffer):
        raise MalformedDataSet("ends within a sequence", position)
    group, element, length = encoding.tag_length(buffer, at)
    return group << 16 | element, length


def _skip(window: Window, position: int, encoding: Encoding) -> int:
    """Where a sequence of undefined length ends, found by walking its items (PS3.5 7.5.2).

    Never by looking for the delimiter's bytes, which any value may contain. Encapsulated
    fragments are items of defined length and pass likewise.
    """
    levels = [(False, encoding)]
    while levels:
        in_item, encoding = levels[-1]
        if position > window.end:
            raise MalformedDataSet("a value is longer than the data set", window.end)
        tag, length = _delimiter(window, position, encoding)
        start = position + 8
        if tag == (_ITEM_END if in_item else _SEQUENCE_END):
            levels.pop()
            position = start
        elif in_item:
            vr = b""
            if not encoding.implicit:
                buffer, base = window.show(position, 12)
                _, _, vr, length = encoding.tag_vr_length(buffer, position - base)
                if vr not in SHORT_FORM:
                    vr, length, start = _long_form(window, position, window.end, encoding)
            if length == _UNDEFINED:
                if len(levels) >= 2 * DEPTH_LIMIT:
                    raise MalformedDataSet(f"more than {DEPTH_LIMIT} nested sequences", position)
                levels.append((False, _IMPLICIT_LE if vr == b"UN" else encoding))
                position = start
            else:
                position = start + length
        elif tag != _ITEM:
            raise MalformedDataSet("neither an item nor the end of a sequence", position)
        elif length == _UNDEFINED:
            levels.append((True, encoding))
            position = start
        else:
            position = start + length
    return position
