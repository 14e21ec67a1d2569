"""The one matcher: attribute criteria to SELECT, for C-FIND, QIDO-RS and FHIR search alike.

Criteria become SQL in two steps: `form` tells their form from their values, `condition` builds the
SQL of a form. Questions of one form share one statement, so that none is built anew for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
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
    not_,
    or_,
    select,
    true,
    union,
)
from sqlalchemy import String as SQLString
from sqlalchemy.orm import InstrumentedAttribute

from exchange_storage.constructs import looked_up
from exchange_storage.criteria import (
    ATTRIBUTES,
    REQUESTED,
    Alike,
    AllOf,
    AnyOf,
    Attribute,
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
from exchange_storage.forms import Form, comparison, form, selective
from exchange_storage.records import (
    FurtherAccessionNumber,
    Instance,
    Order,
    Patient,
    PatientIdentifier,
    PatientName,
    PersonNameKey,
    RequestAttributes,
    Series,
    Study,
)
from exchange_storage.rows import there_is

__all__ = [
    "ATTRIBUTES",
    "REQUESTED",
    "Alike",
    "AllOf",
    "AnyOf",
    "Attribute",
    "Between",
    "BodyPart",
    "Changed",
    "Contains",
    "Criterion",
    "Exact",
    "Holds",
    "Identifier",
    "Kind",
    "Level",
    "Linked",
    "Match",
    "Matching",
    "ModalitiesInStudy",
    "NamePart",
    "Not",
    "Number",
    "Ordered",
    "Owned",
    "Pattern",
    "Prefix",
    "Range",
    "Replaced",
    "Requested",
    "Rows",
    "SamePerson",
    "Values",
    "between",
    "compare",
    "condition",
    "form",
    "has_name",
    "named",
    "named_first",
    "parameters",
    "selective",
    "where",
]

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


Binds = Iterator[BindParameter[Any]]
"""Parameters of a statement, in the order in which a form's values were added."""

Links = Callable[[Level, Any, Binds], ColumnElement[bool]]
"""Makes the condition on a level's record of the form of a link to clinical resources."""


_Alias = Patient.__table__.alias("known_as")
_Same = Patient.__table__.alias("same_person")
"""The patient table again: the record under which somebody asks, and the others of that person."""


_Numbered = Study.__table__.alias("numbered")
"""The study table again, to be looked up by its accession numbers."""


def where(criteria: Sequence[Criterion]) -> ColumnElement[bool]:
    """All of `criteria` as one SQL condition over the joined tables of the level and above."""
    values: list[Any] = []
    return _built(form(criteria, values), (bindparam(None, value) for value in values))


def compare(column: Any, matching: Matching, kind: Kind = Kind.TEXT) -> ColumnElement[bool]:
    """`column` against `matching`, in the manner of its kind."""
    values: list[Any] = []
    compared = comparison(matching, kind, values)
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


def condition(
    criteria: Form, links: Links | None = None, binds: Binds | None = None
) -> ColumnElement[bool]:
    """The condition of a form, to be run with `parameters` of the values that `form` gave.

    `links` makes the conditions of `Linked`; `binds` are given where a form is part of another.
    """
    return _built(criteria, numbered() if binds is None else binds, links)


def named_first(criteria: Form) -> Form:
    """A form of criteria on patients in the order of their row numbers: where a name tells most,
    whoever has it is listed, and looked at in that order until a page is full.

    PostgreSQL would look at all of them before it puts them in order.
    """
    match criteria:
        case ("all", (("name", *rest), *others)) if not any(map(_is_looked_up, others)):
            return ("all", (("name in order", *rest), *others))
    return criteria


def _is_looked_up(form: Any) -> bool:
    """Whether a condition may find fewer by an index than a name does."""
    match form:
        case ("match", keyword, _):
            return ATTRIBUTES[keyword].selective
        case ("not", _) | ("owned", _) | ("replaced",):
            return False
    return True


def named(level: Level, criteria: Any, binds: Binds) -> Select[Any] | None:
    """The row numbers of the patients who have the name that is asked for, if one is, with others.

    That is part of the form's `condition`: `binds` are those that it took, in their order.
    """
    first = criteria[1][0] if criteria[1] else ()
    match first:
        case ("name" | "named", of_kind, found, _) if level is Level.PATIENT:
            return _named(of_kind, found, binds)
    return None


def has_name(rows: Select[Any], number: Any) -> ColumnElement[bool]:
    """Whether the patient record with a row number is one of those that are `named`."""
    return there_is(rows.where(PatientName.patient_id == number))


def is_of_several(criteria: Any) -> bool:
    """Whether a form of criteria has more than one of them."""
    return len(criteria[1]) > 1


def numbered() -> Binds:
    """The binds of a form's values, in the order in which they were added."""
    return (bindparam(f"v{number}") for number in range(1 << 20))


def parameters(values: Sequence[Any]) -> dict[str, Any]:
    """The values of a form as parameters of its `condition`."""
    return {f"v{number}": value for number, value in enumerate(values)}


# The binds are taken in the order in which the values were added.


def _built(form: Any, binds: Binds, links: Links | None = None) -> ColumnElement[bool]:
    match form:
        case ("all", parts):
            built = [(part[0] == "linked", _built(part, binds, links)) for part in parts]
            # SQLite looks into what is linked for each row that passes what stands before.
            return and_(true(), *[one for _, one in sorted(built, key=itemgetter(0))])
        case ("any", parts):
            return _any(parts, binds, links)
        case ("not", part):
            return not_(_built(part, binds, links))
        case ("linked", level, link):
            if links is None:
                raise TypeError("no resources are known here")
            return links(level, link, binds)
        case ("match", "AccessionNumber", compared):
            return _accession(compared, binds)
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
        case ("body part", compared):
            return _compare(Series.body_part, compared, binds)
        case ("number", _) | ("same person",):
            return Patient.id.in_(union(*_same_persons(_known(form, binds))))
        case ("identified", _):
            return Patient.id.in_(_patients(form, binds))
        case ("name" | "named" | "name in order" as name, of_kind, found, written):
            rows = _named(of_kind, found, binds)
            match name:
                case "name":
                    has_name: ColumnElement[bool] = Patient.id.in_(rows)
                case "named":
                    is_patient = PatientName.patient_id == Patient.id
                    has_name = exists(rows.where(is_patient).correlate(Patient))
                case _:
                    has_name = and_(looked_up(Patient.id, rows.scalar_subquery()))
            return and_(has_name, _written(next(binds))) if written else has_name
        case ("owned", compared):
            return _compare(Patient.organization_id, compared, binds)
        case ("replaced",):
            return Patient.replaced_by_id.is_not(None)
        case ("ordered",):
            return _ordered()
        case ("requested", parts):
            items = select(RequestAttributes.series_id)
            return Series.id.in_(
                items.where(*[_compare(REQUESTED[name], how, binds) for name, how in parts])
            )
        case ("holds", level, few, criteria):
            return _holding(level, _built(criteria, binds, links), few=few)
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


def _named(of_kind: bool, found: Sequence[Any], binds: Binds) -> Select[Any]:
    """The rows of the patients one of whose search keys of names passes."""
    kind = PatientName.kind == next(binds) if of_kind else true()
    keys = or_(false(), *[_compare(PatientName.key, one, binds) for one in found])
    return select(PatientName.patient_id).where(kind, keys)


def _any(parts: Sequence[Any], binds: Binds, links: Links | None) -> ColumnElement[bool]:
    """At least one of the parts; those that are looked up by an index in one sub-select, since
    PostgreSQL would look into every patient for an OR of two."""
    looked_up: list[Select[Any]] = []
    found: list[ColumnElement[bool]] = []
    for part in parts:
        if part[0] in ("identified", "numbered"):
            looked_up.append(_patients(part, binds))
        elif part[0] in ("number", "same person"):
            looked_up += _same_persons(_known(part, binds))
        else:
            found.append(_built(part, binds, links))
    if looked_up:
        found.append(Patient.id.in_(union(*looked_up) if len(looked_up) > 1 else looked_up[0]))
    return or_(false(), *found)


def _patients(form: Any, binds: Binds) -> Select[Any]:
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


def _compare(column: Any, form: Any, binds: Binds) -> ColumnElement[bool]:
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
        case ("person", found):
            keys = or_(false(), *[_compare(PersonNameKey.key, one, binds) for one in found])
            return or_(false(), column.in_(select(PersonNameKey.name).where(keys)))
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
    date: Any, time: Any, has_low: bool, has_high: bool, binds: Binds
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


def _known(form: Any, binds: Binds) -> ColumnElement[bool]:
    """Under which record somebody asks for a person."""
    match form:
        case ("number", compared):
            organization = next(binds)
            number = _compare(_Alias.c.patient_id, compared, binds)
            return and_(_Alias.c.organization_id == organization, number)
        case ("same person",):
            return _Alias.c.id == next(binds)
    raise TypeError("not a form of whom a record is of")


def _same_persons(known: ColumnElement[bool]) -> tuple[Select[Any], Select[Any]]:
    """The rows of the records that are `known`, and of all records of the same persons.

    For a union, since neither database uses an index for each half of an OR of sub-selects.
    """
    others = (
        select(_Same.c.id)
        .select_from(_Alias)
        .join(_Same, _Same.c.person_id == _Alias.c.person_id)
        .where(known)
    )
    return select(_Alias.c.id).where(known), others


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


def _accession(compared: Any, binds: Binds) -> ColumnElement[bool]:
    """The studies that have the accession number, or images that have it.

    What an index finds is looked up in both, since PostgreSQL would look into every study for an OR
    of the two; what none finds is not listed first.
    """
    further = FurtherAccessionNumber
    if compared[0] in ("among", "starts") or compared == ("like", True):
        own = select(_Numbered.c.id).where(_compare(_Numbered.c.accession_number, compared, binds))
        beside = select(further.study_id).where(_compare(further.accession_number, compared, binds))
        return Study.id.in_(union(own, beside))
    is_own = _compare(Study.accession_number, compared, binds)
    has = _compare(further.accession_number, compared, binds)
    there = select(literal(1)).where(further.study_id == Study.id, has)
    return or_(is_own, exists(there.correlate(Study)))


def _ordered() -> ColumnElement[bool]:
    """By the study's UID, or by the accession number that the patient's study and order share."""
    order = select(literal(1)).where(Order.status != "CANCELED", Order.request != "")
    by_uid = order.where(
        Order.study_instance_uid == Study.study_instance_uid,
        Order.organization_id == Patient.organization_id,
    )
    by_number = order.where(
        Order.accession_number == Study.accession_number, Order.patient_id == Study.patient_id
    )
    return or_(*[exists(one.correlate(Patient, Study)) for one in (by_uid, by_number)])


def _written(text: BindParameter[Any]) -> ColumnElement[bool]:
    return or_(
        *[
            func.replace(Patient.name, "^", between).like(text, escape="\\")
            for between in ("^", " ", "")
        ]
    )
