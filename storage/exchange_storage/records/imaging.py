"""Studies, series and instances: the index of what hospitals have sent (PS3.3 section A.1.2)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    UniqueConstraint,
    case,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Document, Identity, Key, Record, Text, Word


class Study(Record):
    """A study: of one patient record, and with it of the hospital that sent it first."""

    __tablename__ = "study"
    __table_args__ = (
        Index(None, "patient_id", "study_date"),
        Index(None, "study_date", "id"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    study_instance_uid: Mapped[UID] = mapped_column(unique=True)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"))
    study_date: Mapped[Word]
    study_time: Mapped[Word]
    accession_number: Mapped[Word] = mapped_column(index=True)
    study_id: Mapped[Word]
    study_description: Mapped[Word]
    referring_physician_name: Mapped[Word]
    received: Mapped[datetime]
    changed: Mapped[datetime] = mapped_column(index=True)
    revision: Mapped[int] = mapped_column(default=1)
    """Counts the changes, so that whatever is derived from the study knows if it is stale."""


class FurtherAccessionNumber(Record):
    """An accession number that some images of a study have beside the study's own, which came
    first: the study is found by it too."""

    __tablename__ = "further_accession_number"

    study_id: Mapped[Identity] = mapped_column(ForeignKey("study.id"), primary_key=True)
    accession_number: Mapped[Word] = mapped_column(primary_key=True, index=True)


class SaidOtherwise(Record):
    """What an image says of its study and patient otherwise than their records did when it came;
    or, of no image, a further name that the patient's hospital told. What finds the study and the
    patient beside their records is counted from it: what images in use say, and what is told."""

    __tablename__ = "said_otherwise"
    __table_args__ = (Index(None, "patient_id", "name"),)

    id: Mapped[Key] = mapped_column(init=False)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"))
    study_id: Mapped[Identity | None] = mapped_column(ForeignKey("study.id"))
    instance_id: Mapped[Identity | None] = mapped_column(ForeignKey("instance.id"), index=True)
    accession_number: Mapped[Word | None]
    """"" where it has none; None where it is the study's."""
    name: Mapped[Word]
    """"" where it, and what follows, are no matter."""
    birth_date: Mapped[Word]
    sex: Mapped[Word]


class Series(Record):
    """A series: instances of one modality, made in one go."""

    __tablename__ = "series"

    id: Mapped[Key] = mapped_column(init=False)
    series_instance_uid: Mapped[UID] = mapped_column(unique=True)
    study_id: Mapped[Identity] = mapped_column(ForeignKey("study.id"), index=True)
    modality: Mapped[Word]
    series_number: Mapped[Word]
    series_description: Mapped[Word]
    body_part_examined: Mapped[Word]
    laterality: Mapped[Word]
    series_date: Mapped[Word]
    series_time: Mapped[Word]
    performed_procedure_step_start_date: Mapped[Word]
    performed_procedure_step_start_time: Mapped[Word]
    institution_name: Mapped[Word]
    station_name: Mapped[Word]
    manufacturer: Mapped[Word]
    received: Mapped[datetime]
    performing_physician_name: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    operators_name: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    anatomic_region: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """What Body Part Examined would say of the region that Anatomic Region Sequence codes."""

    @hybrid_property
    def body_part(self) -> str:
        """The body part examined, as the objects say it in one way or the other; "" if in none."""
        return self.body_part_examined or self.anatomic_region

    @body_part.inplace.expression
    @classmethod
    def _body_part(cls) -> ColumnElement[str]:
        told = cls.body_part_examined
        return case((told != "", told), else_=cls.anatomic_region)


class RequestAttributes(Record):
    """A requested procedure for which a series was made (Request Attributes Sequence)."""

    __tablename__ = "request_attributes"

    series_id: Mapped[Identity] = mapped_column(ForeignKey("series.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, 3 … as the items stand in the series' first instance."""
    requested_procedure_id: Mapped[Word] = mapped_column(index=True)
    scheduled_procedure_step_id: Mapped[Word] = mapped_column(index=True)


class Instance(Record):
    """A SOP instance as it was received: which object holds its bytes, and what they are.

    Of the instances with one SOP Instance UID the first is primary, and it alone is served;
    any other is conflicting, kept, and waits for review.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "digest", "organization_id"),
        Index(
            "uq_instance_primary",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("is_primary"),
            postgresql_where=text("is_primary"),
        ),
        CheckConstraint("series_id IS NOT NULL OR NOT is_primary", name="primary_has_series"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    sop_instance_uid: Mapped[UID]
    sop_class_uid: Mapped[UID]
    series_id: Mapped[Identity | None] = mapped_column(ForeignKey("series.id"), index=True)
    """None where a conflicting instance claims a study or series that is not its sender's."""
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    """The hospital that sent these bytes."""
    is_primary: Mapped[bool]
    key: Mapped[Text]
    digest: Mapped[Digest]
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes of the object: the canonical header and the data set as it was sent."""
    transfer_syntax_uid: Mapped[UID]
    instance_number: Mapped[Word]
    content_date: Mapped[Word]
    content_time: Mapped[Word]
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    bits_allocated: Mapped[int | None]
    number_of_frames: Mapped[int | None]
    character_set: Mapped[Word]
    """Specific Character Set as the data set declares it."""
    character_set_repair: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What was read instead, and why, where the declaration was missing or wrong."""
    received: Mapped[datetime]
    source: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """Who sent it: a calling AE title, or the client of a STOW-RS."""
    verified: Mapped[datetime | None] = mapped_column(default=None)
    """When the object was last read back and had its digest: by a commitment, or a scrub."""


class Conflict(Record):
    """An instance that could not become primary waits for someone to look."""

    __tablename__ = "conflict"

    id: Mapped[Key] = mapped_column(init=False)
    instance_id: Mapped[Identity] = mapped_column(ForeignKey("instance.id"), unique=True)
    reason: Mapped[Word]
    claimed: Mapped[Document]
    """The attributes that it came with, by DICOM keyword."""
    raised: Mapped[datetime] = mapped_column(index=True)
    settled: Mapped[datetime | None] = mapped_column(default=None)
    settlement: Mapped[Word] = mapped_column(default="")
