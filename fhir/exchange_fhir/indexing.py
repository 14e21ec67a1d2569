"""A resource as the values under which it is found (FHIR R4 3.1.1.4), by the standard's parameters.

The paths of all parameters of a resource type are put together into one tree, so that a resource
is walked through once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from exchange import enclosures
from exchange_fhir import contained, moments, special, units
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import Path, SearchParameter
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

CURRENCY = "urn:iso:std:iso:4217"


def values(resource: Json, zone: ZoneInfo, base: str = "") -> list[Value]:
    """The values of all search parameters of a resource.

    `zone` is that of dates and times that come without an offset; references that begin with
    `base`, the address of this server, are its own. Values of the wrong type are passed over.
    """
    plan = _plan(resource["resourceType"])
    found = _Found(zone, f"{base}/" if base else "")
    _walk(plan.tree, resource, found)
    for composite in plan.composites:
        _compose(composite, resource, found)
    found.values += [*_enclosed(resource, found.base), *_named(resource), *special.values(resource)]
    found.values += contained.values(resource, lambda inner: values(inner, zone, base))
    return found.values


def patients(resource: Json, base: str = "") -> tuple[str, ...]:
    """The logical ids of the Patients of this server in whose compartments a resource is."""
    kind = resource["resourceType"]
    found = _Found(_UTC, f"{base}/" if base else "")
    _walk(_compartment(kind), resource, found)
    targets = (one for one in found.values if isinstance(one, Reference))
    return tuple(dict.fromkeys(one.target for one in targets if one.target_kind == "Patient"))


def _enclosed(resource: Json, base: str) -> Iterator[Value]:
    """What a resource attaches (Attachment.url), and whose security context a Binary has: no
    parameter asks for that, but who sees a Binary depends on it."""
    if resource["resourceType"] == enclosures.KIND:
        if context := resource.get("securityContext"):
            yield Reference(enclosures.CONTEXT, *target(_text(context, "reference"), base))
        return
    inside: list[Any] = [resource]
    while inside:
        element = inside.pop()
        if isinstance(element, dict):
            if "url" in element:
                kind, logical_id = target(_text(element, "url"), base)
                if kind == enclosures.KIND:
                    yield Reference(enclosures.ATTACHED, kind, logical_id)
            element = element.values()
        inside += [one for one in element if isinstance(one, (dict, list))]


def _named(resource: Json) -> Iterator[Value]:
    """How canonical references name a resource: by its URL, with its version or without."""
    name = search_parameters.named_under(resource["resourceType"])
    if name and (url := _text(resource, "url")):
        yield Uri(name, url)
        if version := _text(resource, "version"):
            yield Uri(name, f"{url}|{version}")


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


_FRAGMENT = re.compile(r"#[^|]*")
_UTC = ZoneInfo("UTC")


@dataclass(slots=True)
class _Found:
    """What was found in a resource so far."""

    zone: ZoneInfo
    base: str
    values: list[Value] = field(default_factory=list)
    position: int = 0


_Read = Callable[[Any, str, _Found], None]
"""Adds what an element says to what was found, under a parameter's name."""


@dataclass(slots=True)
class _Node:
    """An element: how it is read for which parameters, and the elements below it."""

    reads: list[tuple[_Read, str]] = field(default_factory=list)
    below: dict[str, _Node] = field(default_factory=dict)

    def at(self, properties: tuple[str, ...]) -> _Node:
        """The node at the end of a path."""
        node = self
        for one in properties:
            node = node.below.setdefault(one, _Node())
        return node


@dataclass(frozen=True, slots=True)
class _Composite:
    """A composite parameter: its roots, and below them a tree for each component."""

    roots: tuple[tuple[str, ...], ...]
    components: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How resources of a type are read."""

    tree: _Node
    composites: tuple[_Composite, ...]


@cache
def _plan(kind: str) -> _Plan:
    tree = _Node()
    composites = []
    for one in search_parameters.of(kind).values():
        if not one.is_kept:
            continue
        if one.components:
            composites.append(_composite(one))
        for path in one.paths:
            tree.at(path.properties).reads.append((_reader(one.type, path), one.name))
    return _Plan(tree, tuple(composites))


@cache
def _compartment(kind: str) -> _Node:
    tree = _Node()
    parameters = search_parameters.of(kind)
    for code in search_parameters.compartment(kind):
        for path in parameters[code].paths:
            tree.at(path.properties).reads.append((_reader("reference", path), code))
    return tree


def _composite(one: SearchParameter) -> _Composite:
    components = []
    for number, component in enumerate(one.components):
        node = _Node()
        for path in component.paths:
            read = _reader(component.type, path)
            node.at(path.properties).reads.append((_plain(read), f"{one.name}${number}"))
        components.append(node)
    return _Composite(one.roots, tuple(components))


def _plain(read: _Read) -> _Read:
    """Without what is found beside a value, as the words of a code: no composite asks for it.

    But for a quantity in base units.
    """

    def plain(value: Any, name: str, found: _Found) -> None:
        start = len(found.values)
        read(value, name, found)
        kept = {name, f"{name}:{CONVERTED}"}
        found.values[start:] = [one for one in found.values[start:] if one.parameter in kept]

    return plain


def _walk(node: _Node, element: Any, found: _Found) -> None:
    if isinstance(element, list):
        for one in element:
            _walk(node, one, found)
        return
    if element is None:
        return
    for read, name in node.reads:
        read(element, name, found)
    if node.below and isinstance(element, dict):
        for key, below in node.below.items():
            if (inner := element.get(key)) is not None:
                _walk(below, inner, found)


def _compose(composite: _Composite, resource: Json, found: _Found) -> None:
    for root in composite.roots:
        for element in _elements(resource, root):
            start = len(found.values)
            found.position += 1
            for component in composite.components:
                before = len(found.values)
                _walk(component, element, found)
                if len(found.values) == before:  # without one of them there is no composite
                    del found.values[start:]
                    break
    found.position = 0


def _elements(element: Any, path: tuple[str, ...]) -> list[Any]:
    found = [element]
    for one in path:
        inner = [each.get(one) for each in found if isinstance(each, dict)]
        found = [each for held in inner for each in (held if isinstance(held, list) else [held])]
    return [one for one in found if one is not None]


# -- How elements are read ------------------------------------------------------------------------


def _reader(kind: str, path: Path) -> _Read:
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

        def of_contact(value: Any, name: str, found: _Found) -> None:
            if isinstance(value, dict) and value.get("system") == contact:
                read(value, name, found)

        return of_contact
    return read


def _of_extension(url: str, element: str, read: _Read) -> _Read:
    def of_extension(value: Any, name: str, found: _Found) -> None:
        if isinstance(value, dict) and value.get("url") == url and element in value:
            read(value[element], name, found)

    return of_extension


def _only(kind: str) -> _Read:
    def read(value: Any, name: str, found: _Found) -> None:
        if isinstance(value, dict):
            told = _text(value, "reference")
            if kind == (target(told, found.base)[0] if told else value.get("type")):
                _reference(value, name, found)

    return read


def _text(element: Mapping[str, Any], key: str) -> str:
    """A text of an element, "" where there is none."""
    value = element.get(key)
    return value if isinstance(value, str) else ""


def _texts(element: Mapping[str, Any], key: str) -> list[str]:
    """The texts of a list in an element, of those that are not empty."""
    held = element.get(key)
    return [one for one in held if isinstance(one, str) and one] if isinstance(held, list) else []


@lru_cache(4096)
def _folded(text: str) -> str:
    return names.fold(text[:LENGTH])


def _string(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, str) and value:
        found.values.append(String(name, _folded(value), value, found.position))


def _words(value: Any, name: str, found: _Found) -> None:
    """What a code says in words, for ``:text``."""
    if value:
        _string(value, f"{name}:text", found)


def _code(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, str):
        found.values.append(Token(name, value, "", found.position))


def _code_of(system: str) -> _Read:
    def read(value: Any, name: str, found: _Found) -> None:
        if isinstance(value, str):
            found.values.append(Token(name, value, system, found.position))

    return read


def _boolean(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, bool):
        found.values.append(Token(name, "true" if value else "false", "", found.position))


def _coding(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict):
        token = Token(name, _text(value, "code"), _text(value, "system"), found.position)
        found.values.append(token)
        _words(value.get("display"), name, found)


def _concept(value: Any, name: str, found: _Found) -> None:
    if not isinstance(value, dict):
        return
    codings = value.get("coding")
    if isinstance(codings, list) and codings:
        for one in codings:
            _coding(one, name, found)
    else:  # in words only: it is there, although no code finds it
        found.values.append(Token(name, "", "", found.position))
    _words(value.get("text"), name, found)


def _identifier(value: Any, name: str, found: _Found) -> None:
    if not isinstance(value, dict):
        return
    number = _text(value, "value")
    found.values.append(Token(name, number, _text(value, "system"), found.position))
    of_type = value.get("type")
    if isinstance(of_type, dict):
        _words(of_type.get("text"), name, found)
        codings = of_type.get("coding")
        for one in codings if isinstance(codings, list) else ():
            if isinstance(one, dict):
                _words(one.get("display"), name, found)
                of_type_name = f"{name}:of-type"
                code = f"{_text(one, 'code')}|{number}"
                found.values.append(Token(of_type_name, code, _text(one, "system")))


def _contact(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict):
        token = Token(name, _text(value, "value"), _text(value, "system"), found.position)
        found.values.append(token)


def _reference(value: Any, name: str, found: _Found) -> None:
    if not isinstance(value, dict):
        return
    kind, logical_id = target(_text(value, "reference"), found.base)
    found.values.append(Reference(name, kind, logical_id, found.position))
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and (number := _text(identifier, "value")):
        system = _text(identifier, "system")
        found.values.append(Token(f"{name}:identifier", number, system))


def _canonical(value: Any, name: str, found: _Found) -> None:
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


def _uri(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, str):
        found.values.append(Uri(name, value, found.position))


def _date(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, str) and (span := moments.span(value, found.zone)):
        found.values.append(Date(name, *span, found.position))


def _period(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict):
        start = moments.span(_text(value, "start"), found.zone)
        end = moments.span(_text(value, "end"), found.zone)
        if start or end:
            low = start[0] if start else moments.FIRST
            high = end[1] if end else moments.LAST
            found.values.append(Date(name, low, high, found.position))


def _timing(value: Any, name: str, found: _Found) -> None:
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


def _quantity(value: Any, name: str, found: _Found) -> None:
    if not isinstance(value, dict) or (number := _number(value.get("value"))) is None:
        return
    low, high = {
        "<": (-math.inf, number),
        "<=": (-math.inf, number),
        ">": (number, math.inf),
        ">=": (number, math.inf),
    }.get(_text(value, "comparator"), (number, number))
    code, system, unit = (_text(value, key) for key in ("code", "system", "unit"))
    found.values.append(Quantity(name, low, high, code, system, unit, found.position))
    if system == units.UCUM:
        _converted(name, low, high, code, found)


def _converted(name: str, low: float, high: float, code: str, found: _Found) -> None:
    """The same in base units, so that it is found whatever unit is asked for."""
    if (unit := units.unit(code)) is not None:
        least, most = (unit.converted(Decimal(repr(one))) for one in (low, high))
        beside = f"{name}:{CONVERTED}"
        found.values.append(Quantity(beside, least, most, unit.base, "", "", found.position))


def _range(value: Any, name: str, found: _Found) -> None:
    if not isinstance(value, dict):
        return
    ends = [one if isinstance(one := value.get(key), dict) else {} for key in ("low", "high")]
    low, high = (_number(one.get("value")) for one in ends)
    if low is None and high is None:
        return
    code, system, unit = (
        _text(ends[0], key) or _text(ends[1], key) for key in ("code", "system", "unit")
    )
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    found.values.append(Quantity(name, low, high, code, system, unit, found.position))
    if system == units.UCUM:
        _converted(name, low, high, code, found)


def _money(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict) and (number := _number(value.get("value"))) is not None:
        currency = _text(value, "currency")
        found.values.append(
            Quantity(name, number, number, currency, CURRENCY, currency, found.position)
        )


def _plain_number(value: Any, name: str, found: _Found) -> None:
    if (number := _number(value)) is not None:
        found.values.append(Quantity(name, number, number, position=found.position))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _annotation(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict):
        _string(value.get("text"), name, found)


def _address(value: Any, name: str, found: _Found) -> None:
    if isinstance(value, dict):
        for key in ("line", "city", "district", "state", "postalCode", "country", "text"):
            held = value.get(key)
            for one in held if isinstance(held, list) else (held,):
                _string(one, name, found)


def _human_name(value: Any, name: str, found: _Found) -> None:
    """Each part as it is, and the whole in hanzi and pinyin (see `exchange_storage.names`)."""
    if not isinstance(value, dict):
        return
    parts = [_text(value, "family"), _text(value, "text")]
    given = _texts(value, "given")
    parts += [*given, *_texts(value, "prefix"), *_texts(value, "suffix")]
    for one in parts:
        _string(one, name, found)
    whole = f"{parts[0]}^{' '.join(given)}".strip("^") or parts[1]
    _spelled(_keys(whole[:LENGTH]), name, found, {_folded(one) for one in parts})


def _family(value: Any, name: str, found: _Found) -> None:
    _string(value, name, found)
    if isinstance(value, str) and not value.isascii():
        _spelled(_family_keys(value[:LENGTH]), name, found, {_folded(value)})


def _given(value: Any, name: str, found: _Found) -> None:
    _string(value, name, found)
    if isinstance(value, str) and not value.isascii():
        _spelled(_given_keys(value[:LENGTH]), name, found, {_folded(value)})


def _spelled(spellings: frozenset[str], name: str, found: _Found, written: set[str]) -> None:
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


def _deceased(resource: Any, name: str, found: _Found) -> None:
    """``Patient.deceased.exists() and Patient.deceased != false``."""
    if isinstance(resource, dict):
        dead = resource.get("deceasedBoolean") is True or bool(resource.get("deceasedDateTime"))
        found.values.append(Token(name, "true" if dead else "false"))


_READERS: Mapping[tuple[str, str], _Read] = {
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
_PARTS: Mapping[str, _Read] = {"family": _family, "given": _given}
"""Parts of a HumanName, which are found by their pinyin too."""
