"""What can be asked of the index: attributes by DICOM keyword, and criteria on them.

The table `ATTRIBUTES` says where an attribute is kept and how it is matched (PS3.4 section
C.2.2.2); ingest fills the same columns from the same table. `search` makes SQL of the criteria.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from sqlalchemy.orm import InstrumentedAttribute

from exchange_storage.records import (
    Instance,
    NameKind,
    Patient,
    RequestAttributes,
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
    """The patient's name, of which search keys are kept."""
    PERSON = "person"
    """Any other PN, of which search keys are kept by name."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Where an attribute is kept, and how it is matched."""

    level: Level
    column: InstrumentedAttribute[Any]
    kind: Kind = Kind.TEXT
    selective: bool = False
    """An index answers it, and finds few among many."""


ATTRIBUTES: Mapping[str, Attribute] = {
    "PatientID": Attribute(Level.PATIENT, Patient.patient_id, selective=True),
    "PatientName": Attribute(Level.PATIENT, Patient.name, Kind.NAME, selective=True),
    "PatientBirthDate": Attribute(Level.PATIENT, Patient.birth_date, Kind.DATE, selective=True),
    "PatientSex": Attribute(Level.PATIENT, Patient.sex),
    "PatientAddress": Attribute(Level.PATIENT, Patient.address),
    "PatientTelephoneNumbers": Attribute(Level.PATIENT, Patient.telephone),
    "PatientMotherBirthName": Attribute(Level.PATIENT, Patient.mothers_birth_name, Kind.PERSON),
    "StudyInstanceUID": Attribute(Level.STUDY, Study.study_instance_uid, Kind.UID, selective=True),
    "StudyDate": Attribute(Level.STUDY, Study.study_date, Kind.DATE, selective=True),
    "StudyTime": Attribute(Level.STUDY, Study.study_time, Kind.TIME),
    "AccessionNumber": Attribute(Level.STUDY, Study.accession_number, selective=True),
    "StudyID": Attribute(Level.STUDY, Study.study_id),
    "StudyDescription": Attribute(Level.STUDY, Study.study_description),
    "ReferringPhysicianName": Attribute(Level.STUDY, Study.referring_physician_name, Kind.PERSON),
    "SeriesInstanceUID": Attribute(
        Level.SERIES, Series.series_instance_uid, Kind.UID, selective=True
    ),
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
    "PerformingPhysicianName": Attribute(
        Level.SERIES, Series.performing_physician_name, Kind.PERSON
    ),
    "OperatorsName": Attribute(Level.SERIES, Series.operators_name, Kind.PERSON),
    "SOPInstanceUID": Attribute(Level.IMAGE, Instance.sop_instance_uid, Kind.UID, selective=True),
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


REQUESTED: Mapping[str, InstrumentedAttribute[str]] = {
    "RequestedProcedureID": RequestAttributes.requested_procedure_id,
    "ScheduledProcedureStepID": RequestAttributes.scheduled_procedure_step_id,
}
"""What is indexed of the items of a series' Request Attributes Sequence."""


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
class Alike:
    """Sounds like it: fuzzy semantic matching of a person name (C.2.2.2.1.1), see `names.alike`."""

    name: str


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included; None leaves an end open (C.2.2.2.5)."""

    low: str | None
    high: str | None


Matching = Values | Pattern | Prefix | Contains | Exact | Alike | Range


@dataclass(frozen=True, slots=True)
class Match:
    """One attribute by keyword, and how it must match."""

    keyword: str
    matching: Matching


@dataclass(frozen=True, slots=True)
class Between:
    """A date and the time of that day, as one moment, lie in the span (combined C.2.2.2.5.4).

    An end is a date YYYYMMDD and a time, "" for all of that day; None leaves it open.
    """

    date: str
    """The keyword; the time has a keyword of its own."""
    time: str
    low: tuple[str, str] | None
    high: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class ModalitiesInStudy:
    """Some series of the study has one of these modalities (C.3.4 Table C.6-5)."""

    matching: Matching


@dataclass(frozen=True, slots=True)
class BodyPart:
    """The series is of a body part, in whichever way its objects say it (`Series.body_part`).

    Not the key Body Part Examined, which matches what the attribute of that name says.
    """

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
    """Another identifier of the patient: `value`, and the `system` that issued it unless None.

    `wild` says that the value is a pattern, see `Pattern`.
    """

    value: str
    system: str | None = None
    wild: bool = False


@dataclass(frozen=True, slots=True)
class NamePart:
    """A part of the patient's name (FHIR family, given, name), folded as `names` folds it."""

    kind: NameKind | None
    matching: Prefix | Values | Pattern | Contains | Exact | Alike


@dataclass(frozen=True, slots=True)
class SamePerson:
    """The patient record with this row number, and every other record of the same person."""

    patient: int


@dataclass(frozen=True, slots=True)
class Owned:
    """The patient record is one of these organizations'."""

    organizations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """The patient record was merged: another one of its hospital stands in its place."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """The study has come of an order of its hospital that was not canceled."""


@dataclass(frozen=True, slots=True)
class Requested:
    """The series has an item of Request Attributes Sequence in which all of it matches.

    By keyword, see `REQUESTED` (sequence matching, C.2.2.2.6).
    """

    within: tuple[tuple[str, Matching], ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """The study holds a primary instance for which, and for whose series, all criteria hold.

    At another `level` the same of a patient, whose studies count too, or of a series.
    """

    criteria: tuple[Criterion, ...]
    level: Level = Level.STUDY


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


class Link(Protocol):
    """What a record has to do with clinical resources, see `resource_criteria`."""

    def form(self, values: list[Any]) -> Hashable:
        """Its form; its values are added to `values`."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The record of that level is linked to clinical resources for which something holds."""

    level: Level
    link: Link


@dataclass(frozen=True, slots=True)
class Not:
    """The criterion does not hold."""

    criterion: Criterion


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
    | Between
    | ModalitiesInStudy
    | BodyPart
    | Number
    | Identifier
    | NamePart
    | SamePerson
    | Owned
    | Replaced
    | Ordered
    | Requested
    | Holds
    | Rows
    | Changed
    | Linked
    | Not
    | AnyOf
    | AllOf
)
