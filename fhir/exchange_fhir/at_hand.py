"""Criteria held against values at hand, as the databases decide them: for what is in no index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from exchange_storage.names import fold
from exchange_storage.resource_criteria import (
    Asked,
    Changed,
    Every,
    Holds,
    Ids,
    Indexed,
    IsExactly,
    Present,
    RefersBelow,
    RefersTo,
    Some,
    StartsWith,
    Test,
    Together,
    TokenIs,
    UriBelow,
    UriIs,
    Within,
    Without,
)
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri, Value

_TYPES: dict[str, type[Any]] = {
    "token": Token,
    "string": String,
    "reference": Reference,
    "date": Date,
    "quantity": Quantity,
    "number": Quantity,
    "uri": Uri,
}


def holds(
    criterion: Asked, identity: str, changed: datetime, values: Callable[[], Sequence[Value]]
) -> bool:
    """Whether a criterion holds for a resource: its logical id, when it changed, its values.

    Chains and `_has` lead nowhere from here.
    """
    match criterion:
        case Every(criteria):
            return all(holds(one, identity, changed, values) for one in criteria)
        case Some(criteria):
            return any(holds(one, identity, changed, values) for one in criteria)
        case Without(inner):
            return not holds(inner, identity, changed, values)
        case Ids(ids):
            return identity in ids
        case Changed(since, before):
            return (since is None or changed >= since) and (before is None or changed < before)
        case Indexed():
            return bool(_passing(criterion, values()))
        case Together(components):
            held = values()
            positions = [{one.position for one in _passing(each, held)} for each in components]
            return bool(set.intersection(*positions))
    return False


def _passing(criterion: Indexed, held: Sequence[Value]) -> list[Value]:
    kind = _TYPES[criterion.type]
    return [
        one
        for one in held
        if isinstance(one, kind)
        and one.parameter in criterion.parameters
        and any(passes(test, one) for test in criterion.tests)
    ]


def passes(test: Test, value: Any) -> bool:
    """Whether a value at hand passes a test, as the databases decide it."""
    match test:
        case TokenIs(code, system):
            return code in {None, value.code} and system in {None, value.system}
        case StartsWith(text):
            return bool(value.folded.startswith(fold(text)))
        case Holds(text):
            return fold(text) in value.folded
        case IsExactly(text):
            return bool(value.exact == text)
        case RefersTo(kind, targets):
            return value.target_kind == kind and (not targets or value.target in targets)
        case RefersBelow(start):
            return value.target_kind == "" and bool(value.target.startswith(start))
        case UriIs(listed):
            return value.value in listed
        case UriBelow(start):
            return bool(value.value.startswith(start))
        case Present():
            return True
        case Within():
            return _within(test, value)


def _within(test: Within, value: Any) -> bool:
    if test.code and test.code not in {value.code, value.unit}:
        return False
    if test.system is not None and test.system != value.system:
        return False
    low, high = value.low, value.high
    return all(
        (
            test.low_from is None or low >= test.low_from,
            test.low_before is None or low < test.low_before,
            test.low_to is None or low <= test.low_to,
            test.low_after is None or low > test.low_after,
            test.high_from is None or high >= test.high_from,
            test.high_after is None or high > test.high_after,
            test.high_by is None or high <= test.high_by,
            test.high_before is None or high < test.high_before,
        )
    )
