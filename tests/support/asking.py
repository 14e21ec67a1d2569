"""A PACS that asks by C-FIND: pynetdicom over a socket, with or without extended negotiation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from caller import PATIENT_FIND, STUDY_FIND
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence as Items
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

PATIENT_ROOT, STUDY_ROOT = PATIENT_FIND, STUDY_FIND


@dataclass(frozen=True, slots=True)
class Answers:
    """The responses to one question."""

    matches: tuple[Dataset, ...]
    pending: tuple[int, ...]
    """The status of each match."""
    final: int
    comment: str = ""
    """Error Comment of the final response."""

    def told(self, keyword: str) -> list[str]:
        """An attribute of all matches as text, sorted; "-" where one lacks it."""
        return sorted(str(one[keyword].value) if keyword in one else "-" for one in self.matches)

    @property
    def studies(self) -> list[str]:
        """The Study Instance UIDs of the matches, sorted."""
        return self.told("StudyInstanceUID")


def asked(level: str, keys: Mapping[str, object], character_set: str = "ISO_IR 192") -> Dataset:
    """An identifier: keywords and their values, a mapping for the item of a sequence."""
    identifier = Dataset()
    if character_set:
        identifier.SpecificCharacterSet = character_set.split("\\")
    if level:
        identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        identifier.add(_element(keyword, value))
    return identifier


def _element(keyword: str, value: object) -> DataElement:
    """An element that may hold what only a question may: wildcards, ranges, too much padding."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    if isinstance(value, Mapping):
        item = Dataset()
        for name, inner in value.items():
            item.add(_element(name, inner))
        value = Items([item])
    return DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


def ask(
    port: int,
    level: str,
    keys: Mapping[str, object],
    *,
    model: str = STUDY_ROOT,
    extended: bytes = b"",
    calling: str = "BEICHENG",
    character_set: str = "ISO_IR 192",
    transfer_syntax: str | None = None,
) -> Answers:
    """Ask one question in an association of its own; `extended` is asserted to be granted."""
    entity = AE(calling)
    entity.add_requested_context(model, transfer_syntax)
    negotiated = SOPClassExtendedNegotiation()
    negotiated.sop_class_uid = model
    negotiated.service_class_application_information = extended
    association = entity.associate(
        "127.0.0.1", port, ae_title="EXCHANGE", ext_neg=[negotiated] if extended else []
    )
    assert association.is_established
    try:
        if extended:
            granted = association.acceptor.sop_class_extended
            assert granted == {model: extended}
        responses = list(association.send_c_find(asked(level, keys, character_set), model))
    finally:
        association.release()
    *pending, (final, nothing) = responses
    assert nothing is None
    return Answers(
        matches=tuple(match for _, match in pending if match is not None),
        pending=tuple(status.Status for status, _ in pending),
        final=final.Status,
        comment=final.get("ErrorComment", ""),
    )
