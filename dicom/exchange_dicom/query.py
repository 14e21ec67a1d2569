"""Matching keys to criteria, for C-FIND (PS3.4 C.2.2.2) and QIDO-RS (PS3.18 8.3.4) alike."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from pydicom.datadict import dictionary_VM

from exchange import issuers
from exchange.access import Access
from exchange.errors import Invalid
from exchange.orders import Moments
from exchange_dicom.attributes import tag_and_vr
from exchange_storage.search import (
    ATTRIBUTES,
    REQUESTED,
    Alike,
    AnyOf,
    Between,
    Criterion,
    Holds,
    Identifier,
    Kind,
    Level,
    Match,
    Matching,
    ModalitiesInStudy,
    Number,
    Pattern,
    Range,
    Requested,
    Values,
)

MAX_VALUES = 1024
"""Values of one matching key, at most."""
MAX_PATTERNS = 64
"""Those of them that have wildcards."""
MAX_LENGTH = 1024
"""Characters of one value."""

OTHER_NUMBER = "OtherPatientIDsSequence.PatientID"
OTHER_ISSUER = "OtherPatientIDsSequence.IssuerOfPatientID"
REQUEST_ATTRIBUTES = "RequestAttributesSequence"
OTHER_IDS = frozenset({"OtherPatientIDs", OTHER_NUMBER})
"""Keys that match any other identifier of the patient, such as an ID card."""

_REQUESTED = {f"{REQUEST_ATTRIBUTES}.{name}": name for name in REQUESTED}
_TAMED = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
"""VRs of numbers, in which ``*`` and ``?`` are no wildcards (C.2.2.2.4)."""
_PERSONS = frozenset({Kind.NAME, Kind.PERSON})
_SEVERAL = frozenset(
    keyword
    for keyword, attribute in ATTRIBUTES.items()
    if attribute.kind is Kind.TEXT and dictionary_VM(tag_and_vr(keyword)[0]) != "1"
)
"""Text whose Value Multiplicity is more than one (PS3.6); names are kept one by one."""

_DATE = re.compile(r"\d{8}|\d{4}\.\d\d\.\d\d")
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?")
_CLOCK = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d+)?)?)?")


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as criteria; and the keys that took part in matching, and those that did not.

    Universal matching is neither.
    """

    criteria: tuple[Criterion, ...]
    matched: frozenset[str]
    unsupported: tuple[str, ...]


def question(
    access: Access,
    level: Level,
    keys: Iterable[tuple[str, str]],
    *,
    combined: bool = False,
    fuzzy: bool = False,
    relational: bool = False,
) -> Question:
    """The criteria of `keys`: (keyword, value) pairs, "" or ``*`` for universal matching.

    With `combined` a date and the time beside it are one moment (C.2.2.2.5.4), with `fuzzy` names
    match that sound alike (C.2.2.2.1.1), with `relational` keys below `level` count too, of any
    one instance (C.4.1.3.2.1): for whoever has negotiated it. A patient number means the asker's
    own, unless an issuer is given (see `search.Number`). Other keys below `level`, and attributes
    that are not indexed, are listed as unsupported. Raises Invalid.
    """
    asked = {keyword: value.strip() for keyword, value in keys}
    issuer = stated(asked.pop("IssuerOfPatientID", ""))
    other_issuer = stated(asked.pop(OTHER_ISSUER, ""))
    if max(len(issuer), len(other_issuer)) > MAX_LENGTH:
        raise Invalid("the value of IssuerOfPatientID is too long")
    criteria: list[Criterion] = []
    below: list[Criterion] = []
    matched: set[str] = set()
    unsupported: list[str] = []
    within: list[tuple[str, Matching]] = []
    # What lies below a level is looked for among what is in use.
    in_use = not access.requester.rejected
    relational = relational and in_use
    if combined:
        criteria += _moments(asked, level)
    for keyword, value in asked.items():
        attribute = ATTRIBUTES.get(keyword)
        if universal(value, person=attribute is not None and attribute.kind in _PERSONS):
            continue
        if len(value) > MAX_LENGTH * (64 if keyword.endswith("UID") else 1):
            raise Invalid(f"the value of {keyword} is too long")
        matched.add(keyword)
        if keyword == "PatientID":
            criteria.append(number(access, issuer, text(value)))
        elif keyword in OTHER_IDS:
            in_item = keyword != "OtherPatientIDs"
            criteria.append(_other_number(access, other_issuer if in_item else "", value))
        elif keyword == "ModalitiesInStudy" and level is Level.STUDY:
            criteria.append(_modalities([one for one in re.split(r"[\\,]", value) if one]))
        elif keyword == "SOPClassesInStudy" and level is Level.STUDY and in_use:
            criteria.append(Holds((Match("SOPClassUID", matching("SOPClassUID", value)),)))
        elif keyword in _REQUESTED and (relational or level >= Level.SERIES):
            if value.strip("*"):
                within.append((_REQUESTED[keyword], text(value)))
        elif attribute is None or not (relational or attribute.level <= level):
            unsupported.append(keyword)
        else:
            how = (
                Alike(value)
                if fuzzy and attribute.kind in _PERSONS and not set(value) & set("*?")
                else matching(keyword, value)
            )
            (criteria if attribute.level <= level else below).append(_of_several(keyword, how))
    if within:
        (criteria if level >= Level.SERIES else below).append(Requested(tuple(within)))
    if below:
        criteria.append(Holds(tuple(below), level))
    if issuer and not stated(asked.get("PatientID", "")):
        unsupported.append("IssuerOfPatientID")
    if other_issuer and not stated(asked.get(OTHER_NUMBER, "")):
        unsupported.append(OTHER_ISSUER)
    return Question(tuple(criteria), frozenset(matched.difference(unsupported)), tuple(unsupported))


def _moments(asked: dict[str, str], level: Level) -> list[Criterion]:
    """The pairs of date and time that are ranges, taken out of `asked` as one criterion each."""
    found: list[Criterion] = []
    for keyword in [one for one in asked if one.endswith("Date")]:
        beside = f"{keyword.removesuffix('Date')}Time"
        attribute = ATTRIBUTES.get(keyword)
        if attribute is None or attribute.level > level or beside not in ATTRIBUTES:
            continue
        span = moments(keyword, asked[keyword], beside, asked.get(beside, ""))
        if span is not None:
            del asked[keyword], asked[beside]
            found.append(Between(keyword, beside, *span))
    return found


def moments(date_key: str, date: str, time_key: str, time: str) -> Moments | None:
    """The span from one date and time to another, where both keys are ranges of the same form.

    None where they are not: then each is matched for itself (C.2.2.2.5.4). Raises Invalid.
    """
    if "-" not in date or "-" not in time:
        return None
    days, times = of_kind(Kind.DATE, date_key, date), of_kind(Kind.TIME, time_key, time)
    match days, times:
        case Range(first, last), Range(begin, end):
            if (first is None) is not (begin is None) or (last is None) is not (end is None):
                return None
            low = None if first is None or begin is None else (first, begin)
            high = None if last is None or end is None else (last, end)
            return low, high
        case _:
            return None


def matching(keyword: str, value: str) -> Matching:
    """How `value` matches the indexed attribute, by its VR. Raises Invalid."""
    return of_kind(ATTRIBUTES[keyword].kind, keyword, value)


def of_kind(kind: Kind, keyword: str, value: str) -> Matching:
    """The same for an attribute that is kept elsewhere. Raises Invalid."""
    match kind:
        case Kind.UID:
            return _values([one.strip("\0 ") for one in re.split(r"[\\,]", value)])
        case Kind.DATE:
            return _span(keyword, value, _DATE, ".")
        case Kind.TIME:
            return _span(keyword, value, _TIME, ":")
        case Kind.TEXT | Kind.NUMBER | Kind.NAME | Kind.PERSON:
            return Values((value,)) if tag_and_vr(keyword)[1] in _TAMED else text(value)


def _of_several(keyword: str, how: Matching) -> Criterion:
    """Text that may have several values matches by any one of them, which all are returned."""
    match how:
        case Values((one,)) | Pattern(one) if keyword in _SEVERAL:
            around = (f"{one}\\*", f"*\\{one}", f"*\\{one}\\*")
            patterns = tuple(Match(keyword, Pattern(pattern)) for pattern in around)
            return AnyOf((Match(keyword, how), *patterns))
    return Match(keyword, how)


def universal(value: str, *, person: bool) -> bool:
    """Whether a value asks for nothing in particular (C.2.2.2.3); of a `person` also a name that
    has delimiters alone, as some write an empty one."""
    return not value.strip("*^= " if person else "*")


def stated(value: str) -> str:
    """`value`, "" where it is one for universal matching (C.2.2.2.3)."""
    return "" if universal(value, person=False) else value


def text(value: str) -> Values | Pattern:
    """Single value or wildcard matching of text."""
    return Pattern(value) if "*" in value or "?" in value else Values((value,))


def _modalities(wanted: Sequence[str]) -> Criterion:
    """Any one of the modalities, of which some may have wildcards."""
    patterns = [one for one in wanted if set(one) & set("*?")]
    if len(patterns) > MAX_PATTERNS:
        raise Invalid(f"a list may have at most {MAX_PATTERNS} values with wildcards")
    each = [ModalitiesInStudy(Pattern(one)) for one in patterns]
    if plain := [one for one in wanted if one not in patterns]:
        each.append(ModalitiesInStudy(_values(plain)))
    return each[0] if len(each) == 1 else AnyOf(tuple(each))


def _values(values: list[str]) -> Values:
    if len(values) > MAX_VALUES:
        raise Invalid(f"a list may have at most {MAX_VALUES} values")
    return Values(tuple(values))


def _span(keyword: str, value: str, form: re.Pattern[str], delimiter: str) -> Matching:
    low, dash, high = (part.strip() for part in value.partition("-"))
    if not all(form.fullmatch(part) for part in (low, high) if part) or not (low or high):
        raise Invalid(f"{keyword} is not a value or range of its VR")
    low, high = low.replace(delimiter, ""), high.replace(delimiter, "")
    if form is _DATE:
        low, high = _day(keyword, low), _day(keyword, high, ends=True)
    else:
        low, high = _hour(keyword, low), _hour(keyword, high, ends=True)
    if dash:
        return Range(low or None, high or None)
    if form is _TIME:
        # Times match by their meaning (C.2.2.2.1.3): one in less detail means all of its span.
        low = re.sub(r"\.?0*$", "", low) if "." in low else low
        return Range(low, low)
    return Values((low,))


def _day(keyword: str, written: str, *, ends: bool = False) -> str:
    """A day of the calendar. As the `ends` of a range the 31st of any month means its last day:
    who asks for a month often writes it so."""
    if not written:
        return ""
    year, month, day = int(written[:4]), int(written[4:6]), int(written[6:])
    try:
        if ends and day <= 31:
            day = min(day, monthrange(year, month)[1])
        date(year, month, day)
    except ValueError:
        raise Invalid(f"{keyword} is not a day of the calendar") from None
    return f"{year:04}{month:02}{day:02}"


def _hour(keyword: str, written: str, *, ends: bool = False) -> str:
    """A time of the day. As the `ends` of a range 24 means all of the day: who asks for a whole one
    may write it so."""
    if ends and re.fullmatch(r"240*", written.replace(".", "")):
        return "235959.999999"
    if written and not _CLOCK.fullmatch(written):
        raise Invalid(f"{keyword} is not a time of the day")
    return written


def number(access: Access, issuer: str, matching: Values | Pattern) -> Criterion:
    """A patient's number: the asker's own, or that of the hospital with an `issuer` unless "".

    See `issuers.meant`. One with wildcards means the number of each hospital whose issuer is like
    that.
    """
    if not issuer:
        return Number(access.requester.organization, matching)
    numbers = tuple(Number(one, matching) for one in issuers.meant(access, issuer))
    return numbers[0] if len(numbers) == 1 else AnyOf(numbers)


def _other_number(access: Access, issuer: str, value: str) -> Criterion:
    """Another number of the patient's: an ID card, or the number of another hospital.

    It is one that stands in Other Patient IDs Sequence, so it means no hospital's in particular
    unless the `issuer` that stands beside it there is given.
    """
    # A local name stands there for what is no hospital's, as for cards.
    if issuer and issuers.meant(access, issuer, locally=False):
        return number(access, issuer, text(value))
    wild = bool(set(value) & set("*?"))
    if issuer:
        bare = issuer.removeprefix("urn:oid:")
        return AnyOf(tuple(Identifier(value, one, wild) for one in (bare, f"urn:oid:{bare}")))
    return AnyOf((Identifier(value, wild=wild), Match("PatientID", text(value))))
