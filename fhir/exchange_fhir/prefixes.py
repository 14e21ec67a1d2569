"""What the prefixes of ordered values ask: of spans of time and moments (R4 3.1.1.4.2)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from exchange_storage.resource_criteria import Asked, Changed, Test, Within, Without

PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
"""A prefix, and the value behind it."""


def in_time(prefix: str, low: int, high: int) -> list[Test]:
    """What a prefix asks of a span, given the value's own (R4 3.1.1.4.2, 3.1.1.4.7)."""
    equal = Within(low_from=low, low_before=high, high_by=high)
    match prefix:
        case "eq":
            return [equal]
        case "ne":
            return [Within(low_before=low), Within(high_after=high)]
        case "gt":
            return [Within(high_after=high)]
        case "lt":
            return [Within(low_before=low)]
        case "ge":
            return [Within(high_after=high), equal]
        case "le":
            return [Within(low_before=low), equal]
        case "sa":
            return [Within(low_from=high)]
        case "eb":
            return [Within(high_by=low)]
        case _:
            return [Within(low_before=high, high_after=low)]


def changed(prefix: str, low: int, high: int) -> Asked:
    """The same of a moment."""
    since, before = _moment(low), _moment(high)
    match prefix:
        case "eq" | "ap":
            return Changed(since, before)
        case "ne":
            return Without(Changed(since, before))
        case "gt" | "sa":
            return Changed(since=before)
        case "lt" | "eb":
            return Changed(before=since)
        case "ge":
            return Changed(since=since)
        case _:
            return Changed(before=before)


def _moment(at: int) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    try:
        return min(max(epoch + timedelta(microseconds=at), first), last)
    except OverflowError:
        return last if at > 0 else first
