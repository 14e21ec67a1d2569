"""How the elements of a resource are read as values that are searched for, by their data types."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from exchange_fhir import moments, units
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import Path
from exchange_fhir.quantities import CONVERTED
from exchange_storage import names
from exchange_storage.resource_index import (
    LENGTH,
    Date,
    Quantity,
    Reference,
    String,
    Token,
    Uri,
    Value,
)

_CURRENCY = "urn:iso:std:iso:4217"
_FRAGMENT = re.compile(r"#[^|]*")


@dataclass(slots=True)
class Found:
    """What was found in a resource so far."""

    zone: ZoneInfo
    """Of dates and times that come without an offset."""
    base: str
    """Where the references of this server begin, with its slash, or ""."""
    values: list[Value] = field(default_factory=list)
    position: int = 0
    """Which element of a composite parameter the values are of; 0 for those of no composite."""


Read = Callable[[Any, str, Found], None]
"""Adds what an element says to what was found, under a parameter's name."""


def target(reference: str, base: str) -> tuple[str, str]:
    """Type and logical id that a reference of this server leads to, or "" and its address.

    ``base`` ends in a slash, or is "". What stands inside the resource ("#…") leads nowhere.
    """
    if reference.startswith("#"):
        return "", ""
    told = reference[len(base) :] if base and reference.startswith(base) else reference
    kind, slash, rest = told.partition("/")
    if slash and kind[:1].isupper() and kind.isalpha():
        logical_id, _, after = rest.partition("/")
        if not after or after.startswith("_history/"):
            return kind, logical_id
    return "", reference


def reader(kind: str, path: Path) -> Read:
    """How what stands at `path` is read for a parameter of type `kind`."""
    read = _READERS[kind, path.datatype]
    if kind == "string" and path.properties[-1] in _PARTS:
        return _PARTS[path.properties[-1]]
    if path.extension:
        return _of_extension(path.extension, f"value{path.datatype}", read)
    if path.system:
        return _code_of(path.system)
    if path.target:
        return _only(path.target)
    if path.contact:
        contact = path.contact

        def of_contact(value: Any, name: str, found: Found) -> None:
            if isinstance(value, dict) and value.get("system") == contact:
                read(value, name, found)

        return of_contact
    return read


def _of_extension(url: str, element: str, read: Read) -> Read:
    def of_extension(value: Any, name: str, found: Found) -> None:
        if isinstance(value, dict) and value.get("url") == url and element in value:
            read(value[element], name, found)

    return of_extension


def _only(kind: str) -> Read:
    def read(value: Any, name: str, found: Found) -> None:
        if isinstance(value, dict):
            told = text(value, "reference")
            if kind == (target(told, found.base)[0] if told else value.get("type")):
                _reference(value, name, found)

    return read


def text(element: Mapping[str, Any], key: str) -> str:
    """A text of an element, "" where there is none."""
    value = element.get(key)
    return value if isinstance(value, str) else ""


def texts(element: Mapping[str, Any], key: str) -> list[str]:
    """The texts of a list in an element, of those that are not empty."""
    held = element.get(key)
    return [one for one in held if isinstance(one, str) and one] if isinstance(held, list) else []


@lru_cache(4096)
def _folded(text: str) -> str:
    return names.fold(text[:LENGTH])


def _string(value: Any, name: str, found: Found) -> None:
    if isinstance(value, str) and value:
        found.values.append(String(name, _folded(value), value, found.position))


def _words(value: Any, name: str, found: Found) -> None:
    """What a code says in words, for ``:text``."""
    if value:
        _string(value, f"{name}:text", found)


def _code(value: Any, name: str, found: Found) -> None:
    if isinstance(value, str):
        found.values.append(Token(name, value, "", found.position))


def _code_of(system: str) -> Read:
    def read(value: Any, name: str, found: Found) -> None:
        if isinstance(value, str):
            found.values.append(Token(name, value, system, found.position))

    return read


def _boolean(value: Any, name: str, found: Found) -> None:
    if isinstance(value, bool):
        found.values.append(Token(name, "true" if value else "false", "", found.position))


def _coding(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict):
        token = Token(name, text(value, "code"), text(value, "system"), found.position)
        found.values.append(token)
        _words(value.get("display"), name, found)


def _concept(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, dict):
        return
    codings = value.get("coding")
    if isinstance(codings, list) and codings:
        for one in codings:
            _coding(one, name, found)
    else:  # in words only: it is there, although no code finds it
        found.values.append(Token(name, "", "", found.position))
    _words(value.get("text"), name, found)


def _identifier(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, dict):
        return
    number = text(value, "value")
    found.values.append(Token(name, number, text(value, "system"), found.position))
    of_type = value.get("type")
    if isinstance(of_type, dict):
        _words(of_type.get("text"), name, found)
        codings = of_type.get("coding")
        for one in codings if isinstance(codings, list) else ():
            if isinstance(one, dict):
                _words(one.get("display"), name, found)
                of_type_name = f"{name}:of-type"
                code = f"{text(one, 'code')}|{number}"
                found.values.append(Token(of_type_name, code, text(one, "system")))


def _contact(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict):
        token = Token(name, text(value, "value"), text(value, "system"), found.position)
        found.values.append(token)


def _reference(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, dict):
        return
    kind, logical_id = target(text(value, "reference"), found.base)
    found.values.append(Reference(name, kind, logical_id, found.position))
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and (number := text(identifier, "value")):
        system = text(identifier, "system")
        found.values.append(Token(f"{name}:identifier", number, system))


def _canonical(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, str):
        return
    address, versioned, _ = value.partition("|")
    kind, logical_id = target(address, found.base)
    asked_for = {(kind, logical_id)}  # asked for without a version, any of them is meant
    leads_to = {("", _FRAGMENT.sub("", value))} - {("", "")}
    if versioned:
        asked_for.add(("", value))
    elif kind:
        leads_to.add((kind, logical_id))
    followed = f"{name}:{search_parameters.CANONICAL}"
    for under, targets in ((name, asked_for), (followed, leads_to)):
        for each in sorted(targets):
            found.values.append(Reference(under, *each, found.position))


def _uri(value: Any, name: str, found: Found) -> None:
    if isinstance(value, str):
        found.values.append(Uri(name, value, found.position))


def _date(value: Any, name: str, found: Found) -> None:
    if isinstance(value, str) and (span := moments.span(value, found.zone)):
        found.values.append(Date(name, *span, found.position))


def _period(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict):
        start = moments.span(text(value, "start"), found.zone)
        end = moments.span(text(value, "end"), found.zone)
        if start or end:
            low = start[0] if start else moments.FIRST
            high = end[1] if end else moments.LAST
            found.values.append(Date(name, low, high, found.position))


def _timing(value: Any, name: str, found: Found) -> None:
    """From the first of its events, or the start of its bounds, to the last (R4 3.1.1.4.7)."""
    if not isinstance(value, dict):
        return
    events = value.get("event")
    spans = [
        span
        for one in (events if isinstance(events, list) else ())
        if isinstance(one, str) and (span := moments.span(one, found.zone))
    ]
    if spans:
        low, high = min(one[0] for one in spans), max(one[1] for one in spans)
        found.values.append(Date(name, low, high, found.position))
    repeat = value.get("repeat")
    if isinstance(repeat, dict):
        _period(repeat.get("boundsPeriod"), name, found)


def _quantity(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, dict) or (number := _number(value.get("value"))) is None:
        return
    low, high = {
        "<": (-math.inf, number),
        "<=": (-math.inf, number),
        ">": (number, math.inf),
        ">=": (number, math.inf),
    }.get(text(value, "comparator"), (number, number))
    code, system, unit = (text(value, key) for key in ("code", "system", "unit"))
    found.values.append(Quantity(name, low, high, code, system, unit, found.position))
    if system == units.UCUM:
        _converted(name, low, high, code, found)


def _converted(name: str, low: float, high: float, code: str, found: Found) -> None:
    """The same in base units, so that it is found whatever unit is asked for."""
    if (unit := units.unit(code)) is not None:
        least, most = (unit.converted(Decimal(repr(one))) for one in (low, high))
        beside = f"{name}:{CONVERTED}"
        found.values.append(Quantity(beside, least, most, unit.base, "", "", found.position))


def _range(value: Any, name: str, found: Found) -> None:
    if not isinstance(value, dict):
        return
    ends = [one if isinstance(one := value.get(key), dict) else {} for key in ("low", "high")]
    low, high = (_number(one.get("value")) for one in ends)
    if low is None and high is None:
        return
    code, system, unit = (
        text(ends[0], key) or text(ends[1], key) for key in ("code", "system", "unit")
    )
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    found.values.append(Quantity(name, low, high, code, system, unit, found.position))
    if system == units.UCUM:
        _converted(name, low, high, code, found)


def _money(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict) and (number := _number(value.get("value"))) is not None:
        currency = text(value, "currency")
        found.values.append(
            Quantity(name, number, number, currency, _CURRENCY, currency, found.position)
        )


def _plain_number(value: Any, name: str, found: Found) -> None:
    if (number := _number(value)) is not None:
        found.values.append(Quantity(name, number, number, position=found.position))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _annotation(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict):
        _string(value.get("text"), name, found)


def _address(value: Any, name: str, found: Found) -> None:
    if isinstance(value, dict):
        for key in ("line", "city", "district", "state", "postalCode", "country", "text"):
            held = value.get(key)
            for one in held if isinstance(held, list) else (held,):
                _string(one, name, found)


def _human_name(value: Any, name: str, found: Found) -> None:
    """Each part as it is, and the whole in hanzi and pinyin (see `exchange_storage.names`)."""
    if not isinstance(value, dict):
        return
    parts = [text(value, "family"), text(value, "text")]
    given = texts(value, "given")
    parts += [*given, *texts(value, "prefix"), *texts(value, "suffix")]
    for one in parts:
        _string(one, name, found)
    whole = f"{parts[0]}^{' '.join(given)}".strip("^") or parts[1]
    _spelled(_keys(whole[:LENGTH]), name, found, {_folded(one) for one in parts})


def _family(value: Any, name: str, found: Found) -> None:
    _string(value, name, found)
    if isinstance(value, str) and not value.isascii():
        _spelled(_family_keys(value[:LENGTH]), name, found, {_folded(value)})


def _given(value: Any, name: str, found: Found) -> None:
    _string(value, name, found)
    if isinstance(value, str) and not value.isascii():
        _spelled(_given_keys(value[:LENGTH]), name, found, {_folded(value)})


def _spelled(spellings: frozenset[str], name: str, found: Found, written: set[str]) -> None:
    for one in sorted(spellings - written):
        found.values.append(String(name, one, "", found.position))


@lru_cache(4096)
def _keys(whole: str) -> frozenset[str]:
    keys = names.keys(whole)
    full = frozenset(one for one in keys.full if "^" not in one)
    return full | keys.family | keys.given


@lru_cache(4096)
def _family_keys(family: str) -> frozenset[str]:
    return names.keys(f"{family}^").family


@lru_cache(4096)
def _given_keys(given: str) -> frozenset[str]:
    return names.keys(f"^{given}").given


def _deceased(resource: Any, name: str, found: Found) -> None:
    """``Patient.deceased.exists() and Patient.deceased != false``."""
    if isinstance(resource, dict):
        dead = resource.get("deceasedBoolean") is True or bool(resource.get("deceasedDateTime"))
        found.values.append(Token(name, "true" if dead else "false"))


_READERS: Mapping[tuple[str, str], Read] = {
    **{("token", one): _code for one in ("code", "string", "id", "uri")},
    ("token", "boolean"): _boolean,
    ("token", "Coding"): _coding,
    ("token", "CodeableConcept"): _concept,
    ("token", "Identifier"): _identifier,
    ("token", "ContactPoint"): _contact,
    ("token", "deceased"): _deceased,
    ("reference", "Reference"): _reference,
    ("reference", "canonical"): _canonical,
    ("reference", "uri"): _canonical,
    **{("date", one): _date for one in ("date", "dateTime", "instant")},
    ("date", "Period"): _period,
    ("date", "Timing"): _timing,
    **{
        ("quantity", one): _quantity for one in ("Quantity", "Age", "Duration", "Count", "Distance")
    },
    ("quantity", "Range"): _range,
    ("quantity", "Money"): _money,
    **{
        ("number", one): _plain_number
        for one in ("integer", "decimal", "positiveInt", "unsignedInt")
    },
    ("string", "string"): _string,
    ("string", "markdown"): _string,
    ("string", "Annotation"): _annotation,
    ("string", "Address"): _address,
    ("string", "HumanName"): _human_name,
    **{("uri", one): _uri for one in ("uri", "url", "canonical", "oid", "uuid")},
}
"""By the parameter's type and the element's: none is missing."""
_PARTS: Mapping[str, Read] = {"family": _family, "given": _given}
"""Parts of a HumanName, which are found by their pinyin too."""
