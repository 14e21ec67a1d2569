"""What the prefixes of ordered values ask: of spans of time, moments and numbers (R4 3.1.1.4.2)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from exchange.errors import Invalid
from exchange_fhir.search import split, unescaped
from exchange_storage.resource_criteria import Asked, Changed, Test, Within, Without

PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
"""A prefix, and the value behind it."""

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)


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


def quantity(value: str) -> list[Test]:
    """``[prefix]number``, ``number|system|code`` or ``number||code`` (R4 3.1.1.4.11)."""
    number, *unit = split(value, "|")
    if len(unit) not in {0, 2}:
        raise Invalid("a quantity is written [prefix]number, number|system|code or number||code")
    system = (unescaped(unit[0]) or None) if unit else None
    code = unescaped(unit[1]) if unit else ""
    match = PREFIXED.fullmatch(number)
    if match is None or not _NUMBER.fullmatch(match[2]):
        raise Invalid("a number is expected")
    try:
        told = Decimal(match[2])
    except InvalidOperation:
        raise Invalid("a number is expected") from None
    at = float(told)
    half = float(Decimal(5).scaleb(int(told.as_tuple().exponent) - 1))
    ends: list[dict[str, float]]
    match match[1] or "eq":
        case "eq":
            ends = [{"low_from": at - half, "high_before": at + half}]
        case "ne":
            ends = [{"low_before": at - half}, {"high_from": at + half}]
        case "gt":
            ends = [{"high_after": at}]
        case "lt":
            ends = [{"low_before": at}]
        case "ge":
            ends = [{"high_from": at}]
        case "le":
            ends = [{"low_to": at}]
        case "sa":
            ends = [{"low_after": at}]
        case "eb":
            ends = [{"high_before": at}]
        case _:
            around = max(abs(at) / 10, half)
            ends = [{"low_to": at + around, "high_from": at - around}]
    return [Within(**one, code=code, system=system) for one in ends]
