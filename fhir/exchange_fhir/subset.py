"""Parts of resources: `_summary` and `_elements` (FHIR R4 3.1.1.5.8, 3.1.1.5.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Element, Structure

SUBSETTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "subsetted",
}
"""The tag of a resource of which something was left out."""

_ALWAYS = frozenset({"id", "meta", "implicitRules", "modifierExtension"})
"""What a reader needs in order to know which resource it is, and how to read it."""


class Summary(StrEnum):
    """The values of `_summary`."""

    TRUE = "true"
    TEXT = "text"
    DATA = "data"
    COUNT = "count"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of each resource is asked for."""

    summary: Summary = Summary.FALSE
    elements: frozenset[str] = frozenset()
    """Names of elements, or ``Patient.name`` for one resource type only; empty for all.

    Of a part of one, as ``component.code``, the whole element is told; ``valueQuantity`` is value.
    """

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.elements and self.summary is Summary.FALSE


WHOLE = Wanted()
"""Nothing left out."""


def part(resource: Json, wanted: Wanted) -> Json:
    """The part of a resource that is wanted, tagged if anything was left out.

    Of a Bundle the resources in its entries, not the Bundle.
    """
    kind = resource["resourceType"]
    if wanted.everything or kind in {"OperationOutcome", "Parameters"}:
        return resource
    if wanted.summary is Summary.COUNT:
        return _counted(resource)
    if kind == "Bundle":
        entries = [
            one | {"resource": part(one["resource"], wanted)} if "resource" in one else one
            for one in resource.get("entry", ())
        ]
        return resource | ({"entry": entries} if entries else {})
    structure = elements.structure(kind)
    if wanted.elements:
        named = {_stem(one, kind, structure) for one in wanted.elements}
        made = _kept(resource, structure, lambda one: bool(one.least or one.stem in named))
    else:
        match wanted.summary:
            case Summary.TRUE:
                made = _summary(resource, structure)
            case Summary.TEXT:
                made = _kept(resource, structure, lambda one: bool(one.least or one.stem == "text"))
            case Summary.DATA:
                made = _kept(resource, structure, lambda one: one.stem != "text")
    return resource if made == resource else _tagged(made)


def _stem(named: str, kind: str, structure: Structure) -> str:
    """The element that is named, as its definition calls it."""
    own = named.removeprefix(f"{kind}.").partition(".")[0]
    found = structure.properties.get(own)
    return found.element.stem if found is not None else own


def _counted(told: Json) -> Json:
    """A Bundle that says how many there are; anything else as it is."""
    if "total" not in told:
        return told
    warnings = [one for one in told.get("entry", ()) if "outcome" in one.get("search", {}).values()]
    links = [one for one in told.get("link", ()) if one["relation"] == "self"]
    made = {name: value for name, value in told.items() if name != "entry"}
    return made | {"link": links} | ({"entry": warnings} if warnings else {})


def is_part(resource: Json) -> bool:
    """Whether a resource is tagged as a part of one."""
    tags = resource.get("meta", {}).get("tag", ())
    return any(one.get("code") == SUBSETTED["code"] for one in tags)


def _kept(told: Json, structure: Structure, keep: Callable[[Element], bool]) -> Json:
    def stays(name: str) -> bool:
        found = structure.properties.get(name) or structure.properties.get(name[1:])
        if found is None:
            return True  # resourceType
        return found.element.stem in _ALWAYS or keep(found.element)

    return {name: value for name, value in told.items() if stays(name)}


def _summary(told: Json, structure: Structure) -> Json:
    kept = _kept(told, structure, lambda one: bool(one.in_summary or one.least))

    def inner(name: str, value: Any) -> Any:
        found = structure.properties.get(name)
        if found is None or "." not in found.type:
            return value  # datatypes stay whole: what refers to their parts is in them
        below = elements.structure(found.type)
        if isinstance(value, list):
            return [shown for one in value if (shown := _summary(one, below))]
        return _summary(value, below)

    told = {name: inner(name, value) for name, value in kept.items()}
    return {name: value for name, value in told.items() if value not in ({}, [])}  # ele-1


def _tagged(told: Json) -> Json:
    meta = told.get("meta", {})
    tagged = meta | {"tag": [*meta.get("tag", ()), SUBSETTED]}
    if "meta" in told:
        return told | {"meta": tagged}
    head = {name: told[name] for name in ("resourceType", "id") if name in told}
    return head | {"meta": tagged} | told
