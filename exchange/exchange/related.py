"""Where a question leads: to all records of a person, and to the owners of what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, or_, select, union
from sqlalchemy.orm import aliased

from exchange import beside, visibility
from exchange.access import Access
from exchange.decided import conditions, joined
from exchange.errors import TooBroad
from exchange.matches import STATEMENTS
from exchange.policy import Action
from exchange.query import decided, seen
from exchange.visibility import Reach
from exchange_storage import search
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Order, Patient, Study
from exchange_storage.search import Criterion, Level


def same_person(access: Access, patient: int) -> tuple[int, ...]:
    """The records of the person of a patient row, as far as the asker may see them; none if not
    that row itself."""
    reach = visibility.reach(access.requester, Action.SEARCH)
    given = visibility.parameters(access.requester, access.now) | {"patient": patient}
    rows = _person(reach).all(access.session.connection(), given)
    return tuple(sorted(row.id for row in rows))


def owners(access: Access, level: Level, criterion: Criterion) -> frozenset[int]:
    """The organizations whose records at a level fulfil a criterion, as far as they may be seen."""
    values: list[Any] = []
    criteria = search.form([decided(access, criterion)], values)
    reach = visibility.reach(access.requester, Action.SEARCH)
    given = search.parameters(values) | visibility.parameters(access.requester, access.now)
    rows = _owners(level, criteria, reach).all(access.session.connection(), given)
    return frozenset(row.organization_id for row in rows)


def persons(access: Access, patients: Iterable[int]) -> frozenset[int]:
    """The patient rows that the asker may see, of the persons whose records these are."""
    rows = tuple(patients)
    known = seen(access, rows)
    records = access.session.scalars(select(Patient).where(Patient.id.in_(known))).all()
    others = beside.links(access, records)
    return known | {row for found in others.values() for row in found}


def treated(access: Access, patients: Iterable[int]) -> frozenset[int]:
    """Those of the patient rows whose person the asker's hospital has a record of its own of."""
    own, record = aliased(Patient), aliased(Patient)
    found = select(record.id).where(
        record.id.in_(tuple(patients)),
        or_(
            record.organization_id == access.organization,
            record.person_id.in_(
                select(own.person_id).where(
                    own.organization_id == access.organization, own.person_id.is_not(None)
                )
            ),
        ),
    )
    return frozenset(access.session.scalars(found))


def results(access: Access, requests: Sequence[str]) -> frozenset[str]:
    """The UIDs of the studies that the asker may see and that have come of ServiceRequests."""
    if not requests:
        return frozenset()
    found = _led(visibility.reach(access.requester, Action.SEARCH), Study.study_instance_uid)
    wanted = Order.request.in_(requests)
    given = visibility.parameters(access.requester, access.now)
    rows = access.session.execute(union(*(one.where(wanted) for one in found)), given)
    return frozenset(row[0] for row in rows)


def requested(access: Access, criterion: Criterion, *, limit: int) -> tuple[str, ...]:
    """The ServiceRequests of which studies have come that the asker may see, and that fulfil a
    criterion; by logical id. Raises TooBroad where they are too many."""
    values: list[Any] = []
    reach = visibility.reach(access.requester, Action.SEARCH)
    criteria = search.form([decided(access, criterion)], values)
    condition = search.condition(criteria, conditions(reach).links)
    given = search.parameters(values) | visibility.parameters(access.requester, access.now)
    found = union(*(one.where(condition) for one in _led(reach, Order.request))).limit(limit + 1)
    rows = access.session.execute(found, given).all()
    if len(rows) > limit:
        raise TooBroad("too many resources lead to it: ask for fewer of them")
    return tuple(row[0] for row in rows)


def _led(reach: Reach, column: Any) -> tuple[Select[Any], Select[Any]]:
    """`column` of the studies within reach and the orders that have led to them: by the study's
    UID, and by the accession number."""
    served = joined(select(column), Level.STUDY).where(
        visibility.within(reach), Order.status != "CANCELED", Order.request != ""
    )
    by_uid = served.join(Order, Order.study_instance_uid == Study.study_instance_uid).where(
        Order.organization_id == Patient.organization_id
    )
    by_number = served.join(Order, Order.accession_number == Study.accession_number).where(
        Order.patient_id == Study.patient_id
    )
    return by_uid, by_number


@lru_cache(len(Reach))
def _person(reach: Reach) -> Prepared:
    first, other = aliased(Patient), aliased(Patient)
    one = and_(first.id == bindparam("patient"), visibility.within(reach, first))
    others = (
        select(other.id)
        .select_from(first)
        .join(other, other.person_id == first.person_id)
        .where(one, visibility.within(reach, other))
    )
    return Prepared(union(select(first.id).where(one), others))


@lru_cache(STATEMENTS)
def _owners(level: Level, criteria: Form, reach: Reach) -> Prepared:
    condition = search.condition(criteria, conditions(reach).links)
    return Prepared(
        joined(select(Patient.organization_id).distinct(), level).where(
            condition, visibility.within(reach)
        )
    )
