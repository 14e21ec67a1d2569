"""Rejection notes: Key Object Selection documents that take instances out of use (IHE RAD 4.66)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exchange.errors import Invalid
from exchange.ingest import Incoming, Received
from exchange.rejection import CODES, REFERENCES, Note
from exchange_dicom import data_set
from exchange_dicom.data_set import Element
from exchange_dicom.header import MalformedDataSet

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"

NOTE_LENGTH = 16 << 20
"""Bytes of the longest note that is read."""

_TITLE, _CODE, _SCHEME = 0x0040A043, 0x00080100, 0x00080102
_EVIDENCE, _STUDY = 0x0040A375, 0x0020000D
_SERIES_SEQUENCE, _SOP_SEQUENCE = 0x00081115, 0x00081199
_CLASS, _INSTANCE = 0x00081150, 0x00081155


def read(incoming: Incoming, received: Received, data_set_offset: int) -> Note | None:
    """The note that a staged instance is; None for an image or any other selection.

    Raises Invalid when it rejects more than can be done at once: it must not be kept as if it had
    been followed.
    """
    if received.attributes.get("SOPClassUID") != KEY_OBJECT_SELECTION:
        return None
    with incoming.staged.reader() as reader:
        reader.seek(data_set_offset)
        raw = reader.read(NOTE_LENGTH + 1)
    syntax = received.transfer_syntax_uid
    try:
        found = {one.tag: one for one in data_set.elements(raw[:NOTE_LENGTH], syntax)}
    except MalformedDataSet:
        return None
    title = next(iter(_items(found.get(_TITLE))), ())
    told = {one.tag: _text(one) for one in title}
    if told.get(_SCHEME) != "DCM" or told.get(_CODE) not in CODES:
        return None
    named = tuple(_references(found.get(_EVIDENCE)))
    references = tuple((study, uid) for study, uid, _ in named)
    if len(raw) > NOTE_LENGTH or len(references) > REFERENCES:
        raise Invalid(f"a rejection note names at most {REFERENCES} instances")
    return Note(told[_CODE], references, {uid: sop_class for _, uid, sop_class in named})


def _references(evidence: Element | None) -> Iterator[tuple[str, str, str]]:
    """The study, SOP Instance UID and SOP Class UID of each."""
    for study in _items(evidence):
        by_tag = {one.tag: one for one in study}
        uid = _text(by_tag.get(_STUDY))
        for series in _items(by_tag.get(_SERIES_SEQUENCE)):
            for reference in _items(next((o for o in series if o.tag == _SOP_SEQUENCE), None)):
                told = {one.tag: one for one in reference}
                if named := _text(told.get(_INSTANCE))[:64]:
                    yield uid, named, _text(told.get(_CLASS))


def _items(element: Element | None) -> Sequence[Sequence[Element]]:
    return (element.items or ()) if element is not None else ()


def _text(element: Element | None) -> str:
    value = bytes(element.value or b"") if element is not None else b""
    return value.decode("ascii", "replace").strip(" \0")
