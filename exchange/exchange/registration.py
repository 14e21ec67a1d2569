"""Registration: a hospital's own feed of its patients, by its own numbers (IHE PIXm ITI-104).

Images and orders complete what is known of a patient; this replaces it, since it is the hospital
that says who its patients are. A record is merged into another one of the same hospital; none is
deleted of which anything is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, exists, or_, select

from exchange import clinical, demographics, discrepancies, identity, jobs, otherwise
from exchange.access import Access
from exchange.clinical import Kept
from exchange.demographics import clipped
from exchange.errors import Conflicting, Invalid, NotFound, Stale
from exchange.policy import Action
from exchange.recording import Draft, Expected, Finder, Render, Writing, several
from exchange.writing import expect
from exchange_storage.records import (
    Compartment,
    Consent,
    Order,
    Organization,
    Patient,
    Resource,
    Study,
)
from exchange_storage.resource_index import Value

KIND = "Patient"
"""The kind under which what a hospital wrote of a patient is kept, with the record's row number as
its logical id."""

REPLACED = 16
"""Records that may stand in each other's place, one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A patient as the hospital's own system tells of them."""

    number: str
    """The hospital's own number for the patient."""
    name: str = ""
    """As PS3.5 section 6.2 writes PN: ``Alphabetic=Ideographic=Phonetic``."""
    further_names: tuple[str, ...] = ()
    """Other names by which the patient is found, written likewise."""
    birth_date: str = ""
    """YYYYMMDD."""
    sex: str = ""
    """M, F, O or ""."""
    address: str = ""
    telephone: str = ""
    """Several are separated by backslashes."""
    mothers_birth_name: str = ""
    identifiers: tuple[tuple[str, str], ...] = ()
    """Other numbers of the patient, as (issuer or "", value)."""
    replaced_by: int | None = None
    """The row number of the hospital's record that stands in the place of this one."""
    replaced_by_number: str = ""
    """The hospital's own number for that patient, where a feed tells no row number."""
    values: Sequence[Value] = field(default=(), repr=False)
    """Under what it is found beside all this."""
    render: Render = field(repr=False)
    """What is kept of it beside all this, as it came."""


@dataclass(frozen=True, slots=True)
class Register:
    """Make, or replace, what is known of the patient with this number: an act of `recording`.

    `patient` is the row number of the record that it must be; `matching` finds that record. A
    `new` one must not have been registered before; with `unless`, what that finds is given back.
    `if_match` says which version must be the current one; with `if_none` there must be none.
    """

    registration: Registration
    patient: int | None = None
    matching: Finder | None = None
    unless: Finder | None = None
    new: bool = False
    if_match: Expected | None = None
    if_none: bool = False

    @property
    def action(self) -> Action:
        """Recorded."""
        return Action.RECORD

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises Refused, Invalid, NotFound, Conflicting, Stale, TooLarge."""
        if (present := writing.only(self.unless)) is not None:
            return _present(writing, int(present))
        told = self.registration
        if not told.number.strip() or "\\" in told.number or len(told.number) > 64:
            raise Invalid("a patient is registered by a number of the hospital, 1 to 64 characters")
        matched = writing.only(self.matching)
        wanted = self.patient if matched is None else int(matched)
        record = self._record(writing, wanted)
        nothing_matched = self.matching is not None and matched is None
        if nothing_matched and record is not None and not record.withdrawn:
            raise Conflicting(
                "nothing matches the condition, but the number is that of another record of the"
                " hospital: find it by its number"
            )
        held = None if record is None else writing.held(KIND, str(record.id))
        if self.if_none and record is not None:
            raise Stale("there is such a patient already")
        expect(self.if_match, _version(held, record))
        if self.new and held is not None and not held.deleted:
            raise Conflicting("the hospital has registered this number before: update it")
        is_new = record is None or record.withdrawn
        record = _written(writing, record, told)
        _replace(writing, record, _standing(writing, told))
        merged = identity.family_of(writing.session, [record])
        demographics.agree(writing.session, merged, writing.now)
        draft = Draft(
            kind=KIND,
            logical_id=str(record.id),
            patients=(record.id,),
            values=told.values,
            render=told.render,
        )
        return writing.keep(draft, held, "create" if is_new else "update")

    def _record(self, writing: Writing, wanted: int | None) -> Patient | None:
        """The record that is told of, if there is one yet."""
        by_number = _by_number(writing, self.registration.number)
        if wanted is None:
            return by_number
        record = _own(writing, wanted)
        if by_number is not None and by_number.id != record.id:
            raise Conflicting("the number is that of another record of the hospital: merge them")
        if record.patient_id not in {"", self.registration.number}:
            raise Conflicting("a record keeps its number: register the other one and merge them")
        return record


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back a patient record of which nothing is held: an act of `recording`."""

    patient: int
    matching: Finder | None = None
    if_match: Expected | None = None

    @property
    def action(self) -> Action:
        """Recorded."""
        return Action.RECORD

    def perform(self, writing: Writing) -> Kept:
        """Do it: nothing, where there is none or none to be seen. Raises Refused, Conflicting,
        Stale."""
        found = writing.only(self.matching)
        row = self.patient if found is None else int(found)
        try:
            if self.matching is not None and found is None:
                raise NotFound("nothing matches the condition")
            record = _own(writing, row)
        except NotFound as nothing:
            expect(self.if_match, None)
            return writing.absent(KIND, str(row), nothing)
        held = writing.held(KIND, str(record.id))
        if held is not None and held.deleted:
            return writing.present(KIND, str(record.id))
        expect(self.if_match, _version(held, record))
        if writing.session.execute(select(Patient.id).where(_in_use(record.id))).first():
            raise Conflicting(
                "studies, orders or other resources are held of this patient: send it as not"
                " active, or as replaced by another record"
            )
        if held is None:
            raise Conflicting("the record came with an order: it goes with it")
        record.withdrawn = True
        record.changed = writing.now
        writing.session.flush()
        return writing.take_out(held)


def register(access: Access, registration: Registration) -> Kept:
    """Make, or replace, what is known of the asking hospital's patient with this number.

    Raises Refused, Invalid, Conflicting, TooLarge.
    """
    return several(access, [Register(registration)])[0]


def withdraw(access: Access, patient: int) -> Kept:
    """Take back the record with this row number. Raises Refused, Conflicting."""
    return several(access, [Withdraw(patient)])[0]


def own_number(access: Access, identifiers: Sequence[tuple[str, str]]) -> str:
    """Of (issuer, value) pairs the asking hospital's own number for a patient.

    The issuer is its OID, with or without ``urn:oid:``. Raises Refused, and Invalid when there is
    none or more than one.
    """
    access.require(Action.RECORD)
    issuer = access.session.scalars(
        select(Organization.issuer).where(Organization.id == access.organization)
    ).one()
    own = {value for told, value in identifiers if told.removeprefix("urn:oid:") == issuer}
    if len(own) != 1:
        raise Invalid(
            f"one identifier must be the hospital's own number, of the system urn:oid:{issuer}"
        )
    return own.pop()


def _present(writing: Writing, patient: int) -> Kept:
    """What is kept of a record that was found, which may have come with images only."""
    held = writing.held(KIND, str(patient))
    if held is not None:
        return writing.present(KIND, str(patient))
    record = writing.session.get_one(Patient, patient)
    writing.access.note(Action.RETRIEVE, patient=patient, detail={"what": f"{KIND}/{patient}"})
    return Kept(
        kind=KIND,
        logical_id=str(patient),
        version=clinical.version_of(record.changed),
        changed=record.changed,
        content=b"",
        interaction="",
        key=0,
    )


def _version(held: Any, record: Patient | None) -> int | None:
    """The version that is served of a record: of what was written, else of what is derived."""
    if held is not None and not held.deleted:
        return int(held.version)
    return None if record is None or record.withdrawn else clinical.version_of(record.changed)


def _by_number(writing: Writing, number: str) -> Patient | None:
    return writing.session.scalars(
        select(Patient).where(
            Patient.organization_id == writing.access.organization,
            Patient.patient_id == number,
            Patient.patient_id != "",  # as the partial index says it, so that it is used
        )
    ).one_or_none()


def _own(writing: Writing, row: int) -> Patient:
    """The record with this row number, if it is the asking hospital's.

    Another hospital's is told of only to whoever may see it. Raises NotFound, Refused.
    """
    record = writing.session.get(Patient, row) if abs(row) < 2**63 else None
    if record is None:
        raise NotFound("no such patient record")
    (facts,) = writing.facts([row])
    if facts.owner != writing.access.organization:
        with writing.access.unseen("no such patient record"):
            detail = {"what": f"{KIND}/{row}"}
            writing.access.require(Action.RETRIEVE, facts, patient=row, detail=detail)
    writing.access.require(Action.RECORD, facts, patient=row)
    return record


def _written(writing: Writing, record: Patient | None, told: Registration) -> Patient:
    """The record as the hospital tells of it now."""
    session, now = writing.session, writing.now
    columns: dict[str, Any] = {
        "patient_id": told.number,
        "name": clipped(told.name),
        "birth_date": clipped(told.birth_date, 8),
        "sex": told.sex,
        "address": clipped(told.address, 4096),
        "telephone": clipped(told.telephone),
        "mothers_birth_name": clipped(told.mothers_birth_name),
        "changed": now,
    }
    if record is None:
        owner = writing.access.organization
        record = Patient(organization_id=owner, created=now, **columns)
        session.add(record)
    else:
        for column, value in columns.items():
            setattr(record, column, value)
        record.withdrawn = False
    session.flush()
    still = discrepancies.corrected(writing.access, session, record)
    found_by = (told.name, *told.further_names, *still)
    keys = set[tuple[str, str]]().union(*map(demographics.name_keys, found_by))
    demographics.replace_names(session, record.id, keys)
    otherwise.told(session, record.id, told.further_names)
    demographics.know_persons(session, [record.mothers_birth_name])
    demographics.replace_identifiers(session, record.id, told.identifiers)
    identity.corrected(writing.access, session, record)
    jobs.ask(session, jobs.IDENTIFY, str(record.id), now)
    return record


def _standing(writing: Writing, told: Registration) -> int | None:
    """The row number of the record that is to stand in the place of the one that is told of."""
    if not told.replaced_by_number:
        return told.replaced_by
    found = _by_number(writing, told.replaced_by_number)
    if found is None or found.withdrawn:
        raise Invalid(
            "the hospital has no record of the number by which this one is replaced: register that"
            " one first"
        )
    return found.id


def _replace(writing: Writing, record: Patient, into: int | None) -> None:
    """Have another record of the hospital stand in the place of `record`, or none any more."""
    session = writing.session
    before = record.replaced_by_id
    if before == into:
        return
    standing = None if into is None else _own(writing, into)
    following: int | None = into
    for _ in range(REPLACED):
        if following is None:
            break
        if following == record.id:
            raise Conflicting("a record cannot be replaced by one that it replaces itself")
        following = session.scalars(
            select(Patient.replaced_by_id).where(Patient.id == following)
        ).one()
    else:
        raise Conflicting(f"more than {REPLACED} records would replace each other")
    record.replaced_by_id = into
    session.flush()
    stood = None if before is None else session.get_one(Patient, before)
    concerned = [one for one in (record, standing, stood) if one is not None]
    family = identity.merged(writing.access, session, *concerned)
    discrepancies.merged(writing.access, session, [one.id for one in family])
    if stood is not None:
        last = {one.id: root for root, of in identity.together(family).items() for one in of}
        demographics.parted(session, record, session.get_one(Patient, last[stood.id]))


def _in_use(patient: int) -> ColumnElement[bool]:
    """Whether anything is held of the patient but the record itself."""

    def held(record: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists(select(record.patient_id).where(record.patient_id == patient, *conditions))

    return (Patient.id == patient) & or_(
        held(Study),
        held(Order),
        held(Consent, Consent.ended.is_(None)),
        held(Resource, Resource.kind != KIND, ~Resource.deleted),
        held(Compartment),
        exists(select(Patient.id).where(Patient.replaced_by_id == patient)),
    )
