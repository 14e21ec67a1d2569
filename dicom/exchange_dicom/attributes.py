"""The attributes of an answer: from what the exchange found, to data set bytes and to DICOM JSON.

Used by C-FIND (PS3.4 Table C.6) and QIDO-RS (PS3.18 Tables 10.6.3-3 to -5), so that both say the
same. Values are text by keyword; the VR is the dictionary's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Protocol

from pydicom.datadict import dictionary_VR, tag_for_keyword

from exchange.own_numbers import Number
from exchange.query import Found
from exchange_storage.search import ATTRIBUTES, Level

Value = str | int | Sequence[str] | Sequence[Mapping[str, "Value"]]
"""Text (multiple values in a sequence), a number, or the items of a sequence."""

Attributes = Mapping[str, Value]


class Encode(Protocol):
    """Text as the bytes of a value field; `name` for VR PN. See `repertoire.Repertoire.encode`."""

    def __call__(self, text: str, *, name: bool = False) -> bytes: ...


DERIVED = (
    "NumberOfPatientRelatedStudies",
    "NumberOfPatientRelatedSeries",
    "NumberOfPatientRelatedInstances",
    "ModalitiesInStudy",
    "SOPClassesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "InstanceAvailability",
)
"""Attributes of no instance, made from what is held (PS3.4 C.3.4)."""

SUMMARIZED = frozenset(DERIVED) - {"InstanceAvailability"}
"""Those of them for which the instances below a match have to be looked at."""

ITEMS: Mapping[str, frozenset[str]] = {
    "OtherPatientIDsSequence": frozenset({"PatientID", "IssuerOfPatientID", "TypeOfPatientID"}),
    "RequestAttributesSequence": frozenset({"RequestedProcedureID", "ScheduledProcedureStepID"}),
}
"""What the items of a sequence have, for each sequence that is answered."""

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI", "UR"})
"""VRs of text that is in JSON as it is."""

_BINARY = {"US": "<H", "UL": "<L", "SS": "<h", "SL": "<l"}
_INTEGERS = frozenset({"IS", "US", "UL", "SS", "SL"})


def describe(found: Found, level: Level, wanted: frozenset[str] | None = None) -> dict[str, Value]:
    """All that can be returned for a match at `level`, the levels above included.

    Where only certain keywords are `wanted`, others may be left out. The patient stands under the
    asker's own number where the asker has one; the owner's is then in Other Patient IDs Sequence,
    and of a record that its hospital has merged both of its numbers are.
    """
    records: dict[Level, Any] = {
        Level.PATIENT: found.patient,
        Level.STUDY: found.study,
        Level.SERIES: found.series,
        Level.IMAGE: found.instance,
    }
    told: dict[str, Value] = {}
    for at, keyword, column in _columns(level, wanted):
        value = getattr(records[at], column)
        told[keyword] = "" if value is None else value
    told["PatientID"] = found.number.value
    told["IssuerOfPatientID"] = found.number.issuer
    came_under = Number(found.patient.patient_id, found.owner.issuer)
    others = [one for one in dict.fromkeys((found.standing, came_under)) if one != found.number]
    told["OtherPatientIDs"] = [one.value for one in others] or ""
    told["OtherPatientIDsSequence"] = [
        {
            "PatientID": one.value,
            "IssuerOfPatientID": one.issuer,
            "TypeOfPatientID": "TEXT",
        }
        for one in others
    ]
    summary = found.summary
    match level:
        case Level.PATIENT:
            told["NumberOfPatientRelatedStudies"] = summary.studies
            told["NumberOfPatientRelatedSeries"] = summary.series
            told["NumberOfPatientRelatedInstances"] = summary.instances
        case Level.STUDY:
            told["ModalitiesInStudy"] = summary.modalities
            told["SOPClassesInStudy"] = summary.sop_classes
            told["NumberOfStudyRelatedSeries"] = summary.series
            told["NumberOfStudyRelatedInstances"] = summary.instances
            told["InstitutionName"] = found.owner.name
        case Level.SERIES:
            told["NumberOfSeriesRelatedInstances"] = summary.instances
            told["InstitutionName"] = told.get("InstitutionName") or found.owner.name
        case Level.IMAGE:
            pass
    if found.requests is not None:
        told["RequestAttributesSequence"] = [
            {
                "RequestedProcedureID": one.requested_procedure_id,
                "ScheduledProcedureStepID": one.scheduled_procedure_step_id,
            }
            for one in found.requests
        ]
    # Of a study or series some can be had: of which not, is told of each (PS3.3 C.4.23.1.1).
    told["InstanceAvailability"] = "UNAVAILABLE" if found.damaged else "ONLINE"
    return told


@lru_cache(1024)
def _columns(level: Level, wanted: frozenset[str] | None) -> tuple[tuple[Level, str, str], ...]:
    """Where the attributes of a match stand: level, keyword, column of the level's record."""
    return tuple(
        (attribute.level, keyword, attribute.column.key)
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level <= level and (wanted is None or keyword in wanted)
    )


@cache
def tag_and_vr(keyword: str) -> tuple[int, str]:
    """Tag number and VR of a keyword; of several VRs the first. Raises KeyError."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag, dictionary_VR(tag)[:2]


@lru_cache(1024)
def _ordered(keywords: tuple[str, ...]) -> tuple[tuple[int, str, str], ...]:
    """Tag, VR and keyword in the order of a data set: the same for every match of a question."""
    return tuple(sorted((*tag_and_vr(keyword), keyword) for keyword in keywords))


@lru_cache(1024)
def _keyed(keywords: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """The same with the tag as JSON has it."""
    return tuple((f"{tag:08X}", vr, keyword) for tag, vr, keyword in _ordered(keywords))


def encode(attributes: Attributes, *, explicit: bool, encoding: Encode | None = None) -> bytes:
    """A data set in little endian, its text by `encoding`, as Specific Character Set must say.

    Without it the text is in UTF-8, with ``?`` for half of a surrogate pair. Raises
    UnicodeEncodeError where `encoding` does.
    """
    return b"".join(
        [
            _element(tag, vr, attributes[keyword], explicit, encoding)
            for tag, vr, keyword in _ordered(tuple(attributes))
        ]
    )


def to_json(attributes: Attributes) -> dict[str, dict[str, Any]]:
    """The DICOM JSON model (PS3.18 Annex F): keys ascending, empty attributes without Value."""
    return {key: _json(vr, attributes[keyword]) for key, vr, keyword in _keyed(tuple(attributes))}


def _element(tag: int, vr: str, value: Value, explicit: bool, encoding: Encode | None) -> bytes:
    body = _bytes(vr, value, explicit, encoding)
    group, element = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack("<HHL", group, element, len(body)) + body
    if vr in _LONG:
        return struct.pack("<HH2sHL", group, element, vr.encode(), 0, len(body)) + body
    return struct.pack("<HH2sH", group, element, vr.encode(), len(body)) + body


def _bytes(vr: str, value: Value, explicit: bool, encoding: Encode | None) -> bytes:
    if vr == "SQ":
        items = (encode(item, explicit=explicit, encoding=encoding) for item in value)  # type: ignore[union-attr,arg-type]
        return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if vr in _BINARY:
        return b"" if value == "" else struct.pack(_BINARY[vr], int(value))  # type: ignore[arg-type]
    text = "\\".join(_texts(value))
    body = encoding(text, name=vr == "PN") if encoding else text.encode("utf-8", "replace")
    return body + (b"\0" if vr == "UI" else b" ") if len(body) % 2 else body


def _texts(value: Value) -> list[str]:
    if isinstance(value, str | int):
        return [str(value)]
    return [str(one) for one in value]


def _json(vr: str, value: Value) -> dict[str, Any]:
    if isinstance(value, str) and vr in _PLAIN and "\\" not in value:  # most of all there is
        return {"vr": vr, "Value": [value]} if value else {"vr": vr}
    if isinstance(value, int) and vr in _INTEGERS:
        return {"vr": vr, "Value": [value]}
    if vr == "SQ":
        items = [to_json(item) for item in value]  # type: ignore[union-attr,arg-type]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    texts = _split(vr, value)
    if not any(texts):
        return {"vr": vr}
    return {"vr": vr, "Value": [_json_value(vr, one) for one in texts]}


def _split(vr: str, value: Value) -> list[str]:
    """The single values; UT, LT and ST may hold a backslash as it is."""
    texts = _texts(value)
    if vr in {"LT", "ST", "UT"}:
        return texts
    return [one for part in texts for one in part.split("\\")]


def _json_value(vr: str, text: str) -> Any:
    if not text:
        return None
    if vr == "PN":
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
        return {name: group for name, group in groups if group}
    if vr in _INTEGERS:
        try:
            return int(text)
        except ValueError:
            return text  # PS3.18 F.2.3 allows the string for IS
    return text
