"""AuditEvents found in the audit trail (IHE ITI-81 Retrieve ATNA Audit Event).

The trail has no index of everything that can be asked for. What columns tell narrows the records
down; each of those is then held against the whole question, as a resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from exchange import policy, trail
from exchange.audit import Outcome
from exchange.errors import TooBroad
from exchange.policy import Action, Deny
from exchange.trail import Sought
from exchange_fhir import at_hand, indexing, moments, reading
from exchange_fhir.question import Question
from exchange_fhir.reading import Resource
from exchange_fhir.resources import audit_event, patient
from exchange_fhir.search import Scope
from exchange_storage.resource_criteria import (
    Asked,
    Changed,
    Every,
    Ids,
    Indexed,
    RefersTo,
    Some,
    TokenIs,
    Within,
)
from exchange_storage.resource_index import Value

LOOKED_AT = 2_000
"""Records of the trail that one page looks at: then it ends, with a link to go on by."""

COUNTED = 10_000
"""The same, where all matches are to be counted."""


@dataclass(frozen=True, slots=True)
class Matches:
    """AuditEvents of a page, each with what it is found under."""

    ones: Sequence[tuple[Resource, Sequence[Value]]]
    total: int | None
    after: int | None


def resource(scope: Scope, told: Mapping[str, Any]) -> Resource:
    """The AuditEvent of a record of the trail."""
    return reading.resource(audit_event.to_fhir(told, _hospitals(scope)))


def matches(scope: Scope, question: Question, after: int | None, asked: str) -> Matches:
    """A page of AuditEvents, the newest first. Raises Refused, TooBroad."""
    criterion = Every(question.criteria)
    oldest = bool(question.order) and not question.order.startswith("-")
    sought = narrowed(Sought(), question.criteria)
    found: list[tuple[Resource, Sequence[Value]]] = []
    hospitals = _hospitals(scope)
    matched, last, more = 0, after, False
    records = trail.seek(scope.access, sought, asked=asked, after=after, oldest=oldest)
    for looked_at, told in enumerate(records):
        if question.total and looked_at == COUNTED:
            raise TooBroad("too many records would have to be counted: name a span of time (date)")
        if not question.total and (looked_at == LOOKED_AT or len(found) == question.count):
            more = True
            break
        held = _held(scope, criterion, told, hospitals)
        if held is not None:
            matched += 1
            if len(found) < question.count:
                found.append(held)
                last = told["sequence"]
        elif len(found) < question.count:
            last = told["sequence"]
    more = more or matched > len(found)
    total = matched if question.total else None
    return Matches(found, total, last if more and question.count else None)


def referring(
    scope: Scope, names: Sequence[str], kind: str, ids: Sequence[str], limit: int
) -> tuple[Sequence[tuple[Resource, Sequence[Value]]], bool]:
    """AuditEvents that refer to these resources of a type by one of the parameters, the newest
    first, and whether there may be more. There are none for who may not read the trail."""
    if isinstance(policy.may(scope.access.requester, Action.AUDIT), Deny):
        return (), False
    asked = Indexed("reference", tuple(names), (RefersTo(kind, tuple(ids)),))
    sought = narrowed(Sought(), [asked])
    hospitals = _hospitals(scope)
    if asked.parameters == ("AuditEvent.agent",):
        named = {row for row, code in hospitals.items() if kind == "Organization" and code in ids}
        sought = sought.narrowed(organizations=frozenset(named))
    told_as = f"_revinclude={','.join(names)} of {kind}/{','.join(ids)}"
    found: list[tuple[Resource, Sequence[Value]]] = []
    records = trail.seek(scope.access, sought, asked=told_as, oldest=False)
    for looked_at, told in enumerate(records):
        if looked_at == LOOKED_AT or len(found) == limit:
            return found, True
        if (held := _held(scope, asked, told, hospitals)) is not None:
            found.append(held)
    return found, False


def _held(
    scope: Scope, criterion: Asked, told: Mapping[str, Any], hospitals: Mapping[int, str]
) -> tuple[Resource, Sequence[Value]] | None:
    """The AuditEvent of a record with what it is found under, where the criterion holds for it."""
    made = audit_event.to_fhir(told, hospitals)
    values = tuple(indexing.values(made, scope.timezone, scope.base))
    changed = datetime.fromisoformat(told["recorded"])
    if not at_hand.holds(criterion, made["id"], changed, lambda: values):
        return None
    return reading.resource(made), values


def narrowed(sought: Sought, criteria: Iterable[Any]) -> Sought:
    """What a record must be like for all of `criteria` to hold, as far as columns tell."""
    for one in criteria:
        match one:
            case Every(inner):
                sought = narrowed(sought, inner)
            case Ids(ids):
                numbers = (int(one) for one in ids if one.isdecimal() and len(one) <= 18)
                sought = sought.narrowed(sequences=frozenset(numbers))
            case Changed(since, before):
                sought = sought.narrowed(since=since, before=before)
            case Some((Changed(since, before),)):
                sought = sought.narrowed(since=since, before=before)
            case Indexed(parameters=(name,)) if name in _NARROWING:
                sought = sought.narrowed(**_NARROWING[name](one))
    return sought


def _hospitals(scope: Scope) -> dict[int, str]:
    return {one.id: one.code for one in scope.organizations}


_MARGIN = timedelta(microseconds=2)
_FROM = ("low_from", "low_after", "high_from", "high_after")
_UNTIL = ("low_before", "low_to", "high_by", "high_before")


def _dates(asked: Indexed) -> dict[str, Any]:
    """The span within which every test lies; records are moments."""
    lows: list[float] = []
    highs: list[float] = []
    for test in asked.tests:
        if not isinstance(test, Within):
            return {}
        froms = [end for name in _FROM if (end := getattr(test, name)) is not None]
        untils = [end for name in _UNTIL if (end := getattr(test, name)) is not None]
        lows.append(max(froms, default=moments.FIRST))
        highs.append(min(untils, default=moments.LAST))
    since, before = _moment(min(lows)), _moment(max(highs))
    return {
        "since": None if since is None else since - _MARGIN,
        "before": None if before is None else before + _MARGIN,
    }


def _moment(at: float) -> datetime | None:
    try:
        found = moments.EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return None
    return found if 1 < found.year < 9999 else None


def _references(asked: Indexed) -> dict[str, Any]:
    named: dict[str, set[str]] = {}
    for test in asked.tests:
        if not isinstance(test, RefersTo) or not test.targets:
            return {}
        named.setdefault(test.kind, set()).update(test.targets)
    match named:
        case {"Patient": ids} if len(named) == 1:
            return {"patients": frozenset(row for one in ids for row in patient.rows(one))}
        case {"ImagingStudy": ids} if len(named) == 1:
            return {"studies": frozenset(ids)}
    return {}


def _codes(asked: Indexed) -> frozenset[str] | None:
    codes = [one.code if isinstance(one, TokenIs) else None for one in asked.tests]
    return frozenset(one for one in codes if one) if all(codes) else None


def _names(asked: Indexed) -> dict[str, Any]:
    codes = _codes(asked)
    return {} if codes is None else {"requesters": frozenset(one[:255] for one in codes)}


def _outcomes(asked: Indexed) -> dict[str, Any]:
    codes = _codes(asked)
    if codes is None:
        return {}
    return {"outcomes": frozenset(o.value for o in Outcome if audit_event.OUTCOMES[o] in codes)}


def _types(asked: Indexed) -> dict[str, Any]:
    codes = _codes(asked)
    if codes is None or "rest" in codes:
        return {}
    return {"actions": frozenset(a.value for a in Action if audit_event.ACTS[a][0] in codes)}


_NARROWING: Mapping[str, Callable[[Indexed], dict[str, Any]]] = {
    "AuditEvent.agent:identifier": _names,
    "AuditEvent.altid": _names,
    "AuditEvent.date": _dates,
    "AuditEvent.entity": _references,
    "AuditEvent.outcome": _outcomes,
    "AuditEvent.patient": _references,
    "AuditEvent.type": _types,
}
"""What parameters tell of a record's columns."""
