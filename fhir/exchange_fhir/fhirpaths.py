"""The part of FHIRPath (2.0.0) by which a patch finds elements: not their values, but where they
stand.

    Patient.contact.where(relationship.coding.code = 'N' and name.exists()).telecom[0]

Names, `[n]`, `first()`, `last()`, `tail()`, `skip(n)`, `take(n)`, `single()`, `ofType(T)`,
`extension('url')` and `where(…)`. In a condition there are paths and `$this`, compared with texts,
numbers, `true` and `false` by `=` and `!=`; `exists()`, `exists().not()` and `empty()`; `and`, `or`
and parentheses. Whatever else there is in FHIRPath is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Property, Structure
from exchange_fhir.outcome import Problem

LOOKED_AT = 200_000
"""Elements that the paths of one patch lead through, at most."""
NESTED = 8
"""Conditions and parentheses within each other, at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """An element of a resource: where it stands in the JSON, and what its definition is."""

    holder: Json
    name: str
    index: int | None
    """Its number in a list; None where it is no list."""
    found: Property

    @property
    def value(self) -> Any:
        """What stands there."""
        held = self.holder[self.name]
        return held if self.index is None else held[self.index]

    @property
    def below(self) -> tuple[Json, Structure] | None:
        """The object that stands there, and of what type it is; None for a value."""
        value = self.value
        if not isinstance(value, dict):
            return None
        of_resource = self.found.type == "Resource"
        return value, elements.structure(value["resourceType"] if of_resource else self.found.type)


@dataclass(slots=True)
class Work:
    """How many elements a patch has looked at: a thousand paths through a long list take long."""

    looked_at: int = 0

    def done(self) -> None:
        """One more was looked at. Raises Problem where they are too many."""
        self.looked_at += 1
        if self.looked_at > LOOKED_AT:
            told = f"the paths of the patch lead through more than {LOOKED_AT} elements"
            raise Problem(422, "too-costly", told)


def unfit(told: str) -> Problem:
    """That a patch does not fit the resource."""
    return Problem(422, "processing", told)


def places(resource: Json, path: str, work: Work) -> list[Place]:
    """The places to which a path leads. Raises Problem."""
    kind = resource["resourceType"]
    steps = parsed(path)
    begins = [_Named(one) for one in (kind, "Resource", "DomainResource")]
    if len(steps) < 2 or steps[0] not in begins:
        raise unfit(f"the path begins with {kind}, and leads to an element of it")
    begun = list(_children(resource, elements.structure(kind), steps[1], work))
    return _followed(begun, steps[2:], work, strict=True)


def holder(resource: Json, path: str, work: Work) -> tuple[Json, Structure]:
    """The object to which a path leads. Raises Problem."""
    if len(parsed(path)) == 1:
        kind = resource["resourceType"]
        if path not in {kind, "Resource", "DomainResource"}:
            raise unfit(f"the path begins with {kind}")
        return resource, elements.structure(kind)
    found = places(resource, path, work)
    if len(found) != 1:
        raise unfit("the path of an addition does not lead to one element")
    return _below(found[0])


def _below(place: Place) -> tuple[Json, Structure]:
    if (below := place.below) is None:
        raise unfit("the path goes on behind a value")
    return below


# -- What is done by a path -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Named:
    """The elements of a name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the elements by their number."""

    start: int
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class _Single:
    """The one element that there is."""


@dataclass(frozen=True, slots=True)
class _OfType:
    """Those of a type."""

    type: str


@dataclass(frozen=True, slots=True)
class _Where:
    """Those that fulfil a condition."""

    holds: _Condition


_Step = _Named | _Part | _Single | _OfType | _Where
_Condition = Callable[[Place, Work], bool]


def _children(
    held: Json, structure: Structure, step: _Step, work: Work
) -> Iterator[Place]:  # of a whole resource, which is no place
    if not isinstance(step, _Named):
        raise unfit("the path begins with the resource, and an element of it")
    for found in structure.properties.values():
        if step.name in {found.element.stem, found.name} and found.name in held:
            value = held[found.name]
            many = range(len(value)) if isinstance(value, list) else (None,)
            for at in many:
                work.done()
                yield Place(held, found.name, at, found)


def _followed(
    found: list[Place], steps: Iterable[_Step], work: Work, *, strict: bool
) -> list[Place]:
    """Where steps lead from places; `strict` refuses to go on behind a value."""
    for step in steps:
        match step:
            case _Named():
                objects = [_below(one) if strict else one.below for one in found]
                found = [
                    child
                    for one in objects
                    if one is not None
                    for child in _children(*one, step, work)
                ]
            case _Part(start, stop):
                found = found[start:stop]
            case _Single():
                if len(found) > 1:
                    raise unfit("single() meets more than one element")
            case _OfType(kind):
                found = [one for one in found if one.found.type == kind]
            case _Where(holds):
                found = [one for one in found if holds(one, work)]
    return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """Whether there is exactly one value, and it is that one, or another."""

    steps: tuple[_Step, ...]
    wanted: str | bool | Decimal
    equal: bool

    def __call__(self, place: Place, work: Work) -> bool:
        work.done()
        found = _followed([place], self.steps, work, strict=False)
        if not found:
            return False
        same = len(found) == 1 and _same(found[0].value, self.wanted)
        return same == self.equal


@dataclass(frozen=True, slots=True)
class _There:
    """Whether there is something."""

    steps: tuple[_Step, ...]
    there: bool

    def __call__(self, place: Place, work: Work) -> bool:
        work.done()
        return bool(_followed([place], self.steps, work, strict=False)) == self.there


@dataclass(frozen=True, slots=True)
class _Together:
    """Whether all of some conditions hold, or any."""

    conditions: tuple[_Condition, ...]
    every: bool

    def __call__(self, place: Place, work: Work) -> bool:
        return (all if self.every else any)(one(place, work) for one in self.conditions)


def _same(value: Any, wanted: str | bool | Decimal) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(wanted, Decimal):
        return isinstance(value, int | float | Decimal) and Decimal(str(value)) == wanted
    return bool(value == wanted)


# -- How a path is read ---------------------------------------------------------------------------


_TOKEN = re.compile(
    r"\s*(?:(?P<word>\$?[A-Za-z][A-Za-z0-9]*)|'(?P<text>(?:[^'\\]|\\.)*)'"
    r"|(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,18})?)|(?P<sign>!=|[=.()\[\]]))\s*"
)
_ESCAPED = re.compile(r"\\(.)")


def _not_understood() -> Problem:
    told = (
        "of FHIRPath: names, [index], first(), last(), tail(), skip(n), take(n), single(), "
        "ofType(T), extension('url'), where(a = 'b' and c.exists())"
    )
    return Problem(400, "not-supported", f"a patch's path is not understood here; {told}")


@lru_cache(1024)
def parsed(path: str) -> tuple[_Step, ...]:
    """The steps of a path. Raises Problem."""
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(path):
        found = _TOKEN.match(path, at)
        if found is None or found.lastgroup is None:
            raise _not_understood()
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    reader = _Reader(tokens)
    steps = reader.path()
    reader.expect_end()
    return steps


class _Reader:
    """Reads the tokens of a path, one after another."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._tokens = [*tokens, ("end", "")]
        self._at = 0
        self._depth = 0

    def expect_end(self) -> None:
        """Raise Problem where there is more."""
        self._take("end")

    def path(self) -> tuple[_Step, ...]:
        """The steps up to what is none. Raises Problem."""
        steps = [self._first()]
        while self._is("sign", ".") or self._is("sign", "["):
            if self._take("sign") == "[":
                steps.append(_part(self._whole()))
                self._sign("]")
                continue
            name = self._take("word")
            if not self._is("sign", "("):
                steps.append(_Named(name))
                continue
            if name in {"exists", "empty"}:  # of a condition: it is asked of what was found
                self._at -= 2
                break
            self._sign("(")
            steps += self._function(name)
            self._sign(")")
        return tuple(steps)

    def _first(self) -> _Step:
        name = self._take("word")
        if self._is("sign", "(") or (name.startswith("$") and name != "$this"):
            raise _not_understood()
        return _Part(0) if name == "$this" else _Named(name)

    def _function(self, name: str) -> list[_Step]:
        match name:
            case "first":
                return [_Part(0, 1)]
            case "last":
                return [_Part(-1)]
            case "tail":
                return [_Part(1)]
            case "single":
                return [_Single()]
            case "skip":
                return [_Part(self._whole())]
            case "take":
                return [_Part(0, self._whole())]
            case "ofType":
                return [_OfType(self._take("word"))]
            case "extension":
                is_it = _Compared((_Named("url"),), self._text(), equal=True)
                return [_Named("extension"), _Where(is_it)]
            case "where":
                return [_Where(self._any())]
        raise _not_understood()

    def _any(self) -> _Condition:
        self._depth += 1
        if self._depth > NESTED:
            raise _not_understood()
        found = self._joined("or", lambda: self._joined("and", self._one, every=True), every=False)
        self._depth -= 1
        return found

    def _joined(self, word: str, read: Callable[[], _Condition], *, every: bool) -> _Condition:
        found = [read()]
        while self._is("word", word):
            self._take("word")
            found.append(read())
        return _Together(tuple(found), every) if len(found) > 1 else found[0]

    def _one(self) -> _Condition:
        if self._is("sign", "("):
            self._sign("(")
            found = self._any()
            self._sign(")")
            return found
        steps = self.path()
        if self._is("sign", "."):
            return self._existence(steps)
        equal = self._take("sign")
        if equal not in {"=", "!="}:
            raise _not_understood()
        return _Compared(steps, self._literal(), equal == "=")

    def _existence(self, steps: tuple[_Step, ...]) -> _Condition:
        there = self._called() == "exists"
        while self._is("sign", "."):
            if self._called() != "not":
                raise _not_understood()
            there = not there
        return _There(steps, there)

    def _called(self) -> str:
        self._sign(".")
        name = self._take("word")
        self._sign("(")
        self._sign(")")
        return name

    def _literal(self) -> str | bool | Decimal:
        if self._is("word", "true") or self._is("word", "false"):
            return self._take("word") == "true"
        if self._tokens[self._at][0] == "number":
            return Decimal(self._take("number"))
        return self._text()

    def _text(self) -> str:
        return _ESCAPED.sub(r"\1", self._take("text"))

    def _whole(self) -> int:
        number = self._take("number")
        if not number.isdecimal():
            raise _not_understood()
        return int(number)

    def _sign(self, sign: str) -> None:
        if self._take("sign") != sign:
            raise _not_understood()

    def _is(self, kind: str, value: str) -> bool:
        return self._tokens[self._at] == (kind, value)

    def _take(self, kind: str) -> str:
        found, value = self._tokens[self._at]
        if found != kind:
            raise _not_understood()
        self._at += 1
        return value


def _part(number: int) -> _Part:
    return _Part(number, number + 1)
