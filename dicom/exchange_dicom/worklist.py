"""The Modality Worklist Management service class as SCP (PS3.4 annex K).

A modality asks for what its own hospital has scheduled, and gets the study's UID with it: images
of all modalities, and of all who are asked later, then find together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exchange import orders
from exchange.access import Access
from exchange.errors import ExchangeError, Invalid
from exchange.orders import Scheduled
from exchange_dicom import dimse, query, status
from exchange_dicom.association import Message, TooLarge
from exchange_dicom.conversation import Conversation
from exchange_dicom.identifier import IDENTIFIER_LENGTH, Identifier, write
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Alike, Criterion, Kind, Match, Matching

STEP = "ScheduledProcedureStepSequence"
ISSUER = "IssuerOfPatientID"
START_DATE = f"{STEP}.ScheduledProcedureStepStartDate"
STATION = f"{STEP}.ScheduledStationAETitle"
START_TIME = f"{STEP}.ScheduledProcedureStepStartTime"

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


def find(conversation: Conversation, message: Message) -> None:
    """C-FIND in the Modality Worklist information model."""
    if message.data is None:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is missing")
        return
    try:
        raw = message.data.read(IDENTIFIER_LENGTH)
        identifier = Identifier.read(raw, message.context.transfer_syntax)
        extended = conversation.extended.get(message.context.abstract_syntax, b"").ljust(3, b"\0")
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            asked = _asked(access, identifier, fuzzy=extended[2] == 1)
            found = orders.worklist(
                access,
                asked.order,
                asked.patient,
                moment=asked.moment,
                limit=conversation.limits.matches,
            )
    except TooLarge:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is too long")
        return
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].find, str(error))
        return
    station = dict(identifier.keys).get(STATION, "").strip()
    if not station or set(station) & set("*?\\"):
        station = conversation.association.request.calling_ae  # type: ignore[union-attr]
    missing = asked.unsupported or identifier.lacks(KEYS, {STEP: STEP_KEYS})
    code = status.PENDING_UNSUPPORTED if missing else status.PENDING
    explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    for one in found:
        if conversation.association.cancelled(message.command.message_id):
            conversation.answer(message, status.CANCEL)
            return
        pending = dimse.response(message.command, code, data_set_present=True)
        body = write(
            identifier.narrowed(_described(one, station)), identifier.repertoire, explicit=explicit
        )
        conversation.association.send(message.context.context_id, pending, body, more=True)
    conversation.answer(message, status.SUCCESS)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The matching keys of a worklist identifier, of the order and of the patient."""

    order: tuple[tuple[str, Matching], ...]
    patient: tuple[Criterion, ...]
    moment: orders.Moments | None
    """When the step begins, where both its date and its time are ranges (Table K.6-1)."""
    unsupported: bool
    """Whether some key takes no part in matching."""


def _asked(access: Access, identifier: Identifier, *, fuzzy: bool) -> _Asked:
    """Raises Invalid."""
    given = dict(identifier.keys)
    issuer = query.stated(given.get(ISSUER, ""))
    begin = [(name, given.get(name, "")) for name in (START_DATE, START_TIME)]
    moment = query.moments(*begin[0], *begin[1])
    order: list[tuple[str, Matching]] = []
    patient: list[Criterion] = []
    unsupported = bool(issuer) and not query.stated(given.get("PatientID", ""))
    for name, value in identifier.keys:
        within, dot, keyword = name.rpartition(".")
        person = keyword == "PatientName" or keyword in orders.PERSONS
        if query.universal(value.strip(), person=person):
            continue
        if moment is not None and name in (START_DATE, START_TIME):
            continue
        if dot and (within != STEP or keyword not in STEP_KEYS):
            unsupported = True
        elif keyword == "PatientID" and not dot:
            patient.append(query.number(access, issuer, query.text(value.strip())))
        elif fuzzy and keyword == "PatientName" and not dot and not set(value) & set("*?"):
            patient.append(Match(keyword, Alike(value.strip())))
        elif keyword in _PATIENT and not dot:
            patient.append(Match(keyword, query.matching(keyword, value.strip())))
        elif keyword in orders.ATTRIBUTES and keyword in (STEP_KEYS if dot else KEYS):
            order.append((keyword, _matching(keyword, value.strip(), fuzzy=fuzzy)))
        elif name != ISSUER:
            unsupported = True
    return _Asked(tuple(order), tuple(patient), moment, unsupported)


def _matching(keyword: str, value: str, *, fuzzy: bool) -> Matching:
    if fuzzy and keyword in orders.PERSONS and not set(value) & set("*?"):
        return Alike(value)
    for ending, kind in (("Date", Kind.DATE), ("Time", Kind.TIME), ("UID", Kind.UID)):
        if keyword.endswith(ending):
            return query.of_kind(kind, keyword, value)
    return query.text(value)


def _described(one: Scheduled, station: str) -> dict[str, Any]:
    """What is told of an order to the `station` that asks. Station and start time have a value
    also where the order leaves them open (type 1 in Table K.6-1)."""
    told: dict[str, Any] = dict.fromkeys(KEYS, "")
    step: dict[str, Any] = dict.fromkeys(STEP_KEYS, "")
    for keyword in orders.ATTRIBUTES:
        value = getattr(one.order, orders.ATTRIBUTES[keyword].key)
        if keyword in STEP_KEYS:
            step[keyword] = value
        elif keyword in KEYS:
            told[keyword] = value
    step["ScheduledStationAETitle"] = step["ScheduledStationAETitle"] or station
    step["ScheduledProcedureStepStartTime"] = step["ScheduledProcedureStepStartTime"] or "000000"
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
