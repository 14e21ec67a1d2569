"""What in a resource leads elsewhere, found and rewritten by the types of R4 (3.1.0.11.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Property, Structure

CONDITIONAL = re.compile(r"(?P<kind>[A-Z][A-Za-z]+)\?(?P<query>\S+)", re.ASCII)
"""A reference that says how its target is found."""

_TEMPORARY = re.compile(r"urn:(?:uuid|oid):", re.ASCII)

_Places = frozenset[tuple[str, str]]
"""Elements that hold links, each with the type that it is of."""
_REFERENCES: _Places = frozenset({("Reference", "reference")})
_FETCHED: _Places = _REFERENCES | {("Attachment", "url")}
"""What leads to something that is read."""

_ADDRESSES = frozenset({"uri", "url", "oid", "uuid", "canonical"})
_IN_NARRATIVE = re.compile(
    r"(?P<head>\b(?:href|src)\s*=\s*)(?P<quote>[\"'])(?P<to>[^\"'<>]*)(?P=quote)"
)


def rewritten(resource: Json, lookup: Mapping[str, str]) -> Json:
    """A valid resource with every link that `lookup` knows replaced by what it says."""
    if not lookup:
        return resource
    kind = elements.structure(resource["resourceType"])
    made: Json = _object(resource, kind, lambda link: lookup.get(link, link))
    return made


def conditional(resource: Json) -> frozenset[str]:
    """The conditional references in a valid resource."""
    found: set[str] = set()

    def see(link: str) -> str:
        if CONDITIONAL.fullmatch(link):
            found.add(link)
        return link

    _object(resource, elements.structure(resource["resourceType"]), see, only=_REFERENCES)
    return frozenset(found)


def temporary(resource: Json) -> frozenset[str]:
    """What in a valid resource only a transaction can make into a link that leads somewhere."""
    found: set[str] = set()

    def see(link: str) -> str:
        if _TEMPORARY.match(link):
            found.add(link)
        return link

    _object(resource, elements.structure(resource["resourceType"]), see, only=_FETCHED)
    return frozenset(found)


def unresolved(resource: Json) -> frozenset[str]:
    """The links in a valid resource that mean something in a transaction only (R4 3.1.0.11.2)."""
    found: set[str] = set()

    def see(link: str) -> str:
        if _TEMPORARY.match(link) or CONDITIONAL.fullmatch(link):
            found.add(link)
        return link

    _object(resource, elements.structure(resource["resourceType"]), see, only=_FETCHED)
    return frozenset(found)


def among(resource: Json, names: Container[str]) -> frozenset[str]:
    """Those of `names` to which a valid resource refers."""
    found: set[str] = set()

    def see(link: str) -> str:
        if link in names:
            found.add(link)
        return link

    _object(resource, elements.structure(resource["resourceType"]), see, only=_REFERENCES)
    return frozenset(found)


def local(resource: Json, base: str) -> frozenset[tuple[str, str]]:
    """Type and logical id of each resource of this server to which a valid resource refers."""
    found: set[tuple[str, str]] = set()

    def see(link: str) -> str:
        told = link.removeprefix(f"{base}/").partition("/_history/")[0].partition("#")[0]
        kind, slash, logical_id = told.partition("/")
        if slash and kind in elements.resources() and "/" not in logical_id:
            found.add((kind, logical_id))
        return link

    _object(resource, elements.structure(resource["resourceType"]), see, only=_REFERENCES)
    return frozenset(found)


def places(value: Any, base: str, path: str = "") -> dict[tuple[str, str], str]:
    """Where, as FHIRPath, a resource first refers to each other resource of this server."""
    found: dict[tuple[str, str], str] = {}
    for at, link in _written(value, "reference", path):
        told = link.removeprefix(f"{base}/").partition("/_history/")[0].partition("#")[0]
        kind, _, logical_id = told.partition("/")
        found.setdefault((kind, logical_id), at)
    return found


def place(resource: Json, told: str) -> str:
    """Where, as FHIRPath, a resource first has this link."""
    found = [*_written(resource, "reference"), *_written(resource, "url")]
    return next((at for at, link in found if link == told), "")


def _written(value: Any, element: str, path: str = "") -> Iterator[tuple[str, str]]:
    """What has an element of this name, as FHIRPath, and what the element says."""
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from _written(one, element, f"{path}[{at}]")
    elif isinstance(value, dict):
        path = path or str(value.get("resourceType", ""))
        if isinstance(link := value.get(element), str):
            yield path, link
        for name, one in value.items():
            if isinstance(one, list | dict):
                yield from _written(one, element, f"{path}.{name}")


def _object(
    told: Json, structure: Structure, link: Callable[[str], str], *, only: _Places | None = None
) -> Json:
    made: Json = {}
    for name, value in told.items():
        found = structure.properties.get(name)
        if found is None:
            # What stands beside a primitive value has extensions, and those may have references.
            made[name] = _beside(value, link, only) if name[0] == "_" else value
        elif found.element.is_list:
            made[name] = [_one(one, found, structure, link, only) for one in value]
        else:
            made[name] = _one(value, found, structure, link, only)
    return made


def _one(
    value: Any, found: Property, within: Structure, link: Callable[[str], str], only: _Places | None
) -> Any:
    if value is None:
        return None
    if not found.is_primitive:
        name = value["resourceType"] if found.type == "Resource" else found.type
        return _object(value, elements.structure(name), link, only=only)
    if (within.name, found.name) in (only or _REFERENCES):
        return link(value)
    if only:
        return value
    if found.type in _ADDRESSES:
        return link(value)
    if found.type == "xhtml":
        return _IN_NARRATIVE.sub(
            lambda one: f"{one['head']}{one['quote']}{link(one['to'])}{one['quote']}", value
        )
    return value


def _beside(value: Any, link: Callable[[str], str], only: _Places | None) -> Any:
    if isinstance(value, list):
        return [_beside(one, link, only) for one in value]
    if value is None:
        return None
    return _object(value, elements.structure("Element"), link, only=only)
