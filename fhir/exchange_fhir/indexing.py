"""A resource as the values under which it is found (FHIR R4 3.1.1.4), by the standard's parameters.

The paths of all parameters of a resource type are put together into one tree, so that a resource
is walked through once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from exchange import enclosures
from exchange_fhir import contained, special
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import SearchParameter
from exchange_fhir.elements import Found, Read, reader, target, text
from exchange_fhir.quantities import CONVERTED
from exchange_storage.resource_index import (
    Reference,
    Uri,
    Value,
)

_UTC = ZoneInfo("UTC")


def values(resource: Json, zone: ZoneInfo, base: str = "") -> list[Value]:
    """The values of all search parameters of a resource.

    `zone` is that of dates and times that come without an offset; references that begin with
    `base`, the address of this server, are its own. Values of the wrong type are passed over.
    """
    plan = _plan(resource["resourceType"])
    found = Found(zone, f"{base}/" if base else "")
    _walk(plan.tree, resource, found)
    for composite in plan.composites:
        _compose(composite, resource, found)
    found.values += [*_enclosed(resource, found.base), *_named(resource), *special.values(resource)]
    found.values += contained.values(resource, lambda inner: values(inner, zone, base))
    return found.values


def patients(resource: Json, base: str = "") -> tuple[str, ...]:
    """The logical ids of the Patients of this server in whose compartments a resource is."""
    kind = resource["resourceType"]
    found = Found(_UTC, f"{base}/" if base else "")
    _walk(_compartment(kind), resource, found)
    targets = (one for one in found.values if isinstance(one, Reference))
    return tuple(dict.fromkeys(one.target for one in targets if one.target_kind == "Patient"))


def _enclosed(resource: Json, base: str) -> Iterator[Value]:
    """What a resource attaches (Attachment.url), and whose security context a Binary has: no
    parameter asks for that, but who sees a Binary depends on it."""
    if resource["resourceType"] == enclosures.KIND:
        if context := resource.get("securityContext"):
            yield Reference(enclosures.CONTEXT, *target(text(context, "reference"), base))
        return
    inside: list[Any] = [resource]
    while inside:
        element = inside.pop()
        if isinstance(element, dict):
            if "url" in element:
                kind, logical_id = target(text(element, "url"), base)
                if kind == enclosures.KIND:
                    yield Reference(enclosures.ATTACHED, kind, logical_id)
            element = element.values()
        inside += [one for one in element if isinstance(one, (dict, list))]


def _named(resource: Json) -> Iterator[Value]:
    """How canonical references name a resource: by its URL, with its version or without."""
    name = search_parameters.named_under(resource["resourceType"])
    if name and (url := text(resource, "url")):
        yield Uri(name, url)
        if version := text(resource, "version"):
            yield Uri(name, f"{url}|{version}")


@dataclass(slots=True)
class _Node:
    """An element: how it is read for which parameters, and the elements below it."""

    reads: list[tuple[Read, str]] = field(default_factory=list)
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
            tree.at(path.properties).reads.append((reader(one.type, path), one.name))
    return _Plan(tree, tuple(composites))


@cache
def _compartment(kind: str) -> _Node:
    tree = _Node()
    parameters = search_parameters.of(kind)
    for code in search_parameters.compartment(kind):
        for path in parameters[code].paths:
            tree.at(path.properties).reads.append((reader("reference", path), code))
    return tree


def _composite(one: SearchParameter) -> _Composite:
    components = []
    for number, component in enumerate(one.components):
        node = _Node()
        for path in component.paths:
            read = reader(component.type, path)
            node.at(path.properties).reads.append((_plain(read), f"{one.name}${number}"))
        components.append(node)
    return _Composite(one.roots, tuple(components))


def _plain(read: Read) -> Read:
    """Without what is found beside a value, as the words of a code: no composite asks for it.

    But for a quantity in base units.
    """

    def plain(value: Any, name: str, found: Found) -> None:
        start = len(found.values)
        read(value, name, found)
        kept = {name, f"{name}:{CONVERTED}"}
        found.values[start:] = [one for one in found.values[start:] if one.parameter in kept]

    return plain


def _walk(node: _Node, element: Any, found: Found) -> None:
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


def _compose(composite: _Composite, resource: Json, found: Found) -> None:
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
