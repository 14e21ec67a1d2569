"""Many resources at once: exports and imports that go on in the background, and their files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import Identity, Key, Record, Text, Word


class BulkJob(Record):
    """An export or import of many resources: who asked, for what, and how far it has come."""

    __tablename__ = "bulk_job"
    __table_args__ = (
        UniqueConstraint("token"),
        Index(None, "expires"),
        Index(None, "requester", "state"),
        # The number of one that is gone must not lead its worker to another.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[Key] = mapped_column(init=False)
    token: Mapped[Word]
    """What its address ends with: nobody guesses it, and it says nothing."""
    direction: Mapped[Word]
    """``export`` or ``import``."""
    requester: Mapped[Word]
    role: Mapped[Word]
    organization_id: Mapped[Identity | None] = mapped_column(ForeignKey("organization.id"))
    purpose: Mapped[Word]
    """ "" where there is none."""
    request: Mapped[Text]
    """The address that was asked, without what it was asked with where that may name a patient."""
    asked: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What was asked for, as its door understands it."""
    made: Mapped[datetime]
    """What was written later is not part of an export."""
    expires: Mapped[datetime]
    state: Mapped[Word] = mapped_column(default="working")
    """``working``, ``complete``, ``failed`` or ``cancelled``."""
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default_factory=dict)
    """Where it goes on, as its door understands it."""
    done: Mapped[Identity] = mapped_column(default=0)
    """Resources that have been exported, or lines that have been read."""
    told: Mapped[Text] = mapped_column(default="")
    """Why it failed."""


class BulkFile(Record):
    """A file of resources of one type, in the object store."""

    __tablename__ = "bulk_file"

    job_id: Mapped[Identity] = mapped_column(ForeignKey("bulk_job.id"), primary_key=True)
    number: Mapped[Identity] = mapped_column(primary_key=True)
    kind: Mapped[Word]
    """The resource type."""
    key: Mapped[Word]
    size: Mapped[Identity]
    count: Mapped[Identity]
    is_error: Mapped[bool] = mapped_column(default=False)
    """Whether it tells of what went wrong."""
