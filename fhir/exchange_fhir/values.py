"""The values of one parameter to tests of index rows: prefixes, modifiers, references, composites.

What a parameter is and where its values are kept is said by the standard's own definitions (FHIR R4
3.1.1.4); `asking` reads whole questions, chains and `_has` among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from exchange import clinical_search, related, trail
from exchange.errors import Invalid, TooBroad
from exchange_fhir import (
    elements,
    moments,
    prefixes,
    quantities,
    special,
    tokens,
)
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import SearchParameter
from exchange_fhir.outcome import Problem
from exchange_fhir.resources import patient
from exchange_fhir.search import MAX_LENGTH, MAX_VALUES, Scope, split, unescaped
from exchange_storage.resource_criteria import (
    Asked,
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
    Without,
)

PARTS: Mapping[str, str] = {
    "Encounter": "part-of",
    "Location": "partof",
    "Organization": "partof",
    "Procedure": "part-of",
    "Task": "part-of",
}
"""What has parts of its own type, and by which parameter (``:above``, ``:below``)."""

MAX_LEVELS = 10
"""Levels of such parts that are followed."""

MAX_TARGETS = 500
"""Hospitals' own entries of the directory that one condition may lead to."""

NOTHING: Asked = Some(())
ANYTHING: Asked = Every(())

_ALWAYS_THERE = frozenset({"_id", "_lastUpdated"})
"""What every resource has."""

MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"missing", "not", "text", "in", "not-in", "of-type", "above", "below"}),
    "string": frozenset({"missing", "exact", "contains"}),
    "reference": frozenset({"missing", "identifier", "above", "below"}),
    "uri": frozenset({"missing", "below", "above"}),
    "date": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
}


@dataclass(slots=True)
class ParameterValues:
    """The values of one question, as they are read: how many there may be is limited."""

    scope: Scope
    values: int = 0

    def indexed(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        """What a parameter asks of the index rows. Raises Invalid, TooBroad, Problem."""
        name = parameter.code
        if name in _ALWAYS_THERE and modifier == "missing":
            return NOTHING if boolean(name, value) else ANYTHING
        if name == "_id":
            return self._turned(modifier, Ids(tuple(self._split(name, value))), name)
        if name == "_lastUpdated":
            spans = self._read(name, value, lambda one: prefixes.changed(*self._span(one)))
            return self._turned(modifier, Some(tuple(spans)), name)
        if parameter.type == "composite":
            if modifier:
                raise _unknown(parameter, modifier)
            return self._composite(parameter, value)
        if parameter.type == "reference" and modifier in parameter.target:
            return self._references(parameter, modifier, value)
        if modifier and modifier not in MODIFIERS.get(parameter.type, ()):
            raise _unknown(parameter, modifier)
        if own := special.SPECIAL.get(parameter.name):
            found = self._read(name, value, lambda one: own.asked(self.scope, one))
            return Some(tuple(found))
        match modifier:
            case "missing":
                return missing_value(parameter, boolean(name, value))
            case "not":
                return Without(self._positive(parameter, "", value))
            case "not-in":
                return Without(self._positive(parameter, "in", value))
        return self._positive(parameter, modifier, value)

    def _positive(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        names = kept_under(parameter)
        if parameter.type == "reference":
            if modifier == "identifier":
                told = self._read(parameter.code, value, tokens.token)
                return Indexed("token", _beside(names, "identifier"), tuple(told))
            if modifier and parameter.is_canonical:
                return self._versions(parameter, modifier, value)
            if modifier:
                return self._levels(parameter, modifier, value)
            return self._references(parameter, "", value)
        match modifier:
            case "text":
                texts = [StartsWith(unescaped(one)) for one in self._split(parameter.code, value)]
                return Indexed("string", _beside(names, "text"), tuple(texts))
            case "of-type":
                typed = self._read(parameter.code, value, tokens.of_type)
                return Indexed("token", _beside(names, "of-type"), tuple(typed))
            case "in":
                return Indexed("token", names, tokens.value_set(value))
            case "above" | "below" if parameter.type == "token":
                told = self._read(parameter.code, value, tokens.token)
                tests = [one for token in told for one in tokens.subsumed(token, modifier)]
                return Indexed("token", names, tuple(tests)) if tests else NOTHING
        if parameter.type in {"quantity", "number"}:
            amounts = self._read(parameter.code, value, quantities.amount)
            return quantities.asked(names, amounts) if amounts else NOTHING
        tests = []
        for found in self._read(
            parameter.code,
            value,
            lambda one: self._tests(parameter.type, parameter, modifier, one),
        ):
            tests += found
        return Indexed(parameter.type, names, tuple(tests)) if tests else NOTHING

    def _tests(
        self, type_: str, parameter: SearchParameter | None, modifier: str, value: str
    ) -> list[Test]:
        """The tests, each of which will do, that one value stands for."""
        match type_:
            case "token":
                asked = tokens.token(value)
                implicit = parameter is not None and any(path.system for path in parameter.paths)
                return [TokenIs(asked.code)] if implicit and asked.system == "" else [asked]
            case "string":
                text = unescaped(value)
                match modifier:
                    case "exact":
                        return [IsExactly(text)]
                    case "contains":
                        return [Holds(text)]
                return [StartsWith(text)]
            case "date":
                return prefixes.in_time(*self._span(value))
            case "uri":
                return [tokens.uri(unescaped(value), modifier)]
        raise Invalid("a value of this type cannot be asked for here")

    def _span(self, value: str) -> tuple[str, int, int]:
        """Prefix, and first and last moment of a date; of ``ap`` widened (R4 3.1.1.4.2)."""
        # An offset's "+" that nobody escaped arrives as a space.
        match = prefixes.PREFIXED.fullmatch(unescaped(value).replace(" ", "+"))
        span = moments.span(match[2], self.scope.timezone) if match else None
        if match is None or span is None:
            raise Invalid("a date is written [prefix]YYYY[-MM[-DD[Thh:mm[:ss[.fff]][zone]]]]")
        low, high = span
        if match[1] == "ap":
            around = abs(moments.since_epoch(self.scope.access.now) - low) // 10
            return "ap", low - around, high + around
        return match[1] or "eq", low, high

    def _references(self, parameter: SearchParameter, kind: str, value: str) -> Asked:
        """References to what is named; a Patient means all records of that person."""
        wanted = kind or next((target for _, target in parameter.kept_as if target), "")
        tests: list[Test] = []
        for one in self._split(parameter.code, value):
            told = unescaped(one)
            found, identity = elements.target(told, f"{self.scope.base}/")
            bare = not found and re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", told, re.ASCII)
            if found and "|" in identity:  # a version of what has its canonical URL here
                tests.append(RefersTo("", (told,)))
                continue
            if found:
                kinds: Sequence[str] = [found] if wanted in {"", found} else []
            elif bare:
                kinds, identity = [wanted] if wanted else parameter.target, told
            else:
                tests.append(RefersTo("", (identity,)))
                continue
            for target in kinds:
                ids = self._persons(parameter, identity) if target == "Patient" else (identity,)
                if ids:
                    tests.append(RefersTo(target, ids))
        return Indexed("reference", kept_under(parameter), tuple(tests)) if tests else NOTHING

    def _versions(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        """Canonical references to a version, or to one that is a part of it (R4 3.1.1.4.12): 1.2
        and 1.2.3 for 1.2; without a version as without the modifier."""
        if modifier == "above":
            raise _unknown(parameter, modifier)
        wanted = [unescaped(one) for one in self._split(parameter.code, value)]
        tests = [RefersBelow(f"{one}.") for one in wanted if "|" in one]
        exactly = self._references(parameter, "", value)
        below = Indexed("reference", kept_under(parameter), tuple(tests))
        return Some((exactly, below)) if tests else exactly

    def _levels(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        """References to what is named, and to all that is part of it, or of which it is part."""
        tests: list[Test] = []
        for one in self._split(parameter.code, value):
            kind, identity = elements.target(unescaped(one), f"{self.scope.base}/")
            kinds = [part for part in PARTS if part in parameter.target and kind in {"", part}]
            if len(kinds) != 1:
                told = f"{parameter.code}:{modifier} is asked for one of {', '.join(PARTS)}"
                raise Invalid(f"{told}, written with its type")
            identity = identity if kind else unescaped(one)
            tests.append(RefersTo(kinds[0], self._within(kinds[0], identity, modifier)))
        return Indexed("reference", kept_under(parameter), tuple(tests)) if tests else NOTHING

    def _within(self, kind: str, identity: str, modifier: str) -> tuple[str, ...]:
        """A resource with all that is part of it, or of which it is part, as far as visible."""
        access = self.scope.access
        names = kept_under(search_parameters.of(kind)[PARTS[kind]])
        found, front = {identity}, [identity]
        for _ in range(MAX_LEVELS):
            if not front:
                break
            if modifier == "below":
                hits = clinical_search.referring(
                    access, kind, names, kind, front, limit=MAX_TARGETS + 1
                )
                reached = {one.logical_id for one in hits}
            else:
                held = clinical_search.named(access, kind, front, limit=MAX_TARGETS + 1)
                rows = [one.row for one in held]
                led = clinical_search.referred(access, rows, names) if rows else ()
                reached = {target for _, target_kind, target in led if target_kind == kind}
            front = sorted(reached - found)
            found |= reached
            if len(found) > MAX_TARGETS:
                raise TooBroad("too many are part of it: ask for fewer of them")
        return tuple(sorted(found))

    def _persons(self, parameter: SearchParameter, identity: str) -> tuple[str, ...]:
        rows = patient.rows(identity)
        same = trail.same_patient if parameter.kind == "AuditEvent" else related.same_person
        return tuple(str(row) for one in rows for row in same(self.scope.access, one))

    def _composite(self, parameter: SearchParameter, value: str) -> Asked:
        wanted: list[Asked] = []
        for one in self._split(parameter.code, value):
            parts = split(one, "$")
            if len(parts) != len(parameter.components):
                count = len(parameter.components)
                raise Invalid(f"{parameter.code}: a composite has {count} parts, with $ between")
            tests = [
                self._component(component.type, part)
                for component, part in zip(parameter.components, parts, strict=True)
            ]
            for code, _ in parameter.kept_as:
                names = [f"{parameter.kind}.{code}${number}" for number in range(len(tests))]
                for together in product(*tests):
                    components = zip(parameter.components, names, together, strict=True)
                    wanted.append(
                        Together(
                            tuple(
                                Indexed(component.type, (name + end,), tuple(test))
                                for component, name, (end, test) in components
                            )
                        )
                    )
        return wanted[0] if len(wanted) == 1 else Some(tuple(wanted))

    def _component(self, type_: str, value: str) -> list[tuple[str, list[Test]]]:
        """The tests of a component, under what its name ends in: one of several will do."""
        if type_ in {"quantity", "number"}:
            return quantities.alternatives([quantities.amount(value)])
        if type_ != "reference":
            return [("", self._tests(type_, None, "", value))]
        kind, identity = elements.target(unescaped(value), f"{self.scope.base}/")
        return [("", [RefersTo(kind, (identity,))])]

    def _turned(self, modifier: str, criterion: Asked, name: str) -> Asked:
        match modifier:
            case "":
                return criterion
            case "not" if name == "_id":
                return Without(criterion)
        raise Invalid(f"the modifier :{modifier[:64]} is not supported for {name}")

    # -- Values -----------------------------------------------------------------------------------

    def _split(self, name: str, value: str) -> list[str]:
        """The alternatives of a value, each once, still escaped."""
        found = [one for one in dict.fromkeys(split(value, ",")) if one]
        self.count(len(found))
        if any(len(one) > MAX_LENGTH for one in found):
            raise Invalid(f"a value of {name} has at most {MAX_LENGTH} characters")
        return found

    def count(self, values: int) -> None:
        """Count values that are asked for. Raises TooBroad where there are too many."""
        self.values += values
        if self.values > MAX_VALUES:
            raise TooBroad(f"a search asks for at most {MAX_VALUES} values; ask in several")

    def _read(self, name: str, value: str, read: Callable[[str], Any]) -> list[Any]:
        try:
            return [read(one) for one in self._split(name, value)]
        except Invalid as error:
            raise Invalid(f"{name}: {error}") from error


def _unknown(parameter: SearchParameter, modifier: str) -> Invalid:
    """That a parameter has no such modifier, and which it has (R4 3.1.1.4.5)."""
    known = {*MODIFIERS.get(parameter.type, ()), *parameter.target}
    if parameter.is_canonical:
        known -= {"above"}
    there = ", ".join(f":{one}" for one in sorted(known)) or "none"
    told = f"the modifier :{modifier[:64]} is not supported for {parameter.code}"
    return Invalid(f"{told}, of the type {parameter.type}: there are {there}")


def kept_under(parameter: SearchParameter) -> tuple[str, ...]:
    """The parameters under which the index keeps its values. Raises Problem where it keeps none."""
    if not parameter.kept_as:
        raise Problem(400, "not-supported", f"{parameter.code} is not supported")
    return tuple(f"{parameter.kind}.{code}" for code, _ in parameter.kept_as)


def followed_by(parameter: SearchParameter) -> tuple[str, ...]:
    """The parameters by which the index follows its references. Raises Problem as `kept_under`."""
    kept_under(parameter)
    return parameter.followed_by


def _beside(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    return tuple(f"{name}:{what}" for name in names)


def missing_value(parameter: SearchParameter, missing: bool) -> Asked:
    """Whether a resource has no value at all under a parameter, or any."""
    names = kept_under(parameter)
    target = next((target for _, target in parameter.kept_as if target), "")
    test: Test = RefersTo(target) if target else Present(parameter.type)
    present = Indexed(parameter.type, names, (test,))
    return Without(present) if missing else present


def boolean(name: str, value: str) -> bool:
    """The value of ``:missing``. Raises Invalid."""
    if value not in {"true", "false"}:
        raise Invalid(f"{name}:missing is true or false")
    return value == "true"
