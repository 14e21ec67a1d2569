"""Links whose secret opens something for a time: what all of them have alike.

The secret is told once; what is kept is its digest, which neither opens anything nor leads back.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from exchange import users
from exchange.access import Access
from exchange.errors import Invalid, Refused
from exchange_storage.records import User

DAYS = 30
"""For so many a link lasts, at most."""


class State(StrEnum):
    """What has become of a link."""

    OPEN = "open"
    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used up"
    LOCKED = "locked"
    """Too many tried to open it with what was wrong."""


class Lasting(Protocol):
    """What is there for a time."""

    revoked: datetime | None
    until: datetime


def state(access: Access, link: Lasting, *, used_up: bool, locked: bool = False) -> State:
    """What has become of `link` by now."""
    if link.revoked is not None:
        return State.REVOKED
    if link.until <= access.now:
        return State.EXPIRED
    if locked:
        return State.LOCKED
    return State.USED_UP if used_up else State.OPEN


def until(access: Access, days: int, openings: int, most: int) -> datetime:
    """When a link ends that lasts so many days. Raises Invalid, also for too many `openings`."""
    if not 1 <= days <= DAYS or not 1 <= openings <= most:
        raise Invalid(f"a link lasts 1 to {DAYS} days, and is opened 1 to {most} times")
    return access.now + timedelta(days=days)


def digest(secret: str) -> str:
    """What is kept of a secret: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def account(access: Access) -> User:
    """The asker's own account. Raises Refused for who has none."""
    user = users.standing(access, access.requester.name)
    if user is None:
        raise Refused("only users of the exchange have links to give or to open")
    return user
