"""The Search transaction of DICOMweb, QIDO-RS (PS3.18 section 10.6, sections 8.3.4 and 8.4).

Whatever of a question takes no part in matching is named in a Warning header field. That more
matches remain is told without their number: to count them all costs more than to find a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from starlette.responses import Response

from exchange import query
from exchange.access import Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange_dicom import attributes, media_types, web_models
from exchange_dicom.query import question
from exchange_dicom.resources import Root
from exchange_storage.search import ATTRIBUTES, Kind, Level

LIMIT = 100
"""Matches in one answer where the asker sets no limit."""

MAX_LIMIT = 1000
"""Matches in one answer, whatever limit the asker sets."""

MAX_OFFSET = 10_000_000
"""Matches that may be passed over."""

NAMES = 20
"""Names of attributes in one warning."""

RETURNED: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "InstanceAvailability",
        "ModalitiesInStudy",
        "ReferringPhysicianName",
        "RetrieveURL",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",  # not in the table; without it a number is nobody's here
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "StudyInstanceUID",
        "Modality",
        "SeriesDescription",
        "RetrieveURL",
        "SeriesInstanceUID",
        "SeriesNumber",
        "NumberOfSeriesRelatedInstances",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "RequestAttributesSequence",
    ),
    Level.IMAGE: (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceAvailability",
        "RetrieveURL",
        "InstanceNumber",
        "Rows",
        "Columns",
        "BitsAllocated",
        "NumberOfFrames",
    ),
}
"""Tables 10.6.3-3 to 10.6.3-5: what a match at each level tells unasked, where it is known."""

_ON_REQUEST = frozenset(
    {"OtherPatientIDs", "OtherPatientIDsSequence", "SOPClassesInStudy", "SpecificCharacterSet"}
)
_NAME = re.compile(r"[A-Za-z0-9]{1,64}(\.[A-Za-z0-9]{1,64}){0,7}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of a search."""

    keys: Mapping[str, str]
    """Matching keys by keyword, or by keywords joined with dots."""
    fields: frozenset[str]
    everything: bool
    unknown: tuple[str, ...]
    """Names of parameters that are no attribute of PS3.6."""
    limit: int
    offset: int
    fuzzy: bool
    unserved: tuple[str, ...]
    """Kinds of matching that were asked for, and are not done."""


def search(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    level: Level,
    within: Mapping[str, str],
    parameters: Iterable[tuple[str, str]],
    *,
    accept: Sequence[media_types.MediaType],
    asked: str,
) -> Response:
    """The matches at `level` among what the URL names by UID; 204 where there are none.

    `asked` is the question for the audit trail. Raises Invalid, NotAcceptable, Refused.
    """
    answered = web_models.choose(accept, parted=True)
    wanted = read(within, parameters)
    asked_for = {path.partition(".")[0] for path in (*wanted.fields, *wanted.keys)}
    fields = _fields(level, within) | asked_for
    with exchange.on_behalf_of(requester) as access:
        asking = question(access, level, wanted.keys.items(), fuzzy=wanted.fuzzy)
        answer = query.find(
            access,
            level,
            asking.criteria,
            limit=min(wanted.limit, MAX_LIMIT),
            offset=wanted.offset,
            requests=wanted.everything or "RequestAttributesSequence" in fields,
            asked=asked,
        )
    told = None if wanted.everything else frozenset(fields)
    body = [_match(root, one, level, told) for one in answer.found]
    response = web_models.many(answered, body) if body else Response(status_code=204)
    for text in _warnings(level, wanted, asking.unsupported, answer.more):
        response.headers.append(*root.warning(text))
    return response


def read(within: Mapping[str, str], parameters: Iterable[tuple[str, str]]) -> Asked:
    """The parameters of a search, beside what the URL names. Raises Invalid."""
    keys = dict(within)
    fields: set[str] = set()
    unknown: list[str] = []
    numbers = {"limit": LIMIT, "offset": 0}
    fuzzy = everything = False
    unserved: list[str] = []
    for name, value in parameters:
        match name:
            case "limit" | "offset":
                numbers[name] = _number(name, value)
            case "fuzzymatching":
                fuzzy = _flag(name, value)
            case "emptyvaluematching" | "multiplevaluematching":
                if _flag(name, value):
                    unserved.append(name)
            case "includefield":
                for field in value.split(","):
                    keyword = _keyword(field)
                    everything |= field == "all"
                    if keyword:
                        fields.add(keyword)
                    elif field != "all":
                        unknown.append(field)
            case "accept":
                pass
            case _:
                keyword = _keyword(name)
                if keyword is None:
                    unknown.append(name)
                elif keyword in keys:
                    raise Invalid(f"{keyword} is given twice")
                else:
                    keys[keyword] = value
    return Asked(
        keys, frozenset(fields), everything, tuple(unknown), numbers["limit"],
        numbers["offset"], fuzzy, tuple(unserved),
    )  # fmt: skip


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise Invalid(f"{name} is true or false")
    return value == "true"


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) > MAX_OFFSET:
        raise Invalid(f"{name} is a whole number of at most {MAX_OFFSET}")
    return int(value)


def _keyword(name: str) -> str | None:
    """The keyword, or path of keywords, for an attribute by keyword or tag (PS3.18 8.3.4.1).

    None where PS3.6 does not know it. Raises Invalid for what cannot be an attribute's name, since
    names, unlike values, are told back to the asker.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("a parameter is neither an attribute's keyword nor its tag")
    path = [
        keyword_for_tag(int(part, 16))
        if _TAG.fullmatch(part)
        else part * (tag_for_keyword(part) is not None)
        for part in name.split(".")
    ]
    return ".".join(path) if all(path) else None


def _fields(level: Level, within: Mapping[str, str]) -> set[str]:
    """What is told unasked: also of the levels above that the URL leaves open (10.6.3.3)."""
    told = set(RETURNED[level])
    if level > Level.STUDY and "StudyInstanceUID" not in within:
        told.update(RETURNED[Level.STUDY])
    if level > Level.SERIES and "SeriesInstanceUID" not in within:
        told.update(RETURNED[Level.SERIES])
    return told


def _match(
    root: Root, found: query.Found, level: Level, fields: frozenset[str] | None
) -> dict[str, Any]:
    known = attributes.describe(found, level, fields)
    told = {k: v for k, v in known.items() if fields is None or k in fields}
    told["SpecificCharacterSet"] = "ISO_IR 192"
    told["RetrieveURL"] = root.resource(
        found.study.study_instance_uid if found.study else "",
        found.series.series_instance_uid if found.series else None,
        found.instance.sop_instance_uid if found.instance else None,
    )
    return attributes.to_json(told)


def _returnable(level: Level) -> set[str]:
    levels = [at for at in Level if at <= level]
    return {
        *(keyword for keyword, attribute in ATTRIBUTES.items() if attribute.level in levels),
        *(keyword for at in levels for keyword in RETURNED.get(at, ())),
        *_ON_REQUEST,
    }


def _is_returnable(field: str, level: Level) -> bool:
    """Whether an attribute, or one in the items of a sequence, is among what can be told."""
    keyword, _, within = field.partition(".")
    return keyword in _returnable(level) and (
        not within or within in attributes.ITEMS.get(keyword, ())
    )


def _warnings(level: Level, wanted: Asked, unsupported: Sequence[str], more: bool) -> Iterator[str]:
    for name in wanted.unserved:  # in the words of 8.3.4.5 and 8.3.4.6
        kind = f"{name.removesuffix('valuematching').capitalize()} Value Matching"
        yield f"The {name} parameter is not supported. {kind} has not been performed."
    if wanted.fuzzy and (literal := sorted(filter(_is_literal, wanted.keys.items()))):
        names = some([keyword for keyword, _ in literal])
        yield f"Only literal matching has been performed of {names}"
    if ignored := sorted({*wanted.unknown, *unsupported}):
        yield f"Not supported for matching or returning, and ignored: {some(ignored)}"
    if absent := sorted(one for one in wanted.fields if not _is_returnable(one, level)):
        yield f"Not kept in the index, and left out: {some(absent)}"
    if more:
        yield "There are additional results that can be requested"


def _is_literal(key: tuple[str, str]) -> bool:
    """Whether it is a name that fuzzy matching leaves as it is (see `query.question`)."""
    keyword, value = key
    attribute = ATTRIBUTES.get(keyword)
    if attribute is None or not value.strip("*^= "):
        return False
    wild = bool(set(value) & set("*?"))
    return attribute.kind in {Kind.NAME, Kind.PERSON} and wild


def some(names: Sequence[str]) -> str:
    """As many as a header field has room for."""
    return ", ".join([*names[:NAMES], "and others"] if len(names) > NAMES else names)
