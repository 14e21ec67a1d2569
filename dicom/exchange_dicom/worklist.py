"""The Modality Worklist Management service class as SCP (PS3.4 annex K).

A modality asks for what its own hospital has scheduled, and gets the study's UID with it: images
of all modalities, and of all who are asked later, then find together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exchange import order_codes, orders
from exchange.access import Access
from exchange.errors import ExchangeError, Invalid
from exchange.order_codes import Code
from exchange.order_codes import Kind as Coded
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
SCHEMES = "CodingSchemeIdentificationSequence"
PROCEDURE = "RequestedProcedureCodeSequence"
PROTOCOL = "ScheduledProtocolCodeSequence"

STEP_KEYS = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledStationName",
    "ScheduledProcedureStepLocation",
    PROTOCOL,
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
    PROCEDURE,
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
    SCHEMES,
)
"""The other attributes of the table that have a value here, or are returned empty (type 2)."""

CODED = {PROCEDURE: Coded.PROCEDURE, f"{STEP}.{PROTOCOL}": Coded.PROTOCOL}
"""The sequences of codes, by their paths."""

CODE: Mapping[str, str] = {
    "CodeValue": "value",
    "LongCodeValue": "value",
    "URNCodeValue": "value",
    "CodingSchemeDesignator": "scheme",
    "CodingSchemeVersion": "version",
    "CodeMeaning": "meaning",
}
"""Attributes of a code (PS3.3 Table 8.8-1a), all of which are matched; see `order_codes.MATCHED`.

Each item of the sequences has those that its code has, and what means the same (Table 8.8-1)."""

EQUIVALENT = "EquivalentCodeSequence"

_WITHIN: Mapping[str, Collection[str]] = {
    STEP: STEP_KEYS,
    SCHEMES: (
        "CodingSchemeDesignator",
        "CodingSchemeUID",
        "CodingSchemeResourcesSequence",
    ),
    **dict.fromkeys(CODED, (*CODE, EQUIVALENT)),
    **{f"{path}.{EQUIVALENT}": tuple(CODE) for path in CODED},
}
"""What the items of the sequences have that are answered."""

_OID = re.compile(r"urn:oid:([0-9.]{1,64})", re.ASCII)
_URL = re.compile(r"https?://[!-\[\]-~]+")
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
                codes=asked.codes,
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
    missing = asked.unsupported or identifier.lacks(KEYS, _WITHIN)
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
    codes: Mapping[Coded, Sequence[tuple[str, Matching]]]
    """What an item of its codes has to match."""
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
    codes: dict[Coded, list[tuple[str, Matching]]] = {}
    unsupported = bool(issuer) and not query.stated(given.get("PatientID", ""))
    for name, value in identifier.keys:
        within, dot, keyword = name.rpartition(".")
        person = keyword == "PatientName" or keyword in orders.PERSONS
        if query.universal(value.strip(), person=person):
            continue
        if moment is not None and name in (START_DATE, START_TIME):
            continue
        if within in CODED and keyword in CODE:
            codes.setdefault(CODED[within], []).append((CODE[keyword], query.text(value.strip())))
        elif dot and (within != STEP or keyword not in STEP_KEYS):
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
    return _Asked(tuple(order), tuple(patient), moment, codes, unsupported)


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
    for path, kind in CODED.items():
        items = [_item(*codes) for codes in one.codes.get(kind, ())]
        (told if path == PROCEDURE else step)[path.rpartition(".")[2]] = items
    told |= {
        "PatientName": one.patient.name,
        "PatientID": one.number.value,
        "IssuerOfPatientID": one.number.issuer,
        "PatientBirthDate": one.patient.birth_date,
        "PatientSex": one.patient.sex,
        "ReasonForTheRequestedProcedure": one.order.reason[:64],  # LO
        SCHEMES: _own_scheme(one.codes),
        STEP: [step],
    }
    return told


def _item(code: Code, *equivalents: Code) -> dict[str, Any]:
    """A code as an item of its sequence, with those that mean the same (PS3.3 8.8 and 8.9)."""
    told: dict[str, Any] = coded(code)
    return told | ({EQUIVALENT: [coded(one) for one in equivalents]} if equivalents else {})


def coded(code: Code) -> dict[str, str]:
    """The attributes of a code; the length of its value says which one holds it (PS3.3 8.1)."""
    short = "CodeValue" if len(code.value) <= 16 else "LongCodeValue"
    told = {
        "URNCodeValue" if code.is_uri else short: code.value,
        "CodingSchemeDesignator": code.scheme,
        "CodingSchemeVersion": code.version,
        "CodeMeaning": code.meaning,
    }
    return {keyword: value for keyword, value in told.items() if value}


def _own_scheme(codes: order_codes.Codes) -> list[dict[str, Any]]:
    """What the hospital's own coding scheme is: its UID, or URI (PS3.3 C.12.1). Nothing where it
    has several, which the one designator would not tell apart."""
    every = (code for items in codes.values() for item in items for code in item)
    systems = {code.system for code in every if code.scheme == order_codes.LOCAL}
    system = systems.pop() if len(systems) == 1 else ""
    told: dict[str, Any] = {"CodingSchemeDesignator": order_codes.LOCAL}
    if found := _OID.fullmatch(system):
        return [told | {"CodingSchemeUID": found[1]}]
    if _URL.fullmatch(system):
        resource = {"CodingSchemeURLType": "FHIR", "CodingSchemeURL": system}
        return [told | {"CodingSchemeResourcesSequence": [resource]}]
    return []
