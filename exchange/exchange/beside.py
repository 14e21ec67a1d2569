"""What is told beside a patient record: its other identifiers, the same person's records, and what
its hospital wrote of it; each as far as the asker may see it.

A server is asked by one statement, with the record where that is looked for alone: a way there and
back takes longer than each of them. A file is asked one by one, which is quicker there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, String, cast, literal, select

from exchange import attachments, clinical, visibility
from exchange.access import Access
from exchange.policy import Action
from exchange.visibility import Reach
from exchange_storage.prepared import Prepared
from exchange_storage.records import Patient, PatientIdentifier, Resource, Revision
from exchange_storage.rows import as_list, listed, one_of, shared


class Identifier(NamedTuple):
    """An identifier that a patient record carries beside its own number."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class Beside:
    """All of it, of one record."""

    identifiers: tuple[Identifier, ...] = ()
    links: tuple[int, ...] = ()
    """The rows of the person's other records."""
    written: bytes | None = None
    """The Patient as its hospital wrote it; None where it came with images only."""


class Reaches(NamedTuple):
    """What an asker may reach: by searching, and by retrieving what hospitals wrote of patients."""

    search: Reach
    retrieve: Reach


def together(access: Access) -> Reaches | None:
    """What the asker may reach, where all is asked by one statement."""
    if access.exchange.database.dialect != "postgresql":
        return None
    requester = access.requester
    return Reaches(
        visibility.reach(requester, Action.SEARCH),
        visibility.reach(requester, clinical.reading(requester, Action.RETRIEVE, "Patient")),
    )


def told_with(
    found: Select[*tuple[Any, ...]], reaches: Reaches, dialect: str
) -> Select[*tuple[Any, ...]]:
    """The rows of patient records that `found` selects, in the order of their numbers, each with
    all that is beside it: to be read by `of_row`.

    What is beside is looked for behind the LIMIT of `found`, and not for all that are put in order.
    """
    record = found.subquery("found")
    row, person = record.c.patient__id, record.c.patient__person_id
    identifiers = (
        select(listed(dialect, PatientIdentifier.system, PatientIdentifier.value))
        .join(_ITSELF, _ITSELF.id == PatientIdentifier.patient_id)
        .where(PatientIdentifier.patient_id == row, visibility.within(reaches.search, _ITSELF))
    )
    links = select(listed(dialect, _OTHER.id)).where(
        _OTHER.person_id == person, _OTHER.id != row, visibility.within(reaches.search, _OTHER)
    )
    written = (
        select(Revision.content)
        .join(
            _WRITTEN,
            (_WRITTEN.id == Revision.resource_id) & (_WRITTEN.version == Revision.version),
        )
        .where(
            _WRITTEN.kind == literal("Patient", _WRITTEN.kind.type),
            _WRITTEN.logical_id == cast(row, String()),
            ~_WRITTEN.deleted,
            visibility.clinical_within(reaches.retrieve, _WRITTEN),
        )
    )
    return select(
        *record.c,
        identifiers.scalar_subquery().label("beside_identifiers"),
        links.scalar_subquery().label("beside_links"),
        written.scalar_subquery().label("beside_written"),
    ).order_by(row)


def of_row(access: Access, row: Any) -> Beside:
    """What is beside the patient record of a row that was selected by `told_with`."""
    written = row.beside_written
    return Beside(
        tuple(sorted(Identifier(*one) for one in json.loads(row.beside_identifiers or "[]"))),
        tuple(sorted(one for (one,) in json.loads(row.beside_links or "[]"))),
        None if written is None else attachments.whole(access.objects, written),
    )


def of(access: Access, records: Sequence[Patient]) -> dict[int, Beside]:
    """What is beside patient records, by their rows.

    It is for the caller to have told of the patients, which is audited.
    """
    numbers = [record.id for record in records]
    if reaches := together(access):
        given = visibility.parameters(access.requester, access.now) | {"wanted": as_list(numbers)}
        rows = _of(reaches).all(access.session.connection(), given)
        return {row.patient__id: of_row(access, row) for row in rows}
    known, linked = identifiers(access, numbers), links(access, records)
    kept = clinical.current(access, "Patient", [str(row) for row in numbers])
    written = {int(one.logical_id): one.content for one in kept}
    return {
        row: Beside(known.get(row, ()), linked.get(row, ()), written.get(row)) for row in numbers
    }


def links(access: Access, records: Sequence[Patient]) -> Mapping[int, tuple[int, ...]]:
    """The other records of the same persons that the asker may see, by row numbers."""
    persons = {record.person_id for record in records if record.person_id is not None}
    if not persons:
        return {}
    given = visibility.parameters(access.requester, access.now) | {"wanted": as_list(persons)}
    found = _same_persons(visibility.reach(access.requester, Action.SEARCH))
    of_person: dict[int | None, list[int]] = defaultdict(list)
    for person, row in found.all(access.session.connection(), given):
        of_person[person].append(row)
    return {
        record.id: tuple(row for row in of_person[record.person_id] if row != record.id)
        for record in records
        if record.person_id is not None
    }


def identifiers(access: Access, patients: Iterable[int]) -> Mapping[int, tuple[Identifier, ...]]:
    """The other identifiers of the patient rows that the asker may see, by row number."""
    given = visibility.parameters(access.requester, access.now) | {"wanted": as_list(patients)}
    found = _known_by(visibility.reach(access.requester, Action.SEARCH))
    of_patient: dict[int, tuple[Identifier, ...]] = {}
    for patient, system, value in found.all(access.session.connection(), given):
        of_patient[patient] = (*of_patient.get(patient, ()), Identifier(system, value))
    return of_patient


_ITSELF, _OTHER, _WRITTEN = shared(Patient), shared(Patient), shared(Resource)


@cache
def _of(reaches: Reaches) -> Prepared:
    return Prepared(
        lambda dialect: told_with(
            select(Patient.id.label("patient__id"), Patient.person_id.label("patient__person_id"))
            .where(one_of(Patient.id, "wanted", dialect)),
            reaches,
            dialect,
        )
    )  # fmt: skip


@cache
def _same_persons(reach: Reach) -> Prepared:
    """Patient records within a reach, of the persons whose rows are `wanted` (see `one_of`)."""
    return Prepared(
        lambda dialect: (
            select(Patient.person_id, Patient.id)
            .where(one_of(Patient.person_id, "wanted", dialect), visibility.within(reach))
            .order_by(Patient.id)
        )
    )


@cache
def _known_by(reach: Reach) -> Prepared:
    """The other identifiers of the patient records within a reach whose rows are `wanted`."""
    identifier = PatientIdentifier
    return Prepared(
        lambda dialect: (
            select(identifier.patient_id, identifier.system, identifier.value)
            .join(Patient, Patient.id == identifier.patient_id)
            .where(one_of(Patient.id, "wanted", dialect), visibility.within(reach))
            .order_by(identifier.system, identifier.value)
        )
    )
