"""The audit trail: a chain in which every record holds the digest of the one before it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Identity, Key, Record, Text, Word


class AuditRecord(Record):
    """Who did what to whose records, and whether it was allowed.

    `content` is the record, canonical JSON exactly as it was hashed; the other columns repeat
    parts of it for searching, and verification compares them.
    """

    __tablename__ = "audit_record"
    __table_args__ = (
        # What was refused or failed is little among all that was done.
        Index(
            "ix_audit_record_wrong",
            "recorded",
            sqlite_where=text("outcome <> 'success'"),
            postgresql_where=text("outcome <> 'success'"),
        ),
    )

    sequence: Mapped[Key] = mapped_column(autoincrement=False)
    """1, 2, 3 … without a gap."""
    recorded: Mapped[datetime] = mapped_column(index=True)
    action: Mapped[Word]
    outcome: Mapped[Word]
    requester: Mapped[Word] = mapped_column(index=True)
    organization_id: Mapped[Identity | None]
    patient_id: Mapped[Identity | None] = mapped_column(index=True)
    study_instance_uid: Mapped[UID] = mapped_column(index=True)
    content: Mapped[str]
    digest: Mapped[Digest]
    """SHA-256 of the digest before it and of `content`."""


class AuditPatient(Record):
    """A patient whom a record of several is about, beside the one that stands in its column.

    Repeats the record's detail for searching, and verification compares both.
    """

    __tablename__ = "audit_patient"
    __table_args__ = (Index("ix_audit_patient_sequence", "sequence", "patient_id"),)

    patient_id: Mapped[Key] = mapped_column(autoincrement=False)
    sequence: Mapped[Key] = mapped_column(autoincrement=False)


class AuditHead(Record):
    """The end of the chain, signed: what a removal at the end, or a new chain, cannot imitate.

    Its one row is also the lock that puts all writers, of all processes, in one order.
    """

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[Identity]
    digest: Mapped[Digest]
    signature: Mapped[Text]


class AuditWaiting(Record):
    """Records that are durable with what they tell of, and wait for their place in the chain."""

    __tablename__ = "audit_waiting"

    id: Mapped[Key] = mapped_column(init=False)
    lines: Mapped[bytes] = mapped_column(LargeBinary)
    """As in a journal, but for the checks of each line: they are in one transaction."""
    unreadable: Mapped[bool]
    """Whether they can have no place: kept for the operators."""


class JournalFile(Record):
    """How far the lines of a file on some machine's disk are in the index: see `journal`."""

    __tablename__ = "journal_file"

    name: Mapped[UID] = mapped_column(primary_key=True)
    reached: Mapped[Identity]
    """Bytes of it, from its beginning."""
