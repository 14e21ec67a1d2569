"""The search parameters of R4 (appendix A.3) and the patient compartment, as the standard has them.

The JSON beside this module is made by deploy/search_definitions.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Path:
    """What an expression selects: JSON properties, one below the other, and what is there."""

    properties: tuple[str, ...]
    datatype: str
    system: str = ""
    """The code system of a `code`, where its binding has only one."""
    target: str = ""
    """Only references to this resource type are meant (``resolve() is Patient``)."""
    contact: str = ""
    """Only contact points of this system are meant (``where(system='email')``)."""
    extension: str = ""
    """The value of extensions of this name is meant (``where(url='…').value``)."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component of a composite: a parameter's type, and paths from the composite's root."""

    parameter: str
    type: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParameter:
    """A search parameter of one resource type."""

    kind: str
    code: str
    type: str
    url: str
    description: str
    expression: str
    target: tuple[str, ...] = ()
    """The resource types that it refers to, of those that are served."""
    paths: tuple[Path, ...] = ()
    roots: tuple[tuple[str, ...], ...] = ()
    """Where the elements stand that the components of a composite have in common."""
    components: tuple[Component, ...] = ()
    kept_as: tuple[tuple[str, str], ...] = ()
    """The parameters, each with a target type or "", whose index rows answer this one: itself, or
    others that together select the same elements."""

    @property
    def name(self) -> str:
        """As index rows name it, ``Observation.code``."""
        return f"{self.kind}.{self.code}"

    @property
    def is_kept(self) -> bool:
        """Whether it has index rows of its own."""
        return self.kept_as == ((self.code, ""),)

    @property
    def is_canonical(self) -> bool:
        """Whether it refers by canonical URL, with a version or without, not by type and id."""
        return self.type == "reference" and any(one.datatype in _URIS for one in self.paths)

    @property
    def followed_by(self) -> tuple[str, ...]:
        """The names of the index rows by which its references are followed."""
        end = f":{CANONICAL}" if self.is_canonical else ""
        return tuple(f"{self.kind}.{code}{end}" for code, _ in self.kept_as)


CANONICAL = "canonical"
"""What the names of index rows for following canonical URLs end in."""

_URIS = frozenset({"canonical", "uri"})


@cache
def named_under(kind: str) -> str:
    """Under what the index keeps the canonical URLs of resources of a type; "" where no parameter
    refers to it by them."""
    url = of(kind).get("url") if kind in kinds() else None
    if url is None or url.type != "uri" or not any(kind in one.target for one in _canonical()):
        return ""
    return f"{kind}:{CANONICAL}"


@cache
def _canonical() -> tuple[SearchParameter, ...]:
    return tuple(one for kind in kinds() for one in of(kind).values() if one.is_canonical)


@cache
def of(kind: str) -> Mapping[str, SearchParameter]:
    """The search parameters of a resource type by code, those of every resource among them."""
    read = {code: _parameter(kind, code, told) for code, told in _told()[0].get(kind, {}).items()}
    return {code: _kept(one, read) for code, one in read.items()}


@cache
def kinds() -> tuple[str, ...]:
    """The resource types whose parameters are known."""
    return tuple(_told()[0])


@cache
def compartment(kind: str) -> tuple[str, ...]:
    """The parameters by which a resource is in a patient's compartment (CompartmentDefinition)."""
    return tuple(_told()[1].get(kind, ()))


@cache
def is_in_compartment(parameter: SearchParameter) -> bool:
    """Whether a patient whom its references lead to is one in whose compartment the resource is."""
    parameters = of(parameter.kind)
    paths = {
        (path.properties, path.extension)
        for code in compartment(parameter.kind)
        for path in parameters[code].paths
    }
    asked = {(path.properties, path.extension) for path in parameter.paths}
    return bool(asked) and asked <= paths


@cache
def _told() -> tuple[dict[str, Any], dict[str, Any]]:
    held = files("exchange_fhir.definitions").joinpath("search_parameters.json").read_bytes()
    told = orjson.loads(held)
    return told["parameters"], told["compartment"]


def _parameter(kind: str, code: str, told: Mapping[str, Any]) -> SearchParameter:
    return SearchParameter(
        kind=kind,
        code=code,
        type=told["type"],
        url=told["url"],
        description=told["description"],
        expression=told["expression"],
        target=tuple(told.get("target", ())),
        paths=tuple(_path(*one) for one in told.get("paths", ())),
        roots=tuple(_properties(one) for one in told.get("roots", ())),
        components=tuple(
            Component(one["parameter"], one["type"], tuple(_path(*path) for path in one["paths"]))
            for one in told.get("components", ())
        ),
    )


def _path(written: str, datatype: str, system: str) -> Path:
    path, _, extension = written.partition("#")
    path, _, target = path.partition("@")
    path, _, contact = path.partition("?")
    return Path(_properties(path), datatype, system, target, contact, extension)


def _properties(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")) if path else ()


def _kept(one: SearchParameter, others: Mapping[str, SearchParameter]) -> SearchParameter:
    """`one` with the parameters under whose rows it is found.

    ``patient`` is ``subject`` where that is a Patient, ``combo-code`` is ``code`` and
    ``component-code``: kept once, they halve the index of an Observation.
    """
    if not one.paths and not one.components:
        return one
    wanted = _selected(one)
    targets = {path.target for path in one.paths}
    target = targets.pop() if len(targets) == 1 else ""
    plain = frozenset(_plain(path) for path in one.paths) if target else frozenset()
    parts: list[tuple[str, str]] = []
    covered: set[object] = set()
    for other in others.values():
        if other.type != one.type or other.code == one.code:
            continue
        selects = _selected(other)
        if target and selects == plain:
            return replace(one, kept_as=((other.code, target),))
        if selects == wanted and other.code < one.code:
            return replace(one, kept_as=((other.code, ""),))
        if selects and selects < wanted and not selects & covered:
            parts.append((other.code, ""))
            covered |= selects
    return replace(one, kept_as=tuple(parts) if parts and covered == wanted else ((one.code, ""),))


def _plain(path: Path) -> object:
    return Path(path.properties, path.datatype, path.system)


def _selected(one: SearchParameter) -> frozenset[object]:
    if one.components:
        inner = tuple((part.type, part.paths) for part in one.components)
        return frozenset((root, inner) for root in one.roots)
    return frozenset(one.paths)
