"""Every noun of the exchange as a mapped record; importing this package maps them all."""

from exchange_storage.records.audit import AuditHead, AuditRecord
from exchange_storage.records.bulk import BulkFile, BulkJob
from exchange_storage.records.carried import Carried
from exchange_storage.records.clinical import (
    Compartment,
    Reindexing,
    Resource,
    ResourceVersion,
    Revision,
    SearchDate,
    SearchQuantity,
    SearchReference,
    SearchString,
    SearchToken,
    SearchUri,
)
from exchange_storage.records.commitment import Commitment, CommitmentReference
from exchange_storage.records.imaging import Conflict, Instance, RequestAttributes, Series, Study
from exchange_storage.records.lifecycle import (
    Damage,
    Destroyed,
    LegalHold,
    Rejection,
    RetentionRule,
    Scrub,
)
from exchange_storage.records.order import ExpectedInstance, Order, PerformedStep, Tally
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
    PersonNameKey,
    User,
    UserSession,
)
from exchange_storage.records.record import Record
from exchange_storage.records.routing import Delivered, Delivery, Route
from exchange_storage.records.sharing import Consent, Share
from exchange_storage.records.subscription import (
    Happening,
    HookHost,
    Subscription,
    SubscriptionEvent,
)
from exchange_storage.records.work import Change, Export, Job, Traffic, TrafficCounted
from exchange_storage.records.workitem import (
    Workitem,
    WorkitemEvent,
    WorkitemKey,
    WorkitemSubscription,
    WorklistSubscription,
)

__all__ = [
    "Agreement",
    "ApplicationEntity",
    "AuditHead",
    "AuditRecord",
    "BulkFile",
    "BulkJob",
    "Carried",
    "Change",
    "Commitment",
    "CommitmentReference",
    "Compartment",
    "Conflict",
    "Consent",
    "Damage",
    "Delivered",
    "Delivery",
    "Destroyed",
    "ExpectedInstance",
    "Export",
    "Happening",
    "HookHost",
    "Instance",
    "Job",
    "LegalHold",
    "Link",
    "NameKind",
    "Order",
    "Organization",
    "Patient",
    "PatientIdentifier",
    "PatientName",
    "PerformedStep",
    "Person",
    "PersonNameKey",
    "Record",
    "Reindexing",
    "Rejection",
    "RequestAttributes",
    "Resource",
    "ResourceVersion",
    "RetentionRule",
    "Revision",
    "Route",
    "Scrub",
    "SearchDate",
    "SearchQuantity",
    "SearchReference",
    "SearchString",
    "SearchToken",
    "SearchUri",
    "Series",
    "Share",
    "Study",
    "Subscription",
    "SubscriptionEvent",
    "Tally",
    "Traffic",
    "TrafficCounted",
    "User",
    "UserSession",
    "Workitem",
    "WorkitemEvent",
    "WorkitemKey",
    "WorkitemSubscription",
    "WorklistSubscription",
]
