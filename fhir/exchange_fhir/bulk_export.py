"""What an export writes, piece by piece, as FHIR Bulk Data Access 2.0 asks: NDJSON by type.

A worker goes on where the last piece ended; each page is decided and recorded for who asked. What
is held in memory is one page. Files lie in the object store before their rows tell of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urljoin
from zoneinfo import ZoneInfo

from exchange import bulk, clinical_search, compartment, enclosures, gone, query
from exchange.access import Access, Exchange
from exchange.bulk import Extent, Files, State
from exchange.errors import ExchangeError, Unavailable
from exchange.jobs import Later
from exchange.policy import Requester
from exchange_fhir import json_format, question, reading, registered
from exchange_fhir.definitions import search_parameters
from exchange_fhir.outcome import Problem, outcome
from exchange_fhir.reading import Resource
from exchange_fhir.search import Scope
from exchange_fhir.subset import Wanted as Part
from exchange_fhir.subset import part
from exchange_storage.records import BulkJob
from exchange_storage.resource_criteria import Asked, Every, Some
from exchange_storage.resource_criteria import Changed as ResourceChanged
from exchange_storage.resource_order import Sort
from exchange_storage.search import AllOf, AnyOf, Changed, Criterion, Level, Rows

PAGE = 2000
"""Resources, or rows of patients and studies, that are read at a time."""

FILTERED = 500
"""The same of what is searched for."""

SEGMENT = 50_000
"""Resources after which the files are closed and it is kept how far it has come: what a worker
that is killed has done in vain, and for how long one that is stopped goes on."""

GONE = 500
"""Deleted resources of one line."""

_OF_ANSWERS = frozenset(
    {"_sort", "_count", "_include", "_revinclude", "_total", "_contained"}
    | {"_summary", "_elements", "_format", "_pretty"}
)
"""Parameters of a search that say nothing of which resources match."""

DELETED = "Bundle"
"""The type of the files that tell what was deleted: nothing else is exported as such."""

NATIVE: Mapping[str, Level] = {"Patient": Level.PATIENT, "ImagingStudy": Level.STUDY}
REGISTERED = ("Organization", "Endpoint")

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be exported, as it is kept with the job."""

    base: str
    """The address of the FHIR server as the asker knows it."""
    kinds: tuple[str, ...]
    patients: tuple[int, ...] | None = None
    """Of a group: the row numbers of its members' records."""
    of_patients: bool = False
    """Only what is about patients."""
    since: datetime | None = None
    until: datetime | None = None
    elements: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By type, the searches of which one has to match."""
    ignored: tuple[str, ...] = ()
    """Parameters that are not supported, and were to be ignored (`Prefer: handling=lenient`)."""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "base": self.base,
            "kinds": list(self.kinds),
            "patients": None if self.patients is None else list(self.patients),
            "of_patients": self.of_patients,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "elements": list(self.elements),
            "filters": {kind: list(asked) for kind, asked in self.filters.items()},
            "ignored": list(self.ignored),
        }

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Wanted:
        """From what `told` made."""
        patients, since, until = told["patients"], told["since"], told["until"]
        return cls(
            base=told["base"],
            kinds=tuple(told["kinds"]),
            patients=None if patients is None else tuple(patients),
            of_patients=told["of_patients"],
            since=datetime.fromisoformat(since) if since else None,
            until=datetime.fromisoformat(until) if until else None,
            elements=tuple(told["elements"]),
            filters={kind: tuple(asked) for kind, asked in told["filters"].items()},
            ignored=tuple(told.get("ignored", ())),  # jobs of earlier releases have none
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Resources, and behind what the next page begins; None at the end of a stage."""

    resources: Sequence[Resource]
    after: Any


Stage = Callable[[Scope, Wanted, Any], Page]


def export(
    exchange: Exchange, worker: Requester, job: BulkJob, *, timezone: ZoneInfo, dicomweb: str
) -> None:
    """Write the next segment. Raises Later where there is more, Cancelled, Unavailable."""
    wanted = Wanted.read(job.asked)
    wanted = replace(wanted, until=min(wanted.until or job.made, job.made))
    with exchange.on_behalf_of(worker) as access:
        extent = bulk.extent(access)
    stages = _stages(wanted, extent)
    at, after = int(job.progress.get("stage", 0)), job.progress.get("after")
    asker = bulk.asker(job)
    state, told = State.WORKING, ""
    with Files(exchange, job) as files:
        try:
            if wanted.ignored and not job.progress:
                files.write("OperationOutcome", _ignored(wanted), is_error=True)
            while at < len(stages) and files.count < SEGMENT:
                with exchange.on_behalf_of(asker) as access:
                    scope = scope_of(access, wanted.base, dicomweb, timezone)
                    page = stages[at](scope, wanted, after)
                for one in page.resources:
                    if one.content:
                        files.write(one.kind, _line(one, wanted.elements))
                    else:
                        files.write("OperationOutcome", _lost(one), is_error=True)
                at, after = (at + 1, None) if page.after is None else (at, page.after)
        except Unavailable:
            raise
        except (ExchangeError, Problem) as error:
            state, told = State.FAILED, str(error)
            line = json_format.serialize(outcome("error", "processing", [told]))
            files.write("OperationOutcome", line, is_error=True)
        if at == len(stages) and state is State.WORKING:
            state = State.COMPLETE
        done = job.done + files.count
        written = files.kept()
    with exchange.on_behalf_of(worker) as access:
        progress = {"stage": at, "after": after}
        bulk.kept(access, job, progress=progress, done=done, files=written, state=state, told=told)
    if state is State.WORKING:
        raise Later(0)


def _ignored(wanted: Wanted) -> bytes:
    """What of the request is not supported, and was left out (Bulk Data 2.0, kick-off)."""
    told = [f"not supported here, and ignored: {name[:64]}" for name in wanted.ignored]
    return json_format.serialize(outcome("warning", "not-supported", told))


def _lost(one: Resource) -> bytes:
    """That a resource is not exported: the rest of the export has nothing to do with it."""
    told = f"{one.kind}/{one.id}: its content is missing from the object store"
    return json_format.serialize(outcome("error", "exception", [told]))


def _line(one: Resource, elements: Sequence[str]) -> bytes:
    """A resource, or the wanted part of it."""
    if not elements or one.kind == DELETED:
        return one.content
    named = Part(elements=frozenset(elements))
    return json_format.serialize(part(json_format.parse(one.content), named))


def scope_of(access: Access, base: str, dicomweb: str, timezone: ZoneInfo) -> Scope:
    """Where what is exported is asked for."""
    return Scope(
        access=access,
        base=base,
        dicomweb=urljoin(base, dicomweb),
        timezone=timezone,
    )


def check(scope: Scope, kind: str, asked: str) -> None:
    """Raise Problem or Invalid unless a search can be a filter."""
    for name, _ in _pairs(asked):
        if name.partition(":")[0] in _OF_ANSWERS:
            told = f"a _typeFilter says which resources are meant: not {name[:64]}"
            raise Problem(400, "not-supported", told)
    _criteria(scope, kind, asked)


def _criteria(scope: Scope, kind: str, asked: str) -> tuple[Any, ...]:
    """What a filter asks, see `asking.Asking.criterion`."""
    return question.read(scope, kind, _pairs(asked), strict=True).criteria


def _pairs(asked: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(asked, keep_blank_values=True, strict_parsing=True, max_num_fields=50)
    except ValueError:
        raise Problem(400, "invalid", "a _typeFilter is written Type?name=value") from None


# -- Stages ---------------------------------------------------------------------------------------


def _stages(wanted: Wanted, extent: Extent) -> list[Stage]:
    """What is read one after the other: records, studies, hospitals, then what was written."""
    stages: list[Stage] = []
    if "Patient" in wanted.kinds:
        stages.append(_walk("Patient", extent.patients, _patients))
    if "ImagingStudy" in wanted.kinds:
        stages.append(
            _studies_of_members
            if wanted.patients is not None
            else _walk("ImagingStudy", extent.studies, _studies)
        )
    if not wanted.of_patients and wanted.patients is None:
        stages.append(_registered)
    stages += [_filtered(kind) for kind in sorted(wanted.filters) if kind not in NATIVE]
    stages.append(_written)
    if wanted.since is not None:
        stages.append(_gone)
    return stages


def _walk(
    kind: str, last: int, read: Callable[[Scope, Sequence[Criterion]], list[Resource]]
) -> Stage:
    """Records of the exchange's own, by their rows."""

    def page(scope: Scope, wanted: Wanted, after: Any) -> Page:
        began = int(after or 0)
        if wanted.patients is not None:
            rows = wanted.patients[began : began + PAGE]
            ends = began + PAGE >= len(wanted.patients)
        else:
            rows = tuple(range(began + 1, min(began + PAGE, last) + 1))
            ends = began + PAGE >= last
        if not rows:
            return Page((), None)
        found = read(scope, [Rows(NATIVE[kind], rows), *_native(scope, wanted, kind)])
        return Page(found, None if ends else began + PAGE)

    return page


def _patients(scope: Scope, criteria: Sequence[Criterion]) -> list[Resource]:
    answer = query.find(
        scope.access, Level.PATIENT, criteria, limit=PAGE, summarize=False, asked="$export"
    )
    return reading.patients(scope, answer.found)


def _studies(scope: Scope, criteria: Sequence[Criterion]) -> list[Resource]:
    answer = query.find(
        scope.access, Level.STUDY, criteria, limit=PAGE, summarize=False, asked="$export"
    )
    read: list[Resource] = []
    while len(read) < len(answer.found):  # which stops at some bytes
        read += reading.imaging_studies(scope, answer.found[len(read) :])
    return read


def _studies_of_members(scope: Scope, wanted: Wanted, after: Any) -> Page:
    offset = int(after or 0)
    answer = query.find(
        scope.access,
        Level.STUDY,
        [Rows(Level.PATIENT, wanted.patients or ()), *_native(scope, wanted, "ImagingStudy")],
        limit=FILTERED,
        offset=offset,
        summarize=False,
        asked="$export",
    )
    read = reading.imaging_studies(scope, answer.found)
    more = answer.more or len(read) < len(answer.found)
    return Page(read, offset + len(read) if more else None)


def _native(scope: Scope, wanted: Wanted, kind: str) -> list[Criterion]:
    """What is asked of records of the exchange's own beside their rows."""
    criteria: list[Criterion] = []
    before = None if wanted.until is None else wanted.until + _MICROSECOND
    criteria.append(Changed(NATIVE[kind], since=wanted.since, before=before))
    if filters := wanted.filters.get(kind):
        alternatives = [AllOf(_criteria(scope, kind, one)) for one in filters]
        criteria.append(AnyOf(tuple(alternatives)))
    return criteria


def _registered(scope: Scope, wanted: Wanted, _: Any) -> Page:
    """The registered hospitals' own entries of the directory."""
    found: list[Resource] = []

    def within(moment: datetime) -> bool:
        return (wanted.since is None or moment >= wanted.since) and (
            wanted.until is None or moment <= wanted.until
        )

    hospitals = [
        one for one in scope.organizations if within(registered.updated("Organization", one))
    ]
    places = [one for one in scope.organizations if within(registered.updated("Endpoint", one))]
    for kind, read in (
        ("Organization", reading.organizations(hospitals)),
        ("Endpoint", reading.endpoints(scope, places)),
    ):
        if kind in wanted.kinds and kind not in wanted.filters:
            found += read
    return Page(found, None)


def _written(scope: Scope, wanted: Wanted, after: Any) -> Page:
    """What hospitals wrote, by its rows."""
    kinds = tuple(kind for kind in wanted.kinds if kind not in {*NATIVE, *wanted.filters})
    if not kinds:
        return Page((), None)
    page = compartment.page(
        scope.access,
        compartment.Wanted(
            kinds=kinds,
            patients=wanted.patients,
            of_patients=wanted.of_patients,
            since=wanted.since,
            until=wanted.until,
            with_lost=True,
        ),
        after=int(after or 0),
        limit=PAGE,
    )
    found = [Resource(one.kind, one.logical_id, one.content) for one in page.held]
    return Page(found, page.held[-1].row if page.more else None)


def _gone(scope: Scope, wanted: Wanted, after: Any) -> Page:
    """What would have been exported, had it not been deleted since; of what a filter asks for
    nobody can tell any more whether it would have found that."""
    page = gone.page(
        scope.access,
        compartment.Wanted(
            kinds=wanted.kinds,
            patients=wanted.patients,
            of_patients=wanted.of_patients,
            since=wanted.since,
            until=wanted.until,
        ),
        after=None if after is None else (datetime.fromisoformat(after[0]), after[1], after[2]),
        limit=GONE,
    )
    if not page.places:
        return Page((), None)
    requests = [{"method": "DELETE", "url": f"{kind}/{name}"} for _, kind, name in page.places]
    told = {
        "resourceType": DELETED,
        "type": "transaction",
        "entry": [{"request": one} for one in requests],
    }
    changed, kind, name = page.places[-1]
    line = Resource(DELETED, "", json_format.serialize(told))
    return Page([line], [changed.isoformat(), kind, name] if page.more else None)


def _filtered(kind: str) -> Stage:
    """What hospitals wrote of one type, as far as a search finds it."""

    def page(scope: Scope, wanted: Wanted, after: Any) -> Page:
        alternatives = tuple(Every(_criteria(scope, kind, one)) for one in wanted.filters[kind])
        criteria: list[Asked] = [Some(alternatives)]
        if wanted.since or wanted.until:
            before = None if wanted.until is None else wanted.until + _MICROSECOND
            criteria.append(ResourceChanged(wanted.since, before))
        answer = clinical_search.find(
            scope.access,
            clinical_search.Question(
                kind=kind,
                criterion=Every(tuple(criteria)),
                sort=(Sort("row"),),
                limit=FILTERED,
                after=None if after is None else tuple(after),
                asked=f"$export {kind}",
                with_lost=True,
            ),
        )
        about = compartment.about(scope.access, [one.row for one in answer.found])
        members = frozenset(wanted.patients or ())
        found = [
            Resource(one.kind, one.logical_id, one.content)
            for one in answer.found
            if (one.patient is not None or not wanted.of_patients)
            and (wanted.patients is None or about[one.row] & members)
        ]
        return Page(found, list(answer.last) if answer.more else None)

    return page


def kinds(*, of_patients: bool) -> tuple[str, ...]:
    """The types that are exported: those of the patient compartment with documents, or all."""
    served = [one for one in search_parameters.kinds() if one not in {"AuditEvent", "Person"}]
    if not of_patients:
        return tuple(served)
    named = {*NATIVE, enclosures.KIND}
    return tuple(one for one in served if one in named or search_parameters.compartment(one))
