"""The elements of R4's datatypes and resources (StructureDefinition), as the standard has them.

The JSON beside this module is made by deploy/element_definitions.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

ValueSet = Mapping[str, frozenset[str]]
"""The codes of a value set, by system."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element as its definition has it; of a choice all types are told."""

    name: str
    """With ``[x]`` where it is a choice."""
    types: tuple[str, ...]
    least: int = 0
    most: int | None = 1
    """None where any number may stand."""
    in_summary: bool = False
    targets: frozenset[str] = frozenset()
    """The resource types that a reference may lead to; empty for any."""
    value_set: str = ""
    """The value set of a required binding, where its codes are listed."""

    @property
    def stem(self) -> str:
        """Its name without ``[x]``: as FHIRPath calls it."""
        return self.name.removesuffix("[x]")

    @property
    def is_list(self) -> bool:
        """Whether it is an array in JSON."""
        return self.most != 1


@dataclass(frozen=True, slots=True)
class Property:
    """An element as JSON has it: of a choice, one for each type."""

    name: str
    element: Element
    type: str

    @property
    def is_primitive(self) -> bool:
        """Whether its value is a JSON string, number or boolean."""
        return self.type[0].islower()


@dataclass(frozen=True, slots=True)
class Structure:
    """A datatype, resource type or backbone element."""

    name: str
    elements: tuple[Element, ...]
    properties: Mapping[str, Property]
    """By their names in JSON, in the order of the definition, which is XML's."""
    is_resource: bool


@cache
def structure(name: str) -> Structure:
    """The structure of this name, such as ``Observation.component``. Raises KeyError."""
    elements = tuple(_element(told) for told in _told()["types"][name])
    properties: dict[str, Property] = {}
    for element in elements:
        for kind in element.types:
            choice = element.name.endswith("[x]")
            key = element.stem + kind[0].upper() + kind[1:] if choice else element.name
            properties[key] = Property(key, element, kind)
    return Structure(name, elements, properties, name in resources())


@cache
def resources() -> frozenset[str]:
    """The names of all resource types of R4."""
    return frozenset(_told()["resources"])


@cache
def value_set(url: str) -> ValueSet:
    """The codes of a value set that has a required binding. Raises KeyError."""
    return {system: frozenset(codes) for system, codes in _told()["valueSets"][url].items()}


@cache
def codes(url: str) -> frozenset[str]:
    """The codes of a value set, whatever their systems."""
    return frozenset(code for listed in value_set(url).values() for code in listed)


@cache
def _told() -> Any:
    held = files("exchange_fhir.definitions").joinpath("elements.json").read_bytes()
    return orjson.loads(held)


def _element(told: Mapping[str, Any]) -> Element:
    most = told.get("max", "1")
    return Element(
        name=told["name"],
        types=tuple(told["types"]),
        least=told.get("min", 0),
        most=None if most == "*" else int(most),
        in_summary=told.get("summary", False),
        targets=frozenset(told.get("targets", ())),
        value_set=told.get("binding", ""),
    )
