"""The attributes of a workitem (unified procedure step, PS3.4 Table CC.2.5-3), as DICOM JSON has
them: which it must have when it is created and when it ends, which may change, and by which it is
found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from enum import StrEnum
from typing import Any

from exchange.errors import Invalid, TooLarge
from exchange_storage.search import Kind

Json = Mapping[str, Any]
"""A data set in the DICOM JSON model (PS3.18 annex F): elements by tag."""


class State(StrEnum):
    """Procedure Step State (PS3.4 Table CC.1.1-1)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL = frozenset({State.COMPLETED, State.CANCELED})

SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1"
"""UPS Push, of which every workitem is (PS3.4 CC.3.1)."""

SPECIFIC_CHARACTER_SET = "00080005"
SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
TRANSACTION_UID = "00081195"
STUDY_INSTANCE_UID = "0020000D"
PATIENT_NAME = "00100010"
PATIENT_ID = "00100020"
PATIENT_BIRTH_DATE = "00100030"
PATIENT_SEX = "00100040"
MODIFIED = "00404010"
STATIONS = "00404025"
PERFORMERS = "00404034"
PERFORMER_CODE = "00404009"
PERFORMER_ORGANIZATION = "00404036"
READINESS = "00404041"
REQUESTS = "0040A370"
STATE = "00741000"
PROGRESS = "00741002"
COMMUNICATIONS = "00741008"
CONTACT_URI = "0074100A"
CONTACT_NAME = "0074100C"
DISCONTINUATION = "0074100E"
CANCELED_AT = "00404052"
PRIORITY = "00741200"
WORKLIST_LABEL = "00741202"
LABEL = "00741204"
PERFORMED = "00741216"
REASON_FOR_CANCELLATION = "00741238"
START = "00404005"

REQUIRED: Mapping[str, tuple[str, frozenset[str]]] = {
    PRIORITY: ("ScheduledProcedureStepPriority", frozenset({"HIGH", "MEDIUM", "LOW"})),
    LABEL: ("ProcedureStepLabel", frozenset()),
    START: ("ScheduledProcedureStepStartDateTime", frozenset()),
    READINESS: ("InputReadinessState", frozenset({"INCOMPLETE", "UNAVAILABLE", "READY"})),
}
"""Of type 1 in N-CREATE, which an N-SET may not empty: keyword and the enumerated values."""

EMPTY_AT_FIRST = {
    TRANSACTION_UID: "TransactionUID",
    PROGRESS: "ProcedureStepProgressInformationSequence",
    PERFORMED: "UnifiedProcedureStepPerformedProcedureSequence",
}
"""What "shall be empty" in N-CREATE."""

NOT_CHANGED = {
    SOP_CLASS_UID: "SOPClassUID",
    SOP_INSTANCE_UID: "SOPInstanceUID",
    STATE: "ProcedureStepState",
    PATIENT_NAME: "PatientName",
    PATIENT_ID: "PatientID",
    "00100021": "IssuerOfPatientID",
    "00100024": "IssuerOfPatientIDQualifiersSequence",
    PATIENT_BIRTH_DATE: "PatientBirthDate",
    PATIENT_SEX: "PatientSex",
    "00101002": "OtherPatientIDsSequence",
    "00380010": "AdmissionID",
    "00380014": "IssuerOfAdmissionIDSequence",
    "00081080": "AdmittingDiagnosesDescription",
    "00081084": "AdmittingDiagnosesCodeSequence",
    REQUESTS: "ReferencedRequestSequence",
    "00741224": "ReplacedProcedureStepSequence",
}
"""What an N-SET may not hold."""

TO_COMPLETE = {
    "00404028": "PerformedStationNameCodeSequence",
    "00404050": "PerformedProcedureStepStartDateTime",
    "00404019": "PerformedWorkitemCodeSequence",
    "00404051": "PerformedProcedureStepEndDateTime",
}
"""What the performed procedure must have before the step is completed (Final State P).

Output Information Sequence is one of them, and may have no item; where it is absent there was none.
"""

DISCONTINUED = {
    "00080100": {"vr": "SH", "Value": ["110513"]},
    "00080102": {"vr": "SH", "Value": ["DCM"]},
    "00080104": {"vr": "LO", "Value": ["Discontinued for unspecified reason"]},
}
"""The reason of a cancellation for which none was given (Final State X; PS3.16 CID 9300)."""

CODED = {
    "ScheduledWorkitemCodeSequence": "00404018",
    "ScheduledStationNameCodeSequence": STATIONS,
    "ScheduledStationClassCodeSequence": "00404026",
    "ScheduledStationGeographicLocationCodeSequence": "00404027",
}

MATCHED: Mapping[str, tuple[tuple[str, ...], Kind]] = {
    "ScheduledProcedureStepPriority": ((PRIORITY,), Kind.TEXT),
    "ProcedureStepLabel": ((LABEL,), Kind.TEXT),
    "WorklistLabel": ((WORKLIST_LABEL,), Kind.TEXT),
    "InputReadinessState": ((READINESS,), Kind.TEXT),
    "ScheduledProcedureStepStartDateTime": ((START,), Kind.TIME),
    "ExpectedCompletionDateTime": (("00404011",), Kind.TIME),
    "ScheduledProcedureStepExpirationDateTime": (("00404008",), Kind.TIME),
    "ScheduledProcedureStepModificationDateTime": ((MODIFIED,), Kind.TIME),
    "StudyInstanceUID": ((STUDY_INSTANCE_UID,), Kind.UID),
    "AdmissionID": (("00380010",), Kind.TEXT),
    **{
        f"{sequence}.{keyword}": ((tag, code), Kind.TEXT)
        for sequence, tag in CODED.items()
        for keyword, code in (("CodeValue", "00080100"), ("CodingSchemeDesignator", "00080102"))
    },
    "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue": (
        (PERFORMERS, PERFORMER_CODE, "00080100"),
        Kind.TEXT,
    ),
    "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodingSchemeDesignator": (
        (PERFORMERS, PERFORMER_CODE, "00080102"),
        Kind.TEXT,
    ),
    "ScheduledHumanPerformersSequence.HumanPerformerName": ((PERFORMERS, "00404037"), Kind.PERSON),
    "ScheduledHumanPerformersSequence.HumanPerformerOrganization": (
        (PERFORMERS, PERFORMER_ORGANIZATION),
        Kind.TEXT,
    ),
    "ReferencedRequestSequence.AccessionNumber": ((REQUESTS, "00080050"), Kind.TEXT),
    "ReferencedRequestSequence.RequestedProcedureID": ((REQUESTS, "00401001"), Kind.TEXT),
    "ReferencedRequestSequence.StudyInstanceUID": ((REQUESTS, STUDY_INSTANCE_UID), Kind.UID),
    "ReplacedProcedureStepSequence.ReferencedSOPInstanceUID": (
        ("00741224", "00081155"),
        Kind.UID,
    ),
}
"""By what a workitem is found, beside its UID, its state and its patient: tags, and how."""

KEYS = 1000
"""Values of one workitem under which it is found, at most."""

_MOMENT = re.compile(r"(\d{4,14})(?:\.\d{1,6})?(?:([+-])(\d\d)(\d\d))?")


def check_new(content: Json) -> None:
    """Raise Invalid unless a workitem may be created so (column N-CREATE of the table)."""
    for tag, keyword in EMPTY_AT_FIRST.items():
        if values(content, tag):
            raise Invalid(f"{keyword} is empty when a workitem is created")
    if text(content, STATE) != State.SCHEDULED:
        raise Invalid("ProcedureStepState is SCHEDULED when a workitem is created")
    for tag in REQUIRED:
        _check(content, tag)


def check_change(changes: Json) -> None:
    """Raise Invalid unless a workitem may be changed so (column N-SET of the table)."""
    for tag, keyword in NOT_CHANGED.items():
        if tag in changes:
            raise Invalid(f"{keyword} of a workitem may not be changed by an update")
    for tag in REQUIRED:
        if tag in changes:
            _check(changes, tag)
    if WORKLIST_LABEL in changes and not text(changes, WORKLIST_LABEL):
        raise Invalid("WorklistLabel may not be emptied")


def _check(content: Json, tag: str) -> None:
    keyword, enumerated = REQUIRED[tag]
    found = text(content, tag)
    if not found:
        raise Invalid(f"{keyword} is missing, or has no value")
    if enumerated and found not in enumerated:
        raise Invalid(f"{keyword} is one of {', '.join(sorted(enumerated))}")
    if tag == START and not _MOMENT.fullmatch(found):
        raise Invalid(f"{keyword} is not a date and time")


def lacking(content: Json, state: State) -> Sequence[str]:
    """Keywords of what is missing for this final state (PS3.4 CC.2.5.1.1)."""
    if state is not State.COMPLETED:
        return ()
    performed = items(content, PERFORMED)
    if not performed:
        return ("UnifiedProcedureStepPerformedProcedureSequence",)
    return [
        keyword
        for tag, keyword in TO_COMPLETE.items()
        if not (items(performed[0], tag) or text(performed[0], tag))
    ]


def canceled(content: Json, at: str, told: Json) -> dict[str, Any]:
    """`content` with the progress information of a cancellation at the moment `at`.

    `told` is what was said with the request; what the performer has said already stays.
    """
    progress = dict(next(iter(items(content, PROGRESS)), {}))
    if not text(progress, CANCELED_AT):
        progress[CANCELED_AT] = {"vr": "DT", "Value": [at]}
    for tag in (REASON_FOR_CANCELLATION, DISCONTINUATION):
        if tag in told and not values(progress, tag):
            progress[tag] = told[tag]
    if not items(progress, DISCONTINUATION):
        progress[DISCONTINUATION] = {"vr": "SQ", "Value": [DISCONTINUED]}
    contact = {tag: told[tag] for tag in (CONTACT_URI, CONTACT_NAME) if tag in told}
    if contact and not items(progress, COMMUNICATIONS):
        progress[COMMUNICATIONS] = {"vr": "SQ", "Value": [contact]}
    return {**content, PROGRESS: {"vr": "SQ", "Value": [progress]}}


def organizations(content: Json) -> Sequence[str]:
    """The organizations of the human performers for whom it is scheduled."""
    found = [text(item, PERFORMER_ORGANIZATION) for item in items(content, PERFORMERS)]
    return [one for one in found if one]


def keys(content: Json, zone: tzinfo) -> list[tuple[str, int, str]]:
    """Path, item and value of all by which it is found. Raises TooLarge.

    Moments are those of `zone`, so that they compare as text.
    """
    found: list[tuple[str, int, str]] = []
    for path, (tags, kind) in MATCHED.items():
        for item, value in _within(content, tags):
            told = moment(value, zone) if kind is Kind.TIME else value
            if told and (path, item, told[:255]) not in found:
                found.append((path, item, told[:255]))
            if len(found) > KEYS:
                raise TooLarge(f"a workitem is found by at most {KEYS} values")
    return found


def _within(content: Json, tags: Sequence[str]) -> Iterator[tuple[int, str]]:
    if len(tags) == 1:
        yield from ((0, one) for one in texts(content, tags[0]))
        return
    for number, item in enumerate(items(content, tags[0]), 1):
        yield from ((number, value) for _, value in _within(item, tags[1:]))


def moment(value: str, zone: tzinfo) -> str:
    """A DT as local time, YYYYMMDDHHMMSS as far as it is given; "" for what is none."""
    read = _MOMENT.fullmatch(value.strip())
    if read is None:
        return ""
    digits, sign, hours, minutes = read.groups()
    if sign is None or len(digits) < 12:
        return digits
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        form = f"%Y%m%d%H%M{'%S' * (len(digits) == 14)}"
        there = datetime.strptime(digits, form).replace(tzinfo=timezone(offset))
        here = there.astimezone(zone)
    except (ValueError, OverflowError):
        return ""
    return f"{here:%Y%m%d%H%M%S}"[: len(digits)]


def values(content: Json, tag: str) -> Sequence[Any]:
    """The values of an element; none where it is absent."""
    found = content.get(tag, {}).get("Value") or ()
    return found if isinstance(found, list | tuple) else ()


def items(content: Json, tag: str) -> list[Json]:
    """The items of a sequence that are not empty."""
    return [one for one in values(content, tag) if isinstance(one, Mapping) and one]


def texts(content: Json, tag: str) -> list[str]:
    """The values of an element as text, names with their groups joined."""
    found = []
    for one in values(content, tag):
        if isinstance(one, Mapping):
            groups = [str(one.get(name) or "") for name in _GROUPS]
            found.append("=".join(groups).rstrip("="))
        elif one is not None:
            found.append(str(one).strip())
    return found


def text(content: Json, tag: str) -> str:
    """The first value of an element as text; "" where there is none."""
    return next(iter(texts(content, tag)), "")


_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
