"""What comes along with the matches of a search: ``_include`` and ``_revinclude`` (R4 3.1.1.5.4).

Each resource that is included has been decided as if it had been asked for by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exchange import beside, clinical, clinical_search, orders, persons, policy, query
from exchange.policy import Action, Deny
from exchange_fhir import registered, trail_search
from exchange_fhir.asking import NATIVE
from exchange_fhir.definitions import search_parameters
from exchange_fhir.ones import One, of_hit, of_hospital, of_persons, of_records
from exchange_fhir.question import Include, Question
from exchange_fhir.resources import endpoint, imaging_study, patient
from exchange_fhir.search import Scope
from exchange_storage.criteria import Level, Linked, Owned, Rows
from exchange_storage.resource_criteria import IsPerson
from exchange_storage.resource_index import Reference, Value

INCLUDED = 1000
"""Resources that come along with a page, at most; that some are left out is told."""

ROUNDS = 8
"""How often what was included is looked at for more (``:iterate``)."""


@dataclass(slots=True)
class _Along:
    """What is included, each once, and none that is a match."""

    scope: Scope
    seen: set[tuple[str, str]]
    ones: list[One] = field(default_factory=list)
    full: bool = False

    def add(self, found: Iterable[One]) -> list[One]:
        """Those that are new."""
        new: list[One] = []
        for one in found:
            key = (one.resource.kind, one.resource.id)
            if key in self.seen:
                continue
            if len(self.ones) >= INCLUDED:
                self.full = True
                break
            self.seen.add(key)
            self.ones.append(one)
            new.append(one)
        return new

    def wanted(self, kind: str, ids: Iterable[str]) -> list[str]:
        """Those ids that are not at hand, as many as there is room for."""
        missing = [one for one in dict.fromkeys(ids) if (kind, one) not in self.seen]
        room = INCLUDED - len(self.ones)
        if len(missing) > room:
            self.full = True
        return missing[:room]


def of(
    scope: Scope, question: Question, found: Sequence[One]
) -> tuple[Sequence[One], Sequence[str]]:
    """What comes along with what was found, and of what is missing a warning."""
    along = _Along(scope, {(one.resource.kind, one.resource.id) for one in found})
    front: list[One] = list(found)
    for number in range(ROUNDS):
        if not front:
            break
        fresh: list[One] = []
        for reverse, include in (
            *((False, one) for one in question.include),
            *((True, one) for one in question.revinclude),
        ):
            if number and not include.iterate:
                continue
            # What one include brings in a round, the iterating ones after it look at as well.
            sources = [*front, *fresh] if include.iterate else front
            fresh += (
                _backwards(along, include, sources)
                if reverse
                else _forwards(along, include, sources)
            )
        front = fresh
    told = f"only {len(along.ones)} resources are included: there are more"
    return along.ones, [told] if along.full else []


def _forwards(along: _Along, include: Include, sources: Sequence[One]) -> list[One]:
    """What the sources refer to."""
    of_kind = [one for one in sources if one.resource.kind == include.source]
    targets: dict[str, list[str]] = {}
    for kind, identity in _references(along.scope, include, of_kind):
        if include.target in {"", kind}:
            targets.setdefault(kind, []).append(identity)
    new: list[One] = []
    for kind, ids in targets.items():
        new += along.add(_named(along, kind, along.wanted(kind, ids)))
    return new + along.add(_called(along.scope, include, of_kind))


def _references(scope: Scope, include: Include, sources: Sequence[One]) -> list[tuple[str, str]]:
    """Type and id of what the sources refer to by the parameter, or by any."""
    told: list[tuple[str, str]] = []
    rows: list[int] = []
    for one in sources:
        if one.found is not None:
            told += _native_references(scope, include.code, one)
        elif one.hospital is not None:
            told += _told(include, registered.values(scope, one.resource.kind, one.hospital))
        elif one.told:
            told += _told(include, one.told)
        elif one.row is not None:
            rows.append(one.row)
    if include.source == "Patient":
        rows += _written_patients(scope, sources)
    if include.source == "ImagingStudy" and include.code in {"", "basedon"}:
        studies = [one.found.study.id for one in sources if one.found and one.found.study]
        led = orders.of_studies(scope.access, studies)
        told += [("ServiceRequest", one.request) for found in led.values() for one in found]
    if rows:
        names, only = _rows_of(include)
        told += [
            (kind, identity)
            for _, kind, identity in clinical_search.referred(scope.access, rows, names)
            if only in {"", kind}
        ]
    return told


def _called(scope: Scope, include: Include, sources: Sequence[One]) -> list[One]:
    """What the sources refer to by its canonical URL."""
    names = _canonical(_rows_of(include)[0])
    rows = [one.row for one in sources if one.row is not None]
    called = clinical_search.called(scope.access, rows, names) if names else []
    found: list[One] = []
    for kind in [include.target] if include.target else search_parameters.kinds():
        if called and (under := search_parameters.named_under(kind)):
            hits = clinical_search.calling(scope.access, kind, under, called, limit=INCLUDED + 1)
            found += map(of_hit, hits)
    return found


def _told(include: Include, values: Sequence[Value]) -> list[tuple[str, str]]:
    return [
        (one.target_kind, one.target)
        for one in values
        if isinstance(one, Reference)
        and one.target_kind
        and include.code in {"", one.parameter.partition(".")[2]}
    ]


def _rows_of(include: Include) -> tuple[list[str], str]:
    """The parameters whose rows have the references, and the only type that is meant, or ""."""
    known = search_parameters.of(include.source)
    if include.code:
        parameter = known[include.code]
        only = next((target for _, target in parameter.kept_as if target), "")
        return [*parameter.followed_by], only
    references = [one for one in known.values() if one.type == "reference" and one.is_kept]
    return [name for one in references for name in one.followed_by], ""


def _canonical(names: Sequence[str]) -> list[str]:
    return [one for one in names if one.endswith(f":{search_parameters.CANONICAL}")]


def _written_patients(scope: Scope, sources: Sequence[One]) -> list[int]:
    """The rows of what hospitals wrote of patient records."""
    ids = [one.resource.id for one in sources if one.found is not None]
    hits = clinical_search.named(scope.access, "Patient", ids, limit=INCLUDED) if ids else ()
    return [one.row for one in hits]


def _native_references(scope: Scope, code: str, one: One) -> list[tuple[str, str]]:
    found = one.found
    if found is None:
        return []
    told: list[tuple[str, str]] = []
    if one.resource.kind == "Patient":
        if code in {"", "organization"}:
            told.append(("Organization", found.owner.code))
        if code in {"", "link"}:
            links = beside.links(scope.access, [found.patient])
            told += [("Patient", str(row)) for row in links.get(found.patient.id, ())]
        return told
    if code in {"", "patient", "subject"}:
        told.append(("Patient", str(found.patient.id)))
    if code in {"", "endpoint"}:
        told.append(("Endpoint", endpoint.identity(found.owner)))
    return told


def _named(along: _Along, kind: str, ids: Sequence[str]) -> list[One]:
    """The resources with these ids that the asker may see."""
    scope = along.scope
    if not ids or kind not in search_parameters.kinds() or kind == "AuditEvent":
        return []
    blind = isinstance(policy.may(scope.access.requester, Action.SEARCH), Deny)
    if blind and kind not in clinical.DIRECTORY:
        return []  # who reads the trail is not told more of patients than it tells
    if kind == "Patient":
        rows = tuple(int(one) for one in ids if one.isdecimal() and len(one) <= 18)
        return _records(along, Level.PATIENT, kind, Rows(Level.PATIENT, rows))
    if kind == "ImagingStudy":
        return _records(along, Level.STUDY, kind, imaging_study.named(ids))
    if kind == "Person":
        numbers = tuple(row for one in ids for row in patient.rows(one))
        wanted = [Linked(Level.PATIENT, IsPerson(numbers))]
        return of_persons(scope, persons.find(scope.access, wanted, limit=INCLUDED).found)
    found: list[One] = []
    if kind in registered.KINDS:
        hospitals = {registered.identity(kind, one): one for one in scope.organizations}
        found = [of_hospital(scope, kind, hospitals[one]) for one in ids if one in hospitals]
    hits = clinical_search.named(scope.access, kind, ids, limit=INCLUDED)
    return [*found, *map(of_hit, hits)]


def _records(along: _Along, level: Level, kind: str, criterion: Any) -> list[One]:
    """Patient records or studies that come along."""
    answer = query.find(
        along.scope.access, level, [criterion], limit=INCLUDED, summarize=False, asked="_include"
    )
    ones = of_records(along.scope, kind, answer.found)
    along.full = along.full or answer.more or len(ones) < len(answer.found)
    return ones


def _backwards(along: _Along, include: Include, sources: Sequence[One]) -> list[One]:
    """What refers to the sources."""
    scope, source = along.scope, include.source
    parameter = search_parameters.of(source).get(include.code)
    targets: Mapping[str, list[One]] = {}
    for one in sources:
        kind = one.resource.kind
        if include.target in {"", kind} and (parameter is None or kind in parameter.target):
            targets = {**targets, kind: [*targets.get(kind, ()), one]}
    new: list[One] = []
    names, only = _rows_of(include)
    for kind, ones in targets.items():
        if only not in {"", kind}:
            continue
        ids = [one.resource.id for one in ones]
        if source == "AuditEvent":
            told, more = trail_search.referring(scope, names, kind, ids, INCLUDED + 1)
            new += along.add(One(one, told=held) for one, held in told)
            along.full = along.full or more
            continue
        if source == "Person":
            found = [one.found.patient.id for one in ones if one.found is not None]
            known = persons.of_patients(scope.access, found, limit=INCLUDED + 1) if found else ()
            new += along.add(of_persons(scope, known))
            continue
        if source in NATIVE:
            new += along.add(_native_backwards(along, include, kind, ones))
        if source in registered.KINDS and kind in registered.KINDS and source != kind:
            hospitals = [one.hospital for one in ones if one.hospital is not None]
            new += along.add(of_hospital(scope, source, one) for one in hospitals)
        hits = clinical_search.referring(scope.access, source, names, kind, ids, limit=INCLUDED + 1)
        if (by := _canonical(names)) and (under := search_parameters.named_under(kind)):
            rows = [one.row for one in ones if one.row is not None]
            own = clinical_search.names(scope.access, rows, under)
            hits += clinical_search.referring(scope.access, source, by, "", own, limit=INCLUDED + 1)
        if source == "Patient":
            written = [one.logical_id for one in hits]
            new += along.add(_named(along, "Patient", along.wanted("Patient", written)))
        elif source not in NATIVE:
            new += along.add(map(of_hit, hits))
    return new


def _native_backwards(along: _Along, include: Include, kind: str, ones: Sequence[One]) -> list[One]:
    hospitals = tuple({one.hospital.id for one in ones if one.hospital is not None})
    if include.source == "ImagingStudy":
        if kind == "Patient" and include.code in {"", "patient", "subject"}:
            rows = tuple({one.found.patient.id for one in ones if one.found is not None})
            return _records(along, Level.STUDY, "ImagingStudy", Rows(Level.PATIENT, rows))
        if kind == "Endpoint" and include.code in {"", "endpoint"} and hospitals:
            return _records(along, Level.STUDY, "ImagingStudy", Owned(hospitals))
        if kind == "ServiceRequest" and include.code in {"", "basedon"}:
            criterion = imaging_study.based_on(along.scope, [one.resource.id for one in ones])
            return _records(along, Level.STUDY, "ImagingStudy", criterion)
        return []
    if kind == "Organization" and include.code in {"", "organization"} and hospitals:
        return _records(along, Level.PATIENT, "Patient", Owned(hospitals))
    if kind == "Patient" and include.code in {"", "link"}:
        records = [one.found.patient for one in ones if one.found is not None]
        links = beside.links(along.scope.access, records)
        rows = tuple({row for found in links.values() for row in found})
        return _records(along, Level.PATIENT, "Patient", Rows(Level.PATIENT, rows))
    return []
