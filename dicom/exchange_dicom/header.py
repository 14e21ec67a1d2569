"""The attributes of a data set that the index keeps, read from its bytes by a `scan`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from struct import Struct
from typing import BinaryIO, NamedTuple

from pydicom.datadict import dictionary_VR

from exchange_dicom.character_sets import CharacterSet, determine
from exchange_dicom.scan import (
    DEFLATED,
    DEPTH_LIMIT,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR,
    INFLATE_LIMIT,
    ITEM_LIMIT,
    LONG_FORM,
    NO_GROUP,
    PIXEL_DATA_GROUP,
    SHORT_FORM,
    VALUE_LIMIT,
    WINDOW,
    DataSetError,
    Found,
    Head,
    MalformedDataSet,
    Wanted,
    begun,
    elements,
    head,
)

__all__ = [
    "DEFLATED",
    "DEPTH_LIMIT",
    "EXPLICIT_VR_BIG_ENDIAN",
    "IMPLICIT_VR",
    "INFLATE_LIMIT",
    "LONG_FORM",
    "SHORT_FORM",
    "VALUE_LIMIT",
    "WINDOW",
    "Coded",
    "DataSetError",
    "Head",
    "Header",
    "MalformedDataSet",
    "OtherID",
    "head",
    "read",
]

ITEM_VALUE_LIMIT = 1024
"""Bytes of the longest value read within an item. They are LO, 64 characters, and UT for a URI."""

DECLARATION_LIMIT = 256
"""Characters of Specific Character Set that are looked at: room for more terms than there are."""

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


_QUALIFIERS = Wanted(frozenset({_UNIVERSAL_ENTITY_ID}), ITEM_VALUE_LIMIT, {})
_OTHER_ID = Wanted(
    frozenset({_CHARACTER_SET, _PATIENT_ID, _ISSUER, _TYPE_OF_PATIENT_ID}),
    ITEM_VALUE_LIMIT,
    {_ISSUER_QUALIFIERS: _QUALIFIERS},
)


_REQUEST = Wanted(
    frozenset({_CHARACTER_SET, _REQUESTED_ID, _STEP_ID}), ITEM_VALUE_LIMIT, {}, lenient=True
)
_CODE = Wanted(
    frozenset({_CHARACTER_SET, _CODE_VALUE, _CODING_SCHEME, _CODE_MEANING}),
    ITEM_VALUE_LIMIT,
    {},
    lenient=True,
)
_ANATOMY = Wanted(frozenset(), 0, {_ANATOMIC_REGION: _CODE}, lenient=True)
_SHARED = Wanted(frozenset(), 0, {_FRAME_ANATOMY: _ANATOMY}, lenient=True)
_SEQUENCES = {
    _OTHER_IDS_SEQUENCE: _OTHER_ID,
    _REQUEST_ATTRIBUTES: _REQUEST,
    _ANATOMIC_REGION: _CODE,
    _SHARED_GROUPS: _SHARED,
}


def read(reader: BinaryIO, transfer_syntax_uid: str, wanted: Mapping[int, str]) -> Header:
    """Read the wanted top-level attributes of the data set at the reader's position.

    `wanted` maps tags (0x00100010) to keywords ("PatientName"). Steps over Pixel Data to see that
    it is there to its end; of a deflated data set, nothing behind group 7FE0 is inflated or
    checked. Reads implicit and explicit VR as found, whatever was declared. Raises
    MalformedDataSet. The reader, which must be seekable, is left anywhere.
    """
    window, encoding = begun(reader, transfer_syntax_uid)
    taken = Wanted(_ALWAYS.union(wanted), VALUE_LIMIT, _SEQUENCES)
    until = PIXEL_DATA_GROUP if transfer_syntax_uid in DEFLATED else NO_GROUP
    found, _ = elements(window, 0, window.end, encoding, taken, until=until)
    return _header(found, wanted)


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


def _header(found: Found, wanted: Mapping[int, str]) -> Header:
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


def _declared(found: Found) -> str:
    value = found.values.get(_CHARACTER_SET, (b"", b""))[1]
    return _stripped(value.decode("ascii", "replace")[:DECLARATION_LIMIT], b"CS")


def _texts(items: Iterable[Found]) -> list[bytes]:
    """The text values of items of Other Patient IDs Sequence, and of the items within."""
    texts: list[bytes] = []
    for item in items:
        texts += (value for _, value in item.values.values())
        texts += _texts(item.items.get(_ISSUER_QUALIFIERS, []))
    return texts


def _other_id(item: Found, inherited: CharacterSet) -> OtherID | None:
    """A patient number from its item; an item may have its own character set (PS3.5 7.5.3)."""
    own = _CHARACTER_SET in item.values
    character_set = determine(_declared(item), _texts([item])) if own else inherited

    def text(found: Found, tag: int) -> str | None:
        value = found.values.get(tag, (b"", b""))[1]
        return _stripped(character_set.decode(value), b"LO") or None

    patient_id = text(item, _PATIENT_ID)
    if patient_id is None:
        return None
    qualifiers = item.items.get(_ISSUER_QUALIFIERS, [])
    entity = text(qualifiers[0], _UNIVERSAL_ENTITY_ID) if qualifiers else None
    return OtherID(patient_id, text(item, _ISSUER), entity, text(item, _TYPE_OF_PATIENT_ID))


def _request(item: Found, inherited: CharacterSet) -> tuple[str, str]:
    """The identifiers of one request; an item may have its own character set (PS3.5 7.5.3)."""
    values = [item.values.get(tag, (b"", b""))[1] for tag in (_REQUESTED_ID, _STEP_ID)]
    own = _CHARACTER_SET in item.values
    character_set = determine(_declared(item), values) if own else inherited
    first, second = (_stripped(character_set.decode(value), b"SH") for value in values)
    return first, second


def _region(found: Found, inherited: CharacterSet) -> Coded | None:
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
