"""Instances as another hospital's PACS knows the patient: coerced numbers, the rest untouched.

What is coerced is recorded in the object itself, in Original Attributes Sequence (PS3.3
C.12.1.1.9). The head of the data set alone is taken apart; every other element, and all pixels,
pass as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TypeVar

from exchange.retrieval import Selected
from exchange.spans import Span
from exchange_dicom.data_set import Element, explicit, implicit, is_implicit, located
from exchange_dicom.header import MalformedDataSet

P = TypeVar("P", bound=bytes | memoryview | Span)

HEAD_LIMIT = 64 << 20
"""Bytes within which the elements up to group 0400 must end."""

_INSTITUTION = 0x00080080
_CHARACTER_SET = 0x00080005
_PATIENT_ID = 0x00100020
_ISSUER = 0x00100021
_ISSUER_QUALIFIERS = 0x00100024
_OTHER_IDS = 0x00101002
_ORIGINAL_ATTRIBUTES = 0x04000561
_BEHIND = _ORIGINAL_ATTRIBUTES + 1

_REPLACED = (_PATIENT_ID, _ISSUER, _ISSUER_QUALIFIERS)

COERCED = frozenset({_INSTITUTION, *_REPLACED, _OTHER_IDS, _ORIGINAL_ATTRIBUTES})
"""Attributes that may be written anew."""

SYSTEM = "Imaging Exchange"
"""Who coerced, in Original Attributes Sequence."""
_ENCODINGS = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coercion:
    """The numbers under which two hospitals know a patient, and who replaces one by the other."""

    patient_id: str
    issuer: str
    """The receiving hospital's number for the patient and the OID under which it numbers patients;
    the owner's where it has none, so that nobody takes it for a number of the receiver's own."""
    owner_patient_id: str
    owner_issuer: str
    institution: str
    """Name of the hospital that made the instance, for those that do not say it."""
    at: datetime
    system: str


def needed(one: Selected, receiver: str, at: datetime) -> Coercion | None:
    """How the hospital with the issuer OID `receiver` is to get what was selected, if not as it is.

    Of who acts for no hospital, `receiver` is "", and everything goes out as it is.
    """
    own = (one.patient.patient_id, one.owner.issuer)
    if not receiver or (
        one.owner.issuer == receiver and (one.number.value, one.number.issuer) == own
    ):
        return None
    return Coercion(
        patient_id=one.number.value,
        issuer=one.number.issuer,
        owner_patient_id=own[0],
        owner_issuer=own[1],
        institution=one.owner.name,
        at=at,
        system=SYSTEM,
    )


def coerced(
    pieces: Iterable[P], transfer_syntax_uid: str, coercion: Coercion
) -> Iterator[bytes | memoryview | P]:
    """The pieces of a data set (little endian, not deflated) with its patient's number coerced.

    PatientID and Issuer of Patient ID become the receiving hospital's; the owner's stand in Other
    Patient IDs Sequence, what was replaced in Original Attributes Sequence. Raises MalformedDataSet
    at the first piece when the head of the data set cannot be read, or its character set does not
    have what the number is written with.
    """
    rest: Iterator[bytes | memoryview | P] = iter(pieces)
    gathered = bytearray()
    head = b""
    wanted = 0
    complete = False
    while not complete:
        piece = next(rest, None)
        if isinstance(piece, Span):  # the head ends in it
            rest = chain(piece.pieces(), rest)
            continue
        complete = piece is None
        gathered += piece or b""
        if len(gathered) < wanted and not complete:
            continue
        head = bytes(gathered)  # what is found in it are views, that outlive the next piece
        try:
            found = list(located(head, transfer_syntax_uid, _BEHIND, lenient=True))
        except MalformedDataSet:
            if complete or len(head) > HEAD_LIMIT:
                raise
        else:
            if complete or (found and found[-1][0].tag >= _BEHIND):
                break
        wanted = 2 * len(head)
    write: Callable[[Iterable[Element]], Iterator[bytes | memoryview]] = (
        implicit if is_implicit(head) else explicit
    )
    end = found[-1][2] if found else 0
    yield b"".join(bytes(part) for part in _changed(memoryview(head), found, coercion, write))
    yield memoryview(head)[end:]
    yield from rest


def _changed(
    head: memoryview,
    found: list[tuple[Element, int, int]],
    coercion: Coercion,
    write: Callable[[Iterable[Element]], Iterator[bytes | memoryview]],
) -> Iterator[bytes | memoryview]:
    """The head up to group 0400, with the elements that replace others or are new."""
    present = {element.tag: element for element, _, _ in found if element.tag < _BEHIND}
    new = {element.tag: element for element in _elements(present, coercion)}
    groups = {tag >> 16 for tag in (*new, *_REPLACED)}
    for element, start, end in found:
        tag = element.tag
        for before in sorted(one for one in new if one < tag):
            yield from write([new.pop(before)])
        # A length of a group that has changed would no longer be true (and is retired).
        if tag in _REPLACED or tag in new or (not tag & 0xFFFF and tag >> 16 in groups):
            if tag in new:
                yield from write([new.pop(tag)])
        elif tag < _BEHIND and element.vr == "UN" and element.value is not None:
            yield from write([element])  # a sequence that is none says so from now on
        elif tag < _BEHIND:
            yield head[start:end]
    for tag in sorted(new):
        yield from write([new[tag]])


def _elements(present: dict[int, Element], coercion: Coercion) -> Iterator[Element]:
    old = [
        present.get(_PATIENT_ID) or _text(_PATIENT_ID, "LO", ""),
        present.get(_ISSUER) or _text(_ISSUER, "LO", ""),
    ]
    if (qualifiers := present.get(_ISSUER_QUALIFIERS)) is not None:
        old.append(qualifiers)
    encoding = _encoding(present)
    yield _text(_PATIENT_ID, "LO", coercion.patient_id, encoding)
    yield _text(_ISSUER, "LO", coercion.issuer)
    owner = (
        _text(_PATIENT_ID, "LO", coercion.owner_patient_id, encoding),
        _text(_ISSUER, "LO", coercion.owner_issuer),
        _text(0x00100022, "CS", "TEXT"),
    )
    if (coercion.patient_id, coercion.issuer) != (
        coercion.owner_patient_id,
        coercion.owner_issuer,
    ):
        others = present.get(_OTHER_IDS)
        yield Element(_OTHER_IDS, "SQ", items=(*((others and others.items) or ()), owner))
    original = (
        Element(0x04000550, "SQ", items=(tuple(old),)),
        _text(0x04000562, "DT", f"{coercion.at:%Y%m%d%H%M%S.%f%z}"),
        _text(0x04000563, "LO", coercion.system),
        _text(0x04000564, "LO", ""),
        _text(0x04000565, "CS", "COERCE"),
    )
    earlier = present.get(_ORIGINAL_ATTRIBUTES)
    yield Element(
        _ORIGINAL_ATTRIBUTES, "SQ", items=(*((earlier and earlier.items) or ()), original)
    )
    institution = present.get(_INSTITUTION)
    if (institution is None or not bytes(institution.value or b"").strip()) and (
        named := _named(present, coercion.institution)
    ):
        yield named


def _named(present: dict[int, Element], institution: str) -> Element | None:
    """Institution Name in the instance's own character set; None where that cannot write it."""
    try:
        return _text(_INSTITUTION, "LO", institution[:64], _encoding(present))
    except MalformedDataSet:
        return None


def _encoding(present: dict[int, Element]) -> str:
    """How text is written that is new: by the whole character sets, else in ASCII."""
    declared = present.get(_CHARACTER_SET)
    text = bytes(declared.value or b"").decode("ascii", "replace") if declared else ""
    return _ENCODINGS.get(text.strip(" \0"), "ascii")


def _text(tag: int, vr: str, text: str, encoding: str = "ascii") -> Element:
    """Raises MalformedDataSet rather than write another number than was meant."""
    try:
        value = text.encode(encoding)
    except UnicodeEncodeError:
        raise MalformedDataSet("the character set does not have this text", 0) from None
    return Element(tag, vr, value=memoryview(value + b" " * (len(value) % 2)))
