"""Identity: patient records that carry the same resident ID card, or were merged, are one person.

The number must be valid (GB 11643-1999: area, birth date, order, check digit; 15-digit numbers of
the first generation are converted), and the birth date and sex in it must be the patient's. What
a hospital merges of its own records is one person too. All else stays unlinked: a wrong link shows
one patient's images as another's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime

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
    card = _card(session, patient)
    if card is None:
        return None
    person = session.scalars(select(Person).where(Person.resident_id == card.number)).one_or_none()
    if person is None:
        person = Person(resident_id=card.number, created=access.now)
        session.add(person)
        session.flush()
    if patient.person_id is not None:
        # One link is not silently exchanged for another: that is for a reviewer to decide.
        return person if patient.person_id == person.id else None
    _link(access, session, patient, person, BY_CARD)
    return person


def corrected(access: Access, session: Session, patient: Patient) -> None:
    """The hospital's own feed has told of the record: what it says of its card replaces what was
    known. In the transaction of `session`.

    A link that rests on a card which the hospital says is another one goes with it.
    """
    card = _card(session, patient)
    linked = session.get(Person, patient.person_id) if patient.person_id is not None else None
    if card is not None and linked is not None and linked.resident_id != card.number:
        if linked.resident_id is None and not _known(session, card):
            linked.resident_id = card.number  # merged records, whose person is known only now
        else:
            _unlink(access, session, patient, "the hospital corrected the card")
    link_by_card(access, session, patient)


def merged(access: Access, session: Session, patient: Patient, into: Patient) -> None:
    """The hospital says that `into` stands in the place of `patient`: both are one person's.

    In the transaction of `session`.
    """
    person = _person_of(session, into) or _person_of(session, patient)
    if person is None:
        person = Person(resident_id=None, created=access.now)
        session.add(person)
        session.flush()
    for record in (into, patient):
        if record.person_id != person.id:
            if record.person_id is not None:
                _unlink(access, session, record, BY_MERGE)
            _link(access, session, record, person, BY_MERGE)


def unmerged(access: Access, session: Session, patient: Patient) -> None:
    """The hospital takes back that another record stands in the place of `patient`."""
    last = session.scalars(
        select(Link).where(Link.patient_id == patient.id).order_by(Link.id.desc()).limit(1)
    ).one_or_none()
    if patient.person_id is not None and last is not None and last.evidence == {"rule": BY_MERGE}:
        _unlink(access, session, patient, "the hospital took the merge back")
    link_by_card(access, session, patient)


def _person_of(session: Session, patient: Patient) -> Person | None:
    return None if patient.person_id is None else session.get(Person, patient.person_id)


def _known(session: Session, card: ResidentID) -> bool:
    found = select(Person.id).where(Person.resident_id == card.number)
    return session.execute(found).first() is not None


BY_CARD = "resident ID card, birth date and sex agree"
BY_MERGE = "merged by their hospital"


def _link(access: Access, session: Session, patient: Patient, person: Person, rule: str) -> None:
    patient.person_id = person.id
    patient.changed = access.now
    session.flush()
    _decided(access, session, patient, person.id, "link", rule)
    # Every record of the person has one link more to show.
    session.execute(
        update(Patient).where(Patient.person_id == person.id).values(changed=access.now)
    )
    for order in priors.awaiting(session, person.id):
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
