"""What a clinical resource says in a line or two, for a list that people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from exchange.timeline import Said
from exchange_fhir import readable

TEXT = 2000
"""Characters of the longest text that is told."""

_DATES: Sequence[str] = (
    *("effectiveDateTime", "performedDateTime", "occurrenceDateTime", "onsetDateTime"),
    *("recordedDate", "authoredOn", "authored", "date", "dateAsserted", "created", "issued"),
)
"""Elements that say when something was: the first that is there counts, then a period."""

_PERIODS = ("effectivePeriod", "performedPeriod", "occurrencePeriod", "period", "onsetPeriod")
_TITLES = ("code", "medicationCodeableConcept", "vaccineCode", "type", "class", "category")


def said(timezone: ZoneInfo) -> Callable[[str, bytes], Said | None]:
    """What tells of a resource in JSON; moments are those of the hospitals' clocks."""

    def tell(kind: str, content: bytes) -> Said | None:
        resource = orjson.loads(content)
        titles = (_concept(resource.get(name)) for name in _TITLES)
        return Said(
            moment=_when(resource, timezone),
            title=next((title for title in titles if title), str(resource.get("title", kind))),
            text=_text(resource)[:TEXT],
            status=str(resource.get("status", "")),
            studies=readable.studies(resource, ""),
        )

    return tell


def _when(resource: Mapping[str, Any], timezone: ZoneInfo) -> str:
    """YYYYMMDDHHMMSS, with zeros for what is not said; the last change where nothing is."""
    told = [resource.get(name) for name in _DATES]
    told += [
        period.get("start") for name in _PERIODS if isinstance(period := resource.get(name), dict)
    ]
    told.append(resource.get("meta", {}).get("lastUpdated"))
    for text in told:
        if isinstance(text, str) and text:
            return _moment(text, timezone)
    return ""


def _moment(text: str, timezone: ZoneInfo) -> str:
    if "T" in text:
        try:
            here = datetime.fromisoformat(text).astimezone(timezone)
            return "".join(filter(str.isdigit, here.isoformat()[:19]))  # %Y pads no early years
        except (ValueError, OverflowError):  # a leap second, or before the first or after the last
            text = text.partition("T")[0]
    return text.replace("-", "").ljust(14, "0")


def _concept(value: Any) -> str:
    """A CodeableConcept or Coding, or the first of several, in words."""
    one = value[0] if isinstance(value, list) and value else value
    if not isinstance(one, dict):
        return ""
    codings = [one, *(coding for coding in one.get("coding", ()) if isinstance(coding, dict))]
    shown = (coding.get("display") or coding.get("code") for coding in codings)
    return str(one.get("text") or next((text for text in shown if text), ""))


def _text(resource: Mapping[str, Any]) -> str:
    """The conclusion of a report, the value of an observation, or a note."""
    if conclusion := resource.get("conclusion"):
        return str(conclusion)
    for name, value in resource.items():
        if name.startswith("value"):
            return _value(value)
    if description := resource.get("description"):
        return str(description)
    notes = resource.get("note", ())
    return "\n".join(str(note.get("text", "")) for note in notes if isinstance(note, dict))


def _value(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if "value" in value:
        return f"{value['value']} {value.get('unit') or value.get('code') or ''}".strip()
    return _concept(value)
