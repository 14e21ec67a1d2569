"""Identity: patient records that carry the same resident ID card, or were merged, are one person.

The number must be valid (GB 11643-1999: area, birth date, order, check digit; 15-digit numbers of
the first generation are converted), and the birth date and sex in it must be the patient's. What
a hospital merges of its own records is one person too. All else stays unlinked: a wrong link shows
one patient's images as another's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import attrgetter

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from exchange import jobs, priors
from exchange.access import Access
from exchange.policy import Action
from exchange_storage.records import Link, Patient, PatientIdentifier, Person

RESIDENT_ID = "2.16.156.10011.1.3"
"""The OID of the resident ID card in health records (WS 365-2011, WS/T 500-2016)."""

CARD_ISSUERS = frozenset({RESIDENT_ID, f"urn:oid:{RESIDENT_ID}", ""})
"""Issuers under which a number is read as an ID card; "" for senders that name none."""

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"


@dataclass(frozen=True, slots=True)
class ResidentID:
    """A valid resident ID card number: 18 characters, and what it says of its holder."""

    number: str
    birth_date: str
    """YYYYMMDD."""
    sex: str
    """M or F."""


def resident_id(text: str) -> ResidentID | None:
    """Read `text` as a resident ID card number, or None when it is not a valid one."""
    number = text.strip().upper()
    if len(set(number)) == 1:
        return None  # what is typed where there is no card: 111111111111111 would be a valid one
    if re.fullmatch(r"[1-9]\d{14}", number, re.ASCII):
        number = f"{number[:6]}19{number[6:]}"
        number += _check_digit(number)
    if not re.fullmatch(r"[1-9]\d{16}[0-9X]", number, re.ASCII):
        return None
    born = number[6:14]
    try:
        birth = date(int(born[:4]), int(born[4:6]), int(born[6:]))
    except ValueError:
        return None
    if (
        number[17] != _check_digit(number)
        or not date(1900, 1, 1) <= birth <= datetime.now(UTC).date()
    ):
        return None
    if number[14:17] == "000":
        return None
    return ResidentID(number, born, "M" if int(number[16]) % 2 else "F")


def _check_digit(number: str) -> str:
    """ISO 7064 MOD 11-2 over the first 17 digits."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    return _CHECK[total % 11]


def identify(access: Access, patient: int) -> Person | None:
    """Link the patient record with this row number to its person, if its ID card says who it is.

    Ingest does the same when it receives the record; this does it again for what came another way.

    Returns the person, or None while it is not known. Safe to repeat. Raises Refused.
    """
    access.require(Action.LINK, patient=patient)

    def unit(session: Session) -> Person | None:
        record = session.get(Patient, patient)
        return None if record is None else link_by_card(access, session, record)

    return access.write(unit)


def link_by_card(access: Access, session: Session, patient: Patient) -> Person | None:
    """`identify`, within a unit of work: whoever brings a card is linked before anybody can see it,
    so that an opt-out of the same person holds from the first moment."""
    family = family_of(session, [patient])
    person = _claimed(access, session, patient, family)
    _settle(access, session, family)
    return person


def corrected(access: Access, session: Session, patient: Patient) -> None:
    """The hospital's own feed has told of the record: what it says of its card replaces what was
    known. In the transaction of `session`.

    A link that rests on a card which the hospital says is another one goes with it.
    """
    family = family_of(session, [patient])
    card = _card(session, patient)
    own = _own(session, [patient]).get(patient.id)
    if card is not None and own is not None:
        before = session.get_one(Person, own.person)
        if before.resident_id != card.number and patient.person_id == own.person:
            _unlink(access, session, patient, CORRECTED)
        elif before.resident_id != card.number:
            _decided(access, session, patient, own.person, "unlink", CORRECTED)
    _claimed(access, session, patient, family, anew=True)
    _settle(access, session, family)


def merged(access: Access, session: Session, *concerned: Patient) -> Sequence[Patient]:
    """The hospital has said, or taken back, that one of these records stands in another's place.

    In the transaction of `session`. Records that stand in one another's place are one person's:
    whose card the last of them has, else the cards of those that it replaces, if these agree. A
    link that no merge which stands, and nothing of the record's own, gives goes: the person whom a
    record had before the merge is again its own, on whichever side of it the record was.

    Returns all records that are, or were until now, merged with one of these.
    """
    family = family_of(session, concerned)
    _settle(access, session, family)
    for record in family:  # a card that had no say while another one's stood
        _claimed(access, session, record, family)
    _settle(access, session, family)
    return family


@dataclass(frozen=True, slots=True)
class _Own:
    """Whose a record is by itself, whatever its hospital has merged it with, and why."""

    person: int
    rule: str


def _own(session: Session, records: Sequence[Patient]) -> dict[int, _Own]:
    """Whose the records are by themselves, by row: as was last decided but for a merge."""
    decided: dict[int, _Own | None] = {}
    rows = [one.id for one in records]
    for link in session.scalars(select(Link).where(Link.patient_id.in_(rows)).order_by(Link.id)):
        rule = str(link.evidence.get("rule", ""))
        if rule not in _OF_MERGES:
            decided[link.patient_id] = _Own(link.person_id, rule) if link.decision == LINK else None
        else:
            decided.setdefault(link.patient_id, None)
    for one in records:
        if one.person_id is not None:  # of which the log says nothing: it came another way
            decided.setdefault(one.id, _Own(one.person_id, ""))
    return {row: own for row, own in decided.items() if own is not None}


def _claimed(
    access: Access,
    session: Session,
    patient: Patient,
    family: Sequence[Patient],
    *,
    anew: bool = False,
) -> Person | None:
    """The person of the record's card, to be its own from now on; None where it has no card, or
    is another's already.

    One link is not silently exchanged for another: that is for a reviewer to decide, or, `anew`,
    for the hospital's own feed.
    """
    card = _card(session, patient)
    if card is None:
        return None
    person = session.scalars(select(Person).where(Person.resident_id == card.number)).one_or_none()
    own = _own(session, [patient]).get(patient.id)
    if own is not None:
        return person if person is not None and own.person == person.id else None
    now = None if patient.person_id is None else session.get_one(Person, patient.person_id)
    if now is not None and now.resident_id not in {None, card.number} and not anew:
        return None
    unnamed = now is not None and now.resident_id is None and _is_theirs(session, now.id, family)
    if person is None and now is not None and unnamed:
        person, now.resident_id = now, card.number  # of merged records, known only now
    elif person is None:
        person = Person(resident_id=card.number, created=access.now)
        session.add(person)
    session.flush()
    decided = _link if patient.person_id is None else _claim
    decided(access, session, patient, person.id, BY_CARD)
    return person


def _claim(access: Access, session: Session, patient: Patient, person: int, rule: str) -> None:
    """The record is the person's by itself: whose it is with those that it was merged with, is for
    `_settle` to say."""
    _decided(access, session, patient, person, LINK, rule)


def _settle(access: Access, session: Session, family: Sequence[Patient]) -> None:
    """Have each of the records, of which there are all that their hospital has merged with any of
    them, be of the person whose it is."""
    own = _own(session, family)
    children: dict[int, list[Patient]] = {}
    for one in family:
        if one.replaced_by_id is not None:
            children.setdefault(one.replaced_by_id, []).append(one)
    given: set[int] = set()
    for root, members in together(family).items():
        person = _say(root, own, children, set())
        if person is None and len(members) > 1:
            person = _unnamed(access, session, members, family, given)
        if person is not None:
            given.add(person)
        why = BY_MERGE if len(members) > 1 else UNMERGED
        for one in members:
            if one.person_id == person:
                continue
            _unlink(access, session, one, why)
            if person is not None:
                its = own.get(one.id)
                rule = its.rule if its is not None and its.person == person else BY_MERGE
                _link(access, session, one, person, rule)


def _say(
    row: int, own: dict[int, _Own], children: dict[int, list[Patient]], seen: set[int]
) -> int | None:
    """The person whom a record says that it is of: its own, else of those that it replaces."""
    if row in own:
        return own[row].person
    seen.add(row)
    said = {
        person
        for one in children.get(row, ())
        if one.id not in seen and (person := _say(one.id, own, children, seen)) is not None
    }
    return said.pop() if len(said) == 1 else None  # of two nobody can tell which is the patient's


def _unnamed(
    access: Access,
    session: Session,
    members: Sequence[Patient],
    family: Sequence[Patient],
    given: set[int],
) -> int:
    """A person of merged records of whom no card is known: the one that they have, or a new one."""
    for row in sorted({one.person_id for one in members if one.person_id is not None} - given):
        person = session.get_one(Person, row)
        if person.resident_id is None and _is_theirs(session, row, family):
            return row
    person = Person(resident_id=None, created=access.now)
    session.add(person)
    session.flush()
    return person.id


def _is_theirs(session: Session, person: int, family: Sequence[Patient]) -> bool:
    """Whether nobody but these records is of the person."""
    rows = set(session.scalars(select(Patient.id).where(Patient.person_id == person)))
    return rows <= {one.id for one in family}


def family_of(session: Session, concerned: Sequence[Patient]) -> list[Patient]:
    """The records, and all that their hospital has merged with any of them, as far as they are of
    the same persons: which is how they are found, and holds before the records are settled."""
    found = {one.id: one for one in concerned}
    ahead = list(concerned)
    while ahead:
        above = {one.replaced_by_id for one in ahead} - found.keys() - {None}
        ahead = list(session.scalars(select(Patient).where(Patient.id.in_(above)))) if above else []
        found |= {one.id: one for one in ahead}
    persons = {one.person_id for one in found.values() if one.person_id is not None}
    if persons:
        merged = session.scalars(
            select(Patient).where(
                Patient.person_id.in_(persons),
                Patient.organization_id == concerned[0].organization_id,
                Patient.replaced_by_id.is_not(None),
            )
        ).all()
        while more := [
            one for one in merged if one.id not in found and one.replaced_by_id in found
        ]:
            found |= {one.id: one for one in more}
    return sorted(found.values(), key=attrgetter("id"))


def together(family: Sequence[Patient]) -> dict[int, list[Patient]]:
    """The records, each with those that are one patient with it, by the one that stands for all."""
    above = {one.id: one.replaced_by_id for one in family}
    trees: dict[int, list[Patient]] = {}
    for one in family:
        passed = [one.id]
        while (following := above.get(passed[-1])) is not None:
            if following in passed:  # two have replaced each other at the same moment
                passed.append(min(passed[passed.index(following) :]))
                break
            passed.append(following)
        trees.setdefault(passed[-1], []).append(one)
    return trees


BY_CARD = "resident ID card, birth date and sex agree"
BY_MERGE = "merged by their hospital"
UNMERGED = "the hospital took the merge back"
CORRECTED = "the hospital corrected the card"
LINK = "link"

_OF_MERGES = frozenset({BY_MERGE, UNMERGED})
"""Decisions that say nothing of whose a record is by itself."""


def _link(access: Access, session: Session, patient: Patient, person: int, rule: str) -> None:
    patient.person_id = person
    patient.changed = access.now
    session.flush()
    _decided(access, session, patient, person, LINK, rule)
    # Every record of the person has one link more to show.
    session.execute(update(Patient).where(Patient.person_id == person).values(changed=access.now))
    for order in priors.awaiting(session, person):
        jobs.ask(session, jobs.PRIORS, str(order), access.now)


def _unlink(access: Access, session: Session, patient: Patient, rule: str) -> None:
    """Undo a link; the log of links keeps it."""
    person = patient.person_id
    if person is None:
        return
    session.execute(update(Patient).where(Patient.person_id == person).values(changed=access.now))
    patient.person_id = None
    session.flush()
    _decided(access, session, patient, person, "unlink", rule)


def _decided(
    access: Access, session: Session, patient: Patient, person: int, decision: str, rule: str
) -> None:
    session.execute(
        insert(Link).values(
            patient_id=patient.id,
            person_id=person,
            decision=decision,
            evidence={"rule": rule},
            decided=access.now,
        )
    )
    access.note(Action.LINK, patient=patient.id, detail={"person": person, "decision": decision})


def _card(session: Session, patient: Patient) -> ResidentID | None:
    """The one valid card of the record that agrees with its birth date and sex."""
    values = session.scalars(
        select(PatientIdentifier.value).where(
            PatientIdentifier.patient_id == patient.id,
            PatientIdentifier.system.in_(CARD_ISSUERS),
        )
    )
    cards = {card for value in values if (card := resident_id(value)) is not None}
    if len(cards) != 1:
        return None  # none, or two: then nobody can tell which is the patient's
    (card,) = cards
    agrees = card.birth_date == patient.birth_date and card.sex == patient.sex
    return card if agrees else None
