"""Otherwise: what images say of their study and patient that the records of these do not.

By that a study and a patient are found too, as long as an image in use says it: what is rejected,
deleted or set aside must not lead to anybody. So it is kept which image says what, and the rows
that a search looks into are counted anew from it whenever images come into use or go out of it. In
the transaction of their `session`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from exchange import demographics
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Discrepancy,
    FurtherAccessionNumber,
    Instance,
    Patient,
    SaidOtherwise,
    Series,
    Study,
)

MAX_NUMBERS = 32
"""Accession numbers beside the first one under which a study is found, at most."""

SAME = "same"
"""Of a discrepancy: it is the patient, of whom the record or the image is wrong."""

BATCH = 500
"""Instances of one statement."""

IN_USE = or_(SaidOtherwise.instance_id.is_(None), Instance.is_primary)
"""Whether what is said counts: an image in use says it, or the hospital itself."""

_ADD = Prepared(
    insert(SaidOtherwise),
    [
        "patient_id",
        "study_id",
        "instance_id",
        "accession_number",
        "name",
        "birth_date",
        "sex",
    ],
)
_KNOWN_BY = Prepared(
    select(Patient.id).where(
        Patient.id == bindparam("patient"),
        or_(
            *[
                exists().where(
                    record.patient_id == bindparam("patient"), record.name == bindparam("name")
                )
                for record in (SaidOtherwise, Discrepancy)
            ]
        ),
    )
)


def add(session: Session, instance: int, said: Sequence[Mapping[str, Any]]) -> None:
    """Keep what the new instance says otherwise (`said_by`), if it does."""
    for one in said:
        _ADD.run(session.connection(), {**one, "instance_id": instance})


def replace(session: Session, instance: int, said: Sequence[Mapping[str, Any]]) -> None:
    """What this instance was said to say may have been said of other records."""
    session.execute(delete(SaidOtherwise).where(SaidOtherwise.instance_id == instance))
    add(session, instance, said)


def said_by(
    patient: int, study: int, number: str | None, name: str, birth_date: str, sex: str
) -> Mapping[str, Any]:
    """What an image says otherwise of its patient and study, by their row numbers."""
    return {
        "patient_id": patient,
        "study_id": study,
        "accession_number": number,
        "name": name,
        "birth_date": birth_date,
        "sex": sex,
    }


def told(session: Session, patient: int, names: Iterable[str]) -> None:
    """The hospital's own feed has told by which further names its patient is known: by no others
    that were told before."""
    session.execute(
        delete(SaidOtherwise).where(
            SaidOtherwise.patient_id == patient, SaidOtherwise.instance_id.is_(None)
        )
    )
    for name in sorted({demographics.clipped(one) for one in names} - {""}):
        _tell(session, patient, name)


def known_by(session: Session, patient: int, name: str) -> None:
    """No image brought this name: an order did, or it was there before it was kept who says what.
    It finds the patient whatever becomes of images."""
    given = {"patient": patient, "name": name}
    if _KNOWN_BY.first(session.connection(), given) is None:
        _tell(session, patient, name)


def _tell(session: Session, patient: int, name: str) -> None:
    by_hospital = {"patient_id": patient, "study_id": None, "instance_id": None}
    said = {"accession_number": None, "name": name, "birth_date": "", "sex": ""}
    _ADD.run(session.connection(), by_hospital | said)


@dataclass(frozen=True, slots=True)
class Touched:
    """Whom some instances are of, by row numbers, and by which names they find them."""

    studies: Mapping[int, int]
    """Studies, with their patients."""
    names: Mapping[int, Collection[str]]
    """Of patients."""


def touched(session: Session, instances: Iterable[int]) -> Touched:
    """What these instances, by row numbers, may lead to; asked before they are deleted."""
    studies: dict[int, int] = {}
    names: dict[int, set[str]] = {}
    remaining = iter(instances)
    while some := list(islice(remaining, BATCH)):
        of_study = (
            select(Study.id, Study.patient_id)
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(Instance.id.in_(some))
        )
        rows = session.execute(of_study.distinct())
        studies |= {row.id: row.patient_id for row in rows}
        of_patient = select(SaidOtherwise.patient_id, SaidOtherwise.name).where(
            SaidOtherwise.instance_id.in_(some), SaidOtherwise.name != ""
        )
        for patient, name in session.execute(of_patient.distinct()):
            names.setdefault(patient, set()).add(name)
    return Touched(studies, names)


def forget(session: Session, instances: Collection[int]) -> None:
    """These instances, by row numbers, are deleted, and say nothing any more."""
    session.execute(delete(SaidOtherwise).where(SaidOtherwise.instance_id.in_(instances)))


def recount(session: Session, found: Touched) -> None:
    """Images have come into use or gone out of it: have their studies and patients be found by
    what is said of them now."""
    session.flush()
    for study, patient in sorted(found.studies.items()):
        _recount_numbers(session, study, patient)
    for patient, names in sorted(found.names.items()):
        recount_names(session, patient, names)


def _recount_numbers(session: Session, study: int, patient: int) -> None:
    numbers = and_(
        SaidOtherwise.patient_id == patient,
        SaidOtherwise.study_id == study,
        SaidOtherwise.accession_number.is_not(None),
    )
    in_use = session.scalars(
        select(SaidOtherwise.accession_number)
        .join(Instance, Instance.id == SaidOtherwise.instance_id)
        .where(numbers, Instance.is_primary)
        .group_by(SaidOtherwise.accession_number)
        .order_by(func.min(Instance.id))
    ).all()
    own = session.scalars(select(Study.accession_number).where(Study.id == study)).one()
    if in_use and not _says_as_the_study(session, study):
        own = _renumber(session, study, patient, own, next(filter(None, in_use), ""))
    wanted = [number for number in in_use if number not in {None, "", own}][:MAX_NUMBERS]
    further = FurtherAccessionNumber
    present = set(
        session.scalars(select(further.accession_number).where(further.study_id == study))
    )
    if gone := present.difference(wanted):
        session.execute(
            delete(further).where(further.study_id == study, further.accession_number.in_(gone))
        )
    if new := [number for number in wanted if number not in present]:
        rows = [{"study_id": study, "accession_number": number} for number in new]
        session.execute(insert(further), rows)


_SAYS_NUMBER = exists().where(
    SaidOtherwise.instance_id == Instance.id, SaidOtherwise.accession_number.is_not(None)
)
"""Whether an image has another accession number than its study, or none."""


def _says_as_the_study(session: Session, study: int) -> bool:
    """Whether an image in use has the study's own accession number."""
    found = (
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study, Instance.is_primary, ~_SAYS_NUMBER)
    )
    return session.scalars(found.limit(1)).first() is not None


def _renumber(session: Session, study: int, patient: int, before: str, now: str) -> str:
    """The study's own accession number was that of images which are out of use: it has the first
    one of those in use `now`, and that of the others is kept with them."""
    silent = (
        select(Instance.id, SaidOtherwise.id)
        .join(Series, Series.id == Instance.series_id)
        .outerjoin(
            SaidOtherwise,
            and_(SaidOtherwise.instance_id == Instance.id, SaidOtherwise.patient_id == patient),
        )
        .where(Series.study_id == study, SaidOtherwise.accession_number.is_(None))
    )
    rows = session.execute(silent).all()
    session.execute(
        update(SaidOtherwise)
        .where(SaidOtherwise.study_id == study, SaidOtherwise.patient_id == patient)
        .where(SaidOtherwise.accession_number == now)
        .values(accession_number=None)
    )
    known = [said for _, said in rows if said is not None]
    if known:
        session.execute(
            update(SaidOtherwise), [{"id": said, "accession_number": before} for said in known]
        )
    new = said_by(patient, study, before, "", "", "")
    _ADD.run_many(
        session.connection(),
        [{**new, "instance_id": instance} for instance, said in rows if said is None],
    )
    session.execute(update(Study).where(Study.id == study).values(accession_number=now))
    return now


def recount_names(session: Session, patient: int, names: Collection[str]) -> None:
    """Have the patient be found by each of these names if anything says it, and else not."""
    known = session.scalars(select(Patient.name).where(Patient.id == patient)).one()
    said = (
        select(SaidOtherwise.name)
        .outerjoin(Instance, Instance.id == SaidOtherwise.instance_id)
        .where(SaidOtherwise.patient_id == patient, SaidOtherwise.name != "", IN_USE)
    )
    ordered = select(Discrepancy.name).where(
        Discrepancy.patient_id == patient,
        Discrepancy.study_instance_uid == "",
        Discrepancy.settlement.in_(("", SAME)),
    )
    others = {*session.scalars(said.distinct()), *session.scalars(ordered)}
    stands = demographics.name_keys(known).union(*map(demographics.name_keys, others))
    keys = set[tuple[str, str]]().union(*map(demographics.name_keys, names))
    demographics.remove_names(session, patient, keys - stands)
    for name in sorted(others.intersection(names)):
        demographics.also_named(session, patient, known, name)
