"""Finding a person: by ID card, by a number of any hospital, by name or birth date; once each.

What is found are patient records that the asker may see; those of one person are one entry, which
says on what each match rests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select

from exchange import beside, identity, query, visibility
from exchange.access import Access
from exchange.errors import Invalid
from exchange.policy import Action
from exchange_storage import names, search
from exchange_storage.records import Organization, Patient
from exchange_storage.search import Criterion, Level

RECORDS = 60
"""Patient records that one question finds, at most."""

TEXT = 128
"""Characters of the longest question."""

_DATE = re.compile(r"\d{8}", re.ASCII)


class Basis(StrEnum):
    """On what it rests that a record is an answer."""

    RESIDENT_ID = "resident ID card"
    NUMBER = "patient number"
    IDENTIFIER = "another number"
    NAME = "name"
    ALIKE = "a name that sounds alike"
    BIRTH_DATE = "birth date"


@dataclass(frozen=True, slots=True)
class Known:
    """As whom one hospital knows a person."""

    patient: Patient
    organization: Organization
    rests_on: tuple[Basis, ...]
    """Empty where the record was not found itself, but is of the same person as one that was."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A person, or a patient record of whom nobody knows yet whose it is."""

    records: tuple[Known, ...]
    """Those that were found first."""

    @property
    def number(self) -> int:
        """The row of the record by which the person is asked for next."""
        return self.records[0].patient.id

    @property
    def rests_on(self) -> tuple[Basis, ...]:
        """On what all that was found of them rests."""
        return tuple(dict.fromkeys(basis for known in self.records for basis in known.rests_on))


@dataclass(frozen=True, slots=True)
class Answer:
    """The people who were found, and whether there are more of them."""

    entries: tuple[Entry, ...]
    more: bool


def find(access: Access, text: str, birth_date: str = "") -> Answer:
    """The people whom `text` may mean, and who were born on `birth_date` (YYYYMMDD).

    `text` is an ID card number, a patient number of any hospital, or a name in hanzi or pinyin;
    either of the two may be "". Raises Refused, Invalid.
    """
    text = text.strip()
    if birth_date and not _DATE.fullmatch(birth_date):
        raise Invalid("a birth date is written YYYYMMDD")
    if len(text) > TEXT:
        raise Invalid(f"what is looked for has at most {TEXT} characters")
    criteria: list[Criterion] = []
    if text:
        criteria.append(search.AnyOf(tuple(_meanings(text))))
    if birth_date:
        criteria.append(search.Match("PatientBirthDate", search.Values((birth_date,))))
    if not criteria:
        raise Invalid("give a name, a number or a birth date")
    answer = query.find(
        access,
        Level.PATIENT,
        criteria,
        limit=RECORDS,
        summarize=False,
        asked=f"{text} {birth_date}".strip(),
    )
    found = {one.patient.id: one.patient for one in answer.found}
    identifiers = beside.identifiers(access, found)
    others = beside.links(access, list(found.values()))
    known = of_records(access, {*found, *(row for rows in others.values() for row in rows)})
    told: dict[int, Entry] = {}
    for row in found:
        same = [one for one in (row, *others.get(row, ())) if one in known]
        if not same or min(same) in told:
            continue
        records = []
        for one in same:
            patient, organization = known[one]
            numbers = {held.value for held in identifiers.get(one, ())}
            bases = _rests_on(patient, numbers, text, birth_date) if one in found else ()
            records.append(Known(patient, organization, bases))
        told[min(same)] = Entry(tuple(sorted(records, key=lambda one: not one.rests_on)))
    return Answer(tuple(told.values()), answer.more)


def of_records(
    access: Access, records: Iterable[int]
) -> Mapping[int, tuple[Patient, Organization]]:
    """The patient records with these row numbers that the asker may see, with their hospitals."""
    rows = access.session.execute(
        select(Patient, Organization)
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Patient.id.in_(tuple(records)),
            ~Patient.withdrawn,
            visibility.visible(access.requester, Action.SEARCH),
        )
        .order_by(Patient.id),
        visibility.parameters(access.requester, access.now),
    )
    return {patient.id: (patient, organization) for patient, organization in rows}


def _meanings(text: str) -> Iterable[Criterion]:
    """What `text` may be. A valid ID card number is nothing else."""
    card = identity.resident_id(text)
    if card is not None:
        for spelling in _spellings(card.number, text):
            yield search.Identifier(spelling)
        return
    yield search.Number(None, search.Values((text,)))
    yield search.Identifier(text)
    if any(character.isalpha() for character in text):
        yield search.NamePart(None, search.Alike(text))
        if len(names.fold(text)) > 1:
            yield search.NamePart(None, search.Prefix(text))


def _spellings(number: str, text: str) -> list[str]:
    """How a sender may have written an ID card number: in either case, or in 15 digits."""
    spellings = [number, number.lower(), text]
    if number[6:8] == "19":
        spellings.append(number[:6] + number[8:17])
    return list(dict.fromkeys(spellings))


def _rests_on(patient: Patient, numbers: set[str], text: str, birth_date: str) -> tuple[Basis, ...]:
    """Why a record that was found is an answer."""
    bases: list[Basis] = []
    if text:
        card = identity.resident_id(text)
        kept = names.keys(patient.name)
        asked = names.asked(text)
        if card is not None:
            bases.append(Basis.RESIDENT_ID)
        elif patient.patient_id == text:
            bases.append(Basis.NUMBER)
        elif text in numbers:
            bases.append(Basis.IDENTIFIER)
        elif any(
            key.startswith(one) for one in asked for key in kept.full | kept.family | kept.given
        ):
            bases.append(Basis.NAME)
        else:
            bases.append(Basis.ALIKE)
    if birth_date:
        bases.append(Basis.BIRTH_DATE)
    return tuple(bases)
