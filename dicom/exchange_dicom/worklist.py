"""The Modality Worklist Management service class as SCP (PS3.4 annex K).

A modality asks for what its own hospital has scheduled, and gets the study's UID with it: images
of all modalities, and of all who are asked later, then find together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag

from exchange import orders
from exchange.errors import ExchangeError, Invalid
from exchange.orders import Scheduled
from exchange_dicom import attributes, data_set, dimse, query, status
from exchange_dicom.association import Message, TooLarge
from exchange_dicom.character_sets import CharacterSet, determine
from exchange_dicom.conversation import Conversation
from exchange_dicom.data_set import Element
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Match, Matching, Number, Values

IDENTIFIER_LENGTH = 1 << 16
"""Bytes of the longest identifier that is read."""

STEP = "ScheduledProcedureStepSequence"

STEP_KEYS = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledStationName",
    "ScheduledProcedureStepLocation",
    "ScheduledProtocolCodeSequence",
    "PreMedication",
    "ScheduledProcedureStepID",
    "RequestedContrastAgent",
    "ScheduledProcedureStepStatus",
)
"""Attributes of the scheduled procedure step (PS3.4 Table K.6-1)."""

KEYS = (
    STEP,
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "StudyInstanceUID",
    "ReferencedStudySequence",
    "RequestedProcedurePriority",
    "PatientTransportArrangements",
    "AccessionNumber",
    "RequestingPhysician",
    "ReferringPhysicianName",
    "AdmissionID",
    "CurrentPatientLocation",
    "ReferencedPatientSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientWeight",
    "ConfidentialityConstraintOnPatientDataDescription",
    "PatientState",
    "PregnancyStatus",
    "MedicalAlerts",
    "Allergies",
    "SpecialNeeds",
    "ReasonForTheRequestedProcedure",
)
"""The other attributes of the table that have a value here, or are returned empty (type 2)."""

_PATIENT = frozenset({"PatientName", "PatientID", "PatientBirthDate", "PatientSex"})
_ENCODINGS = {"GB18030": "gb18030", "GBK": "gbk"}
_CHARACTER_SET = 0x00080005


def find(conversation: Conversation, message: Message) -> None:
    """C-FIND in the Modality Worklist information model."""
    if message.data is None:
        conversation.answer(message, status.SOP_CLASS_NOT_SUPPORTED)
        return
    try:
        asked = _Asked.read(message.data.read(IDENTIFIER_LENGTH), message.context.transfer_syntax)
        keys, patient, unsupported = asked.matching(conversation.requester.organization)
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            found = orders.worklist(access, keys, patient, limit=conversation.limits.matches)
    except TooLarge:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is too long")
        return
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].find, str(error))
        return
    code = status.PENDING_UNSUPPORTED if unsupported else status.PENDING
    explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    for one in found:
        if conversation.association.cancelled(message.command.message_id):
            conversation.answer(message, status.CANCEL)
            return
        pending = dimse.response(message.command, code, data_set_present=True)
        body = asked.answer(one, explicit=explicit)
        conversation.association.send(message.context.context_id, pending, body)
    conversation.answer(message, status.SUCCESS)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A worklist identifier: what it matches, and what it wants returned."""

    keys: Mapping[str, str]
    step_keys: Mapping[str, str]
    character_set: str

    @classmethod
    def read(cls, raw: bytes, transfer_syntax_uid: str) -> _Asked:
        """Raises Invalid."""
        try:
            found = list(data_set.elements(raw, transfer_syntax_uid))
        except MalformedDataSet as error:
            raise Invalid("the identifier is not a data set") from error
        declared = next(
            (bytes(one.value or b"") for one in found if one.tag == _CHARACTER_SET), b""
        )
        text = declared.decode("ascii", "replace").strip(" \0")
        character_set = determine(text, ())
        keys = _keys(found, character_set)
        step: dict[str, str] = {}
        for element in found:
            if keyword_for_tag(element.tag) == STEP:
                if element.items and len(element.items) > 1:
                    raise Invalid(f"{STEP} must have one item")
                step = _keys(element.items[0], character_set) if element.items else {}
                # A sequence without an item asks for all of it (C.2.2.2.6).
                step = step or dict.fromkeys(STEP_KEYS, "")
                keys[STEP] = ""
        return cls(keys, step, text)

    def matching(
        self, organization: int | None
    ) -> tuple[list[tuple[str, Matching]], list[Match | Number], bool]:
        """Criteria of the order and of the patient; whether keys took no part. Raises Invalid."""
        wanted: list[tuple[str, Matching]] = []
        patient: list[Match | Number] = []
        unsupported = False
        for keyword, value in (*self.keys.items(), *self.step_keys.items()):
            if not value.strip("* "):
                continue
            if keyword == "PatientID":
                patient.append(Number(organization, Values((value.strip(),))))
            elif keyword in _PATIENT:
                patient.append(Match(keyword, query.matching(keyword, value.strip())))
            elif keyword in orders.ATTRIBUTES:
                wanted.append((keyword, _matching(keyword, value.strip())))
            elif keyword != "IssuerOfPatientID":
                unsupported = True
        return wanted, patient, unsupported

    def answer(self, one: Scheduled, *, explicit: bool) -> bytes:
        """The identifier of one response, with what was asked for and is in the table."""
        told = _described(one)
        body: dict[str, Any] = {key: told[key] for key in KEYS if key in self.keys}
        if STEP in self.keys:
            step = told[STEP][0]
            body[STEP] = [{key: step[key] for key in STEP_KEYS if key in self.step_keys}]
        encoding = _ENCODINGS.get(self.character_set, "utf-8")
        body["SpecificCharacterSet"] = (
            self.character_set if self.character_set in _ENCODINGS else "ISO_IR 192"
        )
        return attributes.encode(body, explicit=explicit, encoding=encoding)


def _keys(found: Sequence[Element], character_set: CharacterSet) -> dict[str, str]:
    keys = {}
    for element in found:
        keyword = keyword_for_tag(element.tag)
        if keyword and keyword not in {"SpecificCharacterSet", STEP}:
            raw = bytes(element.value or b"")
            text = character_set.decode(raw, name=element.vr == "PN")
            keys[keyword] = text.strip(" \0")
    return keys


def _matching(keyword: str, value: str) -> Matching:
    if keyword.endswith("Date"):
        return query.matching("StudyDate", value)
    if keyword.endswith("Time"):
        return query.matching("StudyTime", value)
    if keyword.endswith("UID"):
        return query.matching("StudyInstanceUID", value)
    return query.text(value)


def _described(one: Scheduled) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(KEYS, "")
    step: dict[str, Any] = dict.fromkeys(STEP_KEYS, "")
    for keyword in orders.ATTRIBUTES:
        value = getattr(one.order, orders.ATTRIBUTES[keyword].key)
        if keyword in STEP_KEYS:
            step[keyword] = value
        elif keyword in KEYS:
            told[keyword] = value
    for keyword in (*KEYS, *STEP_KEYS):
        if keyword.endswith("Sequence"):
            (step if keyword in STEP_KEYS else told)[keyword] = []
    told |= {
        "PatientName": one.patient.name,
        "PatientID": one.patient.patient_id,
        "IssuerOfPatientID": one.organization.issuer,
        "PatientBirthDate": one.patient.birth_date,
        "PatientSex": one.patient.sex,
        "ReasonForTheRequestedProcedure": one.order.reason,
        STEP: [step],
    }
    return told
