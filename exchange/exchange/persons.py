"""Persons: whose patient records of several hospitals are, as far as the asker may see them.

A person is known to an asker by the records that are visible; of one without any there is nothing
to tell, not even that it is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import bindparam, func, select

from exchange import identity, visibility
from exchange.access import Access
from exchange.audit import for_the_trail
from exchange.decided import conditions, joined
from exchange.errors import NotFound
from exchange.matches import STATEMENTS
from exchange.own_numbers import Number
from exchange.policy import Action
from exchange.query import Found, decided
from exchange.visibility import Reach
from exchange_storage import search
from exchange_storage.criteria import Linked
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Link, Organization, Patient
from exchange_storage.resource_criteria import IsPerson
from exchange_storage.search import Criterion, Level

FIRST = 0
LAST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A patient record of a person, and on what it rests that it is theirs."""

    found: Found
    by_card: bool
    """By a resident ID card that agrees with the record; else their hospital merged records."""


@dataclass(frozen=True, slots=True)
class Known:
    """A person, by the records that the asker may see."""

    person: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of persons in the order of their numbers, whether more remain, and how many in all."""

    found: tuple[Known, ...]
    more: bool
    total: int | None = None


def find(
    access: Access,
    criteria: Sequence[Criterion],
    *,
    limit: int,
    after: int | None = None,
    descending: bool = False,
    total: bool = False,
    asked: str = "",
) -> Answer:
    """The persons of whose visible records one fulfils all criteria, `limit` of them.

    They begin behind the one numbered `after`. Criteria that different records may fulfil are
    `resource_criteria.OfPerson`. Raises Refused, TooBroad.
    """
    detail = {"kind": "Person", "asked": for_the_trail(asked)}
    access.require(Action.SEARCH, detail=detail)
    values: list[Any] = []
    form = search.form([decided(access, one) for one in criteria], values)
    reach = visibility.reach(access.requester, Action.SEARCH)
    given = search.parameters(values) | _given(access)
    connection = access.session.connection()
    count = _count(form, reach).number(connection, given) if total else None
    if after is None:
        after = LAST if descending else FIRST
    bounds = {"after": after, "limit": limit + 1}
    rows = _page(form, reach, descending=descending).all(connection, given | bounds)
    persons = [row.person_id for row in rows[:limit]]
    records = _records(access, persons)
    patients = sorted(one.found.patient.id for found in records.values() for one in found)
    access.note(
        Action.SEARCH,
        patient=patients[0] if len(persons) == 1 else None,
        detail=detail | {"answered": len(persons), "patients": patients},
    )
    return Answer(tuple(Known(one, records[one]) for one in persons), len(rows) > limit, count)


def one(access: Access, person: int) -> Known:
    """The person with this number. Raises Refused, NotFound."""
    detail = {"what": f"Person/{person}"}
    access.require(Action.RETRIEVE, detail=detail)
    records = _records(access, [person]).get(person)
    if not records:
        raise NotFound("no such person")
    patients = [one.found.patient.id for one in records]
    access.note(Action.RETRIEVE, patient=patients[0], detail=detail | {"patients": patients})
    return Known(person, records)


def of_patients(access: Access, patients: Iterable[int], *, limit: int) -> tuple[Known, ...]:
    """The persons whose visible records these are, by their rows: to be included."""
    rows = select(Patient.person_id).where(
        Patient.id.in_(tuple(patients)),
        Patient.person_id.is_not(None),
        visibility.visible(access.requester, Action.SEARCH),
    )
    persons = {row for row in access.session.scalars(rows, _given(access)) if row is not None}
    wanted = Linked(Level.PATIENT, IsPerson(tuple(sorted(persons))))
    return find(access, [wanted], limit=limit).found


def _given(access: Access) -> dict[str, Any]:
    return visibility.parameters(access.requester, access.now)


def _records(access: Access, persons: Sequence[int]) -> Mapping[int, tuple[Record, ...]]:
    """The visible records of persons, by their numbers; two queries for all of them."""
    if not persons:
        return {}
    rows = access.session.execute(
        select(Patient, Organization)
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Patient.person_id.in_(persons),
            ~Patient.withdrawn,
            visibility.visible(access.requester, Action.SEARCH),
        )
        .order_by(Patient.id),
        _given(access),
    ).all()
    rules = _rules(access, [patient.id for patient, _ in rows])
    of_person: dict[int, list[Record]] = defaultdict(list)
    for patient, owner in rows:
        number = Number(patient.patient_id, owner.issuer)
        found = Found(owner=owner, patient=patient, number=number, standing=number)
        by_card = rules.get(patient.id) == identity.BY_CARD
        if patient.person_id is not None:
            of_person[patient.person_id].append(Record(found, by_card))
    return {person: tuple(found) for person, found in of_person.items()}


def _rules(access: Access, patients: Sequence[int]) -> Mapping[int, str]:
    """On what rests the last link of patient records to whose they are."""
    links = access.session.execute(
        select(Link.patient_id, Link.evidence)
        .join(Patient, Patient.id == Link.patient_id)
        .where(
            Link.patient_id.in_(patients),
            Link.person_id == Patient.person_id,
            Link.decision == identity.LINK,
        )
        .order_by(Link.id)
    )
    return {patient: str(evidence.get("rule", "")) for patient, evidence in links}


@lru_cache(STATEMENTS)
def _page(form: Form, reach: Reach, *, descending: bool) -> Prepared:
    number = Patient.person_id
    after = bindparam("after", type_=number.type)
    return Prepared(
        joined(select(number).distinct(), Level.PATIENT)
        .where(
            search.condition(form, conditions(reach).links),
            visibility.within(reach),
            number < after if descending else number > after,
        )
        .order_by(number.desc() if descending else number)
        .limit(bindparam("limit"))
    )


@lru_cache(STATEMENTS)
def _count(form: Form, reach: Reach) -> Prepared:
    return Prepared(
        joined(select(func.count(Patient.person_id.distinct())), Level.PATIENT).where(
            search.condition(form, conditions(reach).links), visibility.within(reach)
        )
    )
