"""From an instance's bytes to what the exchange receives: one path for C-STORE and STOW-RS."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exchange import anatomic_regions
from exchange.errors import Invalid
from exchange.ingest import Incoming, Received
from exchange_dicom import header
from exchange_dicom.attributes import tag_and_vr
from exchange_dicom.header import Header
from exchange_dicom.scan import is_as_declared
from exchange_storage.search import ATTRIBUTES, Kind

_OLD_FORMS = (
    (Kind.DATE, re.compile(r"\d{4}\.\d\d\.\d\d"), "."),
    (Kind.TIME, re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?"), ":"),
)
"""Dates and times as ACR-NEMA wrote them (PS3.5 Table 6.2-1), and what is not written any more."""

_OLD = tuple(
    (keyword, form, delimiter)
    for kind, form, delimiter in _OLD_FORMS
    for keyword, attribute in ATTRIBUTES.items()
    if attribute.kind is kind
)

WANTED: Mapping[int, str] = {tag_and_vr(keyword)[0]: keyword for keyword in ATTRIBUTES}
"""The attributes that the index keeps, by tag."""


def read(incoming: Incoming, data_set_offset: int, transfer_syntax_uid: str) -> Received:
    """Read what the index keeps of the staged object, whose data set begins at the offset.

    Raises Invalid, in words that tell what is wrong with the data set and where. One with Implicit
    VR under a transfer syntax of Explicit VR, or the other way round, could be read here, and by
    hardly anybody to whom it is given as what it says that it is.
    """
    with incoming.staged.reader() as reader:
        reader.seek(data_set_offset)
        if not is_as_declared(reader.read(8), transfer_syntax_uid):
            raise Invalid("the data set is not encoded in its transfer syntax: its VRs tell")
        reader.seek(data_set_offset)
        try:
            found = header.read(reader, transfer_syntax_uid, WANTED)
        except header.DataSetError as error:
            raise Invalid(str(error)) from error
    return received(found, transfer_syntax_uid)


def received(found: Header, transfer_syntax_uid: str) -> Received:
    """`found` in the words of the exchange floor."""
    character_set = found.character_set
    return Received(
        attributes=_as_written_now(found.attributes),
        identifiers=tuple(
            (other.universal_entity_id or other.issuer_of_patient_id or "", other.patient_id)
            for other in found.other_patient_ids
            if other.patient_id
        ),
        requests=found.requests,
        region=anatomic_regions.body_part(*found.region) if found.region is not None else "",
        transfer_syntax_uid=transfer_syntax_uid,
        character_set=character_set.declared,
        character_set_repair=(
            {"used": character_set.used, "reason": character_set.reason}
            if character_set.reason is not None
            else None
        ),
    )


def _as_written_now(told: Mapping[str, str]) -> Mapping[str, str]:
    """Dates and times in the form in which they are asked for; the object keeps its own."""
    old = {
        keyword: value.replace(delimiter, "")
        for keyword, form, delimiter in _OLD
        if delimiter in (value := told.get(keyword, "")) and form.fullmatch(value)
    }
    return {**told, **old} if old else told
