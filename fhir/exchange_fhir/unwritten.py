"""What nobody wrote, in the history of a type or of all (FHIR R4 3.1.0.11).

A registered hospital's entries of the directory, a patient of whom images alone tell, and a study
have one version: that of the moment when the record last changed; what it was before is not kept.
By that moment they stand among the versions that were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exchange import in_order, query
from exchange.clinical import Kept
from exchange.query import Found
from exchange_fhir import reading, registered, writing
from exchange_fhir.reading import Resource
from exchange_fhir.resources import patient
from exchange_fhir.search import Scope
from exchange_storage.criteria import Changed, Criterion, Level, Not

NEWEST_FIRST = "-changed"

LEVELS: Mapping[str, Level] = {"Patient": Level.PATIENT, "ImagingStudy": Level.STUDY}
"""What is derived from records of the archive, and at which level."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version, and its place among those of its source, as JSON: the next page goes on there."""

    changed: datetime
    source: str
    place: Any
    of: Kept | Found
    """The version, or the record of which it is made once it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Which versions are meant: of a type or, with "", of all; by when they changed."""

    kind: str
    since: datetime | None
    before: datetime
    after: Mapping[str, Any]
    """By source the place of the last version that was told."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types whose records are looked at."""
        return tuple(kind for kind in LEVELS if self.kind in {"", kind})


def versions(scope: Scope, within: Within, limit: int) -> Sequence[Version]:
    """The first of them, newest first, `limit` at most. Raises Refused."""
    found = [*_hospitals(scope, within)]
    for kind in within.kinds:
        found += _records(scope, within, kind, limit)
    return sorted(found, key=lambda one: one.changed, reverse=True)[:limit]


def told(scope: Scope, found: Sequence[Version]) -> Sequence[Kept]:
    """These versions as they are told, in their order: as many as a page has room for."""
    records = {
        kind: [one.of for one in found if one.source == kind.lower() and isinstance(one.of, Found)]
        for kind in LEVELS
    }
    made = {
        "patient": iter(reading.patients(scope, records["Patient"])),
        "imagingstudy": iter(reading.imaging_studies(scope, records["ImagingStudy"])),
    }
    kept: list[Kept] = []
    for one in found:
        if isinstance(one.of, Kept):
            kept.append(one.of)
        elif (resource := next(made[one.source], None)) is None:
            break
        else:
            kept.append(_kept(resource, one.changed))
    return kept


def count(scope: Scope, within: Within) -> int:
    """How many there are. Raises Refused."""
    counted = sum(1 for _ in _hospitals(scope, within))
    for kind in within.kinds:
        answer = query.find(
            scope.access,
            LEVELS[kind],
            _asked(within, kind),
            limit=0,
            total=True,
            summarize=False,
            asked="_history",
        )
        counted += answer.total or 0
    return counted


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
        yield Version(changed, "hospital", where, _kept(made, changed))


def _records(scope: Scope, within: Within, kind: str, limit: int) -> Iterator[Version]:
    level, source = LEVELS[kind], kind.lower()
    told = within.after.get(source)
    answer = query.find(
        scope.access,
        level,
        _asked(within, kind),
        limit=limit,
        after=None if told is None else (datetime.fromisoformat(told[0]), told[1]),
        summarize=False,
        order=NEWEST_FIRST,
        asked="_history",
    )
    for one in answer.found:
        changed, row = in_order.place(scope.access, level, NEWEST_FIRST, one)
        yield Version(changed, source, [changed.isoformat(), row], one)


def _asked(within: Within, kind: str) -> list[Criterion]:
    unwritten: list[Criterion] = [Not(patient.WRITTEN)] if kind == "Patient" else []
    return [*unwritten, Changed(LEVELS[kind], since=within.since, before=within.before)]


def _kept(made: Resource, changed: datetime) -> Kept:
    counted = made.kind in writing.CURRENT
    return Kept(
        kind=made.kind,
        logical_id=made.id,
        version=int(made.version),
        changed=changed,
        content=made.content,
        interaction="update" if counted and int(made.version) > 1 else "create",
        key=0,
    )
