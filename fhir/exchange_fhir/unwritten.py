"""What nobody wrote, in the history of a type or of all (FHIR R4 3.1.0.11).

A registered hospital's entries of the directory, and a patient of whom images alone tell, have one
version: that of the moment when the record last changed. By it they stand among the versions that
were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exchange import in_order, query
from exchange.clinical import Kept
from exchange_fhir import reading, registered
from exchange_fhir.reading import Resource
from exchange_fhir.resources import patient
from exchange_fhir.search import Scope
from exchange_storage.criteria import Changed, Level, Not

NEWEST_FIRST = "-changed"


@dataclass(frozen=True, slots=True)
class Version:
    """A version, and its place among those of its source, as JSON: the next page goes on there."""

    kept: Kept
    source: str
    place: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Which versions are meant: of a type or, with "", of all; by when they changed."""

    kind: str
    since: datetime | None
    before: datetime
    after: Mapping[str, Any]
    """By source the place of the last version that was told."""


def versions(scope: Scope, within: Within, limit: int) -> Sequence[Version]:
    """The first of them, newest first, `limit` at most. Raises Refused."""
    found = [*_hospitals(scope, within), *_patients(scope, within, limit)]
    return sorted(found, key=lambda one: one.kept.changed, reverse=True)[:limit]


def count(scope: Scope, within: Within) -> int:
    """How many there are. Raises Refused."""
    found = sum(1 for _ in _hospitals(scope, within))
    if within.kind not in {"", "Patient"}:
        return found
    answer = query.find(
        scope.access,
        Level.PATIENT,
        _asked(within),
        limit=0,
        total=True,
        summarize=False,
        asked="_history",
    )
    return found + (answer.total or 0)


def _hospitals(scope: Scope, within: Within) -> Iterator[Version]:
    kinds = registered.KINDS if not within.kind else registered.KINDS & {within.kind}
    places = [
        ((registered.updated(kind, one), kind, registered.identity(kind, one)), one)
        for kind in kinds
        for one in scope.organizations
    ]
    told = within.after.get("hospital")
    last = None if told is None else (datetime.fromisoformat(told[0]), *told[1:])
    for place, hospital in sorted(places, key=lambda one: one[0], reverse=True):
        changed, kind, identity = place
        if last is not None and place >= last:
            continue
        if changed >= within.before or (within.since is not None and changed < within.since):
            continue
        made = reading.resource(registered.resource(scope, kind, hospital))
        where = [changed.isoformat(), kind, identity]
        yield Version(_kept(made, changed), "hospital", where)


def _patients(scope: Scope, within: Within, limit: int) -> Iterator[Version]:
    if within.kind not in {"", "Patient"}:
        return
    told = within.after.get("patient")
    answer = query.find(
        scope.access,
        Level.PATIENT,
        _asked(within),
        limit=limit,
        after=None if told is None else (datetime.fromisoformat(told[0]), told[1]),
        summarize=False,
        order=NEWEST_FIRST,
        asked="_history",
    )
    for made, one in zip(reading.patients(scope, answer.found), answer.found, strict=True):
        changed, row = in_order.place(Level.PATIENT, NEWEST_FIRST, one)
        yield Version(_kept(made, changed), "patient", [changed.isoformat(), row])


def _asked(within: Within) -> list[Any]:
    span = Changed(Level.PATIENT, since=within.since, before=within.before)
    return [Not(patient.WRITTEN), span]


def _kept(made: Resource, changed: datetime) -> Kept:
    return Kept(
        kind=made.kind,
        logical_id=made.id,
        version=int(made.version),
        changed=changed,
        content=made.content,
        interaction="create",
        key=0,
    )
