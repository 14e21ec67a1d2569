"""Validation on write (FHIR R4 3.1.0.1, 3.2): a resource against the definitions of R4 4.0.1.

Every error is told, not only the first: structure, cardinality, datatypes, codes of required
bindings, the types of what references lead to, and invariants. What a profile adds is not
looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from exchange_fhir import invariants, narrative, primitives, profiled
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Element, Property, Structure
from exchange_fhir.outcome import Issue, Problem

ISSUES = 50
"""Errors that are told of one resource, at most."""

_UNREADABLE = frozenset({"structure", "value", "required"})
"""Issues for which a resource is no resource at all (400); the others break its rules (422)."""

_LITERAL = re.compile(
    r"(?:(?P<base>https?://\S+?)/)?(?P<kind>[A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}"
    r"(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#\S+)?",
    re.ASCII,
)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+", re.ASCII)
_CODED = frozenset({"Coding", "CodeableConcept", "Quantity"})


class _TooMany(Exception):
    """There are more errors than are told."""


def check(resource: Json, kind: str) -> None:
    """Raise Problem with every issue unless `resource` is a valid resource of type `kind`."""
    told = resource.get("resourceType")
    if told != kind:
        wrong = f"resourceType is to be {kind}, as the address says"
        raise Problem(400, "structure", wrong, issues=[Issue("structure", wrong, "resourceType")])
    if found := issues(resource):
        http = 400 if any(one.code in _UNREADABLE for one in found) else 422
        raise Problem(http, found[0].code, found[0].told, issues=found)


def issues(resource: Json) -> list[Issue]:
    """What is wrong with a resource, in the order of its elements; at most `ISSUES`."""
    walk = _Walk()
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or kind not in elements.resources():
        return [Issue("structure", "resourceType is not a resource type of R4", "resourceType")]
    try:
        walk.resource(resource, kind)
    except _TooMany:
        walk.found.append(Issue("too-costly", f"only the first {ISSUES} errors are told"))
    return walk.found


class _Walk:
    """Goes through one resource, and collects what is wrong."""

    def __init__(self) -> None:
        self.found: list[Issue] = []
        self._contained: frozenset[str] = frozenset()

    def _tell(self, code: str, told: str, path: str) -> None:
        if len(self.found) == ISSUES:
            raise _TooMany
        self.found.append(Issue(code, told, path))

    def resource(self, value: Any, path: str, *, inside: bool = False) -> None:
        """A resource: the root, one in a Bundle or Parameters, or a contained one."""
        kind = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in elements.resources():
            self._tell("structure", "a resource with a resourceType of R4 is expected here", path)
            return
        if inside:
            if "contained" in value:
                self._tell("invariant", "a contained resource contains no others (dom-2)", path)
            if not value.get("id"):
                self._tell("invariant", "a contained resource needs an id", path)
            meta = value.get("meta")
            if isinstance(meta, dict) and meta.keys() & {"versionId", "lastUpdated"}:
                told = "a contained resource has no versionId or lastUpdated (dom-4)"
                self._tell("invariant", told, f"{path}.meta")
            self._object(value, elements.structure(kind), path)
            return
        outer, self._contained = self._contained, frozenset(_contained(value))
        known = len(self.found)
        self._object(value, elements.structure(kind), path)
        if len(self.found) == known:  # else what is in it may not be what it is to be
            for at in _unused(value):
                told = "a contained resource is referred to, or refers to what contains it (dom-3)"
                self._tell("invariant", told, f"{path}.contained[{at}]")
            for told in profiled.missing(value):
                self._tell("business-rule", told, f"{path}.extension")
        self._contained = outer

    def _object(self, value: Json, structure: Structure, path: str) -> None:
        properties = structure.properties
        chosen: dict[str, str] = {}
        for name, inner in value.items():
            found = properties.get(name)
            if found is None:
                if name == "resourceType" and structure.is_resource:
                    continue
                found = properties.get(name[1:]) if name[:1] == "_" else None
                if found is None or not found.is_primitive:
                    self._tell(
                        "structure", f"{structure.name} has no such element", _at(path, name)
                    )
                    continue
                if name[1:] not in value:
                    self._property(None, inner, found, f"{path}.{found.element.stem}")
            else:
                beside = value.get(f"_{name}") if found.is_primitive else None
                self._property(inner, beside, found, f"{path}.{found.element.stem}")
            element = found.element
            if chosen.setdefault(element.name, found.name) != found.name:
                told = "only one of the types of a choice may be given"
                self._tell("structure", told, f"{path}.{element.stem}")
        for element in structure.elements:
            if element.least and element.name not in chosen:
                told = f"{structure.name} needs {element.stem}"
                self._tell("required", told, f"{path}.{element.stem}")
        for broken in invariants.broken(structure.name, value):
            self._tell("invariant", f"{broken.told} ({broken.key})", path)
        match structure.name:
            case "Extension":
                if ("extension" in chosen) == ("value[x]" in chosen):
                    told = "an extension has either a value or extensions (ext-1)"
                    self._tell("invariant", told, path)
            case "Reference":
                self._reference(value, path)

    def _property(self, value: Any, beside: Any, found: Property, path: str) -> None:
        """An element's values, and what stands beside them in the property with "_" before it."""
        if not found.element.is_list:
            if isinstance(value, list) or isinstance(beside, list):
                self._tell("structure", "one value is expected here, not a list", path)
            else:
                self._one(value, beside, found, path)
            return
        values = _listed(value)
        besides = _listed(beside)
        if values is None or besides is None:
            self._tell("structure", "a list is expected here", path)
            return
        count = max(len(values), len(besides))
        if not count:
            self._tell("structure", "a list is never empty: leave it out", path)
        if values and besides and len(values) != len(besides):
            self._tell("structure", "the lists of values and of extensions differ in length", path)
            return
        most = found.element.most
        if most is not None and count > most:
            self._tell("structure", f"at most {most} may stand here", path)
        for at in range(count):
            one = values[at] if values else None
            self._one(one, besides[at] if besides else None, found, f"{path}[{at}]")

    def _one(self, value: Any, beside: Any, found: Property, path: str) -> None:
        if found.is_primitive:
            self._primitive(value, beside, found, path)
        elif not isinstance(value, dict):
            self._tell("structure", "an object is expected here", path)
        elif not value:
            self._tell("structure", "an object is never empty: leave it out", path)
        elif found.type == "Resource":
            self.resource(value, path, inside=found.name == "contained")
        else:
            self._object(value, elements.structure(found.type), path)
            element = found.element
            if element.value_set and found.type in _CODED:
                self._coded(value, element, found.type, path)
            if element.targets and found.type == "Reference":
                self._target(value, element, path)

    def _primitive(self, value: Any, beside: Any, found: Property, path: str) -> None:
        if beside is not None:
            if not isinstance(beside, dict) or not beside:
                told = "id and extensions of a value stand in an object"
                self._tell("structure", told, path)
            else:
                self._object(beside, elements.structure("Element"), path)
        elif value is None:
            self._tell("structure", "null is no value", path)
        if value is None:
            return
        if wrong := primitives.problem(found.type, value):
            self._tell(*wrong, path)
        elif found.type == "xhtml":
            if told := narrative.problem(value):
                self._tell("invalid", told, path)
        elif (url := found.element.value_set) and value not in elements.codes(url):
            self._tell("code-invalid", f"this code is not in {url}", path)

    def _coded(self, value: Json, element: Element, kind: str, path: str) -> None:
        codings = value.get("coding", []) if kind == "CodeableConcept" else [value]
        if not isinstance(codings, list):
            return  # told already
        given = [one for one in codings if isinstance(one, dict) and "code" in one]
        if not all(isinstance(one["code"], str) for one in given):
            return  # told already
        codes = elements.value_set(element.value_set)
        if given and not any(_is_in(one, codes) for one in given):
            self._tell("code-invalid", f"this code is not in {element.value_set}", path)

    def _reference(self, value: Json, path: str) -> None:
        told = value.get("reference")
        if not isinstance(told, str):
            return
        if told.startswith("#"):
            if told != "#" and told[1:] not in self._contained:
                wrong = "this leads to no contained resource (ref-1)"
                self._tell("invariant", wrong, f"{path}.reference")
        elif not _ABSOLUTE.fullmatch(told):
            found = _LITERAL.fullmatch(told)
            asks = re.fullmatch(r"[A-Z][A-Za-z]+\?\S+", told)  # conditional, in a transaction
            kind = found["kind"] if found else told.partition("?")[0] if asks else ""
            if kind not in elements.resources():
                wrong = "a reference is written Type/id, an absolute address, urn:uuid: or #id"
                self._tell("value", wrong, f"{path}.reference")

    def _target(self, value: Json, element: Element, path: str) -> None:
        told = value.get("type")
        kind = told if isinstance(told, str) else ""
        literal = value.get("reference")
        if isinstance(literal, str) and (found := _LITERAL.fullmatch(literal)):
            if kind and kind != found["kind"]:
                self._tell("invariant", "type and reference disagree", path)
                return
            known = found["kind"] in elements.resources()
            kind = found["kind"] if known or not found["base"] else ""
        if kind and kind not in element.targets:
            wrong = f"a reference to {_safe(kind)} may not stand here"
            self._tell("invalid", wrong, path)


def references(value: Any) -> Iterator[Json]:
    """Every Reference in a resource: the objects that have a `reference`."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("reference"), str):
                yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _contained(resource: Json) -> Iterator[str]:
    held = resource.get("contained")
    for one in held if isinstance(held, list) else ():
        if isinstance(one, dict) and isinstance(one.get("id"), str):
            yield one["id"].removeprefix("#")


def _unused(resource: Json) -> Iterator[int]:
    """Which contained resources nothing leads to, and which lead to nothing outside (dom-3)."""
    held = resource.get("contained")
    if not isinstance(held, list) or not held:
        return
    named = frozenset(_fragments(resource))
    for at, one in enumerate(held):
        if not isinstance(one, dict) or not isinstance(told := one.get("id"), str):
            continue
        if f"#{told.removeprefix('#')}" not in named and "#" not in _fragments(one):
            yield at


def _fragments(value: Any) -> Iterator[str]:
    """The links to something within the resource."""
    if isinstance(value, str):
        if value.startswith("#"):
            yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _fragments(one)


def _listed(value: Any) -> list[Any] | None:
    return [] if value is None else value if isinstance(value, list) else None


def _is_in(coding: Json, codes: elements.ValueSet) -> bool:
    system, code = coding.get("system"), coding["code"]
    if system is None:
        return any(code in listed for listed in codes.values() if isinstance(code, str))
    return isinstance(system, str) and code in codes.get(system, frozenset())


def _at(path: str, name: str) -> str:
    """The path of a property that is not known: told only where it looks like an element."""
    return f"{path}.{name}" if re.fullmatch(r"_?[A-Za-z0-9]{1,64}", name, re.ASCII) else path


def _safe(kind: str) -> str:
    return kind if kind in elements.resources() else "another type"
