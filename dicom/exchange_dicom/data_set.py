"""A data set as elements over its bytes (PS3.5 section 7), with Explicit VR, and as DICOM JSON.

For what is sent out; what comes in is read by `header`. Nothing here decodes a value for its own
sake: text stays the sender's bytes until `to_json` writes it as Unicode (PS3.18 Annex F).

`elements` reads a data set that is in memory, `walk` one of any size that lies elsewhere: in
windows, and without the long values, which `explicit` copies from there piece by piece.
"""

from __future__ import annotations

import math
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, NoReturn

from pydicom.datadict import dictionary_VR

from exchange_dicom.character_sets import CharacterSet, determine
from exchange_dicom.header import (
    DEFLATED,
    DEPTH_LIMIT,
    EXPLICIT_VR_BIG_ENDIAN,
    INFLATE_LIMIT,
    LONG_FORM,
    SHORT_FORM,
    MalformedDataSet,
)

BULK = 1024
"""Bytes of the longest binary value that DICOM JSON carries inline."""

WINDOW = 64 << 10
"""Bytes of a data set that are read at once; 16 times as many where a sequence needs them."""

WINDOW_LIMIT = 64 << 20
"""Bytes of the longest sequence that `walk` reads."""

PIECE = 1 << 20
"""Bytes of a long value, or of an inflated data set, that are made at once."""

PIXEL_DATA_GROUP = 0x7FE00000
"""The first tag of the group in which the pixels are, in one form or another."""

PIXELS = 0x7FE00008
"""The first tag under which the pixels may be: Float Pixel Data."""

_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_SHORT = Struct("<HH2sH")
_LONG = Struct("<HH2sHL")
_DELIMITER = Struct("<HHL")

_CODED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_UNSPLIT = frozenset({"LT", "ST", "UR", "UT"})
_NUMBER = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Element:
    """A data element: its value's bytes, its items, where its value lies, or none: encapsulated."""

    tag: int
    vr: str
    value: memoryview | None = None
    items: tuple[tuple[Element, ...], ...] | None = None
    span: tuple[int, int] | None = None
    """First byte within the data set, and bytes, of a long value that `walk` did not read."""
    turned: int = 1
    """Bytes of the words of that long value that are still big endian; 1 where none are."""
    fragments: memoryview | None = None
    """The items of an encapsulated value, delimiter included."""


Read = Callable[[int, int], bytes]
"""So many bytes of a data set from a place in it, fewer where it ends; places only go forward, save
that what was read last may be read again from a later place in it."""


def elements(
    data: bytes, transfer_syntax_uid: str, *, until: int | None = None
) -> Iterator[Element]:
    """The elements of a data set that begins with the first byte of `data`, in their order.

    The first element at or behind tag `until` is the last one, and comes without its value. VRs
    that are not stated are the dictionary's, UN for what it does not know. Raises
    MalformedDataSet where the bytes end too early or break PS3.5.
    """
    if transfer_syntax_uid in DEFLATED:
        inflated = Inflated([data], INFLATE_LIMIT)
        data = inflated(0, INFLATE_LIMIT)
        inflated(len(data), 1)  # raises where there is more
    form = _form(data, transfer_syntax_uid)
    return _Scan(memoryview(data)).elements(len(data), form, 0, until)


def located(
    data: bytes | bytearray | memoryview,
    transfer_syntax_uid: str,
    until: int,
    *,
    lenient: bool = False,
) -> Iterator[tuple[Element, int, int]]:
    """Each element before tag `until`, with its first byte in `data` and the one behind it; then
    the first element at or behind `until`, where it begins, twice. Nothing follows where the data
    set ends before. The data set is not deflated. With `lenient` a sequence that is none is what it
    is for `walk`. Raises MalformedDataSet."""
    scan = _Scan(memoryview(data), lenient=lenient)
    start = 0
    for element in scan.elements(len(data), _form(bytes(data[:8]), transfer_syntax_uid), 0, until):
        if element.tag >= until:
            yield element, start, start
            return
        yield element, start, scan.at
        start = scan.at


def is_implicit(data: bytes | bytearray | memoryview) -> bool:
    """Whether a data set that begins so is written with Implicit VR, whatever was declared."""
    return _form(bytes(data[:8]), "").implicit


def walk(read: Read, transfer_syntax_uid: str, *, until: int | None = None) -> Iterator[Element]:
    """The elements that `elements` would give, with a window of the data set in memory at a time.

    Values longer than a window stay where they are, see `Element.span`; a sequence is read whole.
    One whose length is stated, and that is none, is a value of VR UN, to be passed on as it is.
    Raises MalformedDataSet, also for a sequence longer than `WINDOW_LIMIT`.
    """
    base, window = 0, WINDOW
    form: _Form | None = None
    signed = False
    while data := read(base, window):
        form = form or _form(data, transfer_syntax_uid)
        scan = _Scan(memoryview(data), signed, lenient=True)
        done = 0
        try:
            for element in scan.elements(len(data), form, 0, until):
                yield element
                if until is not None and element.tag >= until:
                    return
                done = scan.at
        except MalformedDataSet as error:
            whole = len(data) < window  # otherwise it may go on behind the window
            scan.at = done
            if (long := scan.long(form, 0 if whole else window)) is not None:
                tag, vr, length = long
                size = word(vr) if form.order == ">" else 1
                yield Element(tag, vr, span=(base + scan.at, length), turned=size)
                done = scan.at + length
            elif whole or (not done and window == WINDOW_LIMIT):
                raise MalformedDataSet(error.what, base + error.offset) from None
            elif not done:
                window = min(16 * window, WINDOW_LIMIT)
                continue
        else:
            if len(data) < window:
                return
        signed = scan.signed
        base, window = base + done, WINDOW


Write = Callable[..., Iterator[bytes | memoryview]]
"""`explicit` or `implicit`."""


def check(read: Read, transfer_syntax_uid: str, write: Write | None = None) -> None:
    """Raises MalformedDataSet where `write`, or `explicit`, could not write all of the data set."""
    for element in walk(read, transfer_syntax_uid):
        if element.span is None:
            for _ in (write or explicit)([element]):
                pass
        else:
            start, length = element.span
            if not read(start + length - 1, 1):
                raise MalformedDataSet("ends within a value", start)


def explicit(found: Iterable[Element], read: Read | None = None) -> Iterator[bytes | memoryview]:
    """The elements of a little endian data set in Explicit VR Little Endian (PS3.5 A.2).

    `read` is what `walk` was given, where they come from there. Every value stays byte for byte
    what it was. Group lengths, which would no longer be true, are left out; sequences get undefined
    lengths; a value too long for its VR's short form becomes UN (PS3.5 6.2.2 note 6).
    """
    for element in found:
        group, number = element.tag >> 16, element.tag & 0xFFFF
        if number == 0:
            continue
        if element.items is not None:
            yield _LONG.pack(group, number, b"SQ", 0, _UNDEFINED)
            for item in element.items:
                yield _delimiter(_ITEM, _UNDEFINED)
                yield from explicit(item)
                yield _delimiter(_ITEM_END, 0)
            yield _delimiter(_SEQUENCE_END, 0)
            continue
        vr, length = element.vr.encode("ascii"), _length(element)
        if vr in SHORT_FORM and length <= 0xFFFF:
            yield _SHORT.pack(group, number, vr, length)
        else:
            vr = b"UN" if vr in SHORT_FORM else vr
            yield _LONG.pack(group, number, vr, 0, length)
        if element.value is not None:
            yield element.value
        elif element.span is not None and read is not None:
            yield from _copied(read, *element.span, element.turned)


def implicit(found: Iterable[Element], read: Read | None = None) -> Iterator[bytes | memoryview]:
    """The same in Implicit VR Little Endian (PS3.5 A.1). Raises MalformedDataSet for a value that
    everybody would take for a sequence."""
    for element in found:
        group, number = element.tag >> 16, element.tag & 0xFFFF
        if number == 0:
            continue
        if element.items is not None:
            if _dictionary_vr(element.tag, False) not in ("SQ", "UN"):
                # Nobody would know it for a sequence here: a value that can be stepped over.
                within = b"".join(_items(element.items))
                yield _delimiter(element.tag, len(within)) + within
                continue
            yield _delimiter(element.tag, _UNDEFINED)
            yield from _items(element.items)
            yield _delimiter(_SEQUENCE_END, 0)
            continue
        if (length := _length(element)) and _dictionary_vr(element.tag, False) == "SQ":
            raise MalformedDataSet("a sequence that is none has no VR to say so", 0)
        yield _DELIMITER.pack(group, number, length)
        if element.value is not None:
            yield element.value
        elif element.span is not None and read is not None:
            yield from _copied(read, *element.span, element.turned)


def _items(items: Iterable[Iterable[Element]]) -> Iterator[bytes | memoryview]:
    for item in items:
        yield _delimiter(_ITEM, _UNDEFINED)
        yield from implicit(item)
        yield _delimiter(_ITEM_END, 0)


def _length(element: Element) -> int:
    """Bytes of the element's value. Raises MalformedDataSet."""
    if element.value is not None:
        return len(element.value)
    if element.span is not None:
        return element.span[1]
    raise MalformedDataSet("an encapsulated value in a native data set", 0)


def _copied(read: Read, start: int, length: int, size: int) -> Iterator[bytes | memoryview]:
    """A long value in pieces, which are whole words."""
    while length:
        piece = read(start, min(length, PIECE))
        if not piece:
            raise MalformedDataSet("ends within a value", start)
        straight = turned(memoryview(piece), size)
        yield straight
        yield piece[len(straight) :]  # less than a word, at the end
        start, length = start + len(piece), length - len(piece)


def numbers(vr: str, value: bytes) -> str:
    """Little endian binary numbers in decimal; a last one that is cut off is left out."""
    number = Struct("<" + _NUMBER[vr])
    whole = value[: len(value) // number.size * number.size]
    return "\\".join(str(one) for (one,) in number.iter_unpack(whole))


Bulk = Callable[[str], str]
"""The URI of a value, by its path: tag, or tags and numbers of items from 1, with slashes between.
"""


def to_json(
    found: Sequence[Element], character_set: CharacterSet, bulk: Bulk | None = None
) -> dict[str, Any]:
    """The DICOM JSON model of a data set (PS3.18 F.2): keys ascending, text as Unicode.

    Binary values longer than `BULK`, encapsulated ones, and those that were not read are where
    `bulk` says (PS3.18 F.2.2), or left out without it. Numbers that are not finite become null,
    decimal strings numbers, unless they are none.
    """
    written = _json(found, character_set, bulk, "")
    written["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return dict(sorted(written.items()))


@dataclass(frozen=True, slots=True)
class _Form:
    """How tags, lengths and numbers are written; VRs are stated unless implicit."""

    implicit: bool
    order: str

    @property
    def head(self) -> Struct:
        return _HEADS[self.order]


_HEADS = {order: Struct(order + "HH") for order in "<>"}
_HALVES = {order: Struct(order + "H") for order in "<>"}
_WORDS = {order: Struct(order + "L") for order in "<>"}
_IMPLICIT = _Form(True, "<")


class _Scan:
    """A walk over the bytes of a data set; `at` is the next one."""

    def __init__(self, data: memoryview, signed: bool = False, *, lenient: bool = False) -> None:
        self._data = data
        self._lenient = lenient
        self.signed = signed
        """Pixel Representation as it was last read: it decides VRs that PS3.6 leaves open."""
        self.at = 0

    def elements(
        self, end: int, form: _Form, depth: int, until: int | None = None
    ) -> Iterator[Element]:
        """Up to `end`, or up to the delimiter of the item within which the walk is."""
        if depth > DEPTH_LIMIT:
            self._malformed(f"more than {DEPTH_LIMIT} nested sequences")
        while self.at + 8 <= end:
            tag, stated, length = self._head(form)
            if tag == _ITEM_END and depth:
                return
            vr = _resolved(tag, stated, self.signed)
            if until is not None and tag >= until:
                yield Element(tag, vr)
                return
            if length == _UNDEFINED and vr not in ("SQ", "UN"):
                start = self.at
                self._skip_fragments(form)
                yield Element(tag, vr, fragments=self._data[start : self.at])
            elif vr == "SQ" or length == _UNDEFINED:
                inside = _IMPLICIT if stated == "UN" else form
                stop = None if length == _UNDEFINED else self._stop(tag, length, end)
                begin = self.at
                try:
                    items = tuple(self._items(end, stop, inside, depth + 1))
                except MalformedDataSet:
                    if stop is None or not self._lenient:
                        raise
                    self.at = stop
                    yield Element(tag, "UN", value=self._data[begin:stop])
                else:
                    yield Element(tag, "SQ", items=items)
            else:
                stop = self._stop(tag, length, end)
                value = self._data[self.at : stop]
                self.at = stop
                if tag == _PIXEL_REPRESENTATION:
                    self.signed = any(value[:2])
                yield Element(
                    tag, vr, value=value if form.order == "<" else turned(value, word(vr))
                )
        if depth and self.at != end:
            self._malformed("ends within an element")

    def long(self, form: _Form, window: int) -> tuple[int, str, int] | None:
        """Tag, VR and length of the element here, if its one value is longer than `window` bytes.

        `at` is then the value's first byte. None as well where `window` is 0.
        """
        if not window or self.at + 12 > len(self._data):
            return None
        tag, stated, length = self._head(form)
        vr = _resolved(tag, stated, self.signed)
        if length <= window or length == _UNDEFINED or vr == "SQ":
            return None
        return tag, vr, length

    def _items(
        self, end: int, stop: int | None, form: _Form, depth: int
    ) -> Iterator[tuple[Element, ...]]:
        while stop is None or self.at < stop:
            tag, _, length = self._head(form)
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                self._malformed("neither an item nor the end of a sequence")
            within = end if stop is None else stop
            last = within if length == _UNDEFINED else self._stop(tag, length, within)
            yield tuple(self.elements(last, form, depth))

    def _skip_fragments(self, form: _Form) -> None:
        """Step over an encapsulated value (PS3.5 A.4)."""
        while (head := self._head(form))[0] == _ITEM:
            self.at = self._stop(_ITEM, head[2], len(self._data))
        if head[0] != _SEQUENCE_END:
            self._malformed("neither a fragment nor the end of an encapsulated value")

    def _head(self, form: _Form) -> tuple[int, str, int]:
        """Tag, stated VR or "", and value length; `at` is then the value's first byte."""
        data, at = self._data, self.at
        if at + 8 > len(data):
            self._malformed("ends within an element")
        group, number = form.head.unpack_from(data, at)
        tag = group << 16 | number
        vr = bytes(data[at + 4 : at + 6])
        # Delimiters have no VR in any form, and some writers leave it out of single elements.
        if form.implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            self.at = at + 8
            return tag, "", _WORDS[form.order].unpack_from(data, at + 4)[0]
        short: int = _HALVES[form.order].unpack_from(data, at + 6)[0]
        if vr in SHORT_FORM or (short and vr not in LONG_FORM):
            self.at = at + 8
            return tag, vr.decode("ascii"), short
        if at + 12 > len(data):
            self._malformed("ends within an element")
        self.at = at + 12
        return tag, vr.decode("ascii"), _WORDS[form.order].unpack_from(data, at + 8)[0]

    def _stop(self, tag: int, length: int, end: int) -> int:
        if self.at + length > end:
            self._malformed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than what it lies in")
        return self.at + length

    def _malformed(self, what: str) -> NoReturn:
        raise MalformedDataSet(what, self.at)


class Inflated:
    """A `Read` over a deflate stream, going forward: what lies before the last place is forgotten.

    Raises MalformedDataSet where the stream is damaged, cut off, or longer than the limit.
    """

    def __init__(self, deflated: Iterable[bytes], limit: int) -> None:
        """`limit` in bytes of the data set."""
        self._deflated = iter(deflated)
        self._limit = limit
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._base = 0
        self._ahead = bytearray()

    def __call__(self, start: int, length: int) -> bytes:
        self._forget(start)
        while self._base + len(self._ahead) < start + length and (more := self._more()):
            self._ahead += more
            self._forget(start)
        return bytes(memoryview(self._ahead)[:length])

    def _forget(self, before: int) -> None:
        surplus = min(before - self._base, len(self._ahead))
        del self._ahead[:surplus]
        self._base += surplus

    def _more(self) -> bytes:
        reached = self._base + len(self._ahead)
        try:
            while not self._stream.eof:
                deflated = self._stream.unconsumed_tail or next(self._deflated, b"")
                inflated = self._stream.decompress(deflated, PIECE)
                if reached + len(inflated) > self._limit:
                    raise MalformedDataSet(f"inflates to more than {self._limit} bytes", reached)
                if inflated:
                    return inflated
                if not deflated:
                    raise MalformedDataSet("the deflate stream is cut off", reached)
        except zlib.error:
            raise MalformedDataSet("the deflate stream is damaged", reached) from None
        return b""


def _form(data: bytes, transfer_syntax_uid: str) -> _Form:
    """How a data set that begins so is written: some say Explicit VR and have none."""
    implicit = not data[4:6].isalpha() or not data[4:6].isupper()
    return _Form(implicit, ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<")


def word(vr: str) -> int:
    """Bytes of a VR's words, whose order is that of the transfer syntax (PS3.5 7.3)."""
    return {"AT": 2, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(vr) or (
        Struct("<" + _NUMBER[vr]).size if vr in _NUMBER else 1
    )


def turned(value: memoryview, size: int) -> memoryview:
    """A big endian value, in words of `size` bytes, as little endian."""
    if size == 1:
        return value
    swapped = bytearray(len(value) // size * size)
    for place in range(size):
        swapped[place::size] = value[size - 1 - place : len(swapped) : size]
    return memoryview(swapped)


def _resolved(tag: int, stated: str, signed: bool) -> str:
    return stated if stated and stated != "UN" else _dictionary_vr(tag, signed)


@lru_cache(maxsize=8192)
def _dictionary_vr(tag: int, signed: bool) -> str:
    """The VR that PS3.6 gives a tag; of several the one that PS3.5 A.1 asks for."""
    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return "UL"
    if group % 2:
        return "LO" if 0x10 <= number <= 0xFF else "UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if "OW" in vr:
        return "OW"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return vr if len(vr) == 2 else "UN"


def _delimiter(tag: int, length: int) -> bytes:
    return _DELIMITER.pack(tag >> 16, tag & 0xFFFF, length)


def _json(
    found: Sequence[Element], inherited: CharacterSet, bulk: Bulk | None, above: str
) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for element in found:
        if element.tag & 0xFFFF == 0 or element.tag == _CHARACTER_SET:
            continue
        key = f"{element.tag:08X}"
        if element.items is not None:
            items = [
                _json(item, _character_set(item, inherited), bulk, f"{above}{key}/{number}/")
                for number, item in enumerate(element.items, 1)
            ]
            written[key] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        elif element.value is not None and (told := _value(element, inherited)) is not None:
            written[key] = {"vr": element.vr} | told
        elif bulk is not None:
            written[key] = {"vr": element.vr, "BulkDataURI": bulk(above + key)}
    return dict(sorted(written.items()))


def _character_set(item: Sequence[Element], inherited: CharacterSet) -> CharacterSet:
    """An item may have its own (PS3.5 7.5.3)."""
    for element in item:
        if element.tag == _CHARACTER_SET and element.value:
            return determine(bytes(element.value).decode("ascii", "replace").strip(" \0"), ())
    return inherited


def _value(element: Element, character_set: CharacterSet) -> dict[str, Any] | None:
    """Value or InlineBinary, nothing where it is empty; None where it is bulk."""
    vr, value = element.vr, bytes(element.value or b"")
    values: list[Any]
    if vr in _TEXT:
        values = _split(vr, character_set.decode(value, name=vr == "PN"))
    elif vr in _CODED:
        values = _split(vr, value.decode("ascii", "replace"))
    elif vr in _NUMBER:
        number = Struct("<" + _NUMBER[vr])
        whole = value[: len(value) // number.size * number.size]
        values = [one if math.isfinite(one) else None for (one,) in number.iter_unpack(whole)]
    elif vr == "AT":
        pairs = Struct("<HH").iter_unpack(value[: len(value) // 4 * 4])
        values = [f"{group:04X}{number:04X}" for group, number in pairs]
    elif len(value) > BULK:
        return None
    else:
        return {"InlineBinary": b64encode(value).decode("ascii")} if value else {}
    return {"Value": values} if any(one is not None for one in values) else {}


def _split(vr: str, text: str) -> list[Any]:
    if vr in _UNSPLIT:
        text = text.rstrip(" \0")
        return [text] if text else []
    return [_single(vr, one.strip(" \0")) for one in text.split("\\")]


def _single(vr: str, text: str) -> Any:
    """One value as JSON; None where it is empty."""
    if not text:
        return None
    if vr == "PN":
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    if vr == "IS" and _INTEGER.fullmatch(text):
        return int(text)
    if vr == "DS" and _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
