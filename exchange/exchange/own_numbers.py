"""Under which number the asker knows a patient: its own for the person, where it has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.orm import aliased

from exchange.access import Access
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, Patient
from exchange_storage.rows import as_list, one_of
from exchange_storage.search import Criterion, Matching


@dataclass(frozen=True, slots=True)
class Number:
    """A patient number and the OID of the hospital that issued it."""

    value: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Known:
    """The number under which the asker knows a patient, and which one stands for the owner's."""

    number: Number
    standing: Number
    """The owner's number for the patient; of a record that it has merged the surviving one's."""


def known_as(
    access: Access,
    page: Sequence[Any],
    rows: Sequence[Any],
    criteria: Sequence[Criterion] = (),
    *,
    retired: bool = False,
) -> Iterator[Known]:
    """How the asker knows the patient of each row of a page, which has `TOLD`.

    A record of the asker's own has its number, or the surviving one's that its hospital has merged
    it into (IHE RAD-12); any other has the asker's number, where it has one, the lowest of several.
    Whoever asks for one of several gets all of the person under that one. With `retired` that may
    be one that was merged, which is what matches such a key (PS3.4 C.2.2.2.1); without it nothing
    bears a number that is no longer given to anybody.
    """
    records = [row[0] for row in rows]
    standing = _standing(access, records)
    known = [
        _told(access, row[0], row[1], beside, standing)
        for row, beside in zip(rows, page, strict=True)
    ]
    yield from _as_asked(access, records, known, criteria, retired=retired)


def of_own(
    access: Access,
    records: Sequence[tuple[Patient, Organization]],
    criteria: Sequence[Criterion] = (),
) -> list[Number]:
    """The numbers of a hospital's own records, also by one that was merged."""
    patients = [patient for patient, _ in records]
    standing = _standing(access, patients)
    numbers = [_owners(patient, owner, standing) for patient, owner in records]
    known = [Known(one, one) for one in numbers]
    return [one.number for one in _as_asked(access, patients, known, criteria, retired=True)]


def _as_asked(
    access: Access,
    records: Sequence[Patient],
    known: Sequence[Known],
    criteria: Sequence[Criterion],
    *,
    retired: bool,
) -> Iterator[Known]:
    """The same, of those that were asked for by another number of the asker's under that one."""
    asked = _asked(access, criteria)
    others = {
        record.id: record.person_id
        for record, one in zip(records, known, strict=True)
        if asked and record.person_id is not None and not _is_asked(one.number.value, asked)
    }
    asked_for = _asked_for(access, others.values(), asked, retired=retired) if others else {}
    for record, one in zip(records, known, strict=True):
        number = asked_for.get(others.get(record.id), one.number)
        yield one if number is one.number else replace(one, number=number)


def told(access: Access, patient: Patient, owner: Organization, beside: Any) -> Known:
    """The same for one record: `beside` it, a row has `TOLD`."""
    return _told(access, patient, owner, beside, _standing(access, [patient]))


def own(access: Access, record: Patient) -> Number | None:
    """The asker's own number for the person of another hospital's record, if it has one."""
    numbers = [one for one in _numbers(access, [record.person_id]) if not one.merged]
    lowest = min(numbers, key=attrgetter("patient_id"), default=None)
    return None if lowest is None else Number(lowest.patient_id, lowest.issuer)


def owners(access: Access, patient: Patient, owner: Organization) -> Number:
    """The owner's number for the patient; of a record that it has merged the surviving one's."""
    return _owners(patient, owner, _standing(access, [patient]))


def _owners(patient: Patient, owner: Organization, standing: Mapping[int, str]) -> Number:
    return Number(standing.get(patient.id, patient.patient_id), owner.issuer)


def _told(
    access: Access, patient: Patient, owner: Organization, beside: Any, standing: Mapping[int, str]
) -> Known:
    owners = _owners(patient, owner, standing)
    if patient.organization_id != access.requester.organization and beside.own_number is not None:
        return Known(Number(beside.own_number, beside.own_issuer), owners)
    return Known(owners, owners)


_NUMBERS = Prepared(
    lambda dialect: (
        select(
            Patient.person_id,
            Patient.patient_id,
            Organization.issuer,
            Patient.replaced_by_id.is_not(None).label("merged"),
        )
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Patient.organization_id == bindparam("asker"),
            one_of(Patient.person_id, "persons", dialect),
            Patient.patient_id != "",
        )
        # Not in order: SQLite would go through all numbers of the hospital for that.
    )
)

_REPLACING = Prepared(
    lambda dialect: select(Patient.id, Patient.patient_id, Patient.replaced_by_id).where(
        one_of(Patient.id, "wanted", dialect)
    )
)


def _numbers(access: Access, persons: Iterable[int | None]) -> Sequence[Any]:
    """All of the asker's own numbers for persons."""
    known = {person for person in persons if person is not None}
    asker = access.requester.organization
    if not known or asker is None:
        return ()
    given = {"asker": asker, "persons": as_list(known)}
    return _NUMBERS.all(access.session.connection(), given)


def _asked_for(
    access: Access, persons: Iterable[int | None], asked: Sequence[Matching], *, retired: bool
) -> Mapping[int | None, Number]:
    """The asker's numbers for persons that were asked for, by person: of several one that was not
    merged, then the lowest."""
    found = sorted(_numbers(access, persons), key=attrgetter("merged", "patient_id"), reverse=True)
    return {
        one.person_id: Number(one.patient_id, one.issuer)
        for one in found
        if _is_asked(one.patient_id, asked) and (retired or not one.merged)
    }


def _standing(access: Access, records: Sequence[Patient]) -> dict[int, str]:
    """The surviving numbers of those records that their hospital has merged into others, by row."""
    merged = {one.id: one.replaced_by_id for one in records if one.replaced_by_id is not None}
    found: dict[int | None, Any] = {}
    ahead = set(merged.values())
    while ahead:
        asked = {"wanted": as_list(ahead)}
        rows = _REPLACING.all(access.session.connection(), asked)
        found |= {row.id: row for row in rows}
        ahead = {row.replaced_by_id for row in rows if row.replaced_by_id is not None} - set(found)
    survives: dict[int, str] = {}
    for row, into in merged.items():
        last = found[into]
        for _ in found:  # no further, should two have replaced each other at the same moment
            last = found.get(last.replaced_by_id, last)
        survives[row] = last.patient_id
    return survives


def _asked(access: Access, criteria: Sequence[Criterion]) -> list[Matching]:
    """What the question says of numbers of the asker's own."""
    asker = access.requester.organization
    return [
        criterion.matching
        for criterion in criteria
        if isinstance(criterion, search.Number) and criterion.organization == asker
    ]


def _is_asked(number: str, asked: Sequence[Matching]) -> bool:
    return any(
        number in one.values
        if isinstance(one, search.Values)
        else isinstance(one, search.Pattern)
        # In which a bracket is no wildcard, as it is of Python's.
        and fnmatchcase(number, one.pattern.replace("[", "[[]"))
        for one in asked
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
