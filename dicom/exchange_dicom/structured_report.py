"""Structured Reports as people read them: the content tree of PS3.3 C.17.3 as plain values.

Basic Text, Enhanced, Comprehensive and every other SR are one tree of content items, each with a
concept name, a value and items below it. What is read here is text and nothing but text: whoever
shows it escapes it. The tree is read as far as the limits go, and it is said if there is more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DEPTH = 24
"""Levels of items below items."""

ITEMS = 2000
"""Content items of one report."""

TEXT = 200_000
"""Characters of one report."""

Model = Mapping[str, Any]
"""A data set in the DICOM JSON Model (PS3.18 annex F)."""

_CONCEPT, _CODES, _MEANING, _VALUE = "0040A043", "0040A168", "00080104", "00080100"
_CONTENT, _RELATIONSHIP, _TYPE = "0040A730", "0040A010", "0040A040"
_MEASURED, _NUMBER, _UNITS = "0040A300", "0040A30A", "004008EA"
_REFERENCED, _INSTANCE = "00081199", "00081155"
_SIMPLE = {
    "TEXT": "0040A160",
    "PNAME": "0040A123",
    "DATETIME": "0040A120",
    "DATE": "0040A121",
    "TIME": "0040A122",
    "UIDREF": "0040A124",
}


@dataclass(frozen=True, slots=True)
class Item:
    """A content item: a heading with items below it, or a value that may have some too."""

    code: str
    """Code value of its concept name, "" where it has none."""
    concept: str
    """Code meaning of the same."""
    value: str
    image: str
    """SOP Instance UID of what it refers to, or ""."""
    items: tuple[Item, ...]
    context: bool
    """Says something of the item above rather than of the patient (HAS OBS CONTEXT and such)."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it is read."""

    code: str
    """Code value of its title."""
    title: str
    complete: bool
    """Completion Flag (C.17.2): else it is partial."""
    verified: bool
    observers: tuple[str, ...]
    """Who verified it."""
    date: str
    time: str
    items: tuple[Item, ...]
    more: bool
    """There is more in it than is read."""


@dataclass(slots=True)
class _Left:
    """What may still be read."""

    items: int = ITEMS
    text: int = TEXT
    exceeded: bool = field(default=False)

    def of(self, said: str) -> str:
        taken = said[: self.text]
        self.exceeded |= len(taken) < len(said)
        self.text -= len(taken)
        return taken


def read(model: Model) -> Report:
    """The report that a data set holds; what is not there is ""."""
    left = _Left()
    items = tuple(_below(model, left, 0))
    observers = (_name(one, "0040A075") for one in _sequence(model, "0040A073"))
    return Report(
        code=text(_first(model, _CONCEPT), _VALUE),
        title=left.of(_meaning(model, _CONCEPT)),
        complete=text(model, "0040A491") == "COMPLETE",
        verified=text(model, "0040A493") == "VERIFIED",
        observers=tuple(name for name in observers if name),
        date=text(model, "00080023"),
        time=text(model, "00080033"),
        items=items,
        more=left.exceeded,
    )


def concept(model: Model) -> tuple[str, str, str]:
    """Code value, scheme and meaning of the concept name of a document or content item."""
    code = _first(model, _CONCEPT)
    return text(code, _VALUE), text(code, "00080102"), text(code, _MEANING)


def _below(model: Model, left: _Left, depth: int) -> Iterator[Item]:
    for one in _sequence(model, _CONTENT):
        if depth >= DEPTH or left.items <= 0 or left.text <= 0:
            left.exceeded = True
            return
        left.items -= 1
        kind = text(one, _TYPE)
        yield Item(
            code=text(_first(one, _CONCEPT), _VALUE),
            concept=left.of(_meaning(one, _CONCEPT)),
            value=left.of(_told(one, kind)),
            image=text(_first(one, _REFERENCED), _INSTANCE),
            items=tuple(_below(one, left, depth + 1)),
            context=text(one, _RELATIONSHIP) in {"HAS OBS CONTEXT", "HAS CONCEPT MOD"},
        )


def _told(one: Model, kind: str) -> str:
    """The value of an item of this Value Type, as text."""
    if kind == "PNAME":
        return _name(one, _SIMPLE[kind])
    if kind in _SIMPLE:
        return text(one, _SIMPLE[kind])
    if kind == "CODE":
        return _meaning(one, _CODES)
    if kind == "NUM":
        measured = _first(one, _MEASURED)
        unit = _first(measured, _UNITS)
        # "1" is UCUM's unit of what has none.
        units = text(unit, _VALUE) if text(unit, _VALUE) != "1" else ""
        return f"{text(measured, _NUMBER)} {units}".strip()
    return ""


def _value(model: Model, tag: str) -> Any:
    element = model.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values[0] if isinstance(values, list) and values else None


def text(model: Model, tag: str) -> str:
    """The first value of an attribute of text or numbers, or ""."""
    value = _value(model, tag)
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _name(model: Model, tag: str) -> str:
    """A person name with its groups, as PS3.5 6.2 writes them."""
    value = _value(model, tag)
    if not isinstance(value, Mapping):
        return ""
    groups = (str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic"))
    return "=".join(groups).rstrip("=")


def _sequence(model: Model, tag: str) -> list[Model]:
    element = model.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return [one for one in values or () if isinstance(one, Mapping)]


def _first(model: Model, tag: str) -> Model:
    return next(iter(_sequence(model, tag)), {})


def _meaning(model: Model, tag: str) -> str:
    return text(_first(model, tag), _MEANING)
