"""The statements that find matches, one for each form of question, and the pages they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, literal, select, true

from exchange import beside, in_order, own_numbers, stretches
from exchange.access import Access
from exchange.beside import Reaches
from exchange.decided import CHAIN, DAMAGED, conditions, joined, reached
from exchange.errors import TooBroad
from exchange.facts import TOLD
from exchange.visibility import Reach
from exchange.withheld import COUNTED, Match, Withheld
from exchange_storage import search
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, Patient, Study
from exchange_storage.rows import Columns, one_of
from exchange_storage.search import Level

CANDIDATES = 120
"""Matches, permitted or not, that are read at first: most questions have fewer, and are answered
by this one statement."""

STATEMENTS = 1024
"""Statements that are kept, one for each form of question."""

_EVERYTHING = 1 << 62

_STUDY = "study__study_instance_uid"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question without its values: what the statements that answer it are built from."""

    level: Level
    form: Form
    reach: Reach
    order: str
    rejected: bool = False
    """Whether what the asker's hospital has rejected is meant, not what is in use."""
    whole: Reaches | None = None
    """For what is told beside patients, where that is wanted."""


def page(
    access: Access,
    wanted: Wanted,
    given: Mapping[str, Any],
    limit: int,
    offset: int,
    after: Sequence[Any] | None,
    total: bool,
    too_broad: str | None,
    alone: bool,
) -> tuple[list[Any], bool, int | None, Withheld]:
    """The rows of a page; whether more remain; the total, if wanted; what is withheld.

    `alone`: nothing has to be of the same moment as the rows. Raises TooBroad.
    """
    listed = offset or total or too_broad is not None or wanted.order or wanted.rejected
    if not listed and stretches.is_frequent(wanted.form, access, given):
        stretch = {**given, **stretches.bounds(after), "limit": limit + 1}
        rows = _next(wanted).all(access.session.connection(), stretch)
        if len(rows) > limit:
            return rows[:limit], True, None, Withheld(None, ())
    hidden = Withheld(None, ())
    if not offset and after is None:
        most = min(limit, COUNTED) + CANDIDATES - COUNTED
        first, bounded = _candidates(wanted), {**given, "limit": most}
        if alone:
            rows = access.glance(first, bounded)
        else:
            rows = first.all(access.session.connection(), bounded)
        permitted = [row for row in rows if row.permitted]
        more = len(permitted) > limit
        whole = len(rows) < most and not more
        hidden = _withheld([row for row in rows if not row.permitted], whole=whole)
        if len(rows) < most or (more and not total):
            if more and too_broad is not None:
                raise TooBroad(too_broad)
            return permitted[:limit], more, len(permitted) if total else None, hidden
    connection, count = access.session.connection(), 0
    if total or too_broad is not None:
        most = _EVERYTHING if total else limit + 1
        count = _count(wanted).number(connection, {**given, "limit": most})
        if count > limit and too_broad is not None:
            raise TooBroad(too_broad)
    bounds: dict[str, Any] = {"limit": limit + 1, "offset": offset}
    if after is not None:
        bounds |= in_order.bounds(wanted.level, wanted.order, after)
    statement = permitted_page(wanted, behind=after is not None)
    rows = statement.all(connection, {**given, **bounds})
    more = len(rows) > limit
    if not more and not offset and after is None:
        kept_back = unseen(access, wanted, given)
        hidden = Withheld(len(kept_back), kept_back)
    return rows[:limit], more, count if total else None, hidden


def unseen(access: Access, wanted: Wanted, given: Mapping[str, Any]) -> tuple[Match, ...]:
    """The matches that are withheld, as many as are counted."""
    bounded = {**given, "limit": COUNTED}
    return _withheld(_unseen(wanted).all(access.session.connection(), bounded), whole=True).matches


def _withheld(rows: Sequence[Any], *, whole: bool) -> Withheld:
    """What rows, that are not permitted, tell of what is withheld: `whole` where they are all."""
    told = [(row.patient__id, getattr(row, _STUDY, "")) for row in rows[:COUNTED]]
    return Withheld(len(told) if whole else None, tuple(told))


def _condition(wanted: Wanted) -> ColumnElement[bool]:
    made = conditions(wanted.reach)
    links = made.links_of_several() if search.is_of_several(wanted.form) else made.links
    form = wanted.form
    if wanted.level is Level.PATIENT and not wanted.order:
        form = search.named_first(form)
    return search.condition(form, links)


# The statements of a form of question: built once, since that takes longer than to run them.


@lru_cache(STATEMENTS)
def _candidates(wanted: Wanted) -> Prepared:
    """The first matches, whether they are permitted or not, and which of them are."""
    permitted = reached(wanted.reach, wanted.level).label("permitted")
    statement = _told(wanted.level, rejected=wanted.rejected).add_columns(permitted)
    return _prepared(
        wanted,
        statement.where(_condition(wanted))
        .order_by(*in_order.by(wanted.level, wanted.order))
        .limit(bindparam("limit")),
    )


@lru_cache(STATEMENTS)
def _next(wanted: Wanted) -> Prepared:
    """The permitted matches of a stretch."""
    within = stretches.within(wanted.form, wanted.reach)
    found = _told(wanted.level, rejected=wanted.rejected).where(
        within, reached(wanted.reach, wanted.level)
    )
    return _prepared(wanted, found.order_by(Patient.id).limit(bindparam("limit")))


@lru_cache(STATEMENTS)
def permitted_page(wanted: Wanted, *, behind: bool = False) -> Prepared:
    """A page of the permitted matches; with `behind` of those behind a place."""
    return _prepared(
        wanted,
        _told(wanted.level, rejected=wanted.rejected)
        .where(
            _condition(wanted),
            reached(wanted.reach, wanted.level),
            in_order.behind(wanted.level, wanted.order) if behind else true(),
        )
        .order_by(*in_order.by(wanted.level, wanted.order))
        .limit(bindparam("limit"))
        .offset(bindparam("offset")),
    )


def _prepared(wanted: Wanted, found: Select[*tuple[Any, ...]]) -> Prepared:
    """A statement for matches, with what stands beside them where that is wanted."""
    whole = wanted.whole
    if whole is None:
        return Prepared(found)
    return Prepared(lambda dialect: beside.told_with(found, whole, dialect))


@lru_cache(len(Reach) * 2)
def of_persons(reach: Reach, *, rejected: bool) -> Prepared:
    """The permitted patient records of `persons`, as a page has those that were asked for."""
    told = _told(Level.PATIENT, rejected=rejected).where(reached(reach, Level.PATIENT))
    return Prepared(lambda dialect: told.where(one_of(Patient.person_id, "persons", dialect)))


@lru_cache(STATEMENTS)
def _count(wanted: Wanted) -> Prepared:
    """How many matches are permitted, up to a limit."""
    found = joined(select(literal(1).label("one")), wanted.level, rejected=wanted.rejected)
    found = found.where(_condition(wanted), reached(wanted.reach, wanted.level))
    matches = found.limit(bindparam("limit")).subquery()
    return Prepared(select(func.count()).select_from(matches))


@lru_cache(STATEMENTS)
def _unseen(wanted: Wanted) -> Prepared:
    """Matches that are withheld, up to a limit."""
    studies = wanted.level > Level.PATIENT
    told = select(
        Patient.id.label("patient__id"),
        *([Study.study_instance_uid.label(_STUDY)] if studies else []),
    )
    found = joined(told, wanted.level, rejected=wanted.rejected)
    unseen = ~reached(wanted.reach, wanted.level)
    return Prepared(found.where(_condition(wanted), unseen).limit(bindparam("limit")))


@lru_cache(len(Level))
def columns(level: Level) -> Columns:
    """Those of the records of `level` and above: patient, organization, study and so on."""
    return Columns(Patient, Organization, *(record for at, record, _ in CHAIN if at <= level))


def _one(level: Level) -> Select[*tuple[Any, ...]]:
    """The patient record, or served study, that is named, with what a decision on it depends on.

    A record that was taken back is among them: its number is not free.
    """
    told = select(*columns(level).selected, *own_numbers.TOLD, *TOLD)
    if level is Level.PATIENT:
        owned = Organization.id == Patient.organization_id
        told = told.select_from(Patient).join(Organization, owned)
        return told.where(Patient.id == bindparam("named", type_=Patient.id.type))
    uid = Study.study_instance_uid
    return joined(told, level).where(uid == bindparam("named", type_=uid.type))


def _told(level: Level, *, rejected: bool = False) -> Select[*tuple[Any, ...]]:
    """The records of a level and above, and the number by which the asker knows the patient."""
    damaged = [DAMAGED.label("damaged")] if level is Level.IMAGE else []
    told = select(*columns(level).selected, *own_numbers.TOLD, *damaged)
    return joined(told, level, rejected=rejected)


@lru_cache(len(Reach) ** 2)
def whole_patient(reaches: Reaches) -> Prepared:
    """The patient record that is named, with all that is told beside it."""
    return Prepared(lambda dialect: beside.told_with(_one(Level.PATIENT), reaches, dialect))


PATIENT, STUDY = Prepared(_one(Level.PATIENT)), Prepared(_one(Level.STUDY))
"""The record, or served study, that is named, with what a decision on it depends on."""
