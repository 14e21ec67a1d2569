"""Person (FHIR R4 8.2): who the patients of several hospitals are, as far as one may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from exchange.persons import Known
from exchange_fhir.datatypes import Json, instant, present, reference
from exchange_fhir.resources import patient
from exchange_fhir.search import (
    EVERYTHING,
    NOTHING,
    Parameter,
    Scope,
    Table,
    Type,
    any_of,
    date,
    token,
)
from exchange_fhir.search import reference as referring
from exchange_storage.criteria import Changed, Criterion, Level, Linked, Not, Rows
from exchange_storage.resource_criteria import IsPerson, OfPerson

BY_CARD, BY_MERGE = "level3", "level2"
"""How sure a link is (identity-assuranceLevel): a card that agrees, or one hospital's word."""


def to_fhir(known: Known, patients: Mapping[int, Json]) -> Json:
    """The Person of visible records; `patients` are their Patients by row number."""
    told = [patients[one.found.patient.id] for one in known.records]
    genders = [one["gender"] for one in told if one.get("gender", "unknown") != "unknown"]
    return present(
        resourceType="Person",
        id=str(known.person),
        meta={"lastUpdated": instant(max(one.found.patient.changed for one in known.records))},
        identifier=_each(told, "identifier", ("system", "value")),
        name=_each(told, "name", ("text", "family", "given")),
        telecom=_each(told, "telecom", ("system", "value")),
        gender=next(iter(genders), "unknown"),
        birthDate=next((one["birthDate"] for one in told if "birthDate" in one), None),
        address=_each(told, "address", ("text", "line", "city", "postalCode")),
        active=True,
        link=[
            {
                "target": reference("Patient", one.found.patient.id),
                "assurance": BY_CARD if one.by_card else BY_MERGE,
            }
            for one in known.records
        ],
    )


def _each(told: Iterable[Json], name: str, same_by: Sequence[str]) -> list[Any]:
    """What several Patients say, each once."""
    found = {
        repr([one.get(key) for key in same_by]): one
        for resource in reversed(list(told))
        for one in reversed(resource.get(name, ()))
    }
    return list(reversed(found.values()))


def any_record(criterion: Criterion) -> Criterion:
    """A record of the person, whichever, fulfils the criterion."""
    return Linked(Level.PATIENT, OfPerson((criterion,)))


@dataclass(frozen=True, slots=True)
class LastOfAll:
    """When the exchange last changed any of the records: a point in time."""

    def starts_from(self, at: datetime) -> Criterion:
        """One of them changed at the moment or later."""
        return any_record(Changed(Level.PATIENT, since=at))

    def starts_before(self, at: datetime) -> Criterion:
        """All of them changed before it."""
        return Not(self.starts_from(at))

    ends_after = starts_from
    ends_by = starts_before


def of_patient(read: Parameter[Criterion]) -> Parameter[Criterion]:
    """A parameter of Patients, asked of the records of a person."""

    def one(scope: Scope, value: str, modifier: str) -> Criterion:
        return any_record(read.read(scope, value, modifier))

    return replace(read, read=one, there=any_record(read.there))


def _person(_: Scope, asked: Any) -> Criterion:
    rows = patient.rows(asked.code)
    return Linked(Level.PATIENT, IsPerson(rows)) if rows else NOTHING


def _linked(_: Scope, identity: str) -> Criterion:
    return any_of(any_record(Rows(Level.PATIENT, (row,))) for row in patient.rows(identity))


AS_OF_PATIENTS = (
    *("name", "birthdate", "gender", "identifier", "telecom", "phone"),
    *(name for name in patient.SEARCH.parameters if name.startswith("address")),
)
"""What is asked of a person's records, each of which may answer it."""

SEARCH: Table[Criterion] = Table(
    documentation=(
        "One Person for the records of all hospitals that are known to be the same human being's. "
        "Only those that the asker may see are linked, and only by them a Person is found."
    ),
    parameters={
        "_id": token(_person, "Logical id"),
        "_lastUpdated": date(LastOfAll(), "When one of the linked records last changed"),
        "link": referring("Patient", _linked, "A linked record"),
        "patient": referring("Patient", _linked, "A linked record"),
        **{name: of_patient(patient.SEARCH.parameters[name]) for name in AS_OF_PATIENTS},
        # Of whom no record says it is of unknown gender.
        "gender": replace(of_patient(patient.SEARCH.parameters["gender"]), there=EVERYTHING),
    },
    told={
        "phonetic": any_record(patient.SEARCH.told["phonetic"]),
        **{code: any_record(patient.told(Type.TOKEN, code)) for code in ("email", "address-use")},
    },
    sorts={"_id": "person"},
)
