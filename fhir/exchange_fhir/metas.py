"""What $meta, $meta-add and $meta-delete tell and change of a resource's meta (FHIR R4 3.1.0)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exchange_fhir import json_format, validation
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json, present
from exchange_fhir.outcome import Problem
from exchange_fhir.patching import Change

_LISTS: Mapping[str, Callable[[Any], Any]] = {
    "profile": lambda one: one,
    "tag": lambda one: (one.get("system"), one.get("code")),
    "security": lambda one: (one.get("system"), one.get("code")),
}
"""The parts of Meta that are added and taken away, and what makes two of them the same."""


def change(operation: str, parameters: Json) -> Change:
    """What an operation of `CHANGING` makes of a resource. Raises Problem."""
    validation.check(parameters, "Parameters")
    listed: list[Json] = parameters.get("parameter", [])
    given: Json = next((one for one in listed if one["name"] == "meta"), {})
    if "valueMeta" not in given:
        raise Problem(400, "required", "a parameter meta is expected, with a valueMeta")
    how = CHANGING[operation]
    return lambda resource: {**resource, "meta": how(resource.get("meta", {}), given["valueMeta"])}


def answer(content: bytes) -> Answered:
    """The answer that tells the meta of a resource, as JSON."""
    return told(json_format.parse(content).get("meta", {}))


def told(meta: Json) -> Answered:
    """The answer that tells a meta."""
    made = {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]}
    return Answered(status=200, content=json_format.serialize(made))


def _added(held: Json, given: Json) -> Json:
    made = dict(held)
    for name, same in _LISTS.items():
        listed = list(held.get(name, ()))
        known = {same(one) for one in listed}
        listed += [one for one in given.get(name, ()) if same(one) not in known]
        made |= present(**{name: listed})
    return made


def _taken_away(held: Json, given: Json) -> Json:
    made = dict(held)
    for name, same in _LISTS.items():
        gone = {same(one) for one in given.get(name, ())}
        listed = [one for one in held.get(name, ()) if same(one) not in gone]
        made.pop(name, None)
        made |= present(**{name: listed})
    return made


CHANGING: Mapping[str, Callable[[Json, Json], Json]] = {
    "$meta-add": _added,
    "$meta-delete": _taken_away,
}
"""The operations that change a meta, and what they make of it with the one that is given."""
