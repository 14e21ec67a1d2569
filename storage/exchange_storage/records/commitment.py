"""Storage commitment: what a hospital asked the exchange to answer for (PS3.4 annex J)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Identity, Key, Record, Word


class Commitment(Record):
    """One transaction of the Push Model: asked, checked, reported."""

    __tablename__ = "commitment"
    __table_args__ = (UniqueConstraint("organization_id", "transaction_uid", "repetition"),)

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    transaction_uid: Mapped[UID]
    requester: Mapped[Word]
    """AE title (or client) that asked, and that is told the result."""
    address: Mapped[Word]
    """Where it asked from, without a port; "" where the result is fetched and not sent."""
    requested: Mapped[datetime]
    checked: Mapped[datetime | None] = mapped_column(default=None)
    """When every reference had its verdict."""
    reported: Mapped[datetime | None] = mapped_column(default=None)
    """When the requester confirmed the report."""
    repetition: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """0; 1, 2, 3 … for another request under a UID that was used already, which is refused."""


class CommitmentReference(Record):
    """One instance of a commitment, and why it could not be committed, if so."""

    __tablename__ = "commitment_reference"
    __table_args__ = (Index(None, "sop_instance_uid"),)

    commitment_id: Mapped[Identity] = mapped_column(ForeignKey("commitment.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, 3 … as they were asked for."""
    sop_class_uid: Mapped[UID]
    sop_instance_uid: Mapped[UID]
    failure_reason: Mapped[int | None] = mapped_column(default=None)
    """Failure Reason (0008,1197); None for what is committed, or not checked yet."""
