"""What the standard says of search, in plain Python over values at hand: the naive evaluator.

It knows nothing of SQL and of indexes: whatever it finds, the databases have to find as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exchange_storage import resource_criteria as asked
from exchange_storage.criteria import Criterion, Level
from exchange_storage.names import fold
from exchange_storage.resource_criteria import Asked, Native, Selected, Test
from exchange_storage.resource_index import (
    Date,
    Quantity,
    Reference,
    String,
    Token,
    Uri,
    Value,
)

TYPES: Mapping[str, type[Any]] = {
    "token": Token,
    "string": String,
    "reference": Reference,
    "date": Date,
    "quantity": Quantity,
    "number": Quantity,
    "uri": Uri,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A resource as the evaluator knows it."""

    kind: str
    logical_id: str
    values: Sequence[Value] = ()
    visible: bool = True
    changed: int = 0
    more: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class World:
    """All that there is, and what natively kept records are found by native criteria."""

    resources: Sequence[Known]
    native: Callable[[Level, Sequence[Criterion]], set[str]] = lambda *_: set()
    """Logical ids of the visible patient records or studies for which criteria hold."""

    def found(self, kind: str, criterion: Asked) -> list[Known]:
        """The visible resources of a type for which a criterion holds."""
        return [
            one
            for one in self.resources
            if one.kind == kind and one.visible and self.holds(criterion, one)
        ]

    def holds(self, criterion: Asked, one: Known) -> bool:
        """Whether it holds."""
        match criterion:
            case asked.Every(criteria):
                return all(self.holds(each, one) for each in criteria)
            case asked.Some(criteria):
                return any(self.holds(each, one) for each in criteria)
            case asked.Without(inner):
                return not self.holds(inner, one)
            case asked.Indexed():
                return bool(_passing(criterion, one))
            case asked.Together(components):
                positions = [
                    {value.position for value in _passing(each, one)} for each in components
                ]
                return bool(set.intersection(*positions))
            case asked.Leads(parameters, inner, names, _, _):
                kind, ids = self.selected(inner)
                called = self.called(inner, names)
                return any(
                    (value.target_kind == kind and value.target in ids)
                    or (value.target_kind == "" and value.target in called)
                    for value in one.values
                    if isinstance(value, Reference) and value.parameter in parameters
                )
            case asked.ReferredBy(kind, parameters, inner, names):
                own = _called(one, names)
                return kind == one.kind and any(
                    (value.target_kind == kind and value.target == one.logical_id)
                    or (value.target_kind == "" and value.target in own)
                    for other in self.found(inner.kind, inner.criterion)
                    for value in other.values
                    if isinstance(value, Reference) and value.parameter in parameters
                )
            case asked.Ids(ids):
                return one.logical_id in ids
            case asked.Natively(Native(level, criteria)):
                return one.logical_id in self.native(level, criteria)
        raise TypeError(criterion)

    def selected(self, inner: Selected | Native) -> tuple[str, set[str]]:
        """Type and logical ids of what is selected."""
        match inner:
            case Selected(kind, criterion):
                return kind, {one.logical_id for one in self.found(kind, criterion)}
            case Native(level, criteria):
                kind = "Patient" if level is Level.PATIENT else "ImagingStudy"
                return kind, self.native(level, criteria)

    def called(self, inner: Selected | Native, names: str) -> set[str]:
        """The URIs that what is selected has under `names`."""
        if not isinstance(inner, Selected):
            return set()
        found = self.found(inner.kind, inner.criterion)
        return {name for one in found for name in _called(one, names)}


def _called(one: Known, names: str) -> set[str]:
    return {
        value.value for value in one.values if isinstance(value, Uri) and value.parameter == names
    }


def _passing(criterion: asked.Indexed, one: Known) -> list[Value]:
    return [
        value
        for value in one.values
        if isinstance(value, TYPES[criterion.type])
        and value.parameter in criterion.parameters
        and any(passes(test, value) for test in criterion.tests)
    ]


def passes(test: Test, value: Any) -> bool:
    """Whether a value passes a test."""
    match test:
        case asked.TokenIs(code, system):
            return code in {None, value.code} and system in {None, value.system}
        case asked.StartsWith(text):
            told: bool = value.folded.startswith(fold(text))
            return told
        case asked.Holds(text):
            return fold(text) in value.folded
        case asked.IsExactly(text):
            return bool(value.exact == text)
        case asked.RefersTo(kind, targets):
            return value.target_kind == kind and (not targets or value.target in targets)
        case asked.RefersBelow(start):
            return value.target_kind == "" and bool(value.target.startswith(start))
        case asked.UriIs(values):
            return value.value in values
        case asked.UriBelow(start):
            below: bool = value.value.startswith(start)
            return below
        case asked.Present():
            return True
        case asked.Within():
            ends: tuple[tuple[float | None, float, Callable[[float, float], bool]], ...] = (
                (test.low_from, value.low, lambda a, b: a >= b),
                (test.low_before, value.low, lambda a, b: a < b),
                (test.low_to, value.low, lambda a, b: a <= b),
                (test.low_after, value.low, lambda a, b: a > b),
                (test.high_from, value.high, lambda a, b: a >= b),
                (test.high_after, value.high, lambda a, b: a > b),
                (test.high_by, value.high, lambda a, b: a <= b),
                (test.high_before, value.high, lambda a, b: a < b),
            )
            if test.code and test.code not in {value.code, value.unit}:
                return False
            if test.system is not None and test.system != value.system:
                return False
            return all(compare(at, end) for end, at, compare in ends if end is not None)
