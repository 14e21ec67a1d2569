"""The query half of the Query/Retrieve service class as SCP: C-FIND (PS3.4 C.4.1)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydicom.datadict import keyword_for_tag

from exchange import query
from exchange.errors import ExchangeError, Invalid
from exchange_dicom import attributes, data_set, dimse, header, status
from exchange_dicom.association import Message, TooLarge
from exchange_dicom.contexts import FIND_LEVELS
from exchange_dicom.conversation import Conversation
from exchange_dicom.query import question
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Level

IDENTIFIER_LENGTH = 1 << 16
"""Bytes of the longest identifier that is read."""

UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
}
_ALWAYS = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "SpecificCharacterSet"})
_TEXT_ENCODINGS = {"GB18030": "gb18030", "GBK": "gbk"}
"""Character sets of a question that are kept in its answer; any other gets UTF-8."""


def find(conversation: Conversation, message: Message) -> None:
    """C-FIND."""
    model = message.context.abstract_syntax
    if model not in FIND_LEVELS or message.data is None:
        conversation.answer(message, status.SOP_CLASS_NOT_SUPPORTED)
        return
    extended = conversation.extended.get(model, b"").ljust(4, b"\0")
    relational = extended[0] == 1
    explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    try:
        raw = message.data.read(IDENTIFIER_LENGTH)
        identifier = Identifier.read(raw, message.context.transfer_syntax)
        level = identifier.level(FIND_LEVELS[model], relational=relational)
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            asked = question(
                access, level, identifier.keys, combined=extended[1] == 1, fuzzy=extended[2] == 1
            )
            answer = query.find(
                access,
                level,
                asked.criteria,
                limit=conversation.limits.matches,
                too_broad=f"more than {conversation.limits.matches} matches: add a selective key",
                asked=raw,
            )
    except TooLarge:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is too long")
        return
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].find, str(error))
        return
    for told in _distinct(answer.found, level):
        missing = bool(asked.unsupported) or not identifier.wanted <= told.keys()
        code = status.PENDING_UNSUPPORTED if missing else status.PENDING
        pending = dimse.response(message.command, code, data_set_present=True)
        if conversation.association.cancelled(message.command.message_id):
            conversation.answer(message, status.CANCEL)
            return
        body = identifier.answer(told, level, conversation.ae_title, explicit=explicit)
        conversation.association.send(message.context.context_id, pending, body)
    conversation.answer(message, status.SUCCESS)


@dataclass(frozen=True, slots=True)
class Identifier:
    """The identifier of a query or retrieval: its keys, and all attributes that it wants."""

    wanted: frozenset[str]
    """Without those that every answer has."""
    keys: tuple[tuple[str, str], ...]
    asked_level: str
    character_set: str

    @classmethod
    def read(cls, raw: bytes, transfer_syntax: str) -> Identifier:
        """Raises Invalid."""
        try:
            tags = [element.tag for element in data_set.elements(raw, transfer_syntax)]
            keywords = {tag: keyword_for_tag(tag) for tag in tags}
            known = {tag: keyword for tag, keyword in keywords.items() if keyword}
            read = header.read(io.BytesIO(raw), transfer_syntax, known)
            keys = dict(read.attributes)
            if "OtherPatientIDsSequence" in known.values():
                keys.pop("OtherPatientIDsSequence", None)
                for other in read.other_patient_ids:
                    keys["OtherPatientIDsSequence.PatientID"] = other.patient_id
        except header.DataSetError as error:
            raise Invalid("the identifier is not a data set") from error
        for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
            keys.pop(keyword, None)
        return cls(
            wanted=frozenset(known.values()) - _ALWAYS,
            asked_level=keys.pop("QueryRetrieveLevel", ""),
            keys=tuple(keys.items()),
            character_set=read.character_set.declared,
        )

    def level(self, levels: Sequence[Level], *, relational: bool) -> Level:
        """The level asked for, with the unique keys above it there (PS3.4 C.4.1.2.1).

        Raises Invalid.
        """
        level = Level.__members__.get(self.asked_level.strip())
        if level is None or level not in levels:
            raise Invalid("QueryRetrieveLevel is not one of the information model")
        given = dict(self.keys)
        for above in levels:
            key = UNIQUE.get(above, "")
            value = given.get(key, "")
            if above < level and not relational and (not value or set(value) & set("*?\\")):
                raise Invalid(f"{key} must be given as a single value")
        return level

    def answer(
        self, told: dict[str, attributes.Value], level: Level, ae_title: str, *, explicit: bool
    ) -> bytes:
        """The identifier of one response: of what was wanted the keys that are supported.

        Others are not returned, rather than returned as if they were empty (C.2.2.1.3).
        """
        encoding = _TEXT_ENCODINGS.get(self.character_set, "utf-8")
        body = {keyword: told[keyword] for keyword in self.wanted if keyword in told}
        body["QueryRetrieveLevel"] = level.name
        body["RetrieveAETitle"] = ae_title
        body["SpecificCharacterSet"] = (
            self.character_set if self.character_set in _TEXT_ENCODINGS else "ISO_IR 192"
        )
        return attributes.encode(body, explicit=explicit, encoding=encoding)


def _distinct(found: Sequence[query.Found], level: Level) -> Iterator[dict[str, attributes.Value]]:
    """The matches as attributes; at patient level one for each number, whoever else has records.

    A hospital's own record comes first, so that its PACS reads back what it has itself; counts are
    of all that it can ask for under that number.
    """
    if level is not Level.PATIENT:
        yield from (attributes.describe(one, level) for one in found)
        return
    told: dict[query.Number, query.Found] = {}
    for one in sorted(found, key=lambda one: one.number.issuer != one.owner.issuer):
        first = told.get(one.number)
        told[one.number] = (
            one if first is None else replace(first, summary=first.summary + one.summary)
        )
    yield from (attributes.describe(one, level) for one in told.values())
