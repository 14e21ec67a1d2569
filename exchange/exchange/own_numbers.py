"""Under which number the asker knows a patient: its own for the person, where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.orm import aliased

from exchange.access import Access
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, Patient
from exchange_storage.rows import as_list, one_of
from exchange_storage.search import Criterion


@dataclass(frozen=True, slots=True)
class Number:
    """A patient number and the OID of the hospital that issued it."""

    value: str
    issuer: str


def known_as(
    access: Access, page: Sequence[Any], rows: Sequence[Any], criteria: Sequence[Criterion]
) -> Iterator[Number]:
    """The number under which the asker knows the patient of each row of a page, which has `TOLD`.

    A record of the asker's own keeps its number, unless another number of the same person was
    asked for; any other has the asker's number, where it has one: of several the one that was
    asked for, else the lowest.
    """
    asker, asked = access.requester.organization, _asked(access, criteria)
    different = {
        row[0].id: row[0]
        for row, beside in zip(rows, page, strict=True)
        if asked
        and row[0].person_id is not None
        and (row[0].patient_id if row[0].organization_id == asker else beside.own_number)
        not in asked
    }
    asked_for = _numbers(access, tuple(different.values()), asked) if different else {}
    for row, beside in zip(rows, page, strict=True):
        yield asked_for.get(row[0].id) or told(access, row[0], row[1], beside)


def told(access: Access, patient: Patient, owner: Organization, beside: Any) -> Number:
    """The same for one record: `beside` it, a row has `TOLD`."""
    if patient.organization_id != access.requester.organization and beside.own_number is not None:
        return Number(beside.own_number, beside.own_issuer)
    return Number(patient.patient_id, owner.issuer)


def own(access: Access, record: Patient) -> Number | None:
    """The asker's own number for the person of another hospital's record, if it has one."""
    return _numbers(access, [record]).get(record.id)


_NUMBERS = Prepared(
    lambda dialect: (
        select(Patient.person_id, Patient.patient_id, Organization.issuer)
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Patient.organization_id == bindparam("asker"),
            one_of(Patient.person_id, "persons", dialect),
            Patient.patient_id != "",
            Patient.replaced_by_id.is_(None),
        )
        # Not in order: SQLite would go through all numbers of the hospital for that.
    )
)


def _numbers(
    access: Access, records: Sequence[Patient], asked: frozenset[str] = frozenset()
) -> dict[int, Number]:
    """The asker's own numbers for the persons of `records`, by patient row.

    Of several numbers of a person the one that was asked for, else the lowest. A record of the
    asker's own keeps its number, unless another number of the same person was asked for.
    """
    asker = access.requester.organization
    foreign = [
        record
        for record in records
        if record.person_id is not None
        and (record.organization_id != asker or (asked and record.patient_id not in asked))
    ]
    if not foreign or asker is None:
        return {}
    persons = as_list({record.person_id for record in foreign if record.person_id is not None})
    given = {"asker": asker, "persons": persons}
    known = _NUMBERS.all(access.session.connection(), given)
    by_person: dict[int | None, Number] = {}
    for person, value, issuer in sorted(known, key=attrgetter("patient_id"), reverse=True):
        if person not in by_person or by_person[person].value not in asked:
            by_person[person] = Number(value, issuer)
    return {
        record.id: number
        for record in foreign
        if (number := by_person.get(record.person_id)) is not None
        and (record.organization_id != asker or number.value in asked)
    }


def _asked(access: Access, criteria: Sequence[Criterion]) -> frozenset[str]:
    """The numbers of the asker's own that the question names."""
    asker = access.requester.organization
    return frozenset(
        value
        for criterion in criteria
        if isinstance(criterion, search.Number)
        and criterion.organization == asker
        and isinstance(criterion.matching, search.Values)
        for value in criterion.matching.values
    )


def _columns() -> tuple[ColumnElement[Any], ...]:
    own, asker = aliased(Patient), aliased(Organization)
    asking = bindparam("asker", type_=Patient.organization_id.type)
    number = (
        select(func.min(own.patient_id))
        .where(
            own.organization_id == asking,
            own.person_id == Patient.person_id,
            own.patient_id != "",
            own.replaced_by_id.is_(None),
        )
        .correlate(Patient)
        .scalar_subquery()
    )
    issuer = select(asker.issuer).where(asker.id == asking).scalar_subquery()
    return number.label("own_number"), issuer.label("own_issuer")


TOLD = _columns()
"""The asker's lowest number for the person of a `Patient`, and who issued it, to be selected."""
