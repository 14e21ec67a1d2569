"""What patients have said of sharing their records."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import Identity, Key, Record, Word


class Consent(Record):
    """A patient's decision on sharing, recorded at one hospital, in force until it ends.

    It holds for every patient record of the same person, wherever it was recorded.
    """

    __tablename__ = "consent"

    id: Mapped[Key] = mapped_column(init=False)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), index=True)
    decision: Mapped[Word]
    """``deny`` or ``permit`` (FHIR consent-provision-type)."""
    recorded: Mapped[datetime]
    recorded_by: Mapped[Word]
    ended: Mapped[datetime | None] = mapped_column(default=None)
