"""What finds the resources that a condition matches (FHIR R4 3.1.0.8, 3.1.0.9).

A condition that changes something is asked of what the asker's own hospital wrote. It is made of
codes, identifiers, references and URIs: what is alike in words or time is no name of a resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from exchange import clinical_search, query
from exchange.clinical_search import Question
from exchange.errors import Invalid
from exchange.recording import Finder
from exchange_fhir import indexing, question
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import SearchParameter
from exchange_fhir.outcome import Problem
from exchange_fhir.primitives import is_id
from exchange_fhir.search import Scope, split, unescaped
from exchange_storage.resource_criteria import (
    Asked,
    Every,
    Ids,
    Indexed,
    RefersTo,
    Test,
    TokenIs,
    UriIs,
)

VALUES = 20
"""Values of a condition, at most."""


def finder(scope: Scope, kind: str, pairs: Sequence[tuple[str, str]], *, own: bool) -> Finder:
    """The finder of what a search for `kind` with these parameters matches.

    With `own` of what the asker's hospital wrote. Raises Problem, Invalid, Refused.
    """
    if kind == "Patient":
        named = question.read(scope, kind, pairs, strict=True).criteria
        if not named:
            raise Problem(412, "incomplete", "the condition does not say what is to be found")
        return query.finder(scope.access, named, own=own)
    if kind not in search_parameters.kinds():
        raise Problem(404, "not-supported", "no such resource type is served")
    criteria = tuple(_criterion(scope, kind, name, value) for name, value in pairs)
    if not criteria:
        raise Problem(412, "incomplete", "the condition does not say what is to be found")
    asked = "&".join(f"{name}={value}" for name, value in pairs)
    wanted = Question(kind=kind, criterion=Every(criteria), limit=2, asked=f"{kind}?{asked}")
    return clinical_search.finder(scope.access, wanted, own=own)


def _criterion(scope: Scope, kind: str, name: str, value: str) -> Asked:
    values = [one for one in split(value, ",") if one]
    if not values or len(values) > VALUES:
        raise Invalid(f"{name[:64]}: 1 to {VALUES} values are expected")
    if name == "_id":
        return Ids(tuple(unescaped(one) for one in values))
    found = search_parameters.of(kind).get(name)
    if found is None or found.type not in _TESTS or found.components:
        told = "a condition is made of _id, and of token, reference and uri parameters: not "
        raise Problem(400, "not-supported", told + name[:64])
    read = _TESTS[found.type]
    tests = tuple(test for one in values for test in read(scope, found, one))
    return Indexed(found.type, _names(found), tests)


def _names(found: SearchParameter) -> tuple[str, ...]:
    return tuple(f"{found.kind}.{code}" for code, _ in found.kept_as)


def _token(_: Scope, __: SearchParameter, value: str) -> tuple[Test, ...]:
    parts = [unescaped(part) for part in split(value, "|")]
    match parts:
        case [code]:
            return (TokenIs(code),)
        case [system, code]:
            return (TokenIs(code or None, system),)
        case _:
            raise Invalid("a token is written code, system|code, |code or system|")


def _reference(scope: Scope, parameter: SearchParameter, value: str) -> tuple[Test, ...]:
    kind, target = indexing.target(unescaped(value), f"{scope.base}/")
    if not kind and is_id(target):  # only the id: of whatever type it may be
        return tuple(RefersTo(one, (target,)) for one in parameter.target)
    return (RefersTo(kind, (target,)),)


def _uri(_: Scope, __: SearchParameter, value: str) -> tuple[Test, ...]:
    return (UriIs((unescaped(value),)),)


_TESTS: Mapping[str, Callable[[Scope, SearchParameter, str], tuple[Test, ...]]] = {
    "token": _token,
    "reference": _reference,
    "uri": _uri,
}
