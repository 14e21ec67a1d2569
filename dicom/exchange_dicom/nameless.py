"""Images without anything that says who the patient is, but for what is burned into the pixels.

The elements that PS3.15 annex E lists as names, numbers, places, people and free text are left
out, at every level, and with them all private ones; dates and UIDs stay (its options to retain
longitudinal information and UIDs), so that studies of the same patient can be told to be that.
Documents are not made nameless: they are text about a person, and are left out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from exchange_dicom import file_set
from exchange_dicom.data_set import Element, explicit, implicit, is_implicit, located
from exchange_dicom.header import MalformedDataSet

HEAD_LIMIT = 64 << 20
"""Bytes within which the elements before the pixels must end."""

NAME, NUMBER = "ANONYMOUS", "ANONYMOUS"

METHOD = "Names, numbers, places and free text removed"
"""De-identification Method (0012,0063)."""

_BEHIND = 0x50000000
"""What follows are curves, functional groups, overlays, and pixels."""

_KEPT_OF_PATIENT = frozenset({0x00100040, 0x00101010, 0x00101020, 0x00101030})
"""Sex, age, size and weight."""

_GROUPS = frozenset({0x0010, 0x0012, 0x0032, 0x0038, 0x0400, 0x4000, 0x4008})
"""Patient, trial, request, visit, signatures and what was replaced, comments, results."""

_TAGS = frozenset(
    {
        *(0x00080050, 0x00080051, 0x00080080, 0x00080081, 0x00080082, 0x00080092, 0x00080094),
        *(0x00080096, 0x0008009C, 0x0008009D, 0x00081010, 0x00081040, 0x00081041, 0x00081049),
        *(0x00081052, 0x00081062, 0x00081072, 0x00081080, 0x00081084, 0x00084000, 0x00180010),
        *(0x00181000, 0x00181002, 0x00181004, 0x00181005, 0x00181007, 0x00181008, 0x00184000),
        *(0x00200010, 0x00204000, 0x00280303, 0x00081195, 0x00880200, 0x00081110, 0x0018A003),
    }
)
"""Numbers, institutions, stations, diagnoses and comments of the groups that stay."""


def can_be(sop_class_uid: str) -> bool:
    """Whether instances of the class are images, which alone are made nameless."""
    return file_set.record_type(sop_class_uid) == "IMAGE"


def nameless(
    pieces: Iterable[bytes | memoryview], transfer_syntax_uid: str
) -> Iterator[bytes | memoryview]:
    """The pieces of a data set (little endian, not deflated) without what names its patient.

    Raises MalformedDataSet, at the first piece, also for what says that names are in its pixels.
    """
    rest = iter(pieces)
    gathered = bytearray()
    wanted = 0
    complete = False
    while True:
        piece = next(rest, None)
        complete = piece is None
        gathered += piece or b""
        if len(gathered) < wanted and not complete:
            continue
        head = bytes(gathered)
        try:
            found = list(located(head, transfer_syntax_uid, _BEHIND))
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
    kept = [element for element, _, _ in found if element.tag < _BEHIND]
    for element in kept:
        if element.tag == 0x00280301 and bytes(element.value or b"").strip() == b"YES":
            raise MalformedDataSet("the image has its patient's name in its pixels", 0)
    new = [
        _text(0x00100010, "PN", NAME),
        _text(0x00100020, "LO", NUMBER),
        _text(0x00120062, "CS", "YES"),
        _text(0x00120063, "LO", METHOD),
    ]
    written = sorted([*_stripped(kept), *new], key=lambda element: element.tag)
    yield b"".join(bytes(part) for part in write(written))
    yield memoryview(head)[found[-1][2] if found else 0 :]
    yield from rest


def _stripped(elements: Iterable[Element]) -> Iterator[Element]:
    for element in elements:
        if not _stays(element):
            continue
        if element.items is not None:
            items = tuple(tuple(_stripped(item)) for item in element.items)
            yield replace(element, items=items)
        else:
            yield element


def _stays(element: Element) -> bool:
    tag, group = element.tag, element.tag >> 16
    if tag in _KEPT_OF_PATIENT:
        return True
    if group % 2 or group in _GROUPS or tag in _TAGS or element.vr == "PN":
        return False
    # Steps, requests and their people; what measures the pixels is behind them in that group.
    return group != 0x0040 or tag >= 0x00409000 or tag == 0x004008EA


def _text(tag: int, vr: str, text: str) -> Element:
    value = text.encode("ascii")
    return Element(tag, vr, value=memoryview(value + b" " * (len(value) % 2)))
