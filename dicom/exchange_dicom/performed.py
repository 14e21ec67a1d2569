"""The Modality Performed Procedure Step SOP classes as SCP (PS3.4 annex F)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from exchange import performed
from exchange.errors import ExchangeError, Invalid
from exchange.performed import Ended, Incomplete, Status, Told
from exchange_dicom import composing, data_set, dimse, status
from exchange_dicom.association import Message, TooLarge
from exchange_dicom.character_sets import determine
from exchange_dicom.conversation import Conversation
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

LENGTH = 8 << 20
"""Bytes of the longest data set of a step."""

NO_LONGER_UPDATED = 0xA710
"""Error ID: the step has ended (PS3.4 Table F.7.2-2)."""

REQUIRED = {
    "ScheduledStepAttributesSequence": "00400270",
    "PerformedProcedureStepID": "00400253",
    "PerformedStationAETitle": "00400241",
    "PerformedProcedureStepStartDate": "00400244",
    "PerformedProcedureStepStartTime": "00400245",
    "PerformedProcedureStepStatus": "00400252",
    "Modality": "00080060",
}
"""What an N-CREATE must have a value for (type 1 in PS3.4 Table F.7.2-1), as tags."""

NOT_CHANGED = {
    "ScheduledStepAttributesSequence": "00400270",
    "PatientName": "00100010",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "PatientBirthDate": "00100030",
    "PatientSex": "00100040",
    "ReferencedPatientSequence": "00081120",
    "AdmissionID": "00380010",
    "PerformedProcedureStepID": "00400253",
    "PerformedStationAETitle": "00400241",
    "PerformedStationName": "00400242",
    "PerformedLocation": "00400243",
    "PerformedProcedureStepStartDate": "00400244",
    "PerformedProcedureStepStartTime": "00400245",
    "Modality": "00080060",
    "StudyID": "00200010",
}
"""What an N-SET may not touch ("not allowed" in PS3.4 Table F.7.2-1), as tags; passed over."""

_STATUS, _SERIES, _SCHEDULED, _STUDY = "00400252", performed.SERIES, "00400270", "0020000D"
_UID = re.compile(r"[0-9.]{1,64}")
_CHARACTER_SET = "00080005"
UTF_8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
Json = Mapping[str, Any]


def create(conversation: Conversation, message: Message) -> None:
    """N-CREATE: a step has begun."""
    uid = message.command.sop_instance
    if not _UID.fullmatch(uid):
        conversation.answer(message, status.INVALID_OBJECT_INSTANCE, "a SOP Instance UID is needed")
        return
    told = _told(conversation, message)
    if told is None:
        return
    lacking = _lacking(told)
    if lacking is not None:
        code, keyword = lacking
        conversation.answer(message, code, f"{keyword} is missing")
        return
    try:
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            made = performed.begin(access, uid, _step(told), told)
    except (ExchangeError, ValueError) as error:
        _refuse(conversation, message, error)
        return
    conversation.answer(message, status.DUPLICATE_INSTANCE if made is None else status.SUCCESS)


def change(conversation: Conversation, message: Message) -> None:
    """N-SET: more is known of a step, or it has ended."""
    told = _told(conversation, message)
    if told is None:
        return
    passed_over = [keyword for keyword, tag in NOT_CHANGED.items() if told.pop(tag, None)]
    try:
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            lacking = performed.change(access, message.command.sop_instance, _step(told), told)
    except (ExchangeError, ValueError) as error:
        _refuse(conversation, message, error)
        return
    remarks = [f"{one} is missing" for one in lacking] + [
        f"not changed: {one}" for one in passed_over
    ]
    code = status.ATTRIBUTE_LIST_ERROR if remarks else status.SUCCESS
    conversation.answer(message, code, "; ".join(remarks))


def read(conversation: Conversation, message: Message) -> None:
    """N-GET: all of a step, or the attributes that are listed."""
    try:
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            told = performed.content(access, message.command.sop_instance)
    except ExchangeError as error:
        _refuse(conversation, message, error)
        return
    wanted = {f"{tag:08X}" for tag in message.command.attribute_identifiers}
    asked = {tag: one for tag, one in told.items() if not wanted or tag in wanted}
    explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    found, lost = _written(asked, explicit=explicit)
    code = status.ATTRIBUTE_LIST_ERROR if lost else status.SUCCESS
    comment = f"not told, for it is no value of its VR: {lost[0]}" if lost else ""
    response = dimse.response(message.command, code, data_set_present=True, error_comment=comment)
    conversation.answered(message, code, comment)
    conversation.association.send(message.context.context_id, response, found)


def _written(told: Json, *, explicit: bool) -> tuple[bytes, list[str]]:
    """The data set of what a step holds; and what no data set can say as it was kept, for a
    modality may have sent anything, as tags."""
    parts, lost = [], []
    for tag, one in sorted({**told, _CHARACTER_SET: UTF_8}.items()):
        try:
            part = b"".join(composing.element(tag, one))
            if not explicit:
                part = b"".join(
                    data_set.implicit(data_set.elements(part, EXPLICIT_VR_LITTLE_ENDIAN))
                )
            parts.append(part)
        except (Invalid, MalformedDataSet):
            lost.append(f"({tag[:4]},{tag[4:]})")
    return b"".join(parts), lost


def _lacking(told: Json) -> tuple[int, str] | None:
    """The status of the first attribute that an N-CREATE lacks, or has no value for; its keyword.

    Those of type 2 are not insisted on: many modalities leave out what they do not know.
    """
    scheduled = told.get(_SCHEDULED, {})
    items = scheduled.get("Value", ()) if scheduled.get("vr") == "SQ" else ()
    required = [(keyword, told.get(tag)) for keyword, tag in REQUIRED.items()]
    required += [("StudyInstanceUID", (item or {}).get(_STUDY)) for item in items]
    for keyword, found in required:
        if found is None:
            return status.MISSING_ATTRIBUTE, keyword
        if not found.get("Value"):
            return status.MISSING_ATTRIBUTE_VALUE, keyword
    return None


def _told(conversation: Conversation, message: Message) -> dict[str, Any] | None:
    """The data set as DICOM JSON; None when the request has been answered."""
    if message.data is None:
        conversation.answer(message, status.MISSING_ATTRIBUTE, "there is no data set")
        return None
    try:
        raw = message.data.read(LENGTH)
        found = list(data_set.elements(raw, message.context.transfer_syntax))
    except TooLarge:
        conversation.answer(message, status.RESOURCE_LIMITATION, "the data set is too long")
        return None
    except MalformedDataSet:
        conversation.answer(message, status.PROCESSING_FAILURE, "this is not a data set")
        return None
    declared = next((bytes(one.value or b"") for one in found if one.tag == 0x00080005), b"")
    character_set = determine(declared.decode("ascii", "replace").strip(" \0"), ())
    return data_set.to_json(found, character_set)


def _step(told: Json) -> Told:
    """Raises ValueError for a status that is none."""
    scheduled = next(iter(_items(told, _SCHEDULED)), {})
    return Told(
        status=Status(_text(told, _STATUS) or Status.IN_PROGRESS),
        study_instance_uid=_text(scheduled, _STUDY),
        accession_number=_text(scheduled, "00080050"),
        scheduled_procedure_step_id=_text(scheduled, "00400009"),
        station_ae_title=_text(told, "00400241"),
        modality=_text(told, "00080060"),
        started=_moment(told, "00400244", "00400245"),
        ended=_moment(told, "00400250", "00400251"),
        expected=tuple(
            (_text(series, "0020000E"), _text(item, "00081155"))
            for series in _items(told, _SERIES)
            for tag in ("00081140", "00400220")  # images, and non-image composites
            for item in _items(series, tag)
        ),
    )


def _items(told: Json, tag: str) -> list[Json]:
    found = told.get(tag, {})
    return [one for one in found.get("Value", ()) if one] if found.get("vr") == "SQ" else []


def _text(told: Json, tag: str) -> str:
    values = told.get(tag, {}).get("Value") or [""]
    return str(values[0] or "").strip()


def _moment(told: Json, date: str, time: str) -> str:
    """A time of a day that is not known is none."""
    day = _text(told, date)
    return day and day + _text(told, time)[:6]


def _refuse(
    conversation: Conversation, message: Message, error: ExchangeError | ValueError
) -> None:
    if isinstance(error, Incomplete):
        conversation.answer(message, status.MISSING_ATTRIBUTE, str(error))
    elif isinstance(error, Ended):
        comment = "Performed Procedure Step Object may no longer be updated"
        response = dimse.response(
            message.command,
            status.PROCESSING_FAILURE,
            error_comment=comment,
            error_id=NO_LONGER_UPDATED,
        )
        conversation.answered(message, status.PROCESSING_FAILURE, comment)
        conversation.association.send(message.context.context_id, response)
    elif isinstance(error, ExchangeError):
        conversation.answer(message, status.N_SERVICE[type(error)], str(error))
    else:
        conversation.answer(
            message, status.INVALID_ATTRIBUTE_VALUE, "not a Performed Procedure Step Status"
        )
