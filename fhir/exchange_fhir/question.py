"""A search as it is asked: criteria, and how the answer is to be put together (FHIR R4 3.1.1.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from exchange import clinical
from exchange.errors import Invalid, TooLarge
from exchange_fhir.asking import (
    COMPARTMENT,
    SEARCHED,
    TABLES,
    TOGETHER,
    Asking,
    Unknown,
    compartment,
)
from exchange_fhir.definitions import search_parameters
from exchange_fhir.search import COUNT, MAX_COUNT, MAX_PARAMETERS, MAX_QUESTION, Scope
from exchange_storage.resource_order import Sort

MAX_INCLUDES = 50
"""Kinds of links that a page may bring along."""
MAX_SORTS = 5

_RESULT = frozenset({"_include", "_revinclude", "_summary", "_total"})
_SHOWN = frozenset({"_format", "_pretty"})
"""What is about the form of the answer only."""


UNANSWERED = frozenset({"_content", "_query", "_text"})
"""Parameters of the standard that are refused."""

TRAILED = clinical.DIRECTORY | {"AuditEvent"}
"""Types with which AuditEvents come along: who reads the trail searches no others."""


@dataclass(frozen=True, slots=True)
class Include:
    """Resources that come along: what `source` refers to by a parameter, or, in reverse, what
    refers by it to the matches."""

    source: str
    code: str
    """"" for every reference."""
    target: str = ""
    iterate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A search of one resource type, and what of it is not carried out."""

    kind: str
    criteria: tuple[Any, ...]
    """All of them hold; see `asking.Asking.criterion`."""
    count: int
    total: bool | None
    """Whether the matches are counted; None: told where it is known without counting."""
    sort: tuple[Sort, ...]
    order: str
    """The same for what has tables of its own, see `in_order.SORTED`."""
    include: tuple[Include, ...]
    revinclude: tuple[Include, ...]
    used: tuple[tuple[str, str], ...]
    """The parameters as the self link shows them."""
    ignored: tuple[str, ...]


def read(
    scope: Scope,
    kind: str,
    pairs: Iterable[tuple[str, str]],
    *,
    strict: bool = False,
    within: str = "",
) -> Question:
    """Read the parameters of a search of resources of `kind`; `within` a Patient's compartment.

    What is not supported is listed in `ignored`, or, with `strict` (``Prefer: handling=strict``),
    refused. Raises Invalid for that, and for a value or modifier that cannot be read; TooLarge for
    a question that is too long, and TooBroad for one of too many values; Problem.
    """
    pairs = tuple(pairs)
    if sum(len(name) + len(value) for name, value in pairs) > MAX_QUESTION:
        raise TooLarge(f"a search may have at most {MAX_QUESTION} characters")
    asking = Asking(scope)
    criteria: list[Any] = []
    used: list[tuple[str, str]] = []
    ignored: list[str] = []
    result = _Result(kind)
    if within:
        criteria.append(compartment(asking, kind, within))
    for seen, (name, value) in enumerate(pairs, 1):
        if seen > MAX_PARAMETERS or "\0" in name or "\0" in value:
            raise Invalid(f"a search has at most {MAX_PARAMETERS} parameters, and no NUL in them")
        if name in _SHOWN:
            continue
        if not value:
            ignored.append(name)
            continue
        shown = result.take(name, value)
        if shown is not None:
            used += shown
            continue
        try:
            criteria.append(asking.criterion(kind, name, value))
        except Unknown:
            ignored.append(name if name.partition(":")[0] not in _RESULT else f"{name}={value}")
        else:
            used.append((name, value))
    if strict and ignored:
        raise Invalid("not supported in this search: " + ", ".join(map(_named, ignored)))
    return Question(
        kind=kind,
        criteria=tuple(criteria),
        count=0 if result.only_count else result.count,
        total=True if result.only_count else result.total,
        sort=tuple(result.sort),
        order=",".join(result.order),
        include=tuple(result.include),
        revinclude=tuple(result.revinclude),
        used=(*used, ("_count", str(result.count))),
        ignored=tuple(map(_named, ignored)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Everywhere:
    """A search of several types, one after another (R4 3.1.0.11)."""

    questions: tuple[Question, ...]
    count: int
    total: bool | None
    used: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]


def everywhere(
    scope: Scope, pairs: Iterable[tuple[str, str]], *, strict: bool, within: str = ""
) -> Everywhere:
    """Read the parameters of a search of all types, or of those that `_type` names; `within` a
    Patient's compartment of those that can be in one.

    What is not supported for one of them is not supported. Raises as `read`.
    """
    pairs = tuple(pairs)
    named = [kind for name, value in pairs if name == "_type" for kind in value.split(",") if kind]
    there = tuple(kind for kind in TOGETHER if not within or kind in COMPARTMENT)
    unknown = [kind for kind in named if kind not in there]
    if unknown:
        raise Invalid(f"_type: {_named(unknown[0])} is not searched with others")
    if any(name.partition(":")[0] == "_sort" for name, _ in pairs):
        raise Invalid("_sort is for a search of one type: several come one after another")
    rest = [(name, value) for name, value in pairs if name != "_type"]
    kinds = tuple(dict.fromkeys(named)) or there
    questions = tuple(read(scope, kind, rest, strict=strict, within=within) for kind in kinds)
    types = [("_type", ",".join(kinds))] if named else []
    return Everywhere(
        questions=questions,
        count=questions[0].count,
        total=questions[0].total,
        used=(*types, *(one for one in questions[0].used)),
        ignored=tuple(dict.fromkeys(name for one in questions for name in one.ignored)),
    )


@dataclass(slots=True)
class _Result:
    """The search result parameters (R4 3.1.1.5) as they are read one by one."""

    kind: str
    count: int = COUNT
    only_count: bool = False
    total: bool | None = None
    sort: list[Sort] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    include: list[Include] = field(default_factory=list)
    revinclude: list[Include] = field(default_factory=list)

    def take(self, name: str, value: str) -> list[tuple[str, str]] | None:
        """Read one; returns how the self link shows it, None when it is not supported."""
        head, _, modifier = name.partition(":")
        match head:
            case "_count" if not modifier:
                if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
                    raise Invalid("_count is a number of entries")
                self.count = min(int(value), MAX_COUNT)
                self.only_count = self.only_count or not self.count
                return []  # shown with the count that is used
            case "_summary" if value in {"count", "false", "true", "text", "data"}:
                self.only_count = self.only_count or value == "count"
                return [(name, value)]
            case "_elements":
                return [(name, value)]
            case "_total" if value in {"none", "estimate", "accurate"}:
                self.total = value != "none"
                return [(name, "none" if value == "none" else "accurate")]
            case "_contained" if not modifier and value == "false":  # as it is done in any case
                return [(name, value)]
            case "_sort" if not modifier:
                self._sorting(value)
                return [(name, value)]
            case "_include" | "_revinclude" if modifier in {"", "iterate", "recurse"}:
                found = _including(self.kind, value, head == "_revinclude", bool(modifier))
                if not found:
                    return None
                wanted = self.include if head == "_include" else self.revinclude
                wanted.extend(one for one in found if one not in wanted)
                if len(wanted) > MAX_INCLUDES:
                    raise Invalid(f"a page brings at most {MAX_INCLUDES} kinds of links along")
                return [(name, value)]
        return None

    def _sorting(self, value: str) -> None:
        keys = [one.strip() for one in value.split(",") if one.strip()]
        if len(keys) > MAX_SORTS:
            raise Invalid(f"_sort: at most {MAX_SORTS} keys")
        for one in keys:
            key, descending = one.removeprefix("-"), one.startswith("-")
            if self.kind == "AuditEvent":
                if key not in {"date", "_lastUpdated", "_id"}:
                    raise Invalid("_sort: AuditEvents are put in order of their date")
                self.order.append(one)
                continue
            if self.kind in TABLES:
                sorts = TABLES[self.kind].sorts
                if key not in sorts:
                    known = ", ".join(sorted(sorts))
                    raise Invalid(f"_sort: the matches can be put in order of {known}")
                self.order.append(f"-{sorts[key]}" if descending else sorts[key])
                continue
            match key:
                case "_id":
                    self.sort.append(Sort("id", descending=descending))
                case "_lastUpdated":
                    self.sort.append(Sort("changed", descending=descending))
                case _:
                    parameter = search_parameters.of(self.kind).get(key)
                    if parameter is None or not parameter.kept_as or parameter.components:
                        known = ", ".join(sortable(self.kind))
                        raise Invalid(f"_sort: the matches can be put in order of {known}")
                    names = tuple(f"{self.kind}.{code}" for code, _ in parameter.kept_as)
                    self.sort.append(Sort(parameter.type, names, descending))


def _including(kind: str, value: str, reverse: bool, iterate: bool) -> list[Include]:
    """What an include asks for; nothing where there is no such reference."""
    if value == "*":
        return [] if reverse else [Include(kind, "", "", iterate)]
    source, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    if source not in search_parameters.kinds():
        return []
    if reverse and source == "AuditEvent" and kind not in TRAILED:
        return []
    if code == "*":
        return [Include(source, "", target, iterate)]
    parameter = search_parameters.of(source).get(code)
    if parameter is None or parameter.type != "reference":
        return []
    if target and target not in parameter.target:
        return []
    return [Include(source, code, target, iterate)]


def sortable(kind: str) -> tuple[str, ...]:
    """In whose order matches that are kept as JSON can be put."""
    known = search_parameters.of(kind)
    found = {code for code, one in known.items() if one.kept_as and not one.components}
    return tuple(sorted({"_id", "_lastUpdated"} | found))


def includes(kind: str) -> tuple[str, ...]:
    """What can be included with resources of a type."""
    known = search_parameters.of(kind).values()
    return tuple(f"{kind}:{one.code}" for one in known if one.type == "reference")


@cache
def revincludes(kind: str) -> tuple[str, ...]:
    """What refers to resources of a type and can be included with them."""
    return tuple(
        f"{source}:{one.code}"
        for source in SEARCHED
        if source != "AuditEvent" or kind in TRAILED
        for one in search_parameters.of(source).values()
        if one.type == "reference" and kind in one.target
    )


def _named(name: str) -> str:
    """A parameter's name, short enough to be repeated to the asker."""
    return name if len(name) <= 64 else f"{name[:64]}…"
