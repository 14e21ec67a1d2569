"""Demographics: under what names and numbers a patient record is found, and whose it is said to be.

What brings them is an image or order (`ingest`), which completes what is known, or the hospital's
own feed of patients (`registration`), which replaces it. A name that an image or order says beside
the known one finds the patient too. In the transaction of their `session`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import bindparam, delete, insert, select, tuple_
from sqlalchemy.orm import Session

from exchange import identity, jobs
from exchange.access import Access
from exchange_storage import names
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    NameKind,
    Patient,
    PatientIdentifier,
    PatientName,
    PersonNameKey,
)

MAX_IDENTIFIERS = 32
"""Other identifiers of a patient that are kept."""

MAX_NAME_KEYS = 256
"""Search keys up to which further names are kept of a patient: some 30 names. A number that stands
for many people, because a device wants one, must not become slow to receive."""

Pairs = Collection[tuple[str, str]]


def clipped(text: str, length: int = 255) -> str:
    """As much of `text` as the index keeps; the object keeps all of it. NUL has no place in SQL."""
    return text.replace("\0", "")[:length]


def name_keys(name: str) -> set[tuple[str, str]]:
    """The search keys of a name, as (kind, key)."""
    found = names.keys(name)
    return {
        (kind.value, key[:255])
        for kind, group in (
            (NameKind.FULL, found.full),
            (NameKind.FAMILY, found.family),
            (NameKind.GIVEN, found.given),
        )
        for key in group
    }


@lru_cache(4096)
def full_keys(name: str) -> frozenset[str]:
    """The search keys of the whole name, in each of its component groups."""
    return names.keys(name).full


@lru_cache(4096)
def further_keys(known: str, told: str) -> frozenset[tuple[str, str]]:
    """The search keys of a name that is `told` beside the `known` one, which has them not."""
    return frozenset(name_keys(told) - name_keys(known))


def names_of(session: Session, patient: int) -> set[tuple[str, str]]:
    """The search keys of the record with this row number, as (kind, key)."""
    return set(map(tuple, _NAMES.all(session.connection(), {"patient": patient})))


def also_named(session: Session, patient: int, known: str, told: str) -> bool | None:
    """Have the record, whose name is `known`, found by the name that is `told` of it too; returns
    whether it was before, None where that name is the same, written otherwise.

    Nothing is asked then.
    """
    if known == told or not (further := further_keys(known, told)):
        return None
    present = names_of(session, patient)
    if len(present | further) <= MAX_NAME_KEYS:
        add_names(session, patient, further - present)
    return further <= present


def add_names(session: Session, patient: int, keys: Pairs) -> None:
    """Have the record found under more search keys, none of which it has."""
    if keys:
        rows = [{"patient_id": patient, "kind": kind, "key": key} for kind, key in sorted(keys)]
        _ADD_NAME.run_many(session.connection(), rows)


def remove_names(session: Session, patient: int, keys: Pairs) -> None:
    """Have the record not found under these search keys any more."""
    if keys:
        session.execute(
            delete(PatientName).where(
                PatientName.patient_id == patient,
                tuple_(PatientName.kind, PatientName.key).in_(sorted(keys)),
            )
        )


def replace_names(session: Session, patient: int, keys: Pairs) -> None:
    """Have the record found under these search keys and no others."""
    session.execute(delete(PatientName).where(PatientName.patient_id == patient))
    add_names(session, patient, keys)


def know_persons(session: Session, told: Iterable[str]) -> None:
    """Have records found by these names of anybody but the patient, in whichever they stand.

    A value of several names (``Zhao^Min\\Li^Na``) is found by each. In the transaction of
    `session`, one of which has the chain of the trail at a time: nobody else adds the same.
    """
    connection = session.connection()
    for name in {name for name in told if name}:
        if _PERSON.first(connection, {"name": name}) is None:
            keys = {key[:255] for one in name.split("\\") for key in names.keys(one).full}
            rows = [{"name": name, "key": key} for key in sorted(keys)]
            _ADD_PERSON.run_many(connection, rows)


def identifiers(told: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Other numbers of a patient, as (system, value), without the empty ones."""
    return {(clipped(system), clipped(value)) for system, value in told if value.strip()}


def new_identifiers(
    session: Session, patient: int, told: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The identifiers (system, value) that the patient does not have yet, as many as fit."""
    wanted = identifiers(told)
    if not wanted:
        return []
    present = set(map(tuple, _IDENTIFIERS.all(session.connection(), {"patient": patient})))
    return sorted(wanted - present)[: max(0, MAX_IDENTIFIERS - len(present))]


def add_identifiers(session: Session, patient: int, more: Pairs) -> None:
    """Have the record found under more identifiers, none of which it has; as many as are kept."""
    if more:
        rows = [
            {"patient_id": patient, "system": system, "value": value}
            for system, value in sorted(more)[:MAX_IDENTIFIERS]
        ]
        _ADD_IDENTIFIER.run_many(session.connection(), rows)


def replace_identifiers(session: Session, patient: int, told: Iterable[tuple[str, str]]) -> None:
    """Have the record found under these identifiers and no others; as many as are kept."""
    session.execute(delete(PatientIdentifier).where(PatientIdentifier.patient_id == patient))
    add_identifiers(session, patient, identifiers(told))


def agree(session: Session, family: Sequence[Patient], now: datetime) -> None:
    """Have the records that were merged say of their patient what the one in whose place says.

    Merged, they are one patient (IHE RAD-12), asked for and told of alike under every key; what
    that one does not say stays. `family` are all that stand in one another's place. A record that
    is to be its own again is told of anew by its hospital, all of it.
    """
    records = {one.id: one for one in family}
    for root, members in identity.together(family).items():
        standing, keys = records[root], set[tuple[str, str]]()
        for one in members:
            if one is standing:
                continue
            keys = keys or names_of(session, root)
            add_names(session, one.id, keys - names_of(session, one.id))
            told = {column: getattr(standing, column) for column in _OF_PATIENT}
            news = {k: v for k, v in told.items() if v and v != getattr(one, k)}
            if news:
                for column, value in news.items():
                    setattr(one, column, value)
                one.changed = now
    session.flush()


def parted(session: Session, standing: Patient, before: Patient) -> None:
    """`before` stands no longer for `standing` and what was merged into that: these say nothing of
    it that they have from `before` alone, and are not found by its name."""
    others = names_of(session, before.id) - names_of(session, standing.id)
    family, below = identity.family_of(session, [standing]), {standing.id}
    for _ in family:
        below |= {one.id for one in family if one.replaced_by_id in below}
    for one in family:
        if one is standing or one.id not in below:
            continue
        remove_names(session, one.id, others)
        for column in _OF_PATIENT:
            if getattr(one, column) == getattr(before, column) != getattr(standing, column):
                setattr(one, column, getattr(standing, column))
    session.flush()


_OF_PATIENT = ("name", "birth_date", "sex", "address", "telephone", "mothers_birth_name")


def identify(access: Access, session: Session, patient: Patient, now: datetime) -> None:
    """Say to whom the record belongs, as far as it can be told now; the worker looks again."""
    identity.link_by_card(access, session, patient)
    jobs.ask(session, jobs.IDENTIFY, str(patient.id), now)


_PERSON = Prepared(
    select(PersonNameKey.key).where(PersonNameKey.name == bindparam("name")).limit(1)
)
_ADD_PERSON = Prepared(insert(PersonNameKey), ["name", "key"])
_NAMES = Prepared(
    select(PatientName.kind, PatientName.key).where(PatientName.patient_id == bindparam("patient"))
)
_IDENTIFIERS = Prepared(
    select(PatientIdentifier.system, PatientIdentifier.value).where(
        PatientIdentifier.patient_id == bindparam("patient")
    )
)
_ADD_NAME = Prepared(insert(PatientName), ["patient_id", "kind", "key"])
_ADD_IDENTIFIER = Prepared(insert(PatientIdentifier), ["patient_id", "system", "value"])
