"""From criteria to their form: what questions have in common that differ in their values only.

`search` makes SQL of a form once, however many ask in that form.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from exchange_storage import names
from exchange_storage.criteria import (
    ATTRIBUTES,
    Alike,
    AllOf,
    AnyOf,
    Between,
    BodyPart,
    Changed,
    Contains,
    Criterion,
    Exact,
    Holds,
    Identifier,
    Kind,
    Level,
    Linked,
    Match,
    Matching,
    ModalitiesInStudy,
    NamePart,
    Not,
    Number,
    Ordered,
    Owned,
    Pattern,
    Prefix,
    Range,
    Replaced,
    Requested,
    Rows,
    SamePerson,
    Values,
)
from exchange_storage.records import NameKind

Form = Hashable
"""What criteria have in common with all others that differ in their values only: nested tuples."""

FEW_DAYS = timedelta(days=7)
"""Within so many days it is quicker to look at each study than for everybody of a name."""

_LONGEST = 4096
"""Characters of the longest text that a column keeps."""

_NUMBER = re.compile(r"\+?0*[0-9]{1,9}")
_LAST = "\U0010ffff"
_NEVER = ("never",)


def selective(criteria: Sequence[Criterion]) -> bool:
    """Whether some criterion finds few among many by an index (see `Attribute.selective`)."""
    return any(map(_selective, criteria))


def _selective(criterion: Criterion) -> bool:
    match criterion:
        case Match(keyword, matching):
            return ATTRIBUTES[keyword].selective and _bounded(matching)
        case Number(_, matching) | NamePart(_, matching):
            return _bounded(matching)
        case Identifier(value, _, wild):
            return not wild or _stem(value) != ""
        case ModalitiesInStudy() | BodyPart() | Owned() | Replaced() | Ordered():
            return False
        case Changed() | Linked() | Not():
            return False
        case Between() | SamePerson() | Rows():
            return True
        case Requested(within):
            return any(_bounded(matching) for _, matching in within)
        case AnyOf(criteria):
            return all(map(_selective, criteria))
        case AllOf(criteria) | Holds(criteria):
            return any(map(_selective, criteria))


def _bounded(matching: Matching) -> bool:
    match matching:
        case Pattern(text) | Alike(text):
            return _stem(text.lstrip("=")) != ""
        case Contains():
            return False
        case _:
            return True


def _stem(pattern: str) -> str:
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


# From criteria to their form: `values` takes what the form leaves out, in the order of the binds.


def form(criteria: Sequence[Criterion], values: list[Any]) -> Form:
    """The form of all of `criteria` together; their values are added to `values`."""
    parts: tuple[Any, ...] = tuple([_form(criterion, values) for criterion in criteria])
    if any(_few_days(criterion) for criterion in criteria):
        # A surname is that of thousands, whose studies are of all days: the day's come first.
        parts = tuple([("named", *one[1:]) if _wide(one) else one for one in parts])
    return ("all", parts)


def looked_into(form: Any) -> Form:
    """A form of criteria of which one record is looked at by itself, not all that fulfil it."""
    match form:
        case ("name", *rest):
            return ("named", *rest)
        case ("all" | "any" as name, parts):
            return (name, tuple([looked_into(part) for part in parts]))
        case ("not", part):
            return ("not", looked_into(part))
    found: Form = form
    return found


def _wide(form: Any) -> bool:
    """Whether it is of a name that is not given whole."""
    return form[0] == "name" and any(found[0] != "among" for found in form[2])


def _few_days(criterion: Criterion) -> bool:
    match criterion:
        case Match("StudyDate", Values()):
            return True
        case Match("StudyDate", Range(str(low), str(high))):
            try:
                days = (datetime.strptime(one, "%Y%m%d").replace(tzinfo=UTC) for one in (high, low))
                return next(days) - next(days) <= FEW_DAYS
            except ValueError:
                return False
        case _:
            return False


def _form(criterion: Criterion, values: list[Any]) -> Form:
    match criterion:
        case Match(keyword, matching):
            kind = ATTRIBUTES[keyword].kind
            if kind is Kind.NAME:
                return _name_form(matching, NameKind.FULL, values)
            if keyword == "AccessionNumber":  # the study's own, and the further ones
                comparison(matching, kind, values)
            return ("match", keyword, comparison(matching, kind, values))
        case Between(date, time, low, high):
            for end in (low, high):
                values += [] if end is None else [end[0], end[1], len(end[1])]
            return ("between", date, time, low is not None, high is not None)
        case ModalitiesInStudy(matching):
            return ("modalities", comparison(matching, Kind.TEXT, values))
        case BodyPart(matching):
            return ("body part", comparison(matching, Kind.TEXT, values))
        case Number(None, matching):
            return ("match", "PatientID", comparison(matching, Kind.TEXT, values))
        case Number(organization, matching):
            values.append(organization)
            return ("number", comparison(matching, Kind.TEXT, values))
        case Identifier():
            return _identifiers_form([criterion], values)
        case NamePart(kind, matching):
            return _name_form(matching, kind, values)
        case SamePerson(patient):
            values.append(patient)
            return ("same person",)
        case Owned(organizations):
            return ("owned", _among(organizations, values))
        case Replaced():
            return ("replaced",)
        case Ordered():
            return ("ordered",)
        case Requested(within):
            parts = [(name, comparison(how, Kind.TEXT, values)) for name, how in within]
            return ("requested", tuple(parts))
        case Holds(criteria, level):
            return ("holds", level, selective(criteria), form(criteria, values))
        case Rows(level, ids):
            return ("rows", level, _among(ids, values))
        case Changed(level, since, before):
            values += [end for end in (since, before) if end is not None]
            return ("changed", level is Level.PATIENT, since is not None, before is not None)
        case Linked(level, link):
            return ("linked", level, link.form(values))
        case Not(inner):
            return ("not", _form(inner, values))
        case AnyOf(criteria):
            identifiers = [one for one in criteria if isinstance(one, Identifier)]
            others = [one for one in criteria if not isinstance(one, Identifier)]
            together = [_identifiers_form(identifiers, values)] if identifiers else []
            return ("any", tuple(together + [_alternative(one, values) for one in others]))
        case AllOf(criteria):
            return form(criteria, values)


def _alternative(criterion: Criterion, values: list[Any]) -> Form:
    match criterion:
        case Match("PatientID", matching) | Number(None, matching):
            return ("numbered", comparison(matching, Kind.TEXT, values))
        case _:
            return _form(criterion, values)


def comparison(matching: Matching, kind: Kind, values: list[Any]) -> Form:
    """The form of one attribute against `matching`, in the manner of its kind."""
    if kind is Kind.NUMBER:
        return _numeric(matching, values)
    match matching:
        case Values() | Pattern() | Prefix() | Contains() | Alike() if kind is Kind.PERSON:
            return ("person", tuple(_keys_form(matching, values)))
        case Values(wanted):
            return _among(wanted, values)
        case Pattern(pattern):
            return _like(pattern, values)
        case Prefix(text):
            return _starts(text, values)
        case Contains(text):
            return _contains(text, values)
        case Exact(text):
            return _among((text,), values)
        case Alike():
            return _NEVER
        case Range(low, high):
            values += [end for end in (low, high) if end is not None]
            if kind is Kind.TIME and high is not None:
                values.append(len(high))
            return ("range", kind is Kind.TIME, low is not None, high is not None)


def _among(wanted: Sequence[Any], values: list[Any]) -> Form:
    """Equal to one of them; lists are filled up so that there are few forms of them."""
    if not wanted:
        return _NEVER
    size = 1 << (len(wanted) - 1).bit_length()
    values += [*wanted, *([wanted[-1]] * (size - len(wanted)))]
    return ("among", size)


def _starts(text: str, values: list[Any]) -> Form:
    """A prefix as a range of bytes, which an index can answer."""
    values += [text, text + _LAST]
    return ("starts",)


def _contains(text: str, values: list[Any]) -> Form:
    if len(text) > _LONGEST:
        return _NEVER
    # The column's own collation folds ASCII alone; the same is done to the text here.
    values.append(f"%{_escaped(_lowered(text))}%")
    return ("contains",)


def _like(pattern: str, values: list[Any], *, indexed: bool = True) -> Form:
    pattern = re.sub(r"\*+", "*", pattern)
    if len(pattern.replace("*", "")) > _LONGEST:
        return _NEVER  # SQLite refuses very long patterns rather than finding nothing
    stem = _stem(pattern) if indexed else ""
    if stem:
        _starts(stem, values)
    values.append(_escaped(pattern).replace("*", "%").replace("?", "_"))
    return ("like", bool(stem))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")


def _lowered(text: str) -> str:
    return "".join([c.lower() if c.isascii() else c for c in text])


def _numeric(matching: Matching, values: list[Any]) -> Form:
    """Numbers are kept as integers below 2**31; as text they are matched in decimal."""
    match matching:
        case Values(wanted):
            numbers = (value.strip() for value in wanted)
            return _among([int(n) for n in numbers if _NUMBER.fullmatch(n)], values)
        case Pattern(pattern):
            return ("decimal", _like(pattern, values, indexed=False))
        case _:
            return _NEVER


def _identifiers_form(identifiers: Sequence[Identifier], values: list[Any]) -> Form:
    """Any of the identifiers, in one sub-select: a card is asked for under several systems."""
    of_system: dict[str | None, list[str]] = {}
    for one in identifiers:
        if not one.wild:
            of_system.setdefault(one.system, []).append(one.value)
    found: list[Form] = []
    for system, exact in of_system.items():
        found.append((system is not None, _among(exact, values)))
        values += [] if system is None else [system]
    for one in identifiers:
        if one.wild:
            found.append((one.system is not None, _like(one.value, values)))
            values += [] if one.system is None else [one.system]
    return ("identified", tuple(found))


def _name_form(matching: Matching, kind: NameKind | None, values: list[Any]) -> Form:
    if isinstance(matching, Range):
        return _NEVER
    if isinstance(matching, Exact) and len(matching.text) > _LONGEST:
        return _NEVER
    if kind is not None:
        values.append(kind.value)
    found = tuple(_keys_form(matching, values))
    if isinstance(matching, Exact):
        # The keys are folded: they find the part, the name as it was written confirms it.
        values.append(f"%{_escaped(matching.text)}%")
    return ("name", kind is not None, found, isinstance(matching, Exact))


def _keys_form(matching: Matching, values: list[Any]) -> list[Form]:
    """The forms of which a search key of a name must have one."""
    match matching:
        case Prefix(text):
            return [_starts(one, values) for one in names.asked(text)]
        case Values(wanted):
            return [_among([key for value in wanted for key in sorted(names.whole(value))], values)]
        case Pattern(pattern):
            return [_like(one, values) for one in names.asked(pattern)]
        case Contains(text):
            return [_contains(one, values) for one in names.asked(text)]
        case Alike(text) if _stem(text) != text:
            return [_like(one, values) for one in names.alike(text)]
        case Alike(text):
            return [_among(sorted(names.alike_whole(text)), values)]
        case Exact(text):
            return [_among(names.asked(text), values)]
        case Range():
            return []
