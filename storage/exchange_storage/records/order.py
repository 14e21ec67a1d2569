"""Orders, what was performed of them, and what a hospital says that it sends."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Document, Identity, Key, Record, Text, Word


class Order(Record):
    """An imaging order with its scheduled procedure step (PS3.3 C.4.10, FHIR ServiceRequest).

    One step for each order: a procedure of several steps is several orders with one accession
    number and one Study Instance UID.
    """

    __tablename__ = "imaging_order"
    __table_args__ = (
        UniqueConstraint("organization_id", "scheduled_procedure_step_id"),
        Index(None, "organization_id", "scheduled_date"),
        Index(None, "patient_id"),
        Index(None, "study_instance_uid"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    """The hospital that performs it, and on whose worklist it stands."""
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"))
    """The performing hospital's own record of the patient."""
    accession_number: Mapped[Word] = mapped_column(index=True)
    requested_procedure_id: Mapped[Word]
    scheduled_procedure_step_id: Mapped[Word]
    study_instance_uid: Mapped[UID]
    """Chosen when the order is placed, so that every modality uses the same."""
    modality: Mapped[Word]
    body_part_examined: Mapped[Word]
    procedure_description: Mapped[Word]
    station_ae_title: Mapped[Word]
    """AE title of the scheduled modality; "" for any."""
    station_name: Mapped[Word]
    scheduled_date: Mapped[Word]
    """YYYYMMDD, the hospital's local time, as DICOM has it; "" for one without an appointment."""
    scheduled_time: Mapped[Word]
    performing_physician_name: Mapped[Word]
    referring_physician_name: Mapped[Word]
    requesting_physician_name: Mapped[Word]
    priority: Mapped[Word]
    """Requested Procedure Priority: STAT, HIGH, ROUTINE, MEDIUM, LOW."""
    reason: Mapped[Text]
    status: Mapped[Word] = mapped_column(index=True)
    """SCHEDULED, IN PROGRESS, COMPLETED, DISCONTINUED, CANCELED."""
    placed: Mapped[datetime]
    changed: Mapped[datetime]
    request: Mapped[UID] = mapped_column(
        index=True, default_factory=lambda: f"order-{uuid.uuid4().hex}", server_default=text("''")
    )
    """The logical id of the ServiceRequest that it is: the hospital's own, or one derived of it."""
    is_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the hospital wrote that ServiceRequest itself."""
    appointment: Mapped[UID] = mapped_column(index=True, default="", server_default=text("''"))
    """The logical id of the Appointment that says when it is; "" for none."""
    location: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """Scheduled Procedure Step Location: the room; "" where nobody said."""
    admission_id: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """The hospital's number of the visit; "" where nobody said."""


class OrderCode(Record):
    """A code of an order (PS3.3 section 8): of its procedure, or of the protocols to perform.

    Each has one item of its sequence, beside which stand others that mean the same.
    """

    __tablename__ = "order_code"

    order_id: Mapped[Identity] = mapped_column(ForeignKey("imaging_order.id"), primary_key=True)
    kind: Mapped[Word] = mapped_column(primary_key=True)
    """procedure, protocol."""
    item: Mapped[int] = mapped_column(primary_key=True)
    """Which one of its kind, from 0."""
    equivalent: Mapped[int] = mapped_column(primary_key=True)
    """0 for the item's own code, from 1 for those that mean the same."""
    value: Mapped[Word]
    scheme: Mapped[Word]
    """Coding Scheme Designator (PS3.16 Table 8-1), L for a hospital's own."""
    version: Mapped[Word]
    meaning: Mapped[Word]
    system: Mapped[Word]
    """The URI of a hospital's own coding scheme, "" of a registered one, or where nobody said."""


class PerformedStep(Record):
    """A Modality Performed Procedure Step (PS3.4 annex F): what a modality says that it did."""

    __tablename__ = "performed_step"
    __table_args__ = (
        UniqueConstraint("organization_id", "sop_instance_uid"),
        Index(None, "organization_id", "started"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    sop_instance_uid: Mapped[UID]
    study_instance_uid: Mapped[UID] = mapped_column(index=True)
    status: Mapped[Word]
    """IN PROGRESS, COMPLETED, DISCONTINUED."""
    station_ae_title: Mapped[Word]
    modality: Mapped[Word]
    started: Mapped[Word]
    """YYYYMMDDHHMMSS, the modality's local time."""
    ended: Mapped[Word]
    content: Mapped[Document]
    """The whole step as DICOM JSON (PS3.18 annex F)."""
    created: Mapped[datetime]
    changed: Mapped[datetime]
    order_id: Mapped[Identity | None] = mapped_column(
        ForeignKey("imaging_order.id"), index=True, default=None
    )


class ExpectedInstance(Record):
    """An instance that a performed step has announced."""

    __tablename__ = "expected_instance"

    performed_step_id: Mapped[Identity] = mapped_column(
        ForeignKey("performed_step.id"), primary_key=True
    )
    sop_instance_uid: Mapped[UID] = mapped_column(primary_key=True)
    series_instance_uid: Mapped[UID]


class Tally(Record):
    """What a hospital counts itself as sent on one day: the sender's side of the ledger."""

    __tablename__ = "tally"

    organization_id: Mapped[Identity] = mapped_column(
        ForeignKey("organization.id"), primary_key=True
    )
    day: Mapped[Word] = mapped_column(primary_key=True)
    """YYYYMMDD, local time."""
    source: Mapped[Word] = mapped_column(primary_key=True)
    """Who counted: an AE title, or a name of the hospital's own."""
    studies: Mapped[int | None]
    instances: Mapped[int | None]
    told: Mapped[datetime]
