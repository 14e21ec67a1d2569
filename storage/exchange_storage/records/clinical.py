"""FHIR resources as versions of JSON, kept and served as the same bytes (FHIR R4 section 3.1)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Record, Word


class ResourceVersion(Record):
    """One version of one resource; the current one is what a read answers."""

    __tablename__ = "resource_version"
    __table_args__ = (
        Index(
            "uq_resource_version_current",
            "resource_type",
            "resource_id",
            unique=True,
            sqlite_where=text("is_current"),
            postgresql_where=text("is_current"),
        ),
    )

    resource_type: Mapped[Word] = mapped_column(primary_key=True)
    resource_id: Mapped[UID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    """For what derives from a study, the study's revision."""
    is_current: Mapped[bool]
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """The JSON in UTF-8, as it is served."""
    recorded: Mapped[datetime]
