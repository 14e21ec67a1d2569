"""What patients have said of sharing their records, and what colleagues share with each other."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Digest, Identity, Key, Record, Text, Word


class Consent(Record):
    """A patient's decision on sharing, recorded at one hospital, in force until it ends.

    A denial holds for every patient record of the same person, wherever it was recorded, but while
    a permit is in force that was recorded for the same patient record later.
    """

    __tablename__ = "consent"

    id: Mapped[Key] = mapped_column(init=False)
    patient_id: Mapped[Identity] = mapped_column(ForeignKey("patient.id"), index=True)
    decision: Mapped[Word]
    """``deny`` or ``permit`` (FHIR consent-provision-type)."""
    recorded: Mapped[datetime]
    recorded_by: Mapped[Word]
    ended: Mapped[datetime | None] = mapped_column(default=None)
    """When it was taken back, or another took its place."""
    since: Mapped[datetime | None] = mapped_column(default=None)
    until: Mapped[datetime | None] = mapped_column(default=None)
    """The period for which it was given (Consent.provision.period); the first moment after it."""


class Share(Record):
    """A study that one clinician shares with another by a link, for a time: a referral.

    It gives nobody more than the policy permits them.
    """

    __tablename__ = "share"

    id: Mapped[Key] = mapped_column(init=False)
    digest: Mapped[Digest] = mapped_column(unique=True)
    """SHA-256 of the secret of 256 bits that stands in the link alone."""
    study_instance_uid: Mapped[UID]
    sharer_id: Mapped[Identity] = mapped_column(ForeignKey("user_account.id"), index=True)
    recipient_id: Mapped[Identity] = mapped_column(ForeignKey("user_account.id"), index=True)
    purpose: Mapped[Word]
    """Purpose of use (HL7 v3 PurposeOfUse)."""
    note: Mapped[Text]
    """What the sharer asks or says."""
    made: Mapped[datetime]
    until: Mapped[datetime]
    most: Mapped[int]
    """How often the link may be opened."""
    opened: Mapped[int] = mapped_column(default=0)
    last_opened: Mapped[datetime | None] = mapped_column(default=None)
    revoked: Mapped[datetime | None] = mapped_column(default=None)
    series_instance_uid: Mapped[UID] = mapped_column(default="", server_default=text("''"))
    """The one series that is meant; "" for the whole study."""


class PatientLink(Record):
    """A link by which a patient has a study, or one series of it, for a time, without an account.

    It is opened with one of its codes, each of which opens it once.
    """

    __tablename__ = "patient_link"

    id: Mapped[Key] = mapped_column(init=False)
    digest: Mapped[Digest] = mapped_column(unique=True)
    """SHA-256 of the secret of 256 bits that stands in the link alone."""
    study_instance_uid: Mapped[UID]
    series_instance_uid: Mapped[UID]
    """"" for the whole study."""
    maker_id: Mapped[Identity] = mapped_column(ForeignKey("user_account.id"), index=True)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    """The hospital that hands it out."""
    made: Mapped[datetime]
    until: Mapped[datetime]
    wrong: Mapped[int] = mapped_column(default=0)
    """Codes that were wrong; too many end it."""
    revoked: Mapped[datetime | None] = mapped_column(default=None)


class PatientLinkCode(Record):
    """A code of a patient's link, and the session that it has opened."""

    __tablename__ = "patient_link_code"

    id: Mapped[Key] = mapped_column(init=False)
    link_id: Mapped[Identity] = mapped_column(ForeignKey("patient_link.id"), index=True)
    digest: Mapped[Digest] = mapped_column(unique=True)
    """SHA-256 of the secret of the link and the code: the code alone could be guessed from its."""
    opened: Mapped[datetime | None] = mapped_column(default=None)
    session: Mapped[Digest | None] = mapped_column(default=None, unique=True)
    """SHA-256 of the secret of the session; None before there is one, and when it was ended."""
    used: Mapped[datetime | None] = mapped_column(default=None)
