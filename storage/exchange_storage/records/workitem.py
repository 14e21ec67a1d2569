"""Workitems (unified procedure steps, PS3.4 annex CC), who watches them, and what they are told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Document, Identity, Key, Record, Word


class Workitem(Record):
    """A unified procedure step: what is to be done, by whom it is done, and what came of it."""

    __tablename__ = "workitem"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid"),
        Index(None, "organization_id", "state", "id"),
        Index(None, "assigned_id", "state", "id"),
        Index(None, "patient_id"),
        Index(None, "ended"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    """The hospital whose task it is."""
    patient_id: Mapped[Identity | None] = mapped_column(ForeignKey("patient.id"))
    """That hospital's own record of the patient; None for work on no patient."""
    assigned_id: Mapped[Identity | None] = mapped_column(ForeignKey("organization.id"))
    """Another hospital that is to do it; None where it is the hospital's own."""
    sop_instance_uid: Mapped[UID]
    study_instance_uid: Mapped[UID] = mapped_column(index=True)
    state: Mapped[Word]
    """SCHEDULED, IN PROGRESS, COMPLETED, CANCELED."""
    transaction_uid: Mapped[UID]
    """Known to whoever has claimed it; "" before. Never given out."""
    content: Mapped[Document]
    """All of it but the Transaction UID, as DICOM JSON; {} once it is deleted."""
    created: Mapped[datetime]
    changed: Mapped[datetime]
    ended: Mapped[datetime | None] = mapped_column(default=None)
    """When it was completed or canceled."""
    deleted: Mapped[datetime | None] = mapped_column(default=None)
    """When its content was deleted; that it was there remains known."""


class WorkitemKey(Record):
    """A value of a workitem under which it is found: by the path of its attribute."""

    __tablename__ = "workitem_key"
    __table_args__ = (Index(None, "path", "value"),)

    workitem_id: Mapped[Identity] = mapped_column(ForeignKey("workitem.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[Word]
    """Keywords joined with dots."""
    item: Mapped[int]
    """Which item of the outermost sequence it stands in; 0 where it stands in none."""
    value: Mapped[Word]


class WorkitemSubscription(Record):
    """Somebody is told what becomes of one workitem."""

    __tablename__ = "workitem_subscription"
    __table_args__ = (Index(None, "organization_id", "subscriber"),)

    workitem_id: Mapped[Identity] = mapped_column(ForeignKey("workitem.id"), primary_key=True)
    organization_id: Mapped[Identity] = mapped_column(
        ForeignKey("organization.id"), primary_key=True
    )
    """The hospital whose the subscriber is."""
    subscriber: Mapped[Word] = mapped_column(primary_key=True)
    """AE title."""
    deletion_lock: Mapped[bool]


class WorklistSubscription(Record):
    """Somebody is subscribed to every workitem to come: to all, or to those that match."""

    __tablename__ = "worklist_subscription"

    organization_id: Mapped[Identity] = mapped_column(
        ForeignKey("organization.id"), primary_key=True
    )
    subscriber: Mapped[Word] = mapped_column(primary_key=True)
    filtered: Mapped[bool] = mapped_column(primary_key=True)
    keys: Mapped[Document]
    """Matching keys by path, of a filtered one."""
    deletion_lock: Mapped[bool]
    requester: Mapped[Word]
    """Who asked for it."""


class WorkitemEvent(Record):
    """An event report that waits for its subscriber, or was sent of late."""

    __tablename__ = "workitem_event"
    __table_args__ = (
        Index(None, "organization_id", "subscriber", "id"),
        Index(None, "recorded"),
        # A connection goes on after the last that it sent, which may be gone.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    subscriber: Mapped[Word]
    workitem_id: Mapped[Identity | None] = mapped_column(ForeignKey("workitem.id"), index=True)
    """None for what is reported of the worklist itself."""
    recorded: Mapped[datetime]
    content: Mapped[Document]
    """The event report as DICOM JSON (PS3.18 section 11.13)."""
