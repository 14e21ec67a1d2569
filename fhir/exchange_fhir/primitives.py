"""The primitive datatypes (FHIR R4 2.24.0.1): what each may hold, as a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

STRING_LENGTH = 1 << 20
"""Characters of a string (R4: 1 MB); base64Binary and xhtml are bounded by the body alone."""

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
_ZONE = r"(?:Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d{1,9})?"
_DATE_TIME = re.compile(rf"(\d{{4}}-\d\d-\d\d)T{_CLOCK}{_ZONE}", re.ASCII)
_TIME = re.compile(_CLOCK, re.ASCII)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_CODE = re.compile(r"\S+(?:[ \t\n\r]\S+)*")
_OID = re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def is_id(value: str) -> bool:
    """Whether `value` can be a logical id."""
    return bool(_ID.fullmatch(value))


def _string(value: str) -> bool:
    return len(value) <= STRING_LENGTH and not value.isspace()


def _date(value: str) -> bool:
    found = _DATE.fullmatch(value)
    if not found:
        return False
    year, month, day = found.groups()
    return _on_calendar(int(year), int(month or 1), int(day or 1))


def _on_calendar(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _instant(value: str) -> bool:
    found = _DATE_TIME.fullmatch(value)
    return bool(found) and _date(found[1])  # type: ignore[index]


def _base64(value: str) -> bool:
    text = "".join(value.split())
    return len(text) % 4 == 0 and bool(_BASE64.fullmatch(text))


def _uri(value: str) -> bool:
    return not any(c.isspace() for c in value)


_TEXTS: Mapping[str, Callable[[str], bool]] = {
    "base64Binary": _base64,
    "canonical": _uri,
    "code": lambda value: bool(_CODE.fullmatch(value)),
    "date": _date,
    "dateTime": lambda value: _date(value) or _instant(value),
    "id": is_id,
    "instant": _instant,
    "markdown": _string,
    "oid": lambda value: bool(_OID.fullmatch(value)),
    "string": _string,
    "time": lambda value: bool(_TIME.fullmatch(value)),
    "uri": _uri,
    "url": _uri,
    "uuid": lambda value: bool(_UUID.fullmatch(value)),
    "xhtml": lambda _: True,
}
_INTEGERS: Mapping[str, int] = {"integer": -(2**31), "positiveInt": 1, "unsignedInt": 0}
"""The least value of each; the largest is 2^31-1."""


def problem(kind: str, value: Any) -> tuple[str, str] | None:
    """The issue code of what is wrong with a value of this primitive type, and words for it."""
    if kind == "boolean":
        return None if isinstance(value, bool) else ("structure", "true or false is expected here")
    if kind in _INTEGERS:
        if not isinstance(value, int) or isinstance(value, bool):
            return "structure", "a whole number is expected here"
        if not _INTEGERS[kind] <= value < 2**31:
            return "value", f"this number is out of the range of {kind}"
        return None
    if kind == "decimal":
        number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        return None if number else ("structure", "a number is expected here")
    if not isinstance(value, str):
        return "structure", "a string is expected here"
    if not value:
        return "value", "an element is never empty: leave it out"
    if _CONTROL.search(value):
        return "value", "a control character or half of a surrogate pair"
    return None if _TEXTS[kind](value) else ("value", f"this is not a {kind}")


def of_text(kind: str, text: str) -> str | bool | int | Decimal:
    """A value as XML has it, in the form that JSON has; left a string where it is not of the type.

    The decimals are for the caller to keep as they were written.
    """
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind in _INTEGERS and re.fullmatch(r"-?(0|[1-9]\d{0,17})", text, re.ASCII):
        return int(text)
    return text


def moment(text: str) -> datetime:
    """An instant as a moment. Raises ValueError."""
    if not _instant(text):
        raise ValueError("not an instant")
    return datetime.fromisoformat(text)
