"""Identity, first rule: patient records that carry the same resident ID card are one person.

The number must be valid (GB 11643-1999: area, birth date, order, check digit; 15-digit numbers of
the first generation are converted), and the birth date and sex in it must be the patient's. All
else stays unlinked: a wrong link shows one patient's images as another's.
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
    patient.person_id = person.id
    patient.changed = access.now
    session.execute(
        insert(Link).values(
            patient_id=patient.id,
            person_id=person.id,
            decision="link",
            evidence={"rule": "resident ID card, birth date and sex agree"},
            decided=access.now,
        )
    )
    # Every record of the person has one link more to show.
    session.execute(
        update(Patient).where(Patient.person_id == person.id).values(changed=access.now)
    )
    for order in priors.awaiting(session, person.id):
        jobs.ask(session, jobs.PRIORS, str(order), access.now)
    access.note(Action.LINK, patient=patient.id, detail={"person": person.id, "decision": "link"})
    return person


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
