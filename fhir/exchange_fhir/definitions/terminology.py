"""Small code systems and value sets of R4: which codes lie below which, and which are in a set.

The JSON beside this module is made by deploy/terminology_definitions.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import ValueSet


def systems() -> Sequence[str]:
    """The code systems whose levels are known."""
    return tuple(_told()["hierarchies"])


def above(system: str, code: str) -> frozenset[str]:
    """A code with all that lie above it. Raises KeyError for a system that is not known."""
    levels: Mapping[str, Sequence[str]] = _told()["hierarchies"][system]
    return _reached(code, levels)


def below(system: str, code: str) -> frozenset[str]:
    """A code with all that lie below it. Raises KeyError for a system that is not known."""
    return _reached(code, _downwards(system))


def value_set(url: str) -> ValueSet:
    """The codes of a value set by system. Raises KeyError for one that is not known."""
    held = _told()["valueSets"].get(url)
    if held is None:
        return elements.value_set(url)
    return {system: frozenset(codes) for system, codes in held.items()}


def _reached(code: str, steps: Mapping[str, Sequence[str]]) -> frozenset[str]:
    found, front = {code}, {code}
    while front:
        front = {one for at in front for one in steps.get(at, ())} - found
        found |= front
    return frozenset(found)


@cache
def _downwards(system: str) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for code, directly_above in _told()["hierarchies"][system].items():
        for one in directly_above:
            found[one].append(code)
    return dict(found)


@cache
def _told() -> Any:
    held = files("exchange_fhir.definitions").joinpath("terminology.json").read_bytes()
    return orjson.loads(held)
