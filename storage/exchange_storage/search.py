"""The one matcher: attribute criteria to SELECT, for C-FIND, QIDO-RS and FHIR search alike.

The table `ATTRIBUTES` says, by DICOM keyword, where an attribute is kept and how it is matched
(PS3.4 section C.2.2.2); ingest fills the same columns from the same table.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, cast, exists, false, func, literal, or_, select, true
from sqlalchemy import String as SQLString
from sqlalchemy.orm import InstrumentedAttribute

from exchange_storage import names
from exchange_storage.records import (
    Instance,
    NameKind,
    Patient,
    PatientIdentifier,
    PatientName,
    Series,
    Study,
)


class Level(IntEnum):
    """The levels of the Query/Retrieve information model (PS3.4 section C.6)."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class Kind(StrEnum):
    """How the values of an attribute are compared."""

    TEXT = "text"
    UID = "uid"
    DATE = "date"
    TIME = "time"
    NUMBER = "number"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Attribute:
    """Where an attribute is kept, and how it is matched."""

    level: Level
    column: InstrumentedAttribute[Any]
    kind: Kind = Kind.TEXT


ATTRIBUTES: Mapping[str, Attribute] = {
    "PatientID": Attribute(Level.PATIENT, Patient.patient_id),
    "PatientName": Attribute(Level.PATIENT, Patient.name, Kind.NAME),
    "PatientBirthDate": Attribute(Level.PATIENT, Patient.birth_date, Kind.DATE),
    "PatientSex": Attribute(Level.PATIENT, Patient.sex),
    "PatientAddress": Attribute(Level.PATIENT, Patient.address),
    "PatientTelephoneNumbers": Attribute(Level.PATIENT, Patient.telephone),
    "PatientMotherBirthName": Attribute(Level.PATIENT, Patient.mothers_birth_name),
    "StudyInstanceUID": Attribute(Level.STUDY, Study.study_instance_uid, Kind.UID),
    "StudyDate": Attribute(Level.STUDY, Study.study_date, Kind.DATE),
    "StudyTime": Attribute(Level.STUDY, Study.study_time, Kind.TIME),
    "AccessionNumber": Attribute(Level.STUDY, Study.accession_number),
    "StudyID": Attribute(Level.STUDY, Study.study_id),
    "StudyDescription": Attribute(Level.STUDY, Study.study_description),
    "ReferringPhysicianName": Attribute(Level.STUDY, Study.referring_physician_name),
    "SeriesInstanceUID": Attribute(Level.SERIES, Series.series_instance_uid, Kind.UID),
    "Modality": Attribute(Level.SERIES, Series.modality),
    "SeriesNumber": Attribute(Level.SERIES, Series.series_number),
    "SeriesDescription": Attribute(Level.SERIES, Series.series_description),
    "BodyPartExamined": Attribute(Level.SERIES, Series.body_part_examined),
    "Laterality": Attribute(Level.SERIES, Series.laterality),
    "SeriesDate": Attribute(Level.SERIES, Series.series_date, Kind.DATE),
    "SeriesTime": Attribute(Level.SERIES, Series.series_time, Kind.TIME),
    "PerformedProcedureStepStartDate": Attribute(
        Level.SERIES, Series.performed_procedure_step_start_date, Kind.DATE
    ),
    "PerformedProcedureStepStartTime": Attribute(
        Level.SERIES, Series.performed_procedure_step_start_time, Kind.TIME
    ),
    "InstitutionName": Attribute(Level.SERIES, Series.institution_name),
    "StationName": Attribute(Level.SERIES, Series.station_name),
    "Manufacturer": Attribute(Level.SERIES, Series.manufacturer),
    "SOPInstanceUID": Attribute(Level.IMAGE, Instance.sop_instance_uid, Kind.UID),
    "SOPClassUID": Attribute(Level.IMAGE, Instance.sop_class_uid, Kind.UID),
    "InstanceNumber": Attribute(Level.IMAGE, Instance.instance_number),
    "ContentDate": Attribute(Level.IMAGE, Instance.content_date, Kind.DATE),
    "ContentTime": Attribute(Level.IMAGE, Instance.content_time, Kind.TIME),
    "Rows": Attribute(Level.IMAGE, Instance.rows, Kind.NUMBER),
    "Columns": Attribute(Level.IMAGE, Instance.columns, Kind.NUMBER),
    "BitsAllocated": Attribute(Level.IMAGE, Instance.bits_allocated, Kind.NUMBER),
    "NumberOfFrames": Attribute(Level.IMAGE, Instance.number_of_frames, Kind.NUMBER),
}
"""Every indexed attribute. What is not here is not matched, and a door says so to the asker."""


@dataclass(frozen=True, slots=True)
class Values:
    """Equal to one of the values: single value and list of UID matching (C.2.2.2.1, .2)."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Wildcard matching (C.2.2.2.4): ``*`` for any characters, ``?`` for any one."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """Starts with the text, in any case and width: a FHIR string parameter (R4 3.1.1.4.8)."""

    text: str


@dataclass(frozen=True, slots=True)
class Contains:
    """Holds the text anywhere, in any case of ASCII letters; a name is folded: FHIR :contains."""

    text: str


@dataclass(frozen=True, slots=True)
class Exact:
    """Is the text, in this case and with these accents: FHIR :exact. Of a name, one whole part."""

    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included; None leaves an end open (C.2.2.2.5)."""

    low: str | None
    high: str | None


Matching = Values | Pattern | Prefix | Contains | Exact | Range


@dataclass(frozen=True, slots=True)
class Match:
    """One attribute by keyword, and how it must match."""

    keyword: str
    matching: Matching


@dataclass(frozen=True, slots=True)
class ModalitiesInStudy:
    """Some series of the study has one of these modalities (C.3.4 Table C.6-5)."""

    matching: Matching


@dataclass(frozen=True, slots=True)
class Number:
    """The patient's number in one hospital, by whichever hospital the record itself is.

    Matches every record of the person whom the organization knows under the number; `organization`
    None means each record's own number.
    """

    organization: int | None
    matching: Matching


@dataclass(frozen=True, slots=True)
class Identifier:
    """Another identifier of the patient: `value`, and the `system` that issued it unless None."""

    value: str
    system: str | None = None


@dataclass(frozen=True, slots=True)
class NamePart:
    """A part of the patient's name (FHIR family, given, name), folded as `names` folds it."""

    kind: NameKind | None
    matching: Prefix | Values | Pattern | Contains | Exact


@dataclass(frozen=True, slots=True)
class SamePerson:
    """The patient record with this row number, and every other record of the same person."""

    patient: int


@dataclass(frozen=True, slots=True)
class Owned:
    """The patient record is one of these organizations'."""

    organizations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """The study holds a primary instance for which, and for whose series, all criteria hold."""

    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The records themselves, by their row numbers in the table of that level."""

    level: Level
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """Last changed in the half-open span; the patient record, or the study at lower levels."""

    level: Level
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the criteria holds; none at all matches nothing."""

    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of the criteria holds; none at all matches everything."""

    criteria: tuple[Criterion, ...]


Criterion = (
    Match
    | ModalitiesInStudy
    | Number
    | Identifier
    | NamePart
    | SamePerson
    | Owned
    | Holds
    | Rows
    | Changed
    | AnyOf
    | AllOf
)

_ROW: Mapping[Level, InstrumentedAttribute[int]] = {
    Level.PATIENT: Patient.id,
    Level.STUDY: Study.id,
    Level.SERIES: Series.id,
    Level.IMAGE: Instance.id,
}


_LONGEST = 4096
"""Characters of the longest text that a column keeps."""

_NUMBER = re.compile(r"\+?0*[0-9]{1,9}")

PatientAlias = Patient.__table__.alias("known_as")
"""The patient table a second time: the record under which somebody asks."""


def where(criteria: Sequence[Criterion]) -> ColumnElement[bool]:
    """All of `criteria` as one SQL condition over the joined tables of the level and above."""
    return and_(true(), *(_condition(criterion) for criterion in criteria))


def _condition(criterion: Criterion) -> ColumnElement[bool]:
    match criterion:
        case Match(keyword, matching):
            attribute = ATTRIBUTES[keyword]
            if attribute.kind is Kind.NAME:
                return _name(matching)
            return compare(attribute.column, matching, attribute.kind)
        case ModalitiesInStudy(matching):
            return exists(
                select(literal(1))
                .select_from(Series)
                .where(Series.study_id == Study.id, compare(Series.modality, matching))
                .correlate(Study)
            )
        case Number(organization, matching):
            return _number(organization, matching)
        case Identifier():
            return _identified([criterion])
        case NamePart(kind, matching):
            return _name(matching, kind)
        case SamePerson(patient):
            person = select(PatientAlias.c.person_id).where(
                PatientAlias.c.id == patient, PatientAlias.c.person_id.is_not(None)
            )
            return or_(Patient.id == patient, Patient.person_id.in_(person))
        case Owned(organizations):
            return Patient.organization_id.in_(organizations)
        case Holds(criteria):
            return exists(
                select(literal(1))
                .select_from(Series)
                .join(Instance, Instance.series_id == Series.id)
                .where(Series.study_id == Study.id, Instance.is_primary, where(criteria))
                .correlate(Study)
            )
        case Rows(level, ids):
            return _ROW[level].in_(ids)
        case Changed(level, since, before):
            column = Patient.changed if level is Level.PATIENT else Study.changed
            return and_(
                true() if since is None else column >= since,
                true() if before is None else column < before,
            )
        case AnyOf(criteria):
            identifiers = [one for one in criteria if isinstance(one, Identifier)]
            others = [one for one in criteria if not isinstance(one, Identifier)]
            return or_(false(), _identified(identifiers), *map(_condition, others))
        case AllOf(criteria):
            return where(criteria)


def _identified(identifiers: Sequence[Identifier]) -> ColumnElement[bool]:
    """Any of the identifiers, in one sub-select: a card is asked for under several systems."""
    if not identifiers:
        return false()
    values: dict[str | None, list[str]] = defaultdict(list)
    for one in identifiers:
        values[one.system].append(one.value)
    found = (
        and_(
            compare(PatientIdentifier.value, Values(tuple(of_system))),
            true() if system is None else PatientIdentifier.system == system,
        )
        for system, of_system in values.items()
    )
    return Patient.id.in_(select(PatientIdentifier.patient_id).where(or_(false(), *found)))


def _number(organization: int | None, matching: Matching) -> ColumnElement[bool]:
    if organization is None:
        return compare(Patient.patient_id, matching)
    known = select(PatientAlias.c.id).where(
        PatientAlias.c.organization_id == organization,
        compare(PatientAlias.c.patient_id, matching),
    )
    person = select(PatientAlias.c.person_id).where(
        PatientAlias.c.organization_id == organization,
        PatientAlias.c.person_id.is_not(None),
        compare(PatientAlias.c.patient_id, matching),
    )
    return or_(Patient.id.in_(known), Patient.person_id.in_(person))


def _name(matching: Matching, kind: NameKind | None = NameKind.FULL) -> ColumnElement[bool]:
    keys = PatientName.key
    match matching:
        case Prefix(text):
            found = or_(false(), *(_starts(keys, one) for one in names.asked(text)))
        case Values(values):
            # Full names are kept without the delimiter too: whoever sent one need not know it.
            asked = (one for value in values for one in names.asked(value))
            found = keys.in_([plain for one in asked if (plain := one.replace("^", ""))])
        case Pattern(pattern):
            found = or_(false(), *(_like(keys, one) for one in names.asked(pattern)))
        case Contains(text):
            parts = names.asked(text)
            found = or_(false(), *(_contains(keys, one) for one in parts))
        case Exact(text):
            # The keys are folded: they find the part, the name as it was written confirms it.
            written = or_(
                *(
                    func.replace(Patient.name, "^", between).contains(text, autoescape=True)
                    for between in ("^", " ", "")
                )
            )
            found = and_(keys.in_(names.asked(text)), written)
        case Range():
            return false()
    of_kind = true() if kind is None else PatientName.kind == kind
    return Patient.id.in_(select(PatientName.patient_id).where(of_kind, found))


def compare(column: Any, matching: Matching, kind: Kind = Kind.TEXT) -> ColumnElement[bool]:
    """`column` against `matching`, in the manner of its kind."""
    if kind is Kind.NUMBER:
        return _numeric(column, matching)
    match matching:
        case Values((one,)):
            return or_(false(), column == one)
        case Values(values):
            return or_(false(), column.in_(values))
        case Pattern(pattern):
            return _like(column, pattern)
        case Prefix(text):
            return _starts(column, text)
        case Contains(text):
            return _contains(column, text)
        case Exact(text):
            return or_(false(), column == text)
        case Range(low, high):
            if kind is Kind.TIME:
                return _time_range(column, low, high)
            return and_(
                column != "",
                true() if low is None else column >= low,
                # A time or date given in less detail means all of its span: 10 is 10:00 to 10:59.
                true() if high is None else column <= high,
            )


def _numeric(column: Any, matching: Matching) -> ColumnElement[bool]:
    """Numbers are kept as integers below 2**31; as text they are matched in decimal."""
    match matching:
        case Values(values):
            numbers = (value.strip() for value in values)
            return or_(false(), column.in_([int(n) for n in numbers if _NUMBER.fullmatch(n)]))
        case Pattern(pattern):
            return _like(cast(column, SQLString), pattern, indexed=False)
        case _:
            return false()


def _time_range(column: Any, low: str | None, high: str | None) -> ColumnElement[bool]:
    """TM range: a bound of less precision stands for its whole span (PS3.5 section 6.2 TM)."""
    return and_(
        column != "",
        true() if low is None else column >= low,
        true() if high is None else func.substr(column, 1, len(high)) <= high,
    )


def _starts(column: Any, text: str) -> ColumnElement[bool]:
    """A prefix as a range of bytes, which an index can answer."""
    return and_(column >= text, column < text + "\U0010ffff")


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    if len(text) > _LONGEST:
        return false()
    # The column's own collation folds ASCII alone; the same is done to the text here.
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    return or_(false(), func.lower(column).contains(lowered, autoescape=True))


def _like(column: Any, pattern: str, *, indexed: bool = True) -> ColumnElement[bool]:
    pattern = re.sub(r"\*+", "*", pattern)
    if len(pattern.replace("*", "")) > _LONGEST:
        return false()  # SQLite refuses very long patterns rather than finding nothing
    stem = re.split(r"[*?]", pattern, maxsplit=1)[0] if indexed else ""
    escaped = pattern.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    like = column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return and_(_starts(column, stem), like) if stem else or_(false(), like)
