"""Patch (FHIR R4 3.1.0.9): JSON Patch (RFC 6902), FHIRPath Patch, and JSON Merge Patch (RFC 7396).

Of FHIRPath a patch needs the way to an element: names, indices, `first()`, `last()`, `single()`
and `where(element = 'value')`; other paths are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import jsonpatch
from jsonpointer import JsonPointer, JsonPointerException

from exchange_fhir import json_format
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Property, Structure
from exchange_fhir.outcome import Issue, Problem

MEDIA_TYPE = "application/json-patch+json"
MERGE = "application/merge-patch+json"
"""Not of R4's own: what several clients send, as plain JSON too."""

OPERATIONS = 1000
"""Operations of one patch, at most."""
LOOKED_AT = 200_000
"""Elements that the paths of one FHIRPath Patch lead through, at most."""
VALUES = 200_000
"""Values of a resource that copies make, at most: each copy can double it."""
CHARACTERS = 16 << 20
"""Characters of its strings, likewise: no more could be kept."""
PATH = 1024
"""Characters of a FHIRPath, at most."""

Change = Callable[[Json], Json]
"""Makes the new resource of the old one. Raises Problem where it cannot be applied."""


def _unfit(told: str) -> Problem:
    return Problem(422, "processing", told)


def json_patch(content: bytes) -> Change:
    """The change that a JSON Patch asks for. Raises Problem."""
    try:
        # Decimals stay as they are written: the patch is parsed like a resource.
        operations = json_format.parse(b'{"patch":' + content + b"}")["patch"]
        if not isinstance(operations, list) or len(operations) > OPERATIONS:
            raise Problem(400, "structure", f"a patch is a list of at most {OPERATIONS} operations")
        patches = [jsonpatch.JsonPatch([one]) for one in operations]
    except (jsonpatch.InvalidJsonPatch, JsonPointerException, TypeError, AttributeError):
        raise Problem(400, "structure", "this is not a JSON Patch (RFC 6902)") from None

    def change(resource: Json) -> Json:
        try:
            made = deepcopy(resource)
            size = _Size()
            if any(operation["op"] == "copy" for operation in operations):
                size.add(made)
            for patch, operation in zip(patches, operations, strict=True):
                if operation["op"] == "copy":  # each can double what there is
                    size.add(JsonPointer(operation["from"]).resolve(made))
                made = patch.apply(made, in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            raise _unfit("a test of the patch failed: the resource is not as it expects") from None
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, KeyError):
            raise _unfit("the patch does not fit the resource: a path leads nowhere") from None
        if not isinstance(made, dict):
            raise _unfit("the patch makes no resource of it")
        return made

    return change


def merge_patch(told: Json) -> Change:
    """The change that a JSON Merge Patch asks for: elements replaced, and left out for null."""

    def merged(held: Any, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        kept = held if isinstance(held, dict) else {}
        made = {name: value for name, value in kept.items() if name not in given}
        for name, value in given.items():
            if value is not None:
                made[name] = merged(kept.get(name), value)
        return made

    def change(resource: Json) -> Json:
        made: Json = merged(resource, told)
        return made

    return change


def fhirpath_patch(parameters: Json) -> Change:
    """The change that a Parameters resource asks for, which was validated. Raises Problem."""
    given = parameters.get("parameter", ())
    if not given or len(given) > OPERATIONS:
        raise Problem(400, "structure", f"a patch has 1 to {OPERATIONS} parameters operation")
    operations = [_operation(one, at) for at, one in enumerate(given)]

    def change(resource: Json) -> Json:
        made = deepcopy(resource)
        work = _Work()
        for operation in operations:
            operation.apply(made, work)
        return made

    return change


@dataclass(slots=True)
class _Size:
    """How much a resource has come to hold."""

    values: int = 0
    characters: int = 0

    def add(self, told: Any) -> None:
        """Count a value with all below it. Raises Problem where it is too much."""
        waiting = [told]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.characters += len(one)
            elif isinstance(one, dict | list):
                waiting += one.values() if isinstance(one, dict) else one
                self.values += len(one)
            if self.values > VALUES or self.characters > CHARACTERS:
                raise _unfit(f"the patch makes more than {VALUES} values, or too long ones")


@dataclass(slots=True)
class _Work:
    """How many elements a patch has looked at: a thousand paths through a long list take long."""

    looked_at: int = 0

    def done(self) -> None:
        """One more was looked at. Raises Problem where they are too many."""
        self.looked_at += 1
        if self.looked_at > LOOKED_AT:
            told = f"the paths of the patch lead through more than {LOOKED_AT} elements"
            raise Problem(422, "too-costly", told)


# -- FHIRPath Patch -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """An element of a resource: where it stands in the JSON, and what its definition is."""

    holder: Json
    name: str
    index: int | None
    """Its number in a list; None where it is no list, or the whole list is meant."""
    found: Property

    @property
    def value(self) -> Any:
        """What stands there."""
        held = self.holder[self.name]
        return held if self.index is None else held[self.index]


@dataclass(frozen=True, slots=True)
class _Operation:
    """One operation of a FHIRPath Patch."""

    type: str
    path: str
    name: str
    value: Any
    value_type: str
    """The datatype of the value as the Parameters say it; "" where it is made of parts."""
    numbers: Mapping[str, int]

    def apply(self, resource: Json, work: _Work) -> None:
        """Change the resource. Raises Problem."""
        if self.type == "add":
            holder, structure = _holder(resource, self.path, work)
            found = _property(structure, self.name, self.value_type)
            if found.element.is_list:
                holder.setdefault(found.name, []).append(deepcopy(self.value))
            elif found.name in holder:
                raise _unfit("what is to be added stands there already: replace it")
            else:
                holder[found.name] = deepcopy(self.value)
            return
        places = _places(resource, self.path, work)
        match self.type:
            case "delete":
                if len(places) > 1:
                    raise _unfit("the path of a deletion leads to more than one element")
                for place in places:
                    _remove(place)
            case "replace":
                if len(places) != 1:
                    raise _unfit("the path of a replacement does not lead to one element")
                place = places[0]
                if self.value_type and place.found.element.name.endswith("[x]"):
                    named = place.found.element.stem
                    found = _property(_structure_of(place), named, self.value_type)
                    del place.holder[place.name]
                    place.holder[found.name] = deepcopy(self.value)
                elif place.index is None:
                    place.holder[place.name] = deepcopy(self.value)
                else:
                    place.holder[place.name][place.index] = deepcopy(self.value)
            case "insert" | "move":
                self._in_list(places)

    def _in_list(self, places: Sequence[_Place]) -> None:
        lists = {(id(one.holder), one.name): one for one in places if one.index is not None}
        if len(lists) != 1:
            raise _unfit("the path does not lead to one list")
        place = next(iter(lists.values()))
        held = place.holder[place.name]
        if f"_{place.name}" in place.holder:
            raise _unfit("values with extensions of their own cannot be moved")
        if self.type == "insert":
            at = self.numbers["index"]
            if not 0 <= at <= len(held):
                raise _unfit("the index is outside the list")
            held.insert(at, deepcopy(self.value))
            return
        source, destination = self.numbers["source"], self.numbers["destination"]
        if not (0 <= source < len(held) and 0 <= destination < len(held)):
            raise _unfit("the index is outside the list")
        held.insert(destination, held.pop(source))


_NEEDS: Mapping[str, frozenset[str]] = {
    "add": frozenset({"path", "name", "value"}),
    "insert": frozenset({"path", "value", "index"}),
    "delete": frozenset({"path"}),
    "replace": frozenset({"path", "value"}),
    "move": frozenset({"path", "source", "destination"}),
}
"""The parts that each type of operation has (R4 3.1.0.9.1)."""


def _operation(told: Json, at: int) -> _Operation:
    where = f"Parameters.parameter[{at}]"

    def refuse(wrong: str) -> Problem:
        return Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, where)])

    if told.get("name") != "operation":
        raise refuse("each parameter of a patch is named operation")
    parts: dict[str, Json] = {one["name"]: one for one in told.get("part", ())}
    kind = str(_given(parts.get("type", {}))[0])
    if kind not in _NEEDS:
        raise refuse(f"the type is one of {', '.join(_NEEDS)}")
    if parts.keys() - {"type"} != _NEEDS[kind]:
        raise refuse(f"{kind} has the parts {', '.join(sorted(_NEEDS[kind]))}")
    value, value_type = _given(parts.get("value", {}))
    if "value" in parts and value is None:
        value, value_type = _of_parts(parts["value"]), ""
    path, name = (_given(parts.get(one, {}))[0] for one in ("path", "name"))
    numbers = {
        one: _given(parts[one])[0] for one in ("index", "source", "destination") & parts.keys()
    }
    if not isinstance(path, str) or len(path) > PATH:
        raise refuse(f"path is a FHIRPath of at most {PATH} characters")
    if "name" in parts and not isinstance(name, str):
        raise refuse("name is a string")
    if not all(isinstance(one, int) for one in numbers.values()):
        raise refuse("index, source and destination are integers")
    _steps(path)
    return _Operation(kind, path, name or "", value, value_type, numbers)


def _given(part: Json) -> tuple[Any, str]:
    """The value of a parameter, and its datatype with a capital."""
    for name, value in part.items():
        if name.startswith("value"):
            return value, name.removeprefix("value")
    return part.get("resource"), ""


def _of_parts(part: Json) -> Json:
    """A value that is made of parts: backbone elements have no datatype of their own."""
    made: Json = {}
    for one in part.get("part", ()):
        value, _ = _given(one)
        value = _of_parts(one) if value is None else value
        if one["name"] in made:
            held = made[one["name"]]
            made[one["name"]] = [*(held if isinstance(held, list) else [held]), value]
        else:
            made[one["name"]] = value
    return made


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a path: an element, or what is kept of the places so far."""

    name: str = ""
    at: int | None = None
    """An index; -1 for the last."""
    field: str = ""
    wanted: str = ""
    """`where(field = 'wanted')`."""
    single: bool = False


_TOKEN = re.compile(
    r"\.?(?P<name>[A-Za-z][A-Za-z0-9]*)(?![A-Za-z0-9(])"
    r"|\[(?P<index>\d{1,6})\]"
    r"|\.(?P<function>first|last|single)\(\)"
    r"|\.where\(\s*(?P<field>[A-Za-z]+(?:\.[A-Za-z]+)*)\s*=\s*'(?P<wanted>(?:[^'\\]|\\.)*)'\s*\)"
)


def _steps(path: str) -> list[_Step]:
    """The steps of a path. Raises Problem."""
    steps: list[_Step] = []
    at = 0
    while at < len(path):
        found = _TOKEN.match(path, at)
        if found is None:
            told = "of FHIRPath: names, [index], first(), last(), single(), where(a = 'b')"
            raise Problem(400, "not-supported", f"a patch's path is not understood here; {told}")
        at = found.end()
        if found["name"]:
            steps.append(_Step(name=found["name"]))
        elif found["index"]:
            steps.append(_Step(at=int(found["index"])))
        elif found["function"]:
            number = {"first": 0, "last": -1}.get(found["function"])
            steps.append(_Step(at=number, single=found["function"] == "single"))
        else:
            steps.append(
                _Step(field=found["field"], wanted=re.sub(r"\\(.)", r"\1", found["wanted"]))
            )
    return steps


def _places(resource: Json, path: str, work: _Work) -> list[_Place]:
    """The places to which a path leads. Raises Problem."""
    steps = _steps(path)
    kind = resource["resourceType"]
    if not steps or steps[0].name not in {kind, "Resource", "DomainResource"} or len(steps) < 2:
        raise _unfit(f"the path begins with {kind}, and leads to an element of it")
    holders: list[tuple[Json, Structure]] = [(resource, elements.structure(kind))]
    places: list[_Place] = []
    for number, step in enumerate(steps[1:]):
        if step.name:
            if number:
                holders = [_below(place) for place in places]
            places = []
            for held in holders:
                for place in _named(*held, step.name):
                    work.done()
                    places.append(place)
        elif step.single:
            if len(places) > 1:
                raise _unfit("single() meets more than one element")
        elif step.at is not None:
            places = places[step.at :][:1]
        else:
            places = [
                one for one in places if _holds(one.value, step.field.split("."), step.wanted, work)
            ]
    return places


def _holder(resource: Json, path: str, work: _Work) -> tuple[Json, Structure]:
    """The object to which something is added."""
    if len(_steps(path)) == 1:
        kind = resource["resourceType"]
        if path not in {kind, "Resource", "DomainResource"}:
            raise _unfit(f"the path begins with {kind}")
        return resource, elements.structure(kind)
    places = _places(resource, path, work)
    if len(places) != 1:
        raise _unfit("the path of an addition does not lead to one element")
    return _below(places[0])


def _named(holder: Json, structure: Structure, name: str) -> Iterator[_Place]:
    for found in structure.properties.values():
        if name in {found.element.stem, found.name} and found.name in holder:
            held = holder[found.name]
            if isinstance(held, list):
                yield from (_Place(holder, found.name, at, found) for at in range(len(held)))
            else:
                yield _Place(holder, found.name, None, found)


def _below(place: _Place) -> tuple[Json, Structure]:
    if not isinstance(place.value, dict):
        raise _unfit("the path goes on behind a value")
    return place.value, _type(place)


def _type(place: _Place) -> Structure:
    if place.found.type == "Resource":
        return elements.structure(place.value["resourceType"])
    return elements.structure(place.found.type)


def _structure_of(place: _Place) -> Structure:
    """The structure of which a choice is an element: its types stand in its properties."""
    element = place.found.element
    found = {
        element.stem + kind[0].upper() + kind[1:]: Property(
            element.stem + kind[0].upper() + kind[1:], element, kind
        )
        for kind in element.types
    }
    return Structure("", (element,), found, is_resource=False)


def _property(structure: Structure, name: str, value_type: str) -> Property:
    choice = f"{name}{value_type}"
    found = structure.properties.get(name) or structure.properties.get(choice)
    if found is None:
        raise _unfit("the element that is named is not one of those there")
    return found


def _holds(value: Any, way: Sequence[str], wanted: str, work: _Work) -> bool:
    work.done()
    if not way:
        return bool(value == wanted)
    if isinstance(value, list):
        return any(_holds(one, way, wanted, work) for one in value)
    below = value.get(way[0]) if isinstance(value, dict) else None
    return below is not None and _holds(below, way[1:], wanted, work)


def _remove(place: _Place) -> None:
    beside = place.holder.get(f"_{place.name}")
    if place.index is None:
        del place.holder[place.name]
        place.holder.pop(f"_{place.name}", None)
        return
    for name, held in ((place.name, place.holder[place.name]), (f"_{place.name}", beside)):
        if held is not None:
            del held[place.index]
            if not any(one is not None for one in held):
                del place.holder[name]
