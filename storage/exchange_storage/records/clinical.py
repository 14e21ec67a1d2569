"""FHIR resources as versions of JSON, kept and served as the same bytes (FHIR R4 section 3.1).

What derives from studies is a `ResourceVersion`; what hospitals write is a `Resource` with its
`Revision`s, and the rows of the `Search…` tables under which it is found.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Identity, Key, Record, Text, Word


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


class Resource(Record):
    """A clinical resource that a hospital wrote: where it stands now, and whose it is."""

    __tablename__ = "resource"
    __table_args__ = (
        UniqueConstraint("kind", "logical_id"),
        Index(None, "kind", "changed", "id"),
        Index(None, "patient_id", "kind"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    kind: Mapped[Word]
    """The resource type."""
    logical_id: Mapped[UID]
    """Resource.id (FHIR R4 2.27.2): at most 64 characters."""
    version: Mapped[int]
    organization_id: Mapped[Identity | None] = mapped_column(ForeignKey("organization.id"))
    """The hospital that wrote it; None for what the exchange itself derives."""
    patient_id: Mapped[Identity | None] = mapped_column(ForeignKey("patient.id"))
    """The patient record in whose compartment it is: who may see that record may see this."""
    changed: Mapped[datetime]
    is_directory: Mapped[bool]
    """Whether it is in the directory of the region, which whoever may search may read."""
    has_others: Mapped[bool] = mapped_column(default=False)
    """Whether it is about further patients too, see `Compartment`; or may refer to some."""
    deleted: Mapped[bool] = mapped_column(default=False)
    whose: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """Name of the one user whose it is, beside their hospital's administrators: a Subscription's
    owner. "" for all others, which are their hospital's."""


class Compartment(Record):
    """A further patient whom a resource is about: it is shown to whoever may see all of them."""

    __tablename__ = "compartment"

    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    patient_id: Mapped[Identity] = mapped_column(
        ForeignKey("patient.id"), primary_key=True, index=True
    )


class Revision(Record):
    """What one interaction made of a resource; the keys are in the order of the commits."""

    __tablename__ = "revision"
    __table_args__ = (UniqueConstraint("resource_id", "version"), Index(None, "kind", "id"))

    id: Mapped[Key] = mapped_column(init=False)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"))
    kind: Mapped[Word]
    version: Mapped[int]
    interaction: Mapped[Word]
    """``create``, ``update`` or ``delete``."""
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """The JSON in UTF-8 as it is served, meta included; empty where it was deleted."""
    recorded: Mapped[datetime] = mapped_column(index=True)
    elsewhere: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is about other patients than the resource is now: shown to its writer only."""


def _looked_into(*beside: str) -> Index:
    """What a look into a resource's index rows uses, and all that it asks.

    In SQLite an index of such a table has the primary key beside its own columns as it is.
    """
    return Index(None, "resource_id", postgresql_include=beside)


class Attached(Record):
    """Content of a version of a resource that lies in the object store, not in the version itself.

    The version says where it belongs: see `exchange.attachments`.
    """

    __tablename__ = "attached"
    __table_args__ = (UniqueConstraint("resource_id", "version"),)

    id: Mapped[Key] = mapped_column(init=False)
    key: Mapped[Text] = mapped_column(unique=True)
    digest: Mapped[Digest]
    size: Mapped[int]
    """In bytes."""
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"))
    version: Mapped[int]
    verified: Mapped[datetime | None] = mapped_column(default=None)
    """When the object was last read back by a scrub and had its digest."""


class SearchToken(Record):
    """A code, identifier, boolean or uri-like token under which a resource is found.

    Under a code the rows are in the resources' order, whatever its systems: a page of a frequent
    one is the beginning of them. Each says whose the resource is: of a condition on the patient
    too, all is seen in the rows under a code, which lie together.
    """

    __tablename__ = "search_token"
    __table_args__ = (
        PrimaryKeyConstraint(
            *("parameter", "code", "resource_id", "system", "position"),
            postgresql_include=["patient_id"],
        ),
        _looked_into("parameter", "code", "system"),
        {"sqlite_with_rowid": False},
    )

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    """Resource type and code, as ``Observation.code``; see `exchange_storage.resource_index`."""
    code: Mapped[Word] = mapped_column(primary_key=True)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    system: Mapped[Word] = mapped_column(primary_key=True)
    """ "" where there is none."""
    position: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[Identity | None] = mapped_column(default=None)
    """`Resource.patient_id`, where that is the only patient whom the resource is about."""


class SearchString(Record):
    """A text under which a resource is found: folded, and as it was written."""

    __tablename__ = "search_string"
    __table_args__ = (Index(None, "resource_id"), {"sqlite_with_rowid": False})

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    folded: Mapped[Word] = mapped_column(primary_key=True)
    exact: Mapped[Word] = mapped_column(primary_key=True)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class SearchReference(Record):
    """Another resource to which a resource refers."""

    __tablename__ = "search_reference"
    __table_args__ = (
        _looked_into("parameter", "target_kind", "target"),
        {"sqlite_with_rowid": False},
    )

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    target_kind: Mapped[Word] = mapped_column(primary_key=True)
    """The type of the target; "" for one that is named by an absolute address."""
    target: Mapped[Word] = mapped_column(primary_key=True)
    """The logical id of the target, or its absolute address."""
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class SearchDate(Record):
    """A span of time under which a resource is found."""

    __tablename__ = "search_date"
    __table_args__ = (
        _looked_into("parameter", "low", "high"),
        Index(None, "parameter", "high"),
        {"sqlite_with_rowid": False},
    )

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    low: Mapped[Identity] = mapped_column(primary_key=True)
    """Its first moment, in microseconds since 1970-01-01 in UTC."""
    high: Mapped[Identity] = mapped_column(primary_key=True)
    """The first moment after it."""
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class SearchQuantity(Record):
    """A number, with its unit or without, under which a resource is found."""

    __tablename__ = "search_quantity"
    __table_args__ = (Index(None, "resource_id"), {"sqlite_with_rowid": False})

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    low: Mapped[float] = mapped_column(Double, primary_key=True)
    """The least value that it can stand for, by its precision or range."""
    high: Mapped[float] = mapped_column(Double, primary_key=True)
    code: Mapped[Word] = mapped_column(primary_key=True)
    system: Mapped[Word] = mapped_column(primary_key=True)
    unit: Mapped[Word] = mapped_column(primary_key=True)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class SearchUri(Record):
    """A URI under which a resource is found."""

    __tablename__ = "search_uri"
    __table_args__ = (Index(None, "resource_id"), {"sqlite_with_rowid": False})

    parameter: Mapped[Word] = mapped_column(primary_key=True)
    value: Mapped[Word] = mapped_column(primary_key=True)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)


class Reindexing(Record):
    """One walk through all resources, to have them found under what the definitions say now."""

    __tablename__ = "reindexing"

    id: Mapped[Key] = mapped_column(init=False)
    begun: Mapped[datetime]
    last: Mapped[Identity]
    """Row number of the last resource that there was when it began."""
    position: Mapped[Identity] = mapped_column(default=0)
    """Row number of the last resource that was looked at."""
    read: Mapped[Identity] = mapped_column(default=0)
    """Resources that were looked at."""
    changed: Mapped[Identity] = mapped_column(default=0)
    """Resources that were found under something else before."""
    finished: Mapped[datetime | None] = mapped_column(default=None)
