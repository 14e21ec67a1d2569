"""Settling: what was received lately may still be on its way to where it stays.

Where each machine has a spool of its own, the others find an object only when it was uploaded. So
one that is not found counts as lost only when it was received longer ago than `SETTLING`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exchange_storage.objects import ObjectStore

SETTLING = timedelta(days=1)
"""How long after it came an object may be on its way: as long as a machine may be away."""


def may_come(objects: ObjectStore, received: datetime) -> bool:
    """Whether an object that is not found may be on its way, and is not there yet."""
    return objects.may_come() and received > datetime.now(UTC) - SETTLING
