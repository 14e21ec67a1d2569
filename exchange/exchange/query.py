"""Cross-hospital query: find patients, studies, series and instances, decided row by row.

What the asker may not see is filtered in the SELECT, before totals and paging; that something was
withheld is recorded in the audit trail, never told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from exchange import beside, breadth, guessing, matches, own_numbers, policy, visibility, withheld
from exchange.access import Access
from exchange.audit import for_the_trail
from exchange.beside import Beside
from exchange.errors import Gone, NotFound, TooBroad
from exchange.facts import of as _facts_of
from exchange.facts import told as _facts_told
from exchange.own_numbers import Number
from exchange.policy import Action
from exchange.summaries import NOTHING, Summary, summaries
from exchange.visibility import Reach
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Instance,
    Organization,
    Patient,
    RequestAttributes,
    Series,
    Study,
)
from exchange_storage.rows import Columns, one_of
from exchange_storage.search import Criterion, Level

NUMBERS = 100
"""Numbers of another hospital that one question may match."""


@dataclass(frozen=True, slots=True)
class Request:
    """For what a series was made: an item of its Request Attributes Sequence."""

    requested_procedure_id: str
    scheduled_procedure_step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One match: the records of its level and above, and how the asker knows the patient."""

    owner: Organization
    patient: Patient
    study: Study | None = None
    series: Series | None = None
    instance: Instance | None = None
    damaged: bool = False
    """Whether nobody can have the instance, until its hospital has sent it again."""
    number: Number
    """The asker's own number for the person where it has one, else the owner's."""
    standing: Number
    """The owner's number for the patient; of a record that it has merged the surviving one's."""
    summary: Summary = field(default_factory=Summary)
    requests: tuple[Request, ...] | None = None
    """For which requests the series was made; None where that was not asked for."""
    beside: Beside | None = None
    """What is told beside a patient; None where it was not found whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of matches, whether more remain, and their total when it was asked for."""

    found: tuple[Found, ...]
    more: bool
    total: int | None = None
    company: tuple[Found, ...] = ()
    """The further records of the persons found, where they were asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A primary instance, as far as a list of a study's contents tells of it."""

    sop_instance_uid: str
    sop_class_uid: str
    instance_number: str


@dataclass(frozen=True, slots=True)
class Contents:
    """A series and its primary instances, in the order of their numbers."""

    series: Series
    instances: tuple[Listed, ...]


def find(
    access: Access,
    level: Level,
    criteria: Sequence[Criterion],
    *,
    limit: int,
    offset: int = 0,
    after: Sequence[Any] | None = None,
    total: bool = False,
    summarize: bool = True,
    requests: bool = False,
    whole: bool = False,
    company: bool = False,
    order: str = "",
    too_broad: str | None = None,
    asked: str | bytes = "",
    action: Action = Action.SEARCH,
) -> Answer:
    """The matches at `level` that the asker may see, `limit` of them from `offset` on.

    Or those behind `after`, the `in_order.place` of a match, which others shift by nothing. The
    order is stable: studies newest first, all else as received, or `order`, keys of
    `in_order.SORTED` with "-" before those that descend. `total` counts all of them, `requests`
    tells of series for what they were made. `whole` are patients in the level's own order, of whom
    what stands `beside` is told as well, and nothing else: one statement answers most questions.
    With `company` the other records of their persons are told too, whatever these are called.
    `too_broad` is the message of the TooBroad raised instead of leaving some out, and instead of
    looking through a large archive for what has no selective key. `asked` is the question as it
    came, for the audit trail only (it may name a patient). `action` is what the matches are wanted
    for: to be told, or to be retrieved. Raises Refused, Invalid, TooBroad.
    """
    told = {"level": level.name, "asked": for_the_trail(asked)}
    access.require(action, narrowed=level > Level.PATIENT, detail=told)
    numbered: list[int] = []
    asked_for, criteria = criteria, [_decided(access, one, numbered) for one in criteria]
    values: list[Any] = []
    wanted = matches.Wanted(
        level,
        search.form(criteria, values),
        visibility.reach(access.requester, action),
        order,
        access.requester.rejected,
        beside.together(access) if whole else None,
    )
    of_numbers: Sequence[withheld.Match] = ()
    if numbered:
        of_numbers = _of_numbers(access, wanted, asked_for, numbered)
        withheld.note(access, action, of_numbers, told, whole=level is Level.PATIENT)
    given = search.parameters(values) | _given(access)
    if too_broad is not None and not search.selective(criteria):
        breadth.bounded(access, level, too_broad)
    alone = wanted.whole is not None or not (whole or summarize or requests)
    page, more, counted, unseen = matches.page(
        access, wanted, given, limit, offset, after, total, too_broad, alone
    )
    rows, matched = matches.columns(level).all(page), len(page)
    if company and level is Level.PATIENT:
        page = [*page, *_company(access, wanted, given, rows)]
        rows = matches.columns(level).all(page)
    patients = {row[0].id for row in rows}
    people = {(row[0].person_id, row[0].person_id or row[0].id) for row in rows}
    studies = {row[2].study_instance_uid for row in rows} if level > Level.PATIENT else set()
    kept_back = [one for one in unseen.matches if one not in of_numbers]
    withheld.note(access, action, kept_back, told, whole=level is Level.PATIENT)
    access.note(
        action,
        patient=min(patients) if len(people) == 1 else None,
        study=min(studies) if len(studies) == 1 else "",
        detail={
            **told,
            "answered": matched,
            "withheld": unseen.count,
            "patients": sorted(patients),
            **({"rejected": True} if access.requester.rejected else {}),
        },
    )
    # Whoever asks for a number that was merged is told by it, and sent nothing under it.
    retired = action is Action.SEARCH
    numbers = own_numbers.known_as(access, page, rows, criteria, retired=retired)
    last = 0 if level is Level.PATIENT else -1
    series = {row[3].id for row in rows} if requests and level >= Level.SERIES else None
    requested = None if series is None else _requests(access, series)
    counted_below = summaries(access, level, {row[last].id for row in rows}) if summarize else {}
    found = tuple(
        Found(
            patient=row[0],
            owner=row[1],
            study=row[2] if level >= Level.STUDY else None,
            series=row[3] if level >= Level.SERIES else None,
            instance=row[4] if level >= Level.IMAGE else None,
            damaged=level is Level.IMAGE and bool(held.damaged),
            number=known.number,
            standing=known.standing,
            summary=counted_below.get(row[last].id, NOTHING),
            requests=None if requested is None else requested.get(row[3].id, ()),
            beside=None if wanted.whole is None else beside.of_row(access, held),
        )
        for held, row, known in zip(page, rows, numbers, strict=True)
    )
    return Answer(found[:matched], more, counted, found[matched:])


def _company(
    access: Access, wanted: matches.Wanted, given: Mapping[str, Any], rows: Sequence[Any]
) -> Sequence[Any]:
    """The rows of the other records of the persons whose records `rows` are."""
    persons = {row[0].person_id for row in rows if row[0].person_id is not None}
    if not persons:
        return ()
    there = {row[0].id for row in rows}
    statement = matches.of_persons(wanted.reach, rejected=wanted.rejected)
    found = statement.all(access.session.connection(), {**given, "persons": _list(persons)})
    return [row for row in found if row.patient__id not in there]


def finder(
    access: Access,
    criteria: Sequence[Criterion],
    *,
    own: bool,
    level: Level = Level.PATIENT,
    asked: str = "",
) -> Callable[[Session], list[str]]:
    """What finds patient records, or studies, within a unit of work, two of them at most.

    By their row numbers, or their UIDs; with `own` only the asking hospital's. Raises Refused,
    Invalid.
    """
    told = {"level": level.name, "asked": for_the_trail(asked), "for": "a condition"}
    access.require(Action.SEARCH, detail=told)
    owned = [search.Owned((access.organization,))] if own else []
    values: list[Any] = []
    known = [decided(access, one, told) for one in criteria]
    form = search.form([*known, *owned], values)
    reach = visibility.reach(access.requester, Action.SEARCH)
    matching = matches.permitted_page(matches.Wanted(level, form, reach, ""))
    given = search.parameters(values) | _given(access) | {"limit": 2, "offset": 0}

    def found(session: Session) -> list[str]:
        rows = matching.all(session.connection(), given)
        patients = sorted({row.patient__id for row in rows})
        access.note(Action.SEARCH, detail=told | {"answered": len(rows), "patients": patients})
        if level is Level.STUDY:
            return [row.study__study_instance_uid for row in rows]
        return [str(row.patient__id) for row in rows]

    return found


def decided(
    access: Access, criterion: Criterion, detail: Mapping[str, Any] | None = None
) -> Criterion:
    """`criterion`, without what it could tell of records that the asker may not see.

    Another hospital's number leads to a person only through a record that may be seen: else the
    answer would tell who is known there. Whom it would have led to is recorded as withheld;
    `detail` says from what question.
    """
    numbered: list[int] = []
    found = _decided(access, criterion, numbered)
    withheld.note(access, Action.SEARCH, [(row, "") for row in numbered], detail or {})
    return found


def _decided(access: Access, criterion: Criterion, numbered: list[int]) -> Criterion:
    """The same; the withheld patients whose number it has are added to `numbered`."""

    def permitted(one: search.Number) -> Criterion:
        seen = visibility.visible(access.requester, Action.SEARCH)
        of_number = select(Patient.id, seen.label("permitted")).where(
            Patient.organization_id == one.organization,
            search.compare(Patient.patient_id, one.matching),
        )
        given, most = _given(access), NUMBERS + withheld.COUNTED
        rows = access.session.execute(of_number.limit(most), given).all()
        if unseen := [row.id for row in rows if not row.permitted]:
            numbered.extend(unseen[: withheld.COUNTED])
            if len(rows) == most:  # others may stand behind these
                rows = access.session.execute(of_number.where(seen).limit(NUMBERS + 1), given).all()
        found = [row.id for row in rows if row.permitted]
        if len(found) > NUMBERS:
            raise TooBroad("too many patient numbers match: ask for fewer of them")
        return search.AnyOf(tuple(search.SamePerson(row) for row in found))

    return _with_numbers(access, criterion, permitted)


def _with_numbers(
    access: Access, criterion: Criterion, of_number: Callable[[search.Number], Criterion]
) -> Criterion:
    """`criterion` with something else for each number of another hospital than the asker's."""
    match criterion:
        case search.AnyOf(criteria):
            return search.AnyOf(tuple(_with_numbers(access, one, of_number) for one in criteria))
        case search.AllOf(criteria):
            return search.AllOf(tuple(_with_numbers(access, one, of_number) for one in criteria))
        case search.Not(inner):
            return search.Not(_with_numbers(access, inner, of_number))
        case search.Number(organization) if organization not in {
            None,
            access.requester.organization,
        }:
            return of_number(criterion)
        case _:
            return criterion


def _of_numbers(
    access: Access, wanted: matches.Wanted, criteria: Sequence[Criterion], numbered: Sequence[int]
) -> Sequence[withheld.Match]:
    """What `criteria` would have found of the withheld patients whose numbers are in them: the very
    studies that were asked for. Of whom there is none, the patient, who was asked for all the same.
    """
    rows = search.Rows(Level.PATIENT, tuple(numbered))
    values: list[Any] = []
    asked = [_with_numbers(access, one, lambda _: rows) for one in criteria]
    form = search.form([rows, *asked], values)
    given = search.parameters(values) | _given(access)
    found = matches.unseen(access, replace(wanted, form=form, order="", whole=None), given)
    there = {patient for patient, _ in found}
    return [*found, *((row, "") for row in numbered if row not in there)]


_REQUESTS = Prepared(
    lambda dialect: (
        select(
            RequestAttributes.series_id,
            RequestAttributes.requested_procedure_id,
            RequestAttributes.scheduled_procedure_step_id,
        )
        .where(one_of(RequestAttributes.series_id, "wanted", dialect))
        .order_by(RequestAttributes.series_id, RequestAttributes.position)
    )
)


def _requests(access: Access, series: set[int]) -> dict[int, tuple[Request, ...]]:
    """The requests for series, by row; one query for all."""
    if not series:
        return {}
    asked = {"wanted": _list(series)}
    of_series: dict[int, tuple[Request, ...]] = {}
    for row, procedure, step in _REQUESTS.all(access.session.connection(), asked):
        of_series[row] = (*of_series.get(row, ()), Request(procedure, step))
    return of_series


def patient(access: Access, number: int, *, whole: bool = False) -> Found:
    """The patient record with this row number, `whole` with what stands beside it, all that is read
    then. Raises NotFound, Gone, Refused: see `guessing`.
    """
    access.require(Action.RETRIEVE, detail={"patient": number})
    given = _given(access) | {"named": number}
    if reaches := beside.together(access) if whole else None:
        row = next(iter(access.glance(matches.whole_patient(reaches), given)), None)
    else:
        row = matches.PATIENT.first(access.session.connection(), given)
    if row is None:
        raise NotFound(guessing.NO_PATIENT)
    record, owner = matches.columns(Level.PATIENT).records(row)
    with guessing.to_those_who_know(access, record):
        access.require(Action.RETRIEVE, _facts_told(row), patient=number)
    if record.withdrawn:
        raise Gone("the hospital took the patient record back")
    access.note(Action.RETRIEVE, patient=number)
    known = own_numbers.told(access, record, owner, row)
    return Found(
        owner=owner,
        patient=record,
        number=known.number,
        standing=known.standing,
        beside=None if reaches is None else beside.of_row(access, row),
    )


def study(access: Access, study_instance_uid: str, *, told: bool = False) -> Found:
    """The study, to describe it rather than to send its images.

    Raises NotFound, and Refused where the asker may know of it: see `guessing`, or was `told`.
    """
    access.require(Action.RETRIEVE, narrowed=True, study=study_instance_uid)
    given = _given(access) | {"named": study_instance_uid}
    row = matches.STUDY.first(access.session.connection(), given)
    if row is None:
        raise NotFound(guessing.NO_STUDY)
    record, owner, held = matches.columns(Level.STUDY).records(row)
    about = {"patient": record.id, "study": study_instance_uid}
    asked_for = _reached(access, _facts_told(row), study_instance_uid)
    with guessing.to_those_who_know(access, record, study_instance_uid, told=told):
        access.require(Action.RETRIEVE, asked_for, **about)
    access.note(Action.RETRIEVE, detail={"what": "description"}, **about)
    known = own_numbers.told(access, record, owner, row)
    return Found(
        owner=owner,
        patient=record,
        study=held,
        number=known.number,
        standing=known.standing,
        summary=summaries(access, Level.STUDY, {held.id})[held.id],
    )


def seen(access: Access, patients: Iterable[int]) -> frozenset[int]:
    """Those of the patient rows that exist and that the asker may see."""
    given = _given(access) | {"wanted": _list(patients)}
    found = _SEEN[visibility.reach(access.requester, Action.SEARCH)]
    return frozenset(row.id for row in found.all(access.session.connection(), given))


def _among(reach: Reach) -> Prepared:
    return Prepared(
        lambda dialect: select(Patient.id).where(
            one_of(Patient.id, "wanted", dialect), visibility.within(reach)
        )
    )


_SEEN = {reach: _among(reach) for reach in Reach}


def contents(access: Access, studies: Iterable[Found]) -> Mapping[int, tuple[Contents, ...]]:
    """Series and instances of studies that were found, by study row; two queries for all."""
    wanted = {found.study.id for found in studies if found.study is not None}
    connection, given = access.session.connection(), {"wanted": _list(wanted)}
    of_series: dict[int | None, list[Listed]] = defaultdict(list)
    for series_id, *told in _LISTED.all(connection, given):
        of_series[series_id].append(Listed(*told))
    of_study: dict[int, tuple[Contents, ...]] = dict.fromkeys(wanted, ())
    only = access.requester.narrowed(None)
    for (one,) in _SERIES.all(_SERIES_OF.all(connection, given)):
        if only not in {None, one.series_instance_uid}:
            continue
        if instances := of_series.get(one.id):
            of_study[one.study_id] = (*of_study[one.study_id], Contents(one, tuple(instances)))
    return of_study


def facts(
    access: Access, record: Patient, study: str = "", series: str | None = None
) -> policy.Facts:
    """What a decision on `record` depends on, as it is now; or on a study, or series, of it."""
    found = _facts_of(access.session, _given(access), [record.id])[record.id]
    return _reached(access, found, study, series)


def _reached(
    access: Access, found: policy.Facts, study: str, series: str | None = None
) -> policy.Facts:
    return replace(found, linked=True) if access.requester.reaches(study, series) else found


# Numbers are text (IS): the shorter of two without leading zeros is the smaller.
_LISTED = Prepared(
    lambda dialect: (
        select(
            Instance.series_id,
            Instance.sop_instance_uid,
            Instance.sop_class_uid,
            Instance.instance_number,
        )
        .join(Series, Series.id == Instance.series_id)
        .where(one_of(Series.study_id, "wanted", dialect), Instance.is_primary)
        .order_by(func.length(Instance.instance_number), Instance.instance_number, Instance.id)
    )
)
_SERIES = Columns(Series)
_SERIES_OF = Prepared(
    lambda dialect: (
        select(*_SERIES.selected)
        .where(one_of(Series.study_id, "wanted", dialect))
        .order_by(func.length(Series.series_number), Series.series_number, Series.id)
    )
)


def _list(rows: Iterable[int]) -> str:
    """Row numbers as `one_of` is given them."""
    return f"[{','.join(map(str, sorted(rows)))}]"


def _given(access: Access) -> dict[str, Any]:
    return visibility.parameters(access.requester, access.now)
