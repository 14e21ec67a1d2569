"""Who is told of what happens to clinical resources, and what is still to be told them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Identity, Key, Record, Text, Word


class Subscription(Record):
    """A wish to be told of events: whose it is, by which way, and how far it has come.

    What its owner wrote is a `Resource`; here is what the exchange works by.
    """

    __tablename__ = "subscription"
    __table_args__ = (
        UniqueConstraint("resource_id"),
        Index(None, "state"),
        Index(None, "organization_id"),
        # A job about one that is gone must not lead to another.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[Key] = mapped_column(init=False)
    resource_id: Mapped[Identity] = mapped_column(ForeignKey("resource.id"))
    logical_id: Mapped[UID]
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    requester: Mapped[Word]
    """Name of the user whose it is."""
    role: Mapped[Word]
    """The owner's, when it was written: with another one it ends."""
    purpose: Mapped[Word]
    """ "" where there is none."""
    topic: Mapped[Word]
    """The name of the topic, as its door understands it."""
    filters: Mapped[list[Any]] = mapped_column(JSON)
    """What narrows the topic, as its door understands it."""
    patients: Mapped[list[Any]] = mapped_column(JSON)
    """Row numbers of the patient records of whose persons it tells; empty for no such filter."""
    channel: Mapped[Word]
    """``rest-hook`` or ``websocket``."""
    endpoint: Mapped[Text]
    headers: Mapped[list[Any]] = mapped_column(JSON)
    """Names and values that go with every notification: secrets, which no read tells of."""
    content: Mapped[Word]
    """``empty``, ``id-only`` or ``full-resource``."""
    payload: Mapped[Word]
    """Media type of a notification."""
    heartbeat: Mapped[int | None]
    """Seconds without a notification after which one is sent all the same."""
    timeout: Mapped[int]
    """Seconds that the endpoint has for its answer."""
    most: Mapped[int]
    """Events of one notification."""
    ends: Mapped[datetime | None]
    base: Mapped[Text]
    """Address of the server as the owner knows it, which stands in notifications."""
    state: Mapped[Word]
    """``requested``, ``active``, ``error`` or ``off``."""
    since: Mapped[datetime]
    """What happened before is not told."""
    reason: Mapped[Text] = mapped_column(default="")
    """Why it is in error."""
    events: Mapped[Identity] = mapped_column(default=0)
    """How many there have been, which is the number of the last one."""
    told: Mapped[Identity] = mapped_column(default=0)
    """The number of the last one that the endpoint has taken."""
    spoken: Mapped[datetime | None] = mapped_column(default=None)
    """When it last took anything."""
    failures: Mapped[int] = mapped_column(default=0)
    """Tries since then."""
    failing: Mapped[datetime | None] = mapped_column(default=None)
    """When the first of these was."""


class SubscriptionEvent(Record):
    """An event of a subscription, by its number: 1, 2, 3 … without gaps."""

    __tablename__ = "subscription_event"
    __table_args__ = (Index(None, "recorded"),)

    subscription_id: Mapped[Identity] = mapped_column(
        ForeignKey("subscription.id"), primary_key=True
    )
    number: Mapped[Identity] = mapped_column(primary_key=True)
    recorded: Mapped[datetime]
    """When it happened."""
    kind: Mapped[Word]
    logical_id: Mapped[UID]
    patient_id: Mapped[Identity | None]
    created: Mapped[bool]
    """Whether the resource was new."""


class Happening(Record):
    """A change of a resource of which somebody may have to be told: an outbox."""

    __tablename__ = "happening"
    # Its numbers are in the order of the commits, and none is given twice.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[Key] = mapped_column(init=False)
    recorded: Mapped[datetime]
    kind: Mapped[Word]
    logical_id: Mapped[UID]
    version: Mapped[Identity]
    patient_id: Mapped[Identity | None]
    created: Mapped[bool]


class HookHost(Record):
    """A host at which a hospital may have itself notified."""

    __tablename__ = "hook_host"

    organization_id: Mapped[Identity] = mapped_column(
        ForeignKey("organization.id"), primary_key=True
    )
    host: Mapped[Word] = mapped_column(primary_key=True)
    """A name or an address, in lower case; with ``:port`` where only that one is meant."""
