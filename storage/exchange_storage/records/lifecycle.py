"""How long things are kept, what must not be thrown away, and what was taken out of use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Identity, Key, Record, Text, Word


class Rejection(Record):
    """An instance was rejected (IHE RAD IOCM): it is no longer primary, whoever sends it again."""

    __tablename__ = "rejection"
    __table_args__ = (
        UniqueConstraint(
            "organization_id",
            "sop_instance_uid",
            "note_sop_instance_uid",
            name="uq_rejection_note",
        ),
        Index(None, "sop_instance_uid"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    study_instance_uid: Mapped[UID] = mapped_column(index=True)
    sop_instance_uid: Mapped[UID]
    instance_id: Mapped[Identity | None]
    """The instance that was primary; None where it had not come yet, or is deleted."""
    code: Mapped[Word]
    """113001, 113037, 113038 or 113039 (DCM, CID 7011)."""
    note_sop_instance_uid: Mapped[UID]
    """The rejection note; "" when an administrator rejected it by command."""
    rejected: Mapped[datetime]
    withdrawn: Mapped[datetime | None] = mapped_column(default=None)


class RetentionRule(Record):
    """How many days a hospital keeps the studies of one modality, or of any (``""``)."""

    __tablename__ = "retention_rule"
    __table_args__ = (UniqueConstraint("organization_id", "modality"),)

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    modality: Mapped[Word]
    days: Mapped[int]
    made: Mapped[datetime]


class LegalHold(Record):
    """A study that may not be deleted, whatever rule or note says so."""

    __tablename__ = "legal_hold"

    id: Mapped[Key] = mapped_column(init=False)
    study_instance_uid: Mapped[UID] = mapped_column(index=True)
    reason: Mapped[Text]
    placed_by: Mapped[Word]
    placed: Mapped[datetime]
    lifted: Mapped[datetime | None] = mapped_column(default=None)


class Destroyed(Record):
    """An instance whose object and row were deleted by rule: what it was, and why it went."""

    __tablename__ = "destroyed"
    __table_args__ = (Index(None, "sop_instance_uid"), Index(None, "study_instance_uid"))

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    study_instance_uid: Mapped[UID]
    series_instance_uid: Mapped[UID]
    sop_instance_uid: Mapped[UID]
    key: Mapped[Text]
    """Of the object. It is removed after this row is durable, so that none is lost unnamed."""
    digest: Mapped[Digest]
    reason: Mapped[Word]
    decided: Mapped[datetime]
    removed: Mapped[datetime | None] = mapped_column(default=None)
    """When the object was gone."""


class Scrub(Record):
    """One walk through all that is kept, in the order in which it came, to read it again."""

    __tablename__ = "scrub"

    id: Mapped[Key] = mapped_column(init=False)
    begun: Mapped[datetime]
    position: Mapped[Identity] = mapped_column(default=0)
    """Row number of the last instance that was looked at."""
    read: Mapped[Identity] = mapped_column(default=0)
    """Objects that were read."""
    damaged: Mapped[Identity] = mapped_column(default=0)
    finished: Mapped[datetime | None] = mapped_column(default=None)
    attached_position: Mapped[Identity] = mapped_column(default=0, server_default=text("0"))
    """The same of what is attached to resources, which is read after the instances."""


class Damage(Record):
    """An object that is gone, or no longer what was received, as long as that is so."""

    __tablename__ = "damage"

    instance_id: Mapped[Identity] = mapped_column(primary_key=True)
    key: Mapped[Text]
    what: Mapped[Word]
    found: Mapped[datetime]


class AttachedDamage(Record):
    """The same of an object that is attached to a version of a clinical resource."""

    __tablename__ = "attached_damage"

    attached_id: Mapped[Identity] = mapped_column(primary_key=True)
    key: Mapped[Text]
    what: Mapped[Word]
    found: Mapped[datetime]
