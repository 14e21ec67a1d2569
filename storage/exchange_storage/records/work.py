"""What is still to be done (the outbox) and what has happened (the change feed)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Identity, Key, Record, Text, Word


class Job(Record):
    """Something that a worker will do: durable, once per kind and subject, retried with backoff.

    Asking again for a job that waits or runs raises `asked`: a worker removes a job only if
    nobody asked while it ran, so nothing that came meanwhile is missed.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("kind", "subject"),
        Index(None, "dead", "due"),
        # A worker that comes back late with a job that is gone must not remove another.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[Key] = mapped_column(init=False)
    kind: Mapped[Word]
    subject: Mapped[Word]
    due: Mapped[datetime]
    asked: Mapped[int] = mapped_column(default=1)
    attempts: Mapped[int] = mapped_column(default=0)
    leased_until: Mapped[datetime | None] = mapped_column(default=None)
    """While a worker has it; another takes it over afterwards, should that one have died."""
    dead: Mapped[bool] = mapped_column(default=False)
    """Given up: on the dead-letter list, until someone retries it."""
    last_error: Mapped[Text] = mapped_column(default="")
    put_off: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Nobody answered where it calls: it is due as soon as somebody does."""


class Export(Record):
    """A study that somebody takes along as files, and how far that has come."""

    __tablename__ = "export"
    # Whoever follows one by its number must not come to another.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[Key] = mapped_column(init=False)
    requester: Mapped[Word]
    """The name of the user who asked for it, and alone may fetch and follow it."""
    study_instance_uid: Mapped[UID]
    without_names: Mapped[bool]
    """Whether the files do not say who the patient is."""
    asked: Mapped[datetime] = mapped_column(index=True)
    instances: Mapped[int] = mapped_column(default=0)
    """How many there are to send; 0 until the files are fetched."""
    sent: Mapped[int] = mapped_column(default=0)
    state: Mapped[Word] = mapped_column(default="asked")
    """``asked``, ``sending``, ``complete`` or ``broken``."""


class Change(Record):
    """An entry of the change feed, in the order in which the changes were committed."""

    __tablename__ = "change"

    sequence: Mapped[Key] = mapped_column(init=False)
    recorded: Mapped[datetime] = mapped_column(index=True)
    action: Mapped[Word]
    """``create``, ``conflict``, ``replace``, ``reject``, ``restore``, ``delete``."""
    instance_id: Mapped[Identity]
    study_instance_uid: Mapped[UID]
    series_instance_uid: Mapped[UID]
    sop_instance_uid: Mapped[UID]


class Traffic(Record):
    """What came from a hospital in a quarter of an hour, and what was fetched of it and by it."""

    __tablename__ = "traffic"
    __table_args__ = (Index(None, "begins"),)

    organization_id: Mapped[Identity] = mapped_column(
        ForeignKey("organization.id"), primary_key=True
    )
    begins: Mapped[datetime] = mapped_column(primary_key=True)
    """A quarter of an hour, in which the hours of every time zone begin."""
    received: Mapped[int] = mapped_column(default=0)
    """Instances."""
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    """Their bytes."""
    fetched: Mapped[int] = mapped_column(default=0)
    """Retrievals by its own people and systems."""
    fetched_by_others: Mapped[int] = mapped_column(default=0)
    """Retrievals of its patients' records by other hospitals'."""


class TrafficCounted(Record):
    """How far the change feed and the audit trail are counted in `Traffic`: one row."""

    __tablename__ = "traffic_counted"

    id: Mapped[int] = mapped_column(primary_key=True)
    change: Mapped[Identity]
    """Sequence of the last change."""
    record: Mapped[Identity]
    """Sequence of the last record of the trail."""
