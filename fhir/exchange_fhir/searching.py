"""Searches carried out: a page of matches (FHIR R4 3.1.1); what comes along see `included`.

Kept resources, records with tables of their own, and the registered hospitals' entries of the
directory are one answer; each of them has been decided, and so has each that is included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cmp_to_key, partial
from typing import Any
from urllib.parse import urlencode

from exchange import clinical_search, in_order, persons, query
from exchange.clinical_search import Hit
from exchange.errors import Invalid
from exchange_fhir import included, reading, registered, trail_search
from exchange_fhir.asking import NATIVE
from exchange_fhir.bundle import Page
from exchange_fhir.ones import One, of_hit, of_hospital, of_persons, of_records
from exchange_fhir.question import Everywhere, Question
from exchange_fhir.search import Scope
from exchange_storage.criteria import Level
from exchange_storage.records import Organization
from exchange_storage.resource_criteria import Every
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri
from exchange_storage.resource_order import FIRST, LAST, Sort

PAGE_BYTES = reading.PAGE_BYTES

After = Any
"""Where a page goes on, as JSON."""


@dataclass(frozen=True, slots=True)
class Matches:
    """A page of matches before anything is included."""

    ones: Sequence[One]
    total: int | None
    after: After | None
    """Where the next page goes on; None: this is the last."""


def page(scope: Scope, question: Question, after: After | None = None) -> tuple[Page, After | None]:
    """A page of an answer, and where the next one goes on. Raises Refused, Invalid."""
    found = matches(scope, question, after)
    along, warnings = included.of(scope, question, found.ones)
    made = Page(
        matches=[one.resource for one in found.ones],
        included=[one.resource for one in along],
        total=found.total,
        more=found.after is not None,
        warnings=warnings,
    )
    return made, found.after


def everywhere(
    scope: Scope, asked: Everywhere, after: After | None = None
) -> tuple[Page, After | None]:
    """A page of a search of several types, and where the next one goes on."""
    total = None
    if asked.total:
        counts = [
            page(scope, replace(one, count=0, total=True))[0].total for one in asked.questions
        ]
        total = sum(one or 0 for one in counts)
    number, at = (0, None) if after is None else (after["number"], after["after"])
    pages: list[Page] = []
    room = asked.count
    while room and number < len(asked.questions):
        one, at = page(scope, replace(asked.questions[number], count=room, total=False), at)
        pages.append(one)
        room -= len(one.matches)
        if at is not None:
            break
        number += 1
    following = {"number": number, "after": at}
    more = bool(asked.count) and (at is not None or number < len(asked.questions))
    made = Page(
        matches=[match for one in pages for match in one.matches],
        included=[match for one in pages for match in one.included],
        total=total,
        more=more,
        warnings=[told for one in pages for told in one.warnings],
    )
    return made, following if more else None


def matches(scope: Scope, question: Question, after: After | None = None) -> Matches:
    """The matches of a page; on the last one the total is told, as it is known for nothing.

    Raises Refused, Invalid.
    """
    if not isinstance(after, dict | None):
        raise Invalid("this page is of an earlier release: search again")
    told, at = (0, None) if after is None else (after["told"], after["after"])
    found = _matches(scope, question, at)
    if found.after is None:
        if question.total is None and (found.ones or after is None):
            return replace(found, total=told + len(found.ones))
        return found
    return replace(found, after={"told": told + len(found.ones), "after": found.after})


def _matches(scope: Scope, question: Question, after: After | None) -> Matches:
    """The matches of a page, and how many there are where that was asked for."""
    if question.kind in NATIVE:
        return _native(scope, question, after)
    if question.kind == "Person":
        return _persons(scope, question, after)
    if question.kind == "AuditEvent":
        found = trail_search.matches(scope, question, after, _asked(question))
        ones = [One(one, told=told) for one, told in found.ones]
        return Matches(ones, found.total, found.after)
    if question.kind in registered.KINDS:
        return _directory(scope, question, after)
    return _kept(scope, question, after)


# -- Matches --------------------------------------------------------------------------------------


def _asked(question: Question) -> str:
    return f"{question.kind}?{urlencode(question.used)}"


def _native(scope: Scope, question: Question, after: After | None) -> Matches:
    level = NATIVE[question.kind]
    along = question.include or question.revinclude
    answer = query.find(
        scope.access,
        level,
        list(question.criteria),
        limit=question.count,
        after=None if after is None else _keys(after),
        total=question.total is True,
        summarize=False,
        whole=level is Level.PATIENT and not (question.order or along),
        order=question.order,
        asked=_asked(question),
    )
    ones = of_records(scope, question.kind, answer.found)
    more = answer.more or len(ones) < len(answer.found)
    if not more or not ones:
        return Matches(ones, answer.total, None)
    last = in_order.place(scope.access, level, question.order, answer.found[len(ones) - 1])
    return Matches(ones, answer.total, _written(last))


def _persons(scope: Scope, question: Question, after: After | None) -> Matches:
    answer = persons.find(
        scope.access,
        question.criteria,
        limit=question.count,
        after=after,
        descending=question.order.startswith("-"),
        total=question.total is True,
        asked=_asked(question),
    )
    following = answer.found[-1].person if answer.more and answer.found else None
    return Matches(of_persons(scope, answer.found), answer.total, following)


def _kept(scope: Scope, question: Question, after: After | None) -> Matches:
    answer = _answer(scope, question, after)
    hits = _fitting(answer.found)
    more = answer.more or len(hits) < len(answer.found)
    following = _written(hits[-1].keys) if more and hits else None
    return Matches([of_hit(one) for one in hits], answer.total, following)


def _answer(scope: Scope, question: Question, after: After | None) -> clinical_search.Answer:
    return clinical_search.find(
        scope.access,
        clinical_search.Question(
            kind=question.kind,
            criterion=Every(question.criteria),
            sort=question.sort,
            limit=question.count,
            after=None if after is None else _keys(after),
            total=question.total is True,
            asked=_asked(question),
        ),
    )


def _fitting(found: Sequence[Hit]) -> Sequence[Hit]:
    """As many as a page has room for, one at least."""
    size = 0
    for number, one in enumerate(found):
        size += len(one.content)
        if size > PAGE_BYTES and number:
            return found[:number]
    return found


def _keys(after: After) -> tuple[Any, ...]:
    return tuple(
        datetime.fromisoformat(one["at"]) if isinstance(one, dict) else one for one in after
    )


def _written(keys: Iterable[Any]) -> After:
    return [{"at": one.isoformat()} if isinstance(one, datetime) else one for one in keys]


def _directory(scope: Scope, question: Question, after: After | None) -> Matches:
    """Registered hospitals' entries and those that hospitals wrote, in one order."""
    answer = _answer(scope, question, after)
    sort = answer.sort
    hospitals = registered.found(scope, question.kind, Every(question.criteria))
    found = [(one.keys, of_hit(one)) for one in answer.found]
    for hospital in hospitals:
        keys = _own_keys(scope, question.kind, hospital, sort)
        if after is None or _compare(sort, keys, _keys(after)) > 0:
            found.append((keys, of_hospital(scope, question.kind, hospital)))
    found.sort(key=cmp_to_key(partial(_in_order, sort)))
    page = found[: question.count]
    more = answer.more or len(found) > len(page)
    total = None if answer.total is None else answer.total + len(hospitals)
    following = _written(page[-1][0]) if more and page else None
    return Matches([one for _, one in page], total, following)


def _own_keys(
    scope: Scope, kind: str, hospital: Organization, sort: Sequence[Sort]
) -> tuple[Any, ...]:
    """What a registered hospital's entry is put in order by, as the index does for others."""
    return tuple(_own_key(scope, kind, hospital, one) for one in sort)


def _own_key(scope: Scope, kind: str, hospital: Organization, sort: Sort) -> Any:
    match sort.type:
        case "row":
            return hospital.id - (1 << 40)  # before all that was written
        case "id":
            return registered.identity(kind, hospital)
        case "changed":
            return hospital.registered
    held = [
        one for one in registered.values(scope, kind, hospital) if one.parameter in sort.parameters
    ]
    found: list[Any] = []
    for one in held:
        match one:
            case Token(code=code):
                found.append(code)
            case String(folded=folded, exact=exact) if exact:
                found.append(folded)
            case Reference(target=target):
                found.append(target)
            case Date(low=low) | Quantity(low=low):
                found.append(low)
            case Uri(value=value):
                found.append(value)
    if found:
        return max(found) if sort.descending else min(found)
    if sort.type == "date":
        return FIRST if sort.descending else LAST
    if sort.type in {"quantity", "number"}:
        return -1e308 if sort.descending else 1e308
    return "" if sort.descending else chr(0x10FFFF)


def _in_order(
    sort: Sequence[Sort], one: tuple[Sequence[Any], One], other: tuple[Sequence[Any], One]
) -> int:
    return _compare(sort, one[0], other[0])


def _compare(sort: Sequence[Sort], one: Sequence[Any], other: Sequence[Any]) -> int:
    """Which of two comes first, by their keys: negative for `one`."""
    for key, a, b in zip(sort, one, other, strict=True):
        if a != b:
            return (1 if a > b else -1) * (-1 if key.descending else 1)
    return 0
