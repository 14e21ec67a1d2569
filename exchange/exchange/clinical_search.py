"""Search of clinical resources: every candidate, at every level of a question, is decided.

    answer = clinical_search.find(access, Question(kind="Observation", criterion=…, limit=50))

What the asker may not see is filtered in the SELECT, before totals and paging, as in `query`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.orm import Session, aliased

from exchange import attachments, visibility, ways, withheld
from exchange.access import Access
from exchange.audit import for_the_trail
from exchange.clinical import reading
from exchange.decided import conditions
from exchange.errors import Invalid, TooBroad
from exchange.policy import Action
from exchange.recording import Finder
from exchange.visibility import Reach
from exchange.ways import Way
from exchange.withheld import COUNTED, Withheld
from exchange_storage import resource_lookups, resource_order
from exchange_storage.constructs import unindexed
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Resource, Revision, SearchReference, SearchToken, SearchUri
from exchange_storage.resource_criteria import Asked, Every, Selected, form
from exchange_storage.resource_leaders import is_of_any_type
from exchange_storage.resource_order import Sort
from exchange_storage.rows import as_list, one_of, one_of_texts
from exchange_storage.search import numbered, parameters

STATEMENTS = 1024
"""Statements that are kept, one for each form of question."""

CANDIDATES = 20
"""Matches that are read beyond a page at first, so that most questions take one statement."""

FURTHER = 5
"""The same where each further match is as far as those before."""

EVERYTHING = Every(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of one type of resources."""

    kind: str
    criterion: Asked = EVERYTHING
    sort: tuple[Sort, ...] = ()
    """In whose order; see `resource_order.usual` where nothing is said."""
    limit: int
    after: tuple[Any, ...] | None = None
    """The `Answer.last` of the page before; pages do not shift while others write."""
    total: bool = False
    asked: str | bytes = ""
    """The question as it came, for the audit trail."""
    with_lost: bool = False
    """Whether what has lost its content is told without it, rather than raising Unavailable."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A resource that was found."""

    row: int
    kind: str
    logical_id: str
    version: int
    changed: datetime
    patient: int | None
    content: bytes = field(repr=False)
    keys: tuple[Any, ...] = ()
    """What it was put in order by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of matches, whether more remain, and their total when it was asked for."""

    found: tuple[Hit, ...]
    more: bool
    sort: tuple[Sort, ...]
    """In whose order they are."""
    total: int | None = None

    @property
    def last(self) -> tuple[Any, ...]:
        """Where the next page goes on."""
        return self.found[-1].keys


def find(access: Access, question: Question) -> Answer:
    """The matches that the asker may see. Raises Refused, Invalid, Unavailable."""
    action = reading(access.requester, Action.SEARCH, question.kind)
    told = {"kind": question.kind, "asked": for_the_trail(question.asked)}
    access.require(action, detail=told)
    sort = (*(question.sort or resource_order.usual(form(question.criterion, []))), Sort("row"))
    if question.after is not None and len(question.after) != len(sort):
        raise Invalid("this page is of an earlier release: search again")
    connection = access.session.connection()
    wanted, way, given = _wanted(access, action, question, sort, connection)
    page, more, total, unseen = _page(wanted, way, connection, given, question)
    content = _contents(access, [row.id for row in page], with_lost=question.with_lost)
    hits = tuple(_hit(row, content[row.id], wanted.sort) for row in page)
    patients = {one.patient for one in hits if one.patient is not None}
    withheld.note(access, action, unseen.matches, told)
    access.note(
        action,
        patient=min(patients) if len(patients) == 1 else None,
        detail={
            **told,
            "answered": len(hits),
            "withheld": unseen.count,
            "patients": sorted(patients),
        },
    )
    return Answer(hits, more, sort, total)


def finder(access: Access, question: Question, *, own: bool) -> Finder:
    """What finds the matches within a unit of work: their logical ids, two of them at most.

    With `own` only what the asker's organization wrote. Raises Refused, Invalid.
    """
    action = reading(access.requester, Action.SEARCH, question.kind)
    told = {"kind": question.kind, "asked": for_the_trail(question.asked)}
    access.require(action, detail=told)
    sort = (Sort("row"),)

    def found(session: Session) -> list[str]:
        connection = session.connection()
        wanted, way, given = _wanted(access, action, question, sort, connection)
        rows = _matching(wanted, way, own=own).all(connection, {**given, "limit": 2})
        patients = sorted({row.patient_id for row in rows} - {None})
        detail = {**told, "answered": len(rows), "for": "a condition", "patients": patients}
        access.note(action, detail=detail)
        return [row.logical_id for row in rows]

    return found


def ids(access: Access, kind: str, criterion: Asked, *, limit: int) -> tuple[str, ...]:
    """Logical ids of visible resources; raises TooBroad where they are too many."""
    found = all_of(access, Question(kind=kind, criterion=criterion, limit=limit))
    return tuple(one.logical_id for one in found)


def all_of(access: Access, question: Question) -> tuple[Hit, ...]:
    """All matches that the asker may see; raises TooBroad where they are more than its limit."""
    answer = find(access, question)
    if answer.more:
        raise TooBroad("too many resources lead to it: ask for fewer of them")
    return answer.found


def targets(
    access: Access, names: Sequence[str], kind: str, inner: Selected, *, limit: int
) -> tuple[str, ...]:
    """Logical ids of what visible resources refer to; raises TooBroad where they are too many."""
    values: list[Any] = []
    wanted = _Referred(
        names=tuple(names),
        kind=kind,
        source=inner.kind,
        form=form(inner.criterion, values),
        reach=visibility.reach(
            access.requester, reading(access.requester, Action.SEARCH, inner.kind)
        ),
    )
    given = parameters(values) | visibility.parameters(access.requester, access.now)
    connection = access.session.connection()
    rows = _targets(wanted).all(connection, {**given, "limit": limit + 1})
    if len(rows) > limit:
        raise TooBroad("too many resources lead to it: ask for fewer of them")
    return tuple(row.target for row in rows)


def referred(
    access: Access, rows: Iterable[int], names: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Parameter, type and logical id of what resources, by their rows, refer to here.

    Only of rows that were found, for which the asker's sight has been decided.
    """
    if not names:  # such as all references of a type that has none
        return []
    wanted = {"wanted": as_list(rows)}
    told = _references(tuple(sorted(names))).all(access.session.connection(), wanted)
    return [(row.parameter, row.target_kind, row.target) for row in told]


def called(access: Access, rows: Iterable[int], names: Sequence[str]) -> list[str]:
    """The canonical URLs by which resources, by their rows, refer to others; else as `referred`."""
    wanted = {"wanted": as_list(rows)}
    told = _references(tuple(sorted(names)), by_name=True).all(access.session.connection(), wanted)
    return sorted({row.target for row in told})


def names(access: Access, rows: Iterable[int], under: str) -> list[str]:
    """The canonical URLs of resources, by their rows, that the index keeps under a parameter."""
    wanted = {"wanted": as_list(rows), "under": under}
    return sorted({row.value for row in _NAMES.all(access.session.connection(), wanted)})


def is_kept(access: Access, under: str, code: str) -> bool:
    """Whether the index keeps a code under a parameter, of whatever resource."""
    return bool(_TOKENS.all(access.session.connection(), {"under": under, "code": code}))


def calling(
    access: Access, kind: str, under: str, called: Sequence[str], *, limit: int
) -> tuple[Hit, ...]:
    """The resources of a type that have one of these canonical URLs: to be included."""
    asked = {"called": json.dumps(list(called)), "under": under}
    return _included(access, kind, _calling, asked, limit)


def named(access: Access, kind: str, ids: Sequence[str], *, limit: int) -> tuple[Hit, ...]:
    """The resources of a type with these logical ids that the asker may see: to be included."""
    if not ids:
        return ()
    return _included(access, kind, _named, {"ids": json.dumps(list(ids))}, limit)


def referring(
    access: Access,
    kind: str,
    names: Sequence[str],
    target_kind: str,
    targets: Sequence[str],
    *,
    limit: int,
) -> tuple[Hit, ...]:
    """The resources of a type that refer to one of the targets: to be included in reverse."""
    if not targets or not names:
        return ()
    asked = {"ids": json.dumps(list(targets)), "target_kind": target_kind}
    return _included(access, kind, _referring, asked, limit, tuple(sorted(names)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A question without its values: what the statements that answer it are built from."""

    kind: str
    """ "" where it is given as a value: the words are the same for each type."""
    form: Form
    reach: Reach
    sort: tuple[Sort, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Referred:
    """Whose references are followed, without values."""

    names: tuple[str, ...]
    kind: str
    source: str
    form: Form
    reach: Reach


def _wanted(
    access: Access,
    action: Action,
    question: Question,
    sort: tuple[Sort, ...],
    connection: Connection,
) -> tuple[_Wanted, Way, dict[str, Any]]:
    """A question without its values, how its matches are come by, and the values."""
    reach = visibility.reach(access.requester, action)
    asker = visibility.parameters(access.requester, access.now)
    led = ways.followed(question.criterion, reach, connection, asker)
    values: list[Any] = []
    asked = form(led.criterion, values)
    alike = is_of_any_type(asked) and not any(one.parameters for one in sort)
    kind = "" if alike else question.kind
    wanted = _Wanted(kind=kind, form=asked, reach=reach, sort=sort)
    given = parameters(values) | asker | {"kind": question.kind}
    order = "" if question.sort else sort[0].type
    way = ways.way(
        wanted.form,
        led.lead_to_many,
        connection,
        given,
        order=order,
        may_be_listed=led.may_be_listed,
    )
    return wanted, way, given


def _page(
    wanted: _Wanted,
    way: Way,
    connection: Connection,
    given: Mapping[str, Any],
    question: Question,
) -> tuple[list[Any], bool, int | None, Withheld]:
    """The rows of a page; whether more remain; the total, if wanted; what is withheld."""
    limit, unseen = question.limit, Withheld(None, ())
    if question.after is None:
        most = min(limit, COUNTED) + (FURTHER if way.walks else CANDIDATES)
        rows = _candidates(wanted, way).all(connection, {**given, "limit": most})
        permitted = [row for row in rows if row.permitted]
        whole = len(rows) < most
        more = len(permitted) > limit
        unseen = withheld.resources(
            connection, [row for row in rows if not row.permitted], whole=whole and not more
        )
        if whole or (more and not question.total):
            total = len(permitted) if question.total else None
            return permitted[:limit], more, total, unseen
    total = _count(wanted, way.to_all).number(connection, given) if question.total else None
    bounds: dict[str, Any] = {"limit": limit + 1}
    if question.after is not None:
        bounds |= {f"last{number}": value for number, value in enumerate(question.after)}
    statement = _permitted(wanted, way, after=question.after is not None)
    rows = statement.all(connection, {**given, **bounds}) if limit or not question.total else []
    return rows[:limit], len(rows) > limit, total, unseen


def _included(
    access: Access,
    kind: str,
    statement: Any,
    asked: Mapping[str, Any],
    limit: int,
    *form: Any,
) -> tuple[Hit, ...]:
    action = reading(access.requester, Action.SEARCH, kind)
    reach = visibility.reach(access.requester, action)
    given = visibility.parameters(access.requester, access.now)
    found = statement(kind, reach, *form).all(
        access.session.connection(), {**given, **asked, "limit": limit}
    )
    content = _contents(access, [row.id for row in found])
    hits = tuple(_hit(row, content[row.id], ()) for row in found)
    if hits:
        patients = {one.patient for one in hits if one.patient is not None}
        detail = {"kind": kind, "included": len(hits), "patients": sorted(patients)}
        patient = min(patients) if len(patients) == 1 else None
        access.note(action, patient=patient, detail=detail)
    return hits


def _hit(row: Any, content: bytes, sort: Sequence[Sort]) -> Hit:
    return Hit(
        row=row.id,
        kind=row.kind,
        logical_id=row.logical_id,
        version=row.version,
        changed=row.changed,
        patient=row.patient_id,
        content=content,
        keys=tuple(getattr(row, f"key{number}") for number in range(len(sort))),
    )


def _contents(access: Access, rows: Sequence[int], *, with_lost: bool = False) -> dict[int, bytes]:
    if not rows:
        return {}
    told = _CONTENTS.all(access.session.connection(), {"wanted": as_list(rows)})
    read = attachments.unless_lost if with_lost else attachments.whole
    return {row.resource_id: read(access.objects, row.content) for row in told}


# The statements of a form of question: built once, since that takes longer than to run them.


def _conditioned(
    wanted: _Wanted, way: Way, columns: Sequence[Any], dialect: str, *, after: bool = False
) -> tuple[Select[Any], type[Resource], Any]:
    """The matches; with `after` those that a walk finds behind the last one of the page before.

    Beside them the resources' alias, and the column that has their row numbers in order.
    """
    made = conditions(wanted.reach, one_by_one=way.links(wanted.form, dialect))
    binds = numbered()
    if way.walks and way.leader is not None:
        behind = bindparam("last0", type_=Resource.id.type) if after else None
        value, one, condition = made.walked(wanted.form, way.leader, binds, dialect, behind)
        row = value.resource_id
    else:
        value, one = None, aliased(Resource)
        condition = made.held(wanted.form, one, binds, way.leader)
        row = one.id
    told = select(*columns) if columns else _told(one)
    kind = resource_lookups.of_kind(one, wanted.kind, wanted.form, way.leader)
    found = (
        told.select_from(one) if value is None else told.select_from(value).join(one, one.id == row)
    )
    return found.where(kind, ~one.deleted, condition), one, row


def _told(one: type[Resource]) -> Select[Any]:
    columns: tuple[Any, ...] = (
        *(one.id, one.kind, one.logical_id),
        *(one.version, one.changed, one.patient_id),
    )
    return select(*columns)


def _in_order(
    statement: Select[Any],
    keys: Sequence[ColumnElement[Any]],
    sort: Sequence[Sort],
    *,
    after: bool = False,
) -> Select[Any]:
    labelled = [key.label(f"key{number}") for number, key in enumerate(keys)]
    if after:
        last = [bindparam(f"last{number}", type_=key.type) for number, key in enumerate(keys)]
        statement = statement.where(resource_order.after(sort, keys, last))
    statement = statement.add_columns(*labelled)
    return statement.order_by(*resource_order.order(sort, labelled)).limit(bindparam("limit"))


def _keys(wanted: _Wanted, way: Way, one: type[Resource], row: Any) -> Sequence[ColumnElement[Any]]:
    return [row] if way.walks else resource_order.keys(wanted.sort, one)


@lru_cache(STATEMENTS)
def _candidates(wanted: _Wanted, way: Way) -> Prepared:
    """The first matches, whether they are permitted or not, and which of them are."""

    def built(dialect: str) -> Select[Any]:
        statement, one, row = _conditioned(wanted, way, (), dialect)
        permitted = visibility.clinical_within(wanted.reach, one).label("permitted")
        keys = _keys(wanted, way, one, row)
        return _in_order(statement.add_columns(permitted), keys, wanted.sort)

    return Prepared(built)


@lru_cache(STATEMENTS)
def _permitted(wanted: _Wanted, way: Way, *, after: bool) -> Prepared:
    """A page of the permitted matches."""

    def built(dialect: str) -> Select[Any]:
        statement, one, row = _conditioned(wanted, way, (), dialect, after=after)
        permitted = statement.where(visibility.clinical_within(wanted.reach, one))
        keys = _keys(wanted, way, one, row)
        return _in_order(permitted, keys, wanted.sort, after=after and not way.walks)

    return Prepared(built)


@lru_cache(STATEMENTS)
def _matching(wanted: _Wanted, way: Way, *, own: bool) -> Prepared:
    """The first permitted matches, whatever their order; with `own` the asker's own."""

    def built(dialect: str) -> Select[Any]:
        statement, one, row = _conditioned(wanted, way, (), dialect)
        statement = statement.where(visibility.clinical_within(wanted.reach, one))
        if own:
            asker = bindparam("asker", type_=Resource.organization_id.type)
            statement = statement.where(one.organization_id == asker)
        return _in_order(statement, _keys(wanted, way, one, row), wanted.sort)

    return Prepared(built)


@lru_cache(STATEMENTS)
def _count(wanted: _Wanted, way: Way) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        statement, one, _ = _conditioned(wanted, way, [func.count()], dialect)
        return statement.where(visibility.clinical_within(wanted.reach, one))

    return Prepared(built)


@lru_cache(256)
def _targets(wanted: _Referred) -> Prepared:
    one, reference = aliased(Resource), aliased(SearchReference)
    condition = conditions(wanted.reach).held(wanted.form, one, numbered())
    return Prepared(
        select(reference.target)
        .distinct()
        .join(one, one.id == reference.resource_id)
        .where(
            reference.parameter.in_([literal_column(f"'{name}'") for name in wanted.names]),
            reference.target_kind == literal_column(f"'{wanted.kind}'"),
            resource_lookups.of_kind(one, wanted.source, wanted.form),
            ~one.deleted,
            condition,
            visibility.clinical_within(wanted.reach, one),
        )
        .limit(bindparam("limit"))
    )


@lru_cache(256)
def _named(kind: str, reach: Reach) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        one = aliased(Resource)
        return _visible(one, kind, reach).where(one_of_texts(one.logical_id, "ids", dialect))

    return Prepared(built)


@lru_cache(256)
def _calling(kind: str, reach: Reach) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        one = aliased(Resource)
        found = select(SearchUri.resource_id).where(
            SearchUri.parameter == bindparam("under"),
            one_of_texts(SearchUri.value, "called", dialect),
        )
        return _visible(one, kind, reach, by_row=True).where(one.id.in_(found))

    return Prepared(built)


@lru_cache(256)
def _referring(kind: str, reach: Reach, names: tuple[str, ...]) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        one, reference = aliased(Resource), aliased(SearchReference)
        found = select(reference.resource_id).where(
            reference.parameter.in_([literal_column(f"'{name}'") for name in names]),
            reference.target_kind == bindparam("target_kind"),
            one_of_texts(reference.target, "ids", dialect),
        )
        return _visible(one, kind, reach, by_row=True).where(one.id.in_(found))

    return Prepared(built)


def _visible(one: type[Resource], kind: str, reach: Reach, *, by_row: bool = False) -> Select[Any]:
    column: Any = unindexed(one.kind) if by_row else one.kind
    return (
        _told(one)
        .where(
            column == literal_column(f"'{kind}'"),
            ~one.deleted,
            visibility.clinical_within(reach, one),
        )
        .order_by(one.id)
        .limit(bindparam("limit"))
    )


@lru_cache(256)
def _references(names: tuple[str, ...], *, by_name: bool = False) -> Prepared:
    return Prepared(
        lambda dialect: (
            select(SearchReference.parameter, SearchReference.target_kind, SearchReference.target)
            .distinct()
            .where(
                one_of(SearchReference.resource_id, "wanted", dialect),
                unindexed(SearchReference.parameter).in_(
                    [literal_column(f"'{name}'") for name in names]
                ),
                SearchReference.target_kind == "" if by_name else SearchReference.target_kind != "",
            )
        )
    )


_NAMES = Prepared(
    lambda dialect: select(SearchUri.value).where(
        one_of(SearchUri.resource_id, "wanted", dialect),
        unindexed(SearchUri.parameter) == bindparam("under"),
    )
)
_TOKENS = Prepared(
    select(SearchToken.code)
    .where(SearchToken.parameter == bindparam("under"), SearchToken.code == bindparam("code"))
    .limit(1)
)
_CONTENTS = Prepared(
    lambda dialect: (
        select(Revision.resource_id, Revision.content)
        .join(
            Resource,
            (Resource.id == Revision.resource_id) & (Resource.version == Revision.version),
        )
        .where(one_of(Resource.id, "wanted", dialect))
    )
)
