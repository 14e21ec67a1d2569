"""The one matcher: attribute criteria to SELECT, for C-FIND, QIDO-RS and FHIR search alike.

Criteria become SQL in two steps: `form` tells their form from their values, `condition` builds the
SQL of a form. Questions of one form share one statement, so that none is built anew for a value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union,
)
from sqlalchemy import String as SQLString
from sqlalchemy.orm import InstrumentedAttribute

from exchange_storage import names
from exchange_storage.criteria import (
    ATTRIBUTES,
    Alike,
    AllOf,
    AnyOf,
    Attribute,
    Between,
    Changed,
    Contains,
    Criterion,
    Exact,
    Holds,
    Identifier,
    Kind,
    Level,
    Match,
    Matching,
    ModalitiesInStudy,
    NamePart,
    Number,
    Owned,
    Pattern,
    Prefix,
    Range,
    Rows,
    SamePerson,
    Values,
)
from exchange_storage.records import (
    Instance,
    NameKind,
    Patient,
    PatientIdentifier,
    PatientName,
    Series,
    Study,
)

__all__ = [
    "ATTRIBUTES",
    "Alike",
    "AllOf",
    "AnyOf",
    "Attribute",
    "Between",
    "Changed",
    "Contains",
    "Criterion",
    "Exact",
    "Holds",
    "Identifier",
    "Kind",
    "Level",
    "Match",
    "Matching",
    "ModalitiesInStudy",
    "NamePart",
    "Number",
    "Owned",
    "Pattern",
    "Prefix",
    "Range",
    "Rows",
    "SamePerson",
    "Values",
    "between",
    "compare",
    "condition",
    "form",
    "parameters",
    "selective",
    "where",
]

Form = Hashable
"""What criteria have in common with all others that differ in their values only: nested tuples."""

_ROW: Mapping[Level, InstrumentedAttribute[int]] = {
    Level.PATIENT: Patient.id,
    Level.STUDY: Study.id,
    Level.SERIES: Series.id,
    Level.IMAGE: Instance.id,
}

_BELOW: Mapping[Level, tuple[type[Patient | Study | Series], InstrumentedAttribute[Any]]] = {
    Level.PATIENT: (Patient, Study.patient_id),
    Level.STUDY: (Study, Series.study_id),
    Level.SERIES: (Series, Instance.series_id),
}
"""Records that hold others, and how those point to them."""

FEW_DAYS = timedelta(days=7)
"""Within so many days it is quicker to look at each study than for everybody of a name."""

_LONGEST = 4096
"""Characters of the longest text that a column keeps."""

_NUMBER = re.compile(r"\+?0*[0-9]{1,9}")
_LAST = "\U0010ffff"
_NEVER = ("never",)

_Alias = Patient.__table__.alias("known_as")
_Same = Patient.__table__.alias("same_person")
"""The patient table again: the record under which somebody asks, and the others of that person."""


def where(criteria: Sequence[Criterion]) -> ColumnElement[bool]:
    """All of `criteria` as one SQL condition over the joined tables of the level and above."""
    values: list[Any] = []
    return _built(form(criteria, values), (bindparam(None, value) for value in values))


def compare(column: Any, matching: Matching, kind: Kind = Kind.TEXT) -> ColumnElement[bool]:
    """`column` against `matching`, in the manner of its kind."""
    values: list[Any] = []
    compared = _comparison(matching, kind, values)
    return _compare(column, compared, iter([bindparam(None, value) for value in values]))


def between(
    date: Any, time: Any, low: tuple[str, str] | None, high: tuple[str, str] | None
) -> ColumnElement[bool]:
    """Two columns as one moment within a span, see `criteria.Between`."""
    binds: list[BindParameter[Any]] = [
        bindparam(None, one)
        for day, moment in filter(None, (low, high))
        for one in (day, moment, len(moment))
    ]
    return _between(date, time, low is not None, high is not None, iter(binds))


def condition(criteria: Form) -> ColumnElement[bool]:
    """The condition of a form, to be run with `parameters` of the values that `form` gave."""
    return _built(criteria, (bindparam(f"v{number}") for number in range(1 << 20)))


def parameters(values: Sequence[Any]) -> dict[str, Any]:
    """The values of a form as parameters of its `condition`."""
    return {f"v{number}": value for number, value in enumerate(values)}


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
        case ModalitiesInStudy() | Owned() | Changed():
            return False
        case Between() | SamePerson() | Rows():
            return True
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
            return ("match", keyword, _comparison(matching, kind, values))
        case Between(date, time, low, high):
            for end in (low, high):
                values += [] if end is None else [end[0], end[1], len(end[1])]
            return ("between", date, time, low is not None, high is not None)
        case ModalitiesInStudy(matching):
            return ("modalities", _comparison(matching, Kind.TEXT, values))
        case Number(None, matching):
            return ("match", "PatientID", _comparison(matching, Kind.TEXT, values))
        case Number(organization, matching):
            values.append(organization)
            return ("number", _comparison(matching, Kind.TEXT, values))
        case Identifier():
            return _identifiers_form([criterion], values)
        case NamePart(kind, matching):
            return _name_form(matching, kind, values)
        case SamePerson(patient):
            values.append(patient)
            return ("same person",)
        case Owned(organizations):
            return ("owned", _among(organizations, values))
        case Holds(criteria, level):
            return ("holds", level, selective(criteria), form(criteria, values))
        case Rows(level, ids):
            return ("rows", level, _among(ids, values))
        case Changed(level, since, before):
            values += [end for end in (since, before) if end is not None]
            return ("changed", level is Level.PATIENT, since is not None, before is not None)
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
            return ("numbered", _comparison(matching, Kind.TEXT, values))
        case _:
            return _form(criterion, values)


def _comparison(matching: Matching, kind: Kind, values: list[Any]) -> Form:
    if kind is Kind.NUMBER:
        return _numeric(matching, values)
    match matching:
        case Values(wanted) if kind is Kind.PERSON:
            return (
                "or",
                tuple([_group(one, values) for value in wanted for one in _groups(value)]),
            )
        case Pattern(pattern) if kind is Kind.PERSON:
            return ("or", tuple([_group(one, values) for one in _groups(pattern, wild=True)]))
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


def _groups(value: str, *, wild: bool = False) -> Iterator[str]:
    """The component groups of a PN value as patterns, without trailing delimiters; in full width
    also as they are in half."""
    narrow = unicodedata.normalize("NFKC", value)
    for group in (*value.split("=")[:3], *(narrow.split("=")[:3] if narrow != value else ())):
        if asked := _lowered(group.strip().rstrip("^ ")):
            escaped = _escaped(asked)
            yield re.sub(r"\*+", "%", escaped).replace("?", "_") if wild else escaped


def _group(pattern: str, values: list[Any]) -> Form:
    if len(pattern.replace("%", "")) > _LONGEST:
        return _NEVER
    values.append(f"%={pattern}=%")
    return ("group",)


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
    if kind is not None:
        values.append(kind.value)
    found: list[Form]
    written = False
    match matching:
        case Prefix(text):
            found = [_starts(one, values) for one in names.asked(text)]
        case Values(wanted):
            # Full names are kept without the delimiter too: whoever sent one need not know it.
            asked = (one for value in wanted for one in names.asked(value))
            found = [_among([plain for one in asked if (plain := one.replace("^", ""))], values)]
        case Pattern(pattern):
            found = [_like(one, values) for one in names.asked(pattern)]
        case Contains(text):
            found = [_contains(one, values) for one in names.asked(text)]
        case Alike(text) if _stem(text) != text:
            found = [_like(one, values) for one in names.alike(text)]
        case Alike(text):
            alike = [plain for one in names.alike(text) if (plain := one.replace("^", ""))]
            found = [_among(alike, values)]
        case Exact(text):
            # The keys are folded: they find the part, the name as it was written confirms it.
            found = [_among(names.asked(text), values)]
            written = len(text) <= _LONGEST
            if not written:
                return _NEVER
            values.append(f"%{_escaped(text)}%")
        case Range():
            return _NEVER
    return ("name", kind is not None, tuple(found), written)


# From a form to SQL: the binds are taken in the order in which the values were added.

_Binds = Iterator[BindParameter[Any]]


def _built(form: Any, binds: _Binds) -> ColumnElement[bool]:
    match form:
        case ("all", parts):
            return and_(true(), *[_built(part, binds) for part in parts])
        case ("any", parts):
            return _any(parts, binds)
        case ("match", keyword, compared):
            return _compare(ATTRIBUTES[keyword].column, compared, binds)
        case ("between", date, time, has_low, has_high):
            return _between(
                ATTRIBUTES[date].column, ATTRIBUTES[time].column, has_low, has_high, binds
            )
        case ("modalities", compared):
            return exists(
                select(literal(1))
                .select_from(Series)
                .where(Series.study_id == Study.id, _compare(Series.modality, compared, binds))
                .correlate(Study)
            )
        case ("number", compared):
            organization = next(binds)
            known = and_(
                _Alias.c.organization_id == organization,
                _compare(_Alias.c.patient_id, compared, binds),
            )
            return _persons(known)
        case ("same person",):
            return _persons(_Alias.c.id == next(binds))
        case ("identified", _):
            return Patient.id.in_(_patients(form, binds))
        case ("name" | "named" as name, of_kind, found, written):
            kind = PatientName.kind == next(binds) if of_kind else true()
            keys = or_(false(), *[_compare(PatientName.key, one, binds) for one in found])
            rows = select(PatientName.patient_id).where(kind, keys)
            named = (
                Patient.id.in_(rows)
                if name == "name"
                else exists(rows.where(PatientName.patient_id == Patient.id).correlate(Patient))
            )
            return and_(named, _written(next(binds))) if written else named
        case ("owned", compared):
            return _compare(Patient.organization_id, compared, binds)
        case ("holds", level, few, criteria):
            return _holding(level, _built(criteria, binds), few=few)
        case ("rows", level, compared):
            return _compare(_ROW[level], compared, binds)
        case ("changed", of_patient, since, before):
            column = Patient.changed if of_patient else Study.changed
            return and_(
                column >= next(binds) if since else true(),
                column < next(binds) if before else true(),
            )
        case ("never",):
            return false()
    raise TypeError("not a form of criteria")


def _any(parts: Sequence[Any], binds: _Binds) -> ColumnElement[bool]:
    """At least one of the parts; those that are looked up by an index in one sub-select, since
    PostgreSQL would look into every patient for an OR of two."""
    looked_up: list[Select[Any]] = []
    found: list[ColumnElement[bool]] = []
    for part in parts:
        if part[0] in ("identified", "numbered"):
            looked_up.append(_patients(part, binds))
        else:
            found.append(_built(part, binds))
    if looked_up:
        found.append(Patient.id.in_(union(*looked_up) if len(looked_up) > 1 else looked_up[0]))
    return or_(false(), *found)


def _patients(form: Any, binds: _Binds) -> Select[Any]:
    """The rows of the patients who have an identifier, or a number in their own hospital."""
    match form:
        case ("numbered", compared):
            return select(_Alias.c.id).where(_compare(_Alias.c.patient_id, compared, binds))
        case ("identified", found):
            each = []
            for of_system, compared in found:
                value = _compare(PatientIdentifier.value, compared, binds)
                each.append(
                    and_(value, PatientIdentifier.system == next(binds)) if of_system else value
                )
            return select(PatientIdentifier.patient_id).where(or_(false(), *each))
    raise TypeError("not a form of what a patient is known by")


def _compare(column: Any, form: Any, binds: _Binds) -> ColumnElement[bool]:
    match form:
        case ("never",):
            return false()
        case ("among", 1):
            return or_(false(), column == next(binds))
        case ("among", size):
            return or_(false(), column.in_([next(binds) for _ in range(size)]))
        case ("starts",):
            return and_(column >= next(binds), column < next(binds))
        case ("like", True):
            return and_(
                column >= next(binds),
                column < next(binds),
                column.like(next(binds), escape="\\"),
            )
        case ("like", False):
            return or_(false(), column.like(next(binds), escape="\\"))
        case ("decimal", like):
            return _compare(cast(column, SQLString), like, binds)
        case ("contains",):
            return or_(false(), func.lower(column).like(next(binds), escape="\\"))
        case ("group",):
            delimited = literal("=") + func.lower(column) + literal("=")
            return or_(false(), delimited.like(next(binds), escape="\\"))
        case ("or", parts):
            return or_(false(), *[_compare(column, part, binds) for part in parts])
        case ("range", of_time, has_low, has_high):
            low = column >= next(binds) if has_low else true()
            high: ColumnElement[bool] = true()
            if has_high:
                # A time given in less detail means all of its span: 10 is 10:00 to 10:59.
                end = next(binds)
                high = func.substr(column, 1, next(binds)) <= end if of_time else column <= end
            return and_(column != "", low, high)
    raise TypeError("not a form of a comparison")


def _between(
    date: Any, time: Any, has_low: bool, has_high: bool, binds: _Binds
) -> ColumnElement[bool]:
    """A day at an end counts as far as the time says, or all of it where no time is known."""
    conditions: list[ColumnElement[bool]] = [date != ""]
    if has_low:
        day, moment, _ = next(binds), next(binds), next(binds)
        conditions += [date >= day, or_(date > day, time == "", time >= moment)]
    if has_high:
        day, moment, length = next(binds), next(binds), next(binds)
        conditions += [
            date <= day,
            or_(date < day, time == "", length == 0, func.substr(time, 1, length) <= moment),
        ]
    return and_(*conditions)


def _persons(known: ColumnElement[bool]) -> ColumnElement[bool]:
    """The records that are `known`, and every other record of the same persons.

    A union, since neither database uses an index for each half of an OR of sub-selects.
    """
    others = (
        select(_Same.c.id)
        .select_from(_Alias)
        .join(_Same, _Same.c.person_id == _Alias.c.person_id)
        .where(known)
    )
    return Patient.id.in_(union(select(_Alias.c.id).where(known), others))


def _holding(level: Level, condition: ColumnElement[bool], *, few: bool) -> ColumnElement[bool]:
    """The records of a level below which there is a primary instance with the condition.

    Where `few` have it they are looked up first, else each record is looked into.
    """
    record, parent = _BELOW[level]
    below = select(parent).select_from(Instance)
    if level < Level.SERIES:
        below = below.join(Series, Series.id == Instance.series_id)
    if level < Level.STUDY:
        below = below.join(Study, Study.id == Series.study_id)
    below = below.where(Instance.is_primary, condition)
    if few:
        return record.id.in_(below.correlate(None))
    return exists(below.where(parent == record.id).correlate(record))


def _written(text: BindParameter[Any]) -> ColumnElement[bool]:
    return or_(
        *[
            func.replace(Patient.name, "^", between).like(text, escape="\\")
            for between in ("^", " ", "")
        ]
    )
