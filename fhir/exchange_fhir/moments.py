"""Dates and times of FHIR (R4 2.24.0.1) as the spans of time that their precision leaves open."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

FIRST = -(1 << 62)
"""Before all time, where a Period has no start."""
LAST = 1 << 62
"""After all time, where a Period has no end."""

WRITTEN = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    r"(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000


def span(written: str, zone: ZoneInfo) -> tuple[int, int] | None:
    """The span that a date, dateTime or instant stands for: its first moment, and the first after.

    Both in microseconds since 1970-01-01 in UTC; `zone` is where dates without an offset are
    meant. None for what is not a date that exists.
    """
    match = WRITTEN.fullmatch(written)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if second == "60":  # a leap second, which no clock here has: the one before it
        second = "59"
    try:
        where = zone if offset is None else _offset(offset)
        low = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            tzinfo=where,
        )
    except ValueError:
        return None
    first = since_epoch(low)
    if fraction is not None:
        first += int(fraction[:6].ljust(6, "0"))
        return first, first + 10 ** max(0, 6 - len(fraction))
    if second is not None:
        return first, first + _SECOND
    if hour is not None:
        return first, first + 60 * _SECOND
    try:
        if day is not None:
            after = low + timedelta(days=1)  # wall clock: a day of 23 or 25 hours too
        elif month is not None:
            after = low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
        else:
            after = low.replace(year=low.year + 1)
    except (OverflowError, ValueError):
        return first, LAST
    return first, since_epoch(after)


def since_epoch(moment: datetime) -> int:
    """An aware moment in microseconds since 1970-01-01 in UTC."""
    return (moment - EPOCH) // _MICROSECOND


def _offset(written: str) -> timezone:
    if written == "Z":
        return UTC
    sign = -1 if written[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(written[1:3]), minutes=int(written[4:6])))
