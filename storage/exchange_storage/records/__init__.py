"""Every noun of the exchange as a mapped record; importing this package maps them all."""

from exchange_storage.records.audit import AuditHead, AuditRecord
from exchange_storage.records.clinical import ResourceVersion
from exchange_storage.records.imaging import Conflict, Instance, Series, Study
from exchange_storage.records.people import (
    Agreement,
    ApplicationEntity,
    Link,
    NameKind,
    Organization,
    Patient,
    PatientIdentifier,
    PatientName,
    Person,
    User,
)
from exchange_storage.records.record import Record
from exchange_storage.records.sharing import Consent
from exchange_storage.records.work import Change, Job

__all__ = [
    "Agreement",
    "ApplicationEntity",
    "AuditHead",
    "AuditRecord",
    "Change",
    "Conflict",
    "Consent",
    "Instance",
    "Job",
    "Link",
    "NameKind",
    "Organization",
    "Patient",
    "PatientIdentifier",
    "PatientName",
    "Person",
    "Record",
    "ResourceVersion",
    "Series",
    "Study",
    "User",
]
