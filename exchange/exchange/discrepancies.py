"""Discrepancies: what images and orders say of a patient that the record contradicts.

A hospital corrects how a name is written, and a desk mistypes a birth date: one difference is no
matter. Two of them under one number (`contradicts`) may be two people, of whom one would be treated
by the images of the other. The image is received, found and shown as always, since nothing must be
lost and its hospital is at work with it. But it completes nothing of the record, so that no number
of it links anybody, and somebody of the hospital is to look, as long as it is in use. What was
found to be somebody else's does not come back under the patient's number.

The same holds of images of a study that came under another number of the patient, when their
hospital has taken back that both are one (`merged`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, insert, or_, select, true
from sqlalchemy.orm import Session, aliased

from exchange import demographics, otherwise
from exchange.access import Access
from exchange.demographics import clipped
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Discrepancy,
    Instance,
    Organization,
    Patient,
    SaidOtherwise,
    Study,
)

SAME = otherwise.SAME
"""It is the patient, of whom the record or the image is wrong: what says so again is no matter."""

ANOTHER = "another"
"""It is somebody else, and the hospital has taken the images out of use: they stay so."""

CORRECTED = "corrected"
"""The hospital's own feed has told of the patient, and contradicts it no more."""

MERGED = "merged"
"""The images came under another number, of a record that is one patient with the study's, while the
merge stands: nobody need look."""

NUMBER = "number"
"""So they did, and the hospital has taken the merge back: it waits, whatever else it says."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of who a patient is; "" for what is not."""

    name: str
    birth_date: str
    sex: str

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Said:
        """What the attributes say, by DICOM keyword, as the record would have it."""
        return cls(
            clipped(told.get("PatientName", "")),
            clipped(told.get("PatientBirthDate", "")),
            clipped(told.get("PatientSex", "")),
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """A discrepancy that nobody has settled."""

    number: int
    """By which it is settled."""
    organization: str
    """The code of the hospital."""
    patient_id: str
    """Its number for the patient."""
    study_instance_uid: str
    """Whose images say it; "" for an order."""
    raised: datetime
    known: Said
    told: Said
    told_number: str = ""
    """The number under which the images came, where that is the matter: it is another patient's
    again than `patient_id`, under which the study is shown."""


def contradicts(known: Any, told: Said) -> bool:
    """Whether two people are spoken of, as far as one can tell: another birth date, and with it
    another sex, or a name that agrees in none of its component groups.

    `known` may be a row or record of the patient. Sex O is written for unknown, too.
    """
    if not known.birth_date or not told.birth_date or known.birth_date == told.birth_date:
        return False
    if {known.sex, told.sex} == {"M", "F"}:
        return True
    if not known.name or not told.name or known.name == told.name:
        return False
    full = demographics.full_keys
    return full(known.name).isdisjoint(full(told.name))


def noted(
    access: Access, session: Session, known: Any, told: Said, study: str, now: datetime
) -> bool:
    """Whether what is told of the patient, of whom the row `known` is, may be of somebody else.

    Then it waits for someone to look, once for each study and what is said there.
    """
    if not contradicts(known, told):
        return False
    patient = known.patient_row
    given = {"patient": patient, "name": told.name, "born": told.birth_date, "sex": told.sex}
    before = _SAID.all(session.connection(), given)
    if any(one.settlement == SAME for one in before):
        return False
    if any(one.study_instance_uid == study and not one.settlement for one in before):
        return True
    _raise(session, patient, told, study, now)
    access.note(Action.STORE, reason=NOTED, patient=patient, study=study)
    return True


def _raise(
    session: Session, patient: int, told: Said, study: str, now: datetime, **settled: Any
) -> None:
    session.execute(
        insert(Discrepancy).values(
            patient_id=patient,
            study_instance_uid=study,
            name=told.name,
            birth_date=told.birth_date,
            sex=told.sex,
            raised=now,
            **({"settlement": ""} | settled),
        )
    )


def came_under(session: Session, patient: int, told: Said, study: str, now: datetime) -> None:
    """Images of the study came under the number of this record, which is one with the study's."""
    given = {"patient": patient, "name": told.name, "born": told.birth_date, "sex": told.sex}
    before = _SAID.all(session.connection(), given)
    if not any(one.study_instance_uid == study and one.settlement == MERGED for one in before):
        _raise(session, patient, told, study, now, settled=now, settlement=MERGED)


def are_one(session: Session, patient: int, other: int) -> bool:
    """Whether the hospital has merged these two records into one patient."""
    return bool(_standing(session, patient) & _standing(session, other))


def _standing(session: Session, row: int | None) -> set[int]:
    """A record, the one that replaces it, and so on, by row numbers."""
    found: set[int] = set()
    while row is not None and row not in found:
        found.add(row)
        row = _REPLACING.first(session.connection(), {"row": row}).replaced_by_id
    return found


def merged(access: Access, session: Session, family: Sequence[int]) -> None:
    """The hospital has merged some of these records, or taken that back: images that came under the
    number of one into a study of another wait for somebody to look while these are two patients.

    In the transaction of `session`.
    """
    rows = session.execute(
        select(Discrepancy, Study.patient_id)
        .join(Study, Study.study_instance_uid == Discrepancy.study_instance_uid)
        .where(Discrepancy.patient_id.in_(family), Discrepancy.settlement.in_((MERGED, NUMBER)))
    ).all()
    for one, of in rows:
        how = MERGED if are_one(session, one.patient_id, of) else NUMBER
        if how == one.settlement:
            continue
        one.settlement = how
        one.settled = access.now if how == MERGED else None
        if how == NUMBER:
            one.raised = access.now
        reason = UNMERGED if how == NUMBER else f"discrepancy: {how}"
        study = one.study_instance_uid
        access.note(Action.REVIEW, reason=reason, patient=of, study=study)
    session.flush()


UNMERGED = "discrepancy: the images came under another number, and the merge was taken back"
NOTED = "discrepancy: another birth date, and another name or sex, than the patient's"


def waiting(
    access: Access, *, organization: str | None = None, limit: int = 100
) -> Sequence[Waiting]:
    """The discrepancies that wait, of the hospital with this code or of all, the oldest first; to a
    hospital's own reviewers its own. What only images out of use say waits for nobody, until they
    are restored. Raises Refused."""
    access.require(Action.REVIEW)
    shown = aliased(Patient)
    rows = access.session.execute(
        select(Discrepancy, Patient, Organization.code, shown)
        .join(Patient, Patient.id == Discrepancy.patient_id)
        .outerjoin(
            Study,
            (Study.study_instance_uid == Discrepancy.study_instance_uid)
            & (Discrepancy.settlement == NUMBER),
        )
        .outerjoin(shown, shown.id == Study.patient_id)
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Discrepancy.settled.is_(None),
            _STANDS,
            _reviewed_by(access),
            true() if organization is None else Organization.code == organization,
        )
        .order_by(Discrepancy.id)
        .limit(limit)
    ).all()
    found = [(one, whose or of, code, of) for one, of, code, whose in rows]
    patients = sorted({patient.id for _, patient, _, _ in found})
    access.note(Action.REVIEW, reason="discrepancies listed", detail={"patients": patients})
    return [
        Waiting(
            number=one.id,
            organization=code,
            patient_id=patient.patient_id,
            study_instance_uid=one.study_instance_uid,
            raised=one.raised,
            known=Said(patient.name, patient.birth_date, patient.sex),
            told=Said(one.name, one.birth_date, one.sex),
            told_number=of.patient_id if one.settlement == NUMBER else "",
        )
        for one, patient, code, of in found
    ]


def settle(access: Access, number: int, how: str) -> None:
    """Somebody has looked: it is the `SAME` person, or `ANOTHER`.

    Of another one the images are rejected first: while one is in use under the patient's number,
    the question stays. That it was another one may be taken back; that it is the same is, of
    whatever else says the same of the patient. Raises Refused, NotFound, Invalid.
    """
    access.require(Action.REVIEW, detail={"discrepancy": number})
    if how not in {SAME, ANOTHER}:
        raise Invalid("the patient is the same or another one")

    def unit(session: Session) -> None:
        row = session.execute(
            select(Discrepancy, Patient)
            .join(Patient, Patient.id == Discrepancy.patient_id)
            .where(
                Discrepancy.id == number,
                Discrepancy.settlement.in_({"", NUMBER} | ({ANOTHER} if how == SAME else set())),
                _reviewed_by(access),
            )
        ).one_or_none()
        if row is None:
            raise NotFound(
                "no discrepancy of this number waits; `exchange discrepancy list` shows them"
            )
        one, patient = row
        by_number = one.settlement == NUMBER
        if by_number:  # the name of the images finds the study's patient
            patient = _shown_as(session, one.study_instance_uid) or patient
        if how == ANOTHER and session.scalars(_in_use(one)).first() is not None:
            raise Invalid(
                "images that say so are in use under this patient's number: `exchange reject` "
                "comes first, and their hospital sends them anew, under new UIDs and the right "
                "number"
            )
        _settled(access, one, how, access.now)
        if how == SAME and not by_number:
            for other in session.scalars(_saying_the_same(one)).all():
                _settled(access, other, how, access.now)
        session.flush()
        otherwise.recount_names(session, patient.id, {one.name} - {""})

    access.write(unit)


def require_nobody_else(session: Session, instances: Collection[int]) -> None:
    """Raises Invalid where one of these instances, by row numbers, was found to be of another
    person than the patient under whose number it came."""
    found = (
        select(Discrepancy.id)
        .join(SaidOtherwise, _SAYS)
        .join(Study, Study.id == SaidOtherwise.study_id)
        .where(
            SaidOtherwise.instance_id.in_(instances),
            Study.study_instance_uid == Discrepancy.study_instance_uid,
            Discrepancy.settlement == ANOTHER,
        )
    )
    if (number := session.scalars(found.order_by(Discrepancy.id).limit(1)).first()) is not None:
        raise Invalid(
            "this was found to be of another person than the patient of that number: its hospital "
            "sends it anew, under new UIDs and the right number; or, if it is the patient after "
            f"all, `exchange discrepancy same {number}` comes first"
        )


def in_use_again(access: Access, session: Session, instances: Collection[int]) -> None:
    """These instances, by row numbers, are in use again: what they say and their patients' records
    contradict waits, whatever the records said before. In the transaction of `session`."""
    said = (
        select(
            Patient.id.label("patient_row"),
            Patient.name,
            Patient.birth_date,
            Patient.sex,
            Study.study_instance_uid,
            SaidOtherwise.name.label("told"),
            SaidOtherwise.birth_date.label("told_birth_date"),
            SaidOtherwise.sex.label("told_sex"),
        )
        .join(SaidOtherwise, SaidOtherwise.patient_id == Patient.id)
        .join(Study, Study.id == SaidOtherwise.study_id)
        .where(SaidOtherwise.instance_id.in_(instances))
    )
    for row in session.execute(said.distinct()).all():
        told = Said(row.told, row.told_birth_date, row.told_sex)
        noted(access, session, row, told, row.study_instance_uid, access.now)


def _shown_as(session: Session, study: str) -> Patient | None:
    """The patient as whose the study is shown."""
    of = select(Patient).join(Study, Study.patient_id == Patient.id)
    return session.scalars(of.where(Study.study_instance_uid == study)).one_or_none()


def corrected(access: Access, session: Session, patient: Patient) -> tuple[str, ...]:
    """The hospital's own feed has told who its patient is: what that does not contradict any more
    is settled. In the transaction of `session`.

    Returns the names of what still waits, or was said to be the same person's: they are in images
    in use, or in orders, and find the patient.
    """
    names = []
    told = select(Discrepancy, _STANDS).where(
        Discrepancy.patient_id == patient.id, Discrepancy.settlement.in_(("", SAME))
    )
    for one, stands in session.execute(told).all():
        if one.settled is None and not contradicts(patient, _said(one)):
            _settled(access, one, CORRECTED, access.now)
        elif stands:
            names.append(one.name)
    return tuple(names)


def _said(one: Discrepancy) -> Said:
    return Said(one.name, one.birth_date, one.sex)


def _settled(access: Access, one: Discrepancy, how: str, now: datetime) -> None:
    one.settled, one.settlement = now, how
    access.note(
        Action.REVIEW,
        reason=f"discrepancy: {how}",
        patient=one.patient_id,
        study=one.study_instance_uid,
        detail={"discrepancy": one.id},
    )


_SAYS = and_(
    SaidOtherwise.patient_id == Discrepancy.patient_id,
    SaidOtherwise.name == Discrepancy.name,
    SaidOtherwise.birth_date == Discrepancy.birth_date,
    SaidOtherwise.sex == Discrepancy.sex,
)
_SAID_IN_USE = (
    exists()
    .where(
        _SAYS,
        Study.id == SaidOtherwise.study_id,
        Study.study_instance_uid == Discrepancy.study_instance_uid,
        Instance.id == SaidOtherwise.instance_id,
        Instance.is_primary,
    )
    .correlate(Discrepancy)
)
_STANDS = or_(Discrepancy.study_instance_uid == "", _SAID_IN_USE)
"""Whether it is still said: by an order, or an image in use."""


def _in_use(one: Discrepancy) -> Select[int]:
    return select(Discrepancy.id).where(Discrepancy.id == one.id, _SAID_IN_USE)


def _saying_the_same(one: Discrepancy) -> Select[Discrepancy]:
    """What else waits and says just this of the patient."""
    return select(Discrepancy).where(
        Discrepancy.patient_id == one.patient_id,
        Discrepancy.name == one.name,
        Discrepancy.birth_date == one.birth_date,
        Discrepancy.sex == one.sex,
        Discrepancy.settlement == "",
        Discrepancy.id != one.id,
    )


def _reviewed_by(access: Access) -> ColumnElement[bool]:
    """Whether the asker reviews what is said of this patient: a hospital's own, or all."""
    own = access.requester.organization
    return true() if own is None else Patient.organization_id == own


_REPLACING = Prepared(select(Patient.replaced_by_id).where(Patient.id == bindparam("row")))
_SAID = Prepared(
    select(Discrepancy.study_instance_uid, Discrepancy.settlement).where(
        Discrepancy.patient_id == bindparam("patient"),
        Discrepancy.name == bindparam("name"),
        Discrepancy.birth_date == bindparam("born"),
        Discrepancy.sex == bindparam("sex"),
    )
)
