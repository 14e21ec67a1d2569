"""Matching keys to criteria, for C-FIND (PS3.4 C.2.2.2) and QIDO-RS (PS3.18 8.3.4) alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from exchange import organizations
from exchange.access import Access
from exchange.errors import Invalid
from exchange_storage.search import (
    ATTRIBUTES,
    Alike,
    AnyOf,
    Between,
    Criterion,
    Identifier,
    Kind,
    Level,
    Match,
    Matching,
    ModalitiesInStudy,
    Number,
    Pattern,
    Range,
    Values,
)

MAX_VALUES = 1024
"""Values of one matching key, at most."""
MAX_LENGTH = 1024
"""Characters of one value."""

OTHER_IDS = frozenset({"OtherPatientIDs", "OtherPatientIDsSequence.PatientID"})
"""Keys that match any other identifier of the patient, such as an ID card."""

_DATE = re.compile(r"\d{8}|\d{4}\.\d\d\.\d\d")
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as criteria; and the keys that took no part in matching."""

    criteria: tuple[Criterion, ...]
    unsupported: tuple[str, ...]


def question(
    access: Access,
    level: Level,
    keys: Iterable[tuple[str, str]],
    *,
    combined: bool = False,
    fuzzy: bool = False,
) -> Question:
    """The criteria of `keys`: (keyword, value) pairs, "" or ``*`` for universal matching.

    With `combined` a date and the time beside it are one moment (C.2.2.2.5.4), with `fuzzy` names
    match that sound alike (C.2.2.2.1.1): for whoever has negotiated it. A patient number means
    the asker's own, unless an issuer is given (see `search.Number`). Keys below `level`, and
    attributes that are not indexed, are listed as unsupported. Raises Invalid.
    """
    asked = {keyword: value.strip() for keyword, value in keys}
    issuer = asked.pop("IssuerOfPatientID", "")
    criteria: list[Criterion] = []
    unsupported: list[str] = []
    if combined:
        criteria += _moments(asked, level)
    for keyword, value in asked.items():
        if not value or set(value) == {"*"}:
            continue
        if len(value) > MAX_LENGTH * (64 if keyword.endswith("UID") else 1):
            raise Invalid(f"the value of {keyword} is too long")
        if keyword == "PatientID":
            criteria.append(_number(access, issuer, text(value)))
        elif keyword in OTHER_IDS:
            criteria.append(Identifier(value))
        elif keyword == "ModalitiesInStudy" and level is Level.STUDY:
            wanted = [one for one in re.split(r"[\\,]", value) if one]
            criteria.append(ModalitiesInStudy(text(value) if len(wanted) == 1 else _values(wanted)))
        elif fuzzy and keyword == "PatientName" and not set(value) & set("*?"):
            criteria.append(Match(keyword, Alike(value)))
        elif keyword in ATTRIBUTES and ATTRIBUTES[keyword].level <= level:
            criteria.append(Match(keyword, matching(keyword, value)))
        else:
            unsupported.append(keyword)
    if issuer and "PatientID" not in asked:
        unsupported.append("IssuerOfPatientID")
    return Question(tuple(criteria), tuple(unsupported))


def _moments(asked: dict[str, str], level: Level) -> list[Criterion]:
    """The pairs of date and time of which one is a range, taken out of `asked` as one criterion."""
    found: list[Criterion] = []
    for keyword in [one for one in asked if one.endswith("Date")]:
        beside = f"{keyword.removesuffix('Date')}Time"
        attribute = ATTRIBUTES.get(keyword)
        if (
            attribute is None
            or attribute.level > level
            or beside not in ATTRIBUTES
            or not asked[keyword]
            or not asked.get(beside)
            or "-" not in asked[keyword] + asked[beside]
        ):
            continue
        days = _ends(matching(keyword, asked.pop(keyword)))
        times = _ends(matching(beside, asked.pop(beside)))
        low, high = (
            None if day is None else (day, at or "") for day, at in zip(days, times, strict=True)
        )
        found.append(Between(keyword, beside, low, high))
    return found


def _ends(span: Matching) -> tuple[str | None, str | None]:
    match span:
        case Range(low, high):
            return low, high
        case Values((one,)):
            return one, one
        case _:
            return None, None


def matching(keyword: str, value: str) -> Matching:
    """How `value` matches the attribute, by its VR. Raises Invalid."""
    match ATTRIBUTES[keyword].kind:
        case Kind.UID:
            return _values([one.strip("\0 ") for one in re.split(r"[\\,]", value)])
        case Kind.DATE:
            return _span(keyword, value, _DATE, ".")
        case Kind.TIME:
            return _span(keyword, value, _TIME, ":")
        case Kind.TEXT | Kind.NUMBER | Kind.NAME | Kind.PERSON:
            return text(value)


def text(value: str) -> Values | Pattern:
    """Single value or wildcard matching of text."""
    return Pattern(value) if "*" in value or "?" in value else Values((value,))


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
        for day in filter(None, (low, high)):
            try:
                datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
            except ValueError:
                raise Invalid(f"{keyword} is not a day of the calendar") from None
    if dash:
        return Range(low or None, high or None)
    if delimiter == ":" and len(low) < 6:
        return Range(low, low)  # a time in less detail means all of its span
    return Values((low,))


def _number(access: Access, issuer: str, matching: Values | Pattern) -> Criterion:
    if not issuer:
        return Number(access.requester.organization, matching)
    organization = organizations.by_issuer(access.session, issuer)
    return AnyOf(()) if organization is None else Number(organization.id, matching)
