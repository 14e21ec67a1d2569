"""Hospitals, the people who work with the exchange, and the patients whom the hospitals know."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, UniqueConstraint, false, text, true
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Document, Identity, Key, Record, Text, Word


class Organization(Record):
    """A hospital: the owner of patient numbers, and of the studies that it sent."""

    __tablename__ = "organization"

    id: Mapped[Key] = mapped_column(init=False)
    code: Mapped[Word] = mapped_column(unique=True)
    """A short name of ours, in letters and digits: what commands and logs call the hospital."""
    name: Mapped[Word]
    credit_code: Mapped[Word] = mapped_column(unique=True)
    """The unified social credit code (GB 32100-2015), 18 characters."""
    issuer: Mapped[UID] = mapped_column(unique=True)
    """The OID under which this hospital issues patient numbers."""
    registered: Mapped[datetime]
    association_limit: Mapped[int | None] = mapped_column(default=None)
    """Associations at a time in one node process; None for the node's own limit."""
    rate_limit: Mapped[int | None] = mapped_column(default=None)
    """Instances a second in one node process; None for no limit."""
    user_identity: Mapped[Word] = mapped_column(default="log", server_default=text("'log'"))
    """What is done with a user whom an association names: ``off``, ``log`` or ``require``."""
    issuer_names: Mapped[Word] = mapped_column(default="", server_default=text("''"))
    """What its own systems call it as an issuer; several are separated by backslashes."""
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether it takes part: its systems and users are known, and things are sent to it."""
    changed: Mapped[datetime | None] = mapped_column(default=None)
    """When that last changed."""


class ApplicationEntity(Record):
    """A DICOM application entity of a hospital (PS3.8 section 7), and where it calls from."""

    __tablename__ = "application_entity"
    __table_args__ = (UniqueConstraint("title", "address"),)

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"), index=True)
    title: Mapped[Word]
    """At most 16 characters, without the insignificant spaces."""
    address: Mapped[Word]
    """An IP address or network in RFC 4632 or RFC 5952 form, or a host name."""
    port: Mapped[int | None]
    """Where it listens, when it does."""
    certificate_fingerprint: Mapped[Digest] = mapped_column(default="")
    """SHA-256 of the DER certificate that it must show; "" when its address is enough."""
    receives_priors: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether what other hospitals have of a patient is sent here before a visit."""
    told_of_availability: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is told what of the hospital's own studies can be fetched (PS3.4 annex R)."""
    sees_rejected: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it finds and gets what its hospital has rejected, instead of what is in use."""


class Registry(Record):
    """How often who is registered has changed: one row, once something has."""

    __tablename__ = "registry"

    id: Mapped[Key] = mapped_column(init=False)
    revision: Mapped[int]


class Agreement(Record):
    """An organization has joined an agreement of the region, for a time."""

    __tablename__ = "agreement"
    __table_args__ = (UniqueConstraint("organization_id", "kind", "since"),)

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    kind: Mapped[Word]
    since: Mapped[datetime]
    until: Mapped[datetime | None] = mapped_column(default=None)


class User(Record):
    """Someone, or a hospital's system, who signs in with a name and a password."""

    __tablename__ = "user_account"

    id: Mapped[Key] = mapped_column(init=False)
    name: Mapped[Word] = mapped_column(unique=True)
    display_name: Mapped[Word]
    role: Mapped[Word]
    organization_id: Mapped[Identity | None] = mapped_column(ForeignKey("organization.id"))
    password_hash: Mapped[Text]
    """Argon2id in its PHC string form (RFC 9106)."""
    created: Mapped[datetime]
    active: Mapped[bool] = mapped_column(default=True)
    sees_rejected: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether they find and get by DICOMweb what their hospital has rejected, instead of what is in
    use."""


class UserSession(Record):
    """A user who signed in at a browser, until they sign out, leave, or are away for too long."""

    __tablename__ = "user_session"

    id: Mapped[Key] = mapped_column(init=False)
    user_id: Mapped[Identity] = mapped_column(ForeignKey("user_account.id"), index=True)
    digest: Mapped[Digest] = mapped_column(unique=True)
    """SHA-256 of the secret that only the browser has."""
    purpose: Mapped[Word]
    """Purpose of use that was stated (HL7 v3 PurposeOfUse)."""
    began: Mapped[datetime]
    used: Mapped[datetime]
    """When a request of it was last noted: not each one is."""


class Person(Record):
    """One human being, to whom the patient records of several hospitals belong."""

    __tablename__ = "person"

    id: Mapped[Key] = mapped_column(init=False)
    resident_id: Mapped[Word | None] = mapped_column(unique=True)
    """The resident ID card number (GB 11643-1999), 18 characters; None while it is not known, of
    records that their hospital merged."""
    created: Mapped[datetime]


class Patient(Record):
    """A patient as one hospital knows them: a number of that hospital and what it said of them."""

    __tablename__ = "patient"
    __table_args__ = (
        Index(
            "uq_patient_number",
            "organization_id",
            "patient_id",
            unique=True,
            sqlite_where=text("patient_id <> ''"),
            postgresql_where=text("patient_id <> ''"),
        ),
        # The asker's own number for a person is read from it, for every match.
        Index(None, "person_id", "organization_id", "patient_id"),
    )

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    patient_id: Mapped[Word] = mapped_column(index=True)
    """The hospital's number for the patient; "" when a study came without one: such a record is
    of that study alone, for nothing says that two of them are the same patient."""
    name: Mapped[Word]
    """As PS3.5 section 6.2 writes PN: ``Alphabetic=Ideographic=Phonetic``."""
    birth_date: Mapped[Word] = mapped_column(index=True)
    """YYYYMMDD, or "" when unknown."""
    sex: Mapped[Word]
    """M, F, O or "" (PS3.3 C.7.1.1)."""
    address: Mapped[Text]
    telephone: Mapped[Word]
    mothers_birth_name: Mapped[Word]
    created: Mapped[datetime]
    changed: Mapped[datetime] = mapped_column(index=True)
    person_id: Mapped[Identity | None] = mapped_column(ForeignKey("person.id"), default=None)
    """The person whose record this is, once that is known."""
    replaced_by_id: Mapped[Identity | None] = mapped_column(ForeignKey("patient.id"), default=None)
    """The hospital's record that stands in the place of this one, where it has merged them."""
    withdrawn: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the hospital took the record back, of which nothing was held: it is not told of."""


class NameKind(StrEnum):
    """Which part of a name a search key stands for."""

    FULL = "full"
    FAMILY = "family"
    GIVEN = "given"


class PatientName(Record):
    """A search key of a patient's name: folded, in hanzi or in Latin letters (see `names`)."""

    __tablename__ = "patient_name"
    # With whose it is: a frequent name is found without a look at each row of the table.
    __table_args__ = (Index(None, "key", "kind", "patient_id"),)

    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), primary_key=True)
    kind: Mapped[Word] = mapped_column(primary_key=True)
    key: Mapped[Word] = mapped_column(primary_key=True)


class PersonNameKey(Record):
    """A search key of a name of anybody but the patient: staff, a mother. Folded, see `names`.

    Kept once for each name, not for each record in which it stands: of staff there are few.
    """

    __tablename__ = "person_name_key"
    __table_args__ = (Index(None, "key", "name"),)

    name: Mapped[Word] = mapped_column(primary_key=True)
    """As it stands in other records."""
    key: Mapped[Word] = mapped_column(primary_key=True)


class PatientIdentifier(Record):
    """Another number of a patient: an ID card, an insurance card, another hospital's number."""

    __tablename__ = "patient_identifier"
    __table_args__ = (Index(None, "value", "system"),)

    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), primary_key=True)
    system: Mapped[Word] = mapped_column(primary_key=True)
    """The issuer as the sender gave it: an OID, a name, or ""."""
    value: Mapped[Word] = mapped_column(primary_key=True)


class Discrepancy(Record):
    """What images of a study, or an order, say of a patient and the record contradicts: they may be
    somebody else's. It waits for someone to look."""

    __tablename__ = "discrepancy"

    id: Mapped[Key] = mapped_column(init=False)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), index=True)
    study_instance_uid: Mapped[UID]
    """"" where an order or workitem says it."""
    name: Mapped[Word]
    birth_date: Mapped[Word]
    sex: Mapped[Word]
    raised: Mapped[datetime]
    settled: Mapped[datetime | None] = mapped_column(default=None)
    settlement: Mapped[Word] = mapped_column(default="")
    """``same`` person, ``another`` one, or ``corrected`` by the hospital's own feed; ``merged``
    where images came under another number of the patient, and ``number`` once these are two
    patients again, which waits."""


class Link(Record):
    """What was decided of a patient record and a person, when and on what evidence: a log."""

    __tablename__ = "link"

    id: Mapped[Key] = mapped_column(init=False)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), index=True)
    person_id: Mapped[Identity] = mapped_column(ForeignKey("person.id"), index=True)
    decision: Mapped[Word]
    """``link`` or ``unlink``."""
    evidence: Mapped[Document]
    decided: Mapped[datetime]
