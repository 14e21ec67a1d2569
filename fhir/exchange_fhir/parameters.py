"""The parameters of an operation, however they were sent (FHIR R4 3.2.0.1).

In the address by GET; by POST in a Parameters resource, or a form of search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request

from exchange_fhir import moments, negotiation, validation
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Problem
from exchange_fhir.primitives import moment

Given = Mapping[str, Sequence[Any]]
"""By name, in the order in which they came."""


def given(request: Request, content: bytes = b"") -> Given:
    """What is given to an operation. Raises Problem."""
    found: dict[str, list[Any]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    if content.strip():
        told = negotiation.resource(content, request.headers.get("content-type", ""))
        for name, values in of(told).items():
            found.setdefault(name, []).extend(values)
    return found


def of(told: Json) -> Given:
    """What Parameters give. Raises Problem."""
    validation.check(told, "Parameters")
    found: dict[str, list[Any]] = {}
    for one in told.get("parameter", ()):
        values = [value for name, value in one.items() if name.startswith("value")]
        values += [one["resource"]] if "resource" in one else []
        found.setdefault(one["name"], []).extend(values)
    return found


def known(given: Given, names: frozenset[str]) -> None:
    """Raise Problem for a parameter that is none of `names`: it would change the answer."""
    if unknown := sorted(set(given) - names - {"_format", "_pretty"}):
        raise Problem(400, "not-supported", f"no such parameter: {unknown[0][:64]}")


def one(given: Given, name: str) -> Any:
    """The only value of a parameter, or None. Raises Problem where there are several."""
    values = given.get(name, ())
    if len(values) > 1:
        raise Problem(400, "invalid", f"{name} is given once")
    return values[0] if values else None


def text(given: Given, name: str) -> str:
    """The only value as text, "" for none. Raises Problem."""
    value = one(given, name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or len(value) > 1024:
        raise Problem(400, "invalid", f"{name} is a text of at most 1024 characters")
    return value


def whole(given: Given, name: str, otherwise: int, most: int) -> int:
    """A positive number, at most `most`. Raises Problem."""
    value = one(given, name)
    if value is None:
        return otherwise
    told = str(value)
    if not (told.isascii() and told.isdecimal() and 0 < len(told) < 10 and int(told)):
        raise Problem(400, "invalid", f"{name} is a positive number")
    return min(int(told), most)


def truth(given: Given, name: str) -> bool:
    """A boolean, false where it is not given. Raises Problem."""
    value = one(given, name)
    match value:
        case None | False | "false":
            return False
        case True | "true":
            return True
    raise Problem(400, "invalid", f"{name} is true or false")


def instant(given: Given, name: str) -> datetime | None:
    """A moment with its offset. Raises Problem."""
    value = text(given, name)
    if not value:
        return None
    try:
        return moment(value.replace(" ", "+"))
    except ValueError:
        raise Problem(400, "invalid", f"{name} is an instant") from None


def span(given: Given, name: str, zone: ZoneInfo) -> tuple[int, int] | None:
    """The span of a date, in microseconds since 1970. Raises Problem."""
    value = text(given, name)
    if not value:
        return None
    found = moments.span(value.replace(" ", "+"), zone)
    if found is None:
        raise Problem(400, "invalid", f"{name} is a date or dateTime")
    return found


def listed(given: Given, name: str) -> tuple[str, ...]:
    """Texts, several of them with commas between or given several times. Raises Problem."""
    found: list[str] = []
    for value in given.get(name, ()):
        if not isinstance(value, str) or len(value) > 1 << 14 or "\0" in value:
            raise Problem(400, "invalid", f"{name} is a text")
        found += [part.strip() for part in value.split(",") if part.strip()]
    return tuple(dict.fromkeys(found))


def resource(given: Given, name: str) -> Json:
    """A resource. Raises Problem where there is none."""
    value = one(given, name)
    if not isinstance(value, dict):
        raise Problem(400, "required", f"a parameter {name} is expected, with a resource")
    return value
