"""Searches carried out: a page of matches, and what comes along with them (FHIR R4 3.1.1).

Kept resources, records with tables of their own, and the registered hospitals' entries of the
directory are one answer; each of them has been decided, and so has each that is included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cmp_to_key, partial
from typing import Any
from urllib.parse import urlencode

from exchange import beside, clinical, clinical_search, in_order, orders, persons, policy, query
from exchange.clinical_search import Hit
from exchange.errors import Invalid
from exchange.persons import Known
from exchange.policy import Action, Deny
from exchange.query import Found
from exchange_fhir import indexing, reading, registered, trail_search
from exchange_fhir.asking import NATIVE
from exchange_fhir.bundle import Page
from exchange_fhir.definitions import search_parameters
from exchange_fhir.question import Everywhere, Include, Question
from exchange_fhir.reading import Resource
from exchange_fhir.resources import endpoint, imaging_study, patient
from exchange_fhir.search import Scope
from exchange_storage.criteria import Level, Linked, Owned, Rows
from exchange_storage.records import Organization
from exchange_storage.resource_criteria import Every, IsPerson
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri, Value
from exchange_storage.resource_order import FIRST, LAST, Sort

INCLUDED = 1000
"""Resources that come along with a page, at most; that some are left out is told."""

ROUNDS = 8
"""How often what was included is looked at for more (``:iterate``)."""

PAGE_BYTES = reading.PAGE_BYTES

After = Any
"""Where a page goes on, as JSON."""


@dataclass(frozen=True, slots=True)
class One:
    """A resource, and by what its references are followed."""

    resource: Resource
    row: int | None = None
    """Of a kept resource."""
    found: Found | None = None
    """Of a patient record or study."""
    hospital: Organization | None = None
    """Of a registered hospital's entry of the directory."""
    told: Sequence[Value] = ()
    """Of what is derived from records: what it is found under."""


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
    included, warnings = _included(scope, question, found.ones)
    made = Page(
        matches=[one.resource for one in found.ones],
        included=[one.resource for one in included],
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
    ones = _ones(scope, question.kind, answer.found)
    more = answer.more or len(ones) < len(answer.found)
    if not more or not ones:
        return Matches(ones, answer.total, None)
    last = in_order.place(level, question.order, answer.found[len(ones) - 1])
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
    return Matches(_people(scope, answer.found), answer.total, following)


def _people(scope: Scope, known: Sequence[Known]) -> list[One]:
    made = reading.persons(scope, known)
    return [
        One(reading.resource(one), told=indexing.values(one, scope.timezone, scope.base))
        for one in made
    ]


def _ones(scope: Scope, kind: str, found: Sequence[Found]) -> list[One]:
    """Of studies as many as a page has room for."""
    if kind == "Patient":
        by_row = {one.patient.id: one for one in found}
        patients = reading.patients(scope, list(by_row.values()))
        return [
            One(resource, found=one)
            for resource, one in zip(patients, by_row.values(), strict=True)
        ]
    studies = reading.imaging_studies(scope, found)
    return [One(resource, found=one) for resource, one in zip(studies, found, strict=False)]


def _kept(scope: Scope, question: Question, after: After | None) -> Matches:
    answer = _answer(scope, question, after)
    hits = _fitting(answer.found)
    more = answer.more or len(hits) < len(answer.found)
    following = _written(hits[-1].keys) if more and hits else None
    return Matches([_hit(one) for one in hits], answer.total, following)


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


def _hit(one: Hit) -> One:
    return One(Resource(one.kind, one.logical_id, one.content, str(one.version)), row=one.row)


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
    found = [(one.keys, _hit(one)) for one in answer.found]
    for hospital in hospitals:
        keys = _own_keys(scope, question.kind, hospital, sort)
        if after is None or _compare(sort, keys, _keys(after)) > 0:
            found.append((keys, _own(scope, question.kind, hospital)))
    found.sort(key=cmp_to_key(partial(_in_order, sort)))
    page = found[: question.count]
    more = answer.more or len(found) > len(page)
    total = None if answer.total is None else answer.total + len(hospitals)
    following = _written(page[-1][0]) if more and page else None
    return Matches([one for _, one in page], total, following)


def _own(scope: Scope, kind: str, hospital: Organization) -> One:
    made = reading.resource(registered.resource(scope, kind, hospital))
    return One(made, hospital=hospital)


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


# -- What comes along -----------------------------------------------------------------------------


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


def _included(
    scope: Scope, question: Question, found: Sequence[One]
) -> tuple[Sequence[One], Sequence[str]]:
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
    return new


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
        kept = known[include.code].kept_as
        only = next((target for _, target in kept if target), "")
        return [f"{include.source}.{code}" for code, _ in kept], only
    return [one.name for one in known.values() if one.type == "reference" and one.is_kept], ""


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
        return _people(scope, persons.find(scope.access, wanted, limit=INCLUDED).found)
    found: list[One] = []
    if kind in registered.KINDS:
        hospitals = {registered.identity(kind, one): one for one in scope.organizations}
        found = [_own(scope, kind, hospitals[one]) for one in ids if one in hospitals]
    hits = clinical_search.named(scope.access, kind, ids, limit=INCLUDED)
    return [*found, *map(_hit, hits)]


def _records(along: _Along, level: Level, kind: str, criterion: Any) -> list[One]:
    """Patient records or studies that come along."""
    answer = query.find(
        along.scope.access, level, [criterion], limit=INCLUDED, summarize=False, asked="_include"
    )
    ones = _ones(along.scope, kind, answer.found)
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
            new += along.add(_people(scope, known))
            continue
        if source in NATIVE:
            new += along.add(_native_backwards(along, include, kind, ones))
        if source in registered.KINDS and kind in registered.KINDS and source != kind:
            hospitals = [one.hospital for one in ones if one.hospital is not None]
            new += along.add(_own(scope, source, one) for one in hospitals)
        hits = clinical_search.referring(scope.access, source, names, kind, ids, limit=INCLUDED + 1)
        if source == "Patient":
            written = [one.logical_id for one in hits]
            new += along.add(_named(along, "Patient", along.wanted("Patient", written)))
        elif source not in NATIVE:
            new += along.add(map(_hit, hits))
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
