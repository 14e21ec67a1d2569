"""Patch (FHIR R4 3.1.0.9): JSON Patch (RFC 6902), FHIRPath Patch, and JSON Merge Patch (RFC 7396).

Of FHIRPath a patch needs the way to an element, see `fhirpaths`; other paths are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import jsonpatch
from jsonpointer import JsonPointer, JsonPointerException

from exchange_fhir import fhirpaths, json_format
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions.elements import Property, Structure
from exchange_fhir.fhirpaths import Place, Work, unfit
from exchange_fhir.outcome import Issue, Problem

MEDIA_TYPE = "application/json-patch+json"
MERGE = "application/merge-patch+json"
"""Not of R4's own: what several clients send, as plain JSON too."""

OPERATIONS = 1000
"""Operations of one patch, at most."""
VALUES = 200_000
"""Values of a resource that copies make, at most: each copy can double it."""
CHARACTERS = 16 << 20
"""Characters of its strings, likewise: no more could be kept."""
PATH = 1024
"""Characters of a FHIRPath, at most."""

Change = Callable[[Json], Json]
"""Makes the new resource of the old one. Raises Problem where it cannot be applied."""


def json_patch(content: bytes) -> Change:
    """The change that a JSON Patch asks for. Raises Problem."""
    try:
        # Decimals stay as they are written: the patch is parsed like a resource.
        patch = json_format.parse(b'{"patch":' + content.strip() + b"}")
        operations = patch["patch"] if len(patch) == 1 else None
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
            raise unfit("a test of the patch failed: the resource is not as it expects") from None
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, KeyError):
            raise unfit("the patch does not fit the resource: a path leads nowhere") from None
        if not isinstance(made, dict):
            raise unfit("the patch makes no resource of it")
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
        work = Work()
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
                raise unfit(f"the patch makes more than {VALUES} values, or too long ones")


# -- FHIRPath Patch -------------------------------------------------------------------------------


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

    def apply(self, resource: Json, work: Work) -> None:
        """Change the resource. Raises Problem."""
        if self.type == "add":
            held, structure = fhirpaths.holder(resource, self.path, work)
            found = _property(structure, self.name, self.value_type)
            if found.element.is_list:
                held.setdefault(found.name, []).append(deepcopy(self.value))
            elif found.name in held:
                raise unfit("what is to be added stands there already: replace it")
            else:
                held[found.name] = deepcopy(self.value)
            return
        places = fhirpaths.places(resource, self.path, work)
        match self.type:
            case "delete":
                if len(places) > 1:
                    raise unfit("the path of a deletion leads to more than one element")
                for place in places:
                    _remove(place)
            case "replace":
                if len(places) != 1:
                    raise unfit("the path of a replacement does not lead to one element")
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

    def _in_list(self, places: Sequence[Place]) -> None:
        lists = {(id(one.holder), one.name): one for one in places if one.index is not None}
        if len(lists) != 1:
            raise unfit("the path does not lead to one list")
        place = next(iter(lists.values()))
        held = place.holder[place.name]
        if f"_{place.name}" in place.holder:
            raise unfit("values with extensions of their own cannot be moved")
        if self.type == "insert":
            at = self.numbers["index"]
            if not 0 <= at <= len(held):
                raise unfit("the index is outside the list")
            held.insert(at, deepcopy(self.value))
            return
        source, destination = self.numbers["source"], self.numbers["destination"]
        if not (0 <= source < len(held) and 0 <= destination < len(held)):
            raise unfit("the index is outside the list")
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
    fhirpaths.parsed(path)
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


def _structure_of(place: Place) -> Structure:
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
        raise unfit("the element that is named is not one of those there")
    return found


def _remove(place: Place) -> None:
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
