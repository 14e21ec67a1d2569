"""The attributes of a data set that the index keeps, read from the bytes (PS3.5 section 7).

A scan, not a parser: it decodes what the index wants and steps over the rest, without a data set
object and without recursion that a sender could deepen. Offsets count from the data set's first
byte; for a deflated one, from the first inflated byte.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from struct import Struct
from typing import BinaryIO, NamedTuple, NoReturn

from pydicom.datadict import dictionary_VR

from exchange_dicom.character_sets import CharacterSet, determine

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

ITEM_VALUE_LIMIT = 1024
"""Bytes of the longest value read within an item. They are LO, 64 characters, and UT for a URI."""

DECLARATION_LIMIT = 256
"""Characters of Specific Character Set that are looked at: room for more terms than there are."""

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

_UNSPLIT = frozenset(b"LT ST UR UT".split())
_TEXT = frozenset(b"AE AS CS DA DS DT IS LO PN SH TM UC UI".split()) | _UNSPLIT
_NUMBER = {
    b"US": "H",
    b"SS": "h",
    b"UL": "L",
    b"SL": "l",
    b"UV": "Q",
    b"SV": "q",
    b"FL": "f",
    b"FD": "d",
}
_READABLE = _TEXT | _NUMBER.keys() | {b"AT"}
_AMBIGUOUS = frozenset({"US or SS", "US or SS or OW", "US or OW"})

_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_PIXEL_DATA_GROUP = 0x7FE0
_NO_GROUP = 0x10000

_CHARACTER_SET = 0x00080005
_PATIENT_ID = 0x00100020
_ISSUER = 0x00100021
_TYPE_OF_PATIENT_ID = 0x00100022
_ISSUER_QUALIFIERS = 0x00100024
_OTHER_IDS = 0x00101000
_OTHER_IDS_SEQUENCE = 0x00101002
_PIXEL_REPRESENTATION = 0x00280103
_UNIVERSAL_ENTITY_ID = 0x00400032
_CODE_VALUE = 0x00080100
_CODING_SCHEME = 0x00080102
_CODE_MEANING = 0x00080104
_ANATOMIC_REGION = 0x00082218
_FRAME_ANATOMY = 0x00209071
_SHARED_GROUPS = 0x52009229
_STEP_ID = 0x00400009
_REQUEST_ATTRIBUTES = 0x00400275
_REQUESTED_ID = 0x00401001

_ALWAYS = frozenset({_CHARACTER_SET, _OTHER_IDS, _PIXEL_REPRESENTATION})

# The look-behind keeps it linear on a value of nothing but spaces.
_SPACES_BEFORE_DELIMITER = re.compile(r"(?<! ) +(?=[\\^=])")


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
class OtherID:
    """A patient number from Other Patient IDs (PS3.3 C.7.1.1); None for what is left out."""

    patient_id: str
    issuer_of_patient_id: str | None = None
    universal_entity_id: str | None = None
    type_of_patient_id: str | None = None


class Coded(NamedTuple):
    """A coded concept (PS3.3 section 8): "" for what is left out."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Header:
    """What the index needs of a data set.

    `attributes` maps keywords to text: decoded, padding stripped, several values joined by
    backslashes, numbers in decimal, tags as eight hexadecimal digits. Absent and empty attributes,
    sequences and bulk values are left out. No text contains a NUL.
    """

    attributes: Mapping[str, str]
    other_patient_ids: tuple[OtherID, ...]
    character_set: CharacterSet
    requests: tuple[tuple[str, str], ...] = ()
    """Requested Procedure ID and Scheduled Procedure Step ID of Request Attributes Sequence."""
    region: Coded | None = None
    """What Anatomic Region Sequence says first: that of the data set, or else of the Frame Anatomy
    that all frames of an enhanced image share (PS3.3 C.7.6.16.2.8)."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """VR form and byte order, which an element of VR UN changes for what it contains."""

    implicit: bool
    order: str
    tag_vr_length: Callable[..., tuple[int, int, bytes, int]]
    tag_length: Callable[..., tuple[int, int, int]]
    length: Callable[..., tuple[int]]


def _encoding(implicit: bool, order: str) -> _Encoding:
    return _Encoding(
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
class _Wanted:
    """What to take from a data set or item: values up to `longest` bytes, and items by tag.

    As deep as this is written down is as deep as the scan recurses.
    """

    values: frozenset[int]
    longest: int
    items: Mapping[int, _Wanted]
    lenient: bool = False
    """Whether a sequence of such items is stepped over where it is malformed."""


_QUALIFIERS = _Wanted(frozenset({_UNIVERSAL_ENTITY_ID}), ITEM_VALUE_LIMIT, {})
_OTHER_ID = _Wanted(
    frozenset({_CHARACTER_SET, _PATIENT_ID, _ISSUER, _TYPE_OF_PATIENT_ID}),
    ITEM_VALUE_LIMIT,
    {_ISSUER_QUALIFIERS: _QUALIFIERS},
)


_REQUEST = _Wanted(
    frozenset({_CHARACTER_SET, _REQUESTED_ID, _STEP_ID}), ITEM_VALUE_LIMIT, {}, lenient=True
)
_CODE = _Wanted(
    frozenset({_CHARACTER_SET, _CODE_VALUE, _CODING_SCHEME, _CODE_MEANING}),
    ITEM_VALUE_LIMIT,
    {},
    lenient=True,
)
_ANATOMY = _Wanted(frozenset(), 0, {_ANATOMIC_REGION: _CODE}, lenient=True)
_SHARED = _Wanted(frozenset(), 0, {_FRAME_ANATOMY: _ANATOMY}, lenient=True)
_SEQUENCES = {
    _OTHER_IDS_SEQUENCE: _OTHER_ID,
    _REQUEST_ATTRIBUTES: _REQUEST,
    _ANATOMIC_REGION: _CODE,
    _SHARED_GROUPS: _SHARED,
}


@dataclass(slots=True)
class _Found:
    """Wanted elements of one data set or item: VR and value bytes by tag, items by tag."""

    encoding: _Encoding
    values: dict[int, tuple[bytes, bytes]]
    items: dict[int, list[_Found]]


class _Window:
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


class _InflatedWindow(_Window):
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


def read(reader: BinaryIO, transfer_syntax_uid: str, wanted: Mapping[int, str]) -> Header:
    """Read the wanted top-level attributes of the data set at the reader's position.

    `wanted` maps tags (0x00100010) to keywords ("PatientName"). Steps over Pixel Data to see that
    it is there to its end; of a deflated data set, nothing behind group 7FE0 is inflated or
    checked. Reads implicit and explicit VR as found, whatever was declared. Raises
    MalformedDataSet. The reader, which must be seekable, is left anywhere.
    """
    window, encoding = _begun(reader, transfer_syntax_uid)
    taken = _Wanted(_ALWAYS.union(wanted), VALUE_LIMIT, _SEQUENCES)
    until = _PIXEL_DATA_GROUP if transfer_syntax_uid in DEFLATED else _NO_GROUP
    found, _ = _elements(window, 0, window.end, encoding, taken, until=until)
    return _header(found, wanted)


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
    window, encoding = _begun(reader, transfer_syntax_uid)
    taken = _Wanted(tags, VALUE_LIMIT, {})
    found, position = _elements(window, 0, window.end, encoding, taken, until=_PIXEL_DATA_GROUP)
    values = {tag: value for tag, (_, value) in found.values.items()}
    return Head(values, position, encoding.implicit, encoding.order)


def _begun(reader: BinaryIO, transfer_syntax_uid: str) -> tuple[_Window, _Encoding]:
    window = _InflatedWindow(reader) if transfer_syntax_uid in DEFLATED else _Window(reader)
    implicit = transfer_syntax_uid in IMPLICIT_VR
    if len(window.buffer) >= 6:
        # The first length of an implicit data set would have to exceed 16 KB to look like a VR.
        implicit = not _capitals(window.buffer[4:6])
    if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
        return window, _IMPLICIT_BE if implicit else _EXPLICIT_BE
    return window, _IMPLICIT_LE if implicit else _EXPLICIT_LE


def _capitals(vr: bytes) -> bool:
    return len(vr) == 2 and 0x41 <= vr[0] <= 0x5A and 0x41 <= vr[1] <= 0x5A


def _elements(
    window: _Window,
    position: int,
    end: int,
    encoding: _Encoding,
    wanted: _Wanted,
    *,
    until: int = _NO_GROUP,
    item: bool = False,
) -> tuple[_Found, int]:
    """Scan a data set up to group `until`, or an item that ends at `end` or with its delimiter.

    Also returns where it ended. The hot loop of receiving: an ordinary element costs one unpack and
    a few comparisons.
    """
    found = _Found(encoding, {}, {})
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
        if group >= _PIXEL_DATA_GROUP:
            if group >= until:
                break
            if item and group == 0xFFFE and element == 0xE00D:
                return found, position + 8
        if group < previous:
            if previous >= _PIXEL_DATA_GROUP and not item:
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
    window: _Window, position: int, end: int, encoding: _Encoding
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
    window: _Window, start: int, stop: int | None, encoding: _Encoding, wanted: _Wanted
) -> tuple[list[_Found], int]:
    """The items of a wanted sequence, and where it ended; none where it may be stepped over."""
    try:
        return _items(window, start, stop, encoding, wanted)
    except MalformedDataSet:
        if not wanted.lenient:
            raise
        if stop is not None:
            return [], stop
        if isinstance(window, _InflatedWindow) and window.base > start:
            raise  # it does not go back
        return [], _skip(window, start, encoding)


def _items(
    window: _Window, position: int, end: int | None, encoding: _Encoding, wanted: _Wanted
) -> tuple[list[_Found], int]:
    """The items of a sequence that ends at `end` or with its delimiter; also where it ended."""
    items: list[_Found] = []
    limit = window.end if end is None else end
    while end is None or position < end:
        tag, length = _delimiter(window, position, encoding)
        if tag == _SEQUENCE_END and end is None:
            return items, position + 8
        if tag != _ITEM:
            raise MalformedDataSet("neither an item nor the end of a sequence", position)
        start = position + 8
        stop = limit if length == _UNDEFINED else _stop(tag, start, length, limit, position)
        item, position = _elements(window, start, stop, encoding, wanted, item=True)
        if len(items) < ITEM_LIMIT:
            items.append(item)
    return items, position


def _delimiter(window: _Window, position: int, encoding: _Encoding) -> tuple[int, int]:
    """Tag and length of an item or delimiter, which have no VR in any encoding (PS3.5 7.5)."""
    buffer, base = window.show(position, 12)
    at = position - base
    if at + 8 > len(buffer):
        raise MalformedDataSet("ends within a sequence", position)
    group, element, length = encoding.tag_length(buffer, at)
    return group << 16 | element, length


def _skip(window: _Window, position: int, encoding: _Encoding) -> int:
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


@cache
def _dictionary_vr(tag: int, signed: bool) -> bytes:
    """The VR PS3.6 gives a tag; UN if none or a bulk one."""
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if vr in _AMBIGUOUS:
        return b"SS" if signed and "SS" in vr else b"US"
    return vr.encode("ascii")


def _header(found: _Found, wanted: Mapping[int, str]) -> Header:
    values = found.values
    signed = values.get(_PIXEL_REPRESENTATION, (b"", b""))[1][:2] in (b"\1\0", b"\0\1")
    attributes: dict[str, str] = {}
    texts: list[tuple[int, bytes, bytes]] = []
    for tag, (stated, value) in values.items():
        # Where the VR is absent, UN or a bulk one, the dictionary knows better.
        vr = stated if stated in _READABLE else _dictionary_vr(tag, signed)
        if vr in _TEXT:
            texts.append((tag, vr, value))
        elif tag in wanted and (number := _numbers(vr, value, found.encoding.order)):
            attributes[wanted[tag]] = number
    other = found.items.get(_OTHER_IDS_SEQUENCE, [])
    shared = [item for item in other if _CHARACTER_SET not in item.values]
    character_set = determine(
        _declared(found),
        [value for _, vr, value in texts if vr != b"PN"] + _texts(shared),
        [value for _, vr, value in texts if vr == b"PN"],
    )
    other_ids: list[OtherID] = []
    for tag, vr, value in texts:
        text = _stripped(character_set.decode(value, name=vr == b"PN"), vr)
        if text and tag in wanted:
            attributes[wanted[tag]] = text
        if tag == _OTHER_IDS:
            other_ids += (OtherID(part) for part in islice(text.split("\\"), ITEM_LIMIT) if part)
    other_ids += filter(None, (_other_id(item, character_set) for item in other))
    asked = [_request(one, character_set) for one in found.items.get(_REQUEST_ATTRIBUTES, [])]
    requests = tuple(dict.fromkeys(one for one in asked if any(one)))
    region = _region(found, character_set)
    return Header(attributes, tuple(other_ids), character_set, requests, region)


def _declared(found: _Found) -> str:
    value = found.values.get(_CHARACTER_SET, (b"", b""))[1]
    return _stripped(value.decode("ascii", "replace")[:DECLARATION_LIMIT], b"CS")


def _texts(items: Iterable[_Found]) -> list[bytes]:
    """The text values of items of Other Patient IDs Sequence, and of the items within."""
    texts: list[bytes] = []
    for item in items:
        texts += (value for _, value in item.values.values())
        texts += _texts(item.items.get(_ISSUER_QUALIFIERS, []))
    return texts


def _other_id(item: _Found, inherited: CharacterSet) -> OtherID | None:
    """A patient number from its item; an item may have its own character set (PS3.5 7.5.3)."""
    own = _CHARACTER_SET in item.values
    character_set = determine(_declared(item), _texts([item])) if own else inherited

    def text(found: _Found, tag: int) -> str | None:
        value = found.values.get(tag, (b"", b""))[1]
        return _stripped(character_set.decode(value), b"LO") or None

    patient_id = text(item, _PATIENT_ID)
    if patient_id is None:
        return None
    qualifiers = item.items.get(_ISSUER_QUALIFIERS, [])
    entity = text(qualifiers[0], _UNIVERSAL_ENTITY_ID) if qualifiers else None
    return OtherID(patient_id, text(item, _ISSUER), entity, text(item, _TYPE_OF_PATIENT_ID))


def _request(item: _Found, inherited: CharacterSet) -> tuple[str, str]:
    """The identifiers of one request; an item may have its own character set (PS3.5 7.5.3)."""
    values = [item.values.get(tag, (b"", b""))[1] for tag in (_REQUESTED_ID, _STEP_ID)]
    own = _CHARACTER_SET in item.values
    character_set = determine(_declared(item), values) if own else inherited
    first, second = (_stripped(character_set.decode(value), b"SH") for value in values)
    return first, second


def _region(found: _Found, inherited: CharacterSet) -> Coded | None:
    """The first code of the region; an item may have its own character set (PS3.5 7.5.3)."""
    coded = found.items.get(_ANATOMIC_REGION, [])
    for shared in found.items.get(_SHARED_GROUPS, []):
        for frame in shared.items.get(_FRAME_ANATOMY, []):
            coded = coded + frame.items.get(_ANATOMIC_REGION, [])
    for item in coded:
        tags = (_CODE_VALUE, _CODING_SCHEME, _CODE_MEANING)
        values = [item.values.get(tag, (b"", b""))[1] for tag in tags]
        own = _CHARACTER_SET in item.values
        character_set = determine(_declared(item), values) if own else inherited
        told = Coded(*(_stripped(character_set.decode(value), b"SH") for value in values))
        if any(told):
            return told
    return None


def _stripped(text: str, vr: bytes) -> str:
    """Text without padding and insignificant spaces (PS3.5 6.2); empty if only delimiters."""
    if "\0" in text:
        text = text.replace("\0", " ")  # databases refuse NUL, senders pad with it
    if vr in _UNSPLIT:
        return text.rstrip(" ")
    text = text.strip(" ")
    if "\\" in text:
        text = "\\".join(part.strip(" ") for part in text.split("\\"))
        if not text.strip("\\"):
            return ""
    if vr == b"PN":
        if " " in text:
            text = _SPACES_BEFORE_DELIMITER.sub("", text)
        if not text.strip("\\^="):
            return ""
    return text


def _numbers(vr: bytes, value: bytes, order: str) -> str:
    """Binary numbers as text; a last one that is cut off is left out, and so is any other VR."""
    if vr == b"AT":
        pairs = Struct(order + "HH").iter_unpack(value[: len(value) // 4 * 4])
        return "\\".join(f"{group:04X}{element:04X}" for group, element in pairs)
    code = _NUMBER.get(vr)
    if code is None:
        return ""
    number = Struct(order + code)
    whole = value[: len(value) // number.size * number.size]
    return "\\".join(str(each) for (each,) in number.iter_unpack(whole))
