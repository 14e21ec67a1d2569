"""Where what was received belongs: its patient, study and series, found and completed, or made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, bindparam, insert, select
from sqlalchemy.orm import Session

from exchange import demographics, discrepancies, identity, otherwise, targets
from exchange.access import Access
from exchange.demographics import clipped
from exchange.discrepancies import Said
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    FurtherAccessionNumber,
    Patient,
    Record,
    RequestAttributes,
    Series,
    Study,
)
from exchange_storage.search import ATTRIBUTES, Kind, Level

if TYPE_CHECKING:
    from exchange.ingest import Received

MAX_REQUESTS = 32
"""Requests of a series that are indexed, at most."""

OTHER_PATIENT = "the study belongs to another patient"
"""Why an instance has no place in a study of its own hospital."""

# Built once: putting a statement together costs SQLAlchemy more than SQLite takes to run it.
KNOWN = (
    Study.id.label("study_row"),
    Study.study_instance_uid,
    Study.patient_id.label("patient_row"),
    Patient.organization_id,
    *(
        a.column
        for keyword, a in ATTRIBUTES.items()
        if a.level in (Level.PATIENT, Level.STUDY) and keyword != "StudyInstanceUID"
    ),
)
"""What is asked of a study and its patient: see `placed`."""

_SERIES = Prepared(
    select(Series.id.label("series_row"), *KNOWN)
    .join(Study, Study.id == Series.study_id)
    .join(Patient, Patient.id == Study.patient_id)
    .where(Series.series_instance_uid == bindparam("uid"))
)
_STUDY = Prepared(
    select(*KNOWN)
    .join(Patient, Patient.id == Study.patient_id)
    .where(Study.study_instance_uid == bindparam("uid"))
)
_PATIENT = Prepared(
    select(
        Patient.id.label("patient_row"),
        Patient.withdrawn,
        *(a.column for a in ATTRIBUTES.values() if a.level is Level.PATIENT),
    ).where(
        Patient.organization_id == bindparam("organization"),
        Patient.patient_id == bindparam("number"),
        # As the partial index says it, so that it is used.
        Patient.patient_id != "",
    )
)


def inserted(record: type[Record], *keys: str) -> Prepared:
    """An INSERT of whole records, but for their `id`; gives back `keys`."""
    table = cast(Table, record.__table__)
    columns = [column.key for column in table.columns if column.key not in {"id", "sequence"}]
    given = insert(table)
    return Prepared(given.returning(*(table.c[key] for key in keys)) if keys else given, columns)


_ADD_SERIES = inserted(Series, "id")
_ADD_STUDY = inserted(Study, "id")
_ADD_REQUEST = inserted(RequestAttributes)
_ADD_PATIENT = inserted(Patient, "id")
_ADD_FURTHER = inserted(FurtherAccessionNumber)
_FURTHER = Prepared(
    select(FurtherAccessionNumber.accession_number).where(
        FurtherAccessionNumber.study_id == bindparam("study")
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs: row numbers."""

    patient: int
    study: int
    series: int
    otherwise: Sequence[Mapping[str, Any]]
    """What the instance says of them that their records do not (`otherwise`); and of the patient
    under whose number it came, where that is another one's, merged with this one's."""


def place_of(
    access: Access, session: Session, organization: int, received: Received, now: datetime
) -> Place | str:
    """Study, series and patient rows for the hospital's instance, made where missing; or why it has
    none. In the transaction of `session`.

    Nothing is made where there is a reason: an instance may not bring itself into a study of
    another patient or hospital.
    """
    uid = received.attributes["SeriesInstanceUID"]
    series = _SERIES.first(session.connection(), {"uid": uid})
    return placed(access, session, organization, received, now, series)


def placed(
    access: Access,
    session: Session,
    organization: int,
    received: Received,
    now: datetime,
    found: Any,
) -> Place | str:
    """`place_of`, where the row of the series was looked for: `series_row` is None if there is
    none."""
    attributes = received.attributes
    number = clipped(attributes.get("PatientID", ""))
    connection = session.connection()
    study_uid = attributes["StudyInstanceUID"]
    series = found if found is not None and found.series_row is not None else None
    if series is not None and series.study_instance_uid != study_uid:
        return "the series belongs to another study"
    study = series or _STUDY.first(connection, {"uid": study_uid})
    if study is not None and study.organization_id != organization:
        return "the study belongs to another organization"
    known = study  # what is known of the patient under whose number it comes
    if study is not None and study.patient_id != number:
        known = _merged_with(session, study, organization, number)
        if known is None:
            return OTHER_PATIENT
    said = Said.of(attributes)
    said_number: str | None = None
    under_another: list[Mapping[str, Any]] = []
    if study is None:
        patient_row, apart = _patient(access, session, organization, received, number, now)
        study_row = _ADD_STUDY.number(
            connection,
            {
                "patient_id": patient_row,
                "received": now,
                "changed": now,
                "revision": 1,
                **columns(Level.STUDY, attributes),
            },
        )
        demographics.know_persons(session, _persons(Level.STUDY, attributes))
        targets.follow(session, targets.STUDY, study_uid)
    else:
        study_row, patient_row = study.study_row, study.patient_row
        said_number = _complete_study(session, study, attributes)
        apart = _heed(access, session, known, received, now)
        if known is not study:
            discrepancies.came_under(session, known.patient_row, said, study_uid, now)
            named = demographics.also_named(session, patient_row, study.name, said.name)
            apart = named is not None
            under_another = [_said(known.patient_row, study_row, None, said)]
    if series is None:
        series_row = _ADD_SERIES.number(
            connection,
            {
                "study_id": study_row,
                "received": now,
                "anatomic_region": clipped(received.region),
                **columns(Level.SERIES, attributes),
            },
        )
        demographics.know_persons(session, _persons(Level.SERIES, attributes))
        if received.requests:
            _ADD_REQUEST.run_many(connection, _requests(series_row, received))
    else:
        series_row = series.series_row
    if said_number is None and not apart:
        return Place(patient_row, study_row, series_row, under_another)
    who = said if apart else Said("", "", "")
    of_study = _said(patient_row, study_row, said_number, who)
    return Place(patient_row, study_row, series_row, [*under_another, of_study])


def _said(patient: int, study: int, number: str | None, who: Said) -> Mapping[str, Any]:
    return otherwise.said_by(patient, study, number, who.name, who.birth_date, who.sex)


def _merged_with(session: Session, known: Any, organization: int, number: str) -> Any:
    """The hospital's record with this number, if it has merged that and the study's, of which the
    row `known` tells, into one patient (IHE RAD-12); else None.

    What comes under the number is said of that record, and completes no other: the hospital may
    take the merge back.
    """
    connection = session.connection()
    other = _PATIENT.first(connection, {"organization": organization, "number": number})
    are_one = other is not None and discrepancies.are_one(
        session, known.patient_row, other.patient_row
    )
    return other if are_one else None


def _complete_study(session: Session, known: Any, attributes: Mapping[str, str]) -> str | None:
    """Take up what the instance says of the study, of which the row `known` says what is known;
    returns its accession number if that is another one, or "" if it has none and the study has.

    All images of a study should say the same of it (PS3.3 section A.1.2). Where they do not, what
    came first stays; by another accession number the study is found all the same.
    """
    number = clipped(attributes.get("AccessionNumber", ""))
    apart = bool(known.accession_number) and number != known.accession_number
    if number and apart:
        connection, study = session.connection(), known.study_row
        present = {one.accession_number for one in _FURTHER.all(connection, {"study": study})}
        if number not in present and len(present) < otherwise.MAX_NUMBERS:
            _ADD_FURTHER.run(connection, {"study_id": study, "accession_number": number})
    said = number if apart else None
    if not any(attributes.get(k) and not getattr(known, c) for c, k, *_ in _COLUMNS[Level.STUDY]):
        return said
    told = columns(Level.STUDY, attributes)
    if known.study_date and told["study_date"] != known.study_date:
        told["study_time"] = ""  # of another day
    record = session.get_one(Study, known.study_row)
    for column, value in told.items():
        if value and not getattr(known, column):
            setattr(record, column, value)
    session.flush()
    demographics.know_persons(session, _persons(Level.STUDY, attributes))
    return said


def _requests(series: int, received: Received) -> list[dict[str, Any]]:
    return [
        {
            "series_id": series,
            "position": position,
            "requested_procedure_id": clipped(procedure),
            "scheduled_procedure_step_id": clipped(step),
        }
        for position, (procedure, step) in enumerate(received.requests[:MAX_REQUESTS], 1)
    ]


def register_patient(
    access: Access, session: Session, organization: int, received: Received
) -> int:
    """The row of the hospital's patient of whom `received` tells: found and completed, or made.

    In the transaction of `session`, for whoever tells of a patient without an image.
    """
    number = clipped(received.attributes.get("PatientID", ""))
    return _patient(access, session, organization, received, number, datetime.now(UTC))[0]


def _patient(
    access: Access,
    session: Session,
    organization: int,
    received: Received,
    number: str,
    now: datetime,
) -> tuple[int, bool]:
    """The patient record with the hospital's `number`: found and completed, or made; and whether
    something else is said of the patient than it has."""
    connection = session.connection()
    given = {"organization": organization, "number": number}
    known = _PATIENT.first(connection, given) if number else None
    if known is not None:
        if known.withdrawn:  # it has come back
            session.get_one(Patient, known.patient_row).withdrawn = False
            session.flush()
        return int(known.patient_row), _heed(access, session, known, received, now)
    told = columns(Level.PATIENT, received.attributes)
    row = _ADD_PATIENT.number(
        connection,
        {
            "organization_id": organization,
            "created": now,
            "changed": now,
            "person_id": None,
            "replaced_by_id": None,
            "withdrawn": False,
            **told,
        },
    )
    demographics.add_names(session, row, demographics.name_keys(told["name"]))
    demographics.know_persons(session, _persons(Level.PATIENT, received.attributes))
    if identifiers := demographics.identifiers(received.identifiers):
        demographics.add_identifiers(session, row, identifiers)
        demographics.identify(access, session, session.get_one(Patient, row), now)
    return row, False


def _heed(access: Access, session: Session, known: Any, received: Received, now: datetime) -> bool:
    """Take up what the instance says of the patient, of whom the row `known` says what is known;
    returns whether it says otherwise who that is.

    Where it may be somebody else, nothing of it is taken over, above all no number that links.
    """
    told = received.attributes
    said = Said.of(told)
    # As it stands in the study's row, "" where an order or workitem tells.
    study = told.get("StudyInstanceUID", "")
    named, contradicts = None, discrepancies.contradicts(known, said)
    if said.name and known.name:
        named = demographics.also_named(session, known.patient_row, known.name, said.name)
        # What contradicts finds by its discrepancy, or its image.
        if named is not None and not contradicts and (named or not study):
            otherwise.known_by(session, known.patient_row, said.name)
    apart = named is not None or contradicts
    if contradicts and discrepancies.noted(access, session, known, said, study, now):
        return apart
    if _tells_more(session, known, received):
        record = session.get_one(Patient, known.patient_row)
        _complete(access, session, record, received, now)
    return apart


def _tells_more(session: Session, known: Any, received: Received) -> bool:
    """Whether the instance says anything of the patient that the row `known` lacks."""
    told = received.attributes
    return any(
        told.get(keyword)
        for column, keyword, *_ in _COLUMNS[Level.PATIENT]
        if not getattr(known, column)
    ) or bool(demographics.new_identifiers(session, known.patient_row, received.identifiers))


def _complete(
    access: Access, session: Session, patient: Patient, received: Received, now: datetime
) -> None:
    """Add what the record lacks. What is known of a patient is completed, never replaced."""
    told = columns(Level.PATIENT, received.attributes)
    missing = {k: v for k, v in told.items() if v and not getattr(patient, k)}
    for column, value in missing.items():
        setattr(patient, column, value)
    if "name" in missing:
        present = demographics.names_of(session, patient.id)
        demographics.add_names(session, patient.id, demographics.name_keys(patient.name) - present)
    demographics.know_persons(session, _persons(Level.PATIENT, received.attributes))
    identifiers = demographics.new_identifiers(session, patient.id, received.identifiers)
    demographics.add_identifiers(session, patient.id, identifiers)
    if missing or identifiers:
        patient.changed = now
        session.flush()
        demographics.identify(access, session, patient, now)
        demographics.agree(session, identity.family_of(session, [patient]), now)


def columns(level: Level, attributes: Mapping[str, str]) -> dict[str, Any]:
    """The columns of the level's record, from the attributes that the instance came with."""
    told = attributes.get
    return {
        column: _number(told(keyword, "")) if number else clipped(told(keyword, ""), length)
        for column, keyword, number, length in _COLUMNS[level]
    }


_COLUMNS: Mapping[Level, tuple[tuple[str, str, bool, int], ...]] = {
    level: tuple(
        (
            attribute.column.key,
            keyword,
            attribute.kind is Kind.NUMBER,
            4096 if keyword == "PatientAddress" else 255,
        )
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level is level
    )
    for level in Level
}
"""Of the record of each level: column, keyword, whether it is a number, characters kept."""


def _persons(level: Level, attributes: Mapping[str, str]) -> list[str]:
    """The names of others than the patient, as they are kept at this level."""
    return [clipped(attributes.get(keyword, "")) for keyword in _PERSONS[level]]


_PERSONS: Mapping[Level, tuple[str, ...]] = {
    level: tuple(
        keyword
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level is level and attribute.kind is Kind.PERSON
    )
    for level in Level
}


def _number(text: str) -> int | None:
    """An integer as the index keeps it, or None for what is not one."""
    try:
        number = int(text.split("\\", 1)[0])
    except ValueError:
        return None
    return number if 0 <= number < 2**31 else None
