"""From an instance's bytes to what the exchange receives: one path for C-STORE and STOW-RS."""

from __future__ import annotations

from collections.abc import Mapping

from exchange import anatomic_regions
from exchange.errors import Invalid
from exchange.ingest import Incoming, Received
from exchange_dicom import header
from exchange_dicom.attributes import tag_and_vr
from exchange_dicom.header import Header
from exchange_storage.search import ATTRIBUTES

WANTED: Mapping[int, str] = {tag_and_vr(keyword)[0]: keyword for keyword in ATTRIBUTES}
"""The attributes that the index keeps, by tag."""


def read(incoming: Incoming, data_set_offset: int, transfer_syntax_uid: str) -> Received:
    """Read what the index keeps of the staged object, whose data set begins at the offset.

    Raises Invalid, in words that tell what is wrong with the data set and where.
    """
    with incoming.staged.reader() as reader:
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
        attributes=found.attributes,
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
