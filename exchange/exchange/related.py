"""Where a question leads: to all records of a person, and to the owners of what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import and_, bindparam, select, union
from sqlalchemy.orm import aliased

from exchange import policy
from exchange.access import Access
from exchange.decided import conditions, joined
from exchange.policy import Action, Reach
from exchange.query import STATEMENTS, decided, links, seen
from exchange_storage import search
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Patient
from exchange_storage.search import Criterion, Level


def same_person(access: Access, patient: int) -> tuple[int, ...]:
    """The records of the person of a patient row, as far as the asker may see them; none if not
    that row itself."""
    reach = policy.reach(access.requester, Action.SEARCH)
    given = policy.parameters(access.requester, access.now) | {"patient": patient}
    rows = _person(reach).all(access.session.connection(), given)
    return tuple(sorted(row.id for row in rows))


def owners(access: Access, level: Level, criterion: Criterion) -> frozenset[int]:
    """The organizations whose records at a level fulfil a criterion, as far as they may be seen."""
    values: list[Any] = []
    criteria = search.form([decided(access, criterion)], values)
    reach = policy.reach(access.requester, Action.SEARCH)
    given = search.parameters(values) | policy.parameters(access.requester, access.now)
    rows = _owners(level, criteria, reach).all(access.session.connection(), given)
    return frozenset(row.organization_id for row in rows)


def persons(access: Access, patients: Iterable[int]) -> frozenset[int]:
    """The patient rows that the asker may see, of the persons whose records these are."""
    rows = tuple(patients)
    known = seen(access, rows)
    records = access.session.scalars(select(Patient).where(Patient.id.in_(known))).all()
    others = links(access, records)
    return known | {row for found in others.values() for row in found}


@lru_cache(len(Reach))
def _person(reach: Reach) -> Prepared:
    first, other = aliased(Patient), aliased(Patient)
    one = and_(first.id == bindparam("patient"), policy.within(reach, first))
    others = (
        select(other.id)
        .select_from(first)
        .join(other, other.person_id == first.person_id)
        .where(one, policy.within(reach, other))
    )
    return Prepared(union(select(first.id).where(one), others))


@lru_cache(STATEMENTS)
def _owners(level: Level, criteria: Form, reach: Reach) -> Prepared:
    condition = search.condition(criteria, conditions(reach).links)
    return Prepared(
        joined(select(Patient.organization_id).distinct(), level).where(
            condition, policy.within(reach)
        )
    )
