"""Batch and transaction (FHIR R4 3.1.0.11): many interactions in one Bundle.

The entries of a batch are interactions of their own. Those of a transaction are done together or
not at all, in the order DELETE, POST, PUT and PATCH, and then what only asks, operations and
searches by POST among it; what they call each other by before they have ids (urn:uuid:…), and
references that say how their target is found, become references to what was made or found.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson

from exchange import recording
from exchange.clinical import Kept
from exchange.errors import ExchangeError, Stale
from exchange.policy import Action
from exchange.recording import Act, Create, Finder, Update, Writing
from exchange_fhir import (
    answers,
    attached,
    batched,
    interactions,
    json_format,
    links,
    metas,
    outcome,
    patching,
    placed,
    precedence,
    provided,
    registering,
    validation,
    writing,
)
from exchange_fhir.answers import Answered
from exchange_fhir.batched import Ask, Single
from exchange_fhir.datatypes import Json, instant, present
from exchange_fhir.interactions import Asked, Here, Pairs
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.precedence import ORDER
from exchange_fhir.routed import Table, operation

_CONDITIONS = {
    "ifMatch": "if-match",
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifNoneExist": "if-none-exist",
}
"""What of an entry's request is a header of HTTP otherwise."""

Open = Callable[[], AbstractContextManager[Here]]
"""Begins a unit of interactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the Bundle that was sent."""

    number: int
    method: str
    """By what it does: GET for whatever only asks, PATCH for an operation that changes a part."""
    full_url: str
    asked: Asked
    """What is to be changed, where something is."""
    resource: Json | None
    single: Single

    @property
    def place(self) -> str:
        """Where it stands, as FHIRPath."""
        return f"Bundle.entry[{self.number}]"


def processed(
    bundle: Json,
    opened: Open,
    table: Table,
    ask: Ask,
    base: str,
    *,
    limit: int,
    full: bool,
) -> Answered:
    """The answer to a batch or transaction; `full` has it hold what was written, too.

    Raises Problem, and for a transaction what its entries raise, with their place.
    """
    if bundle.get("resourceType") != "Bundle":
        validation.check(bundle, "Bundle")  # which tells so
    kind = bundle.get("type")
    if kind not in ("batch", "transaction"):  # which may be of any type
        wrong = "a Bundle of the type batch or transaction is expected here"
        raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, "Bundle.type")])
    listed = bundle.get("entry", [])
    if isinstance(listed, list) and len(listed) > limit:
        raise Problem(413, "too-long", f"a Bundle may have at most {limit} entries")
    if kind == "batch":
        validation.check(_without_resources(bundle, lambda _: True), "Bundle")
        answered = [
            _told(one, number, table, opened, ask, base) for number, one in enumerate(listed)
        ]
    else:
        validation.check(_without_resources(bundle, _is_asked_of), "Bundle")
        entries = [
            _entry(one, number, table, base) for number, one in enumerate(bundle.get("entry", ()))
        ]
        answered = _together(entries, opened, ask, base)
    told = [
        _answer(one, full=full or _asks(entry["request"]))
        for entry, one in zip(listed, answered, strict=True)
    ]
    made = present(resourceType="Bundle", type=f"{kind}-response", entry=told)
    return Answered(status=200, content=json_format.serialize(made))


def _asks(request: Json) -> bool:
    """Whether the answer is what was asked for, and not what was done."""
    path = request["url"].partition("?")[0]
    is_search = f"/{path}".endswith("/_search")
    return request["method"] in {"GET", "HEAD"} or is_search or bool(operation(path))


# -- Reading the Bundle ---------------------------------------------------------------------------


def _without_resources(bundle: Json, of: Callable[[Json], bool]) -> Json:
    """A Bundle without what is looked at by itself: the resources of some of its entries."""
    listed = bundle.get("entry", [])
    if not isinstance(listed, list):
        return bundle
    stripped = [
        {name: value for name, value in one.items() if name != "resource"}
        if isinstance(one, dict) and of(one)
        else one
        for one in listed
    ]
    return bundle | ({"entry": stripped} if stripped else {})


def _is_asked_of(entry: Json) -> bool:
    """Whether the resource of an entry is what an operation or a search is given."""
    request = entry.get("request")
    if not isinstance(request, dict):
        return False
    return all(isinstance(request.get(one), str) for one in ("method", "url")) and _asks(request)


def _entry(told: Json, number: int, table: Table, base: str) -> Entry:
    """One entry, which is served by a route. Raises Problem for what is not done in a Bundle."""
    request, resource = told.get("request", {}), told.get("resource")
    method, url = request.get("method", ""), request.get("url", "")
    headers = {header: request[name] for name, header in _CONDITIONS.items() if name in request}
    try:
        single = batched.single(method, url, headers, resource, table, base)
        if not batched.is_done(single):
            raise _by_itself(single)
    except Problem as problem:
        issues = [
            replace(one, expression=f"Bundle.entry[{number}].request") for one in problem.issues
        ]
        raise Problem(
            problem.answer.http, problem.answer.code, str(problem), issues=issues
        ) from None
    name = single.found.operation
    if name or single.sought:
        method = "PATCH" if name in metas.CHANGING else "GET"
    given = single.found.given if single.found.writes or method == "PATCH" else {}
    asked = Asked(
        kind=given.get("kind", ""),
        logical_id=given.get("logical_id", ""),
        query=[one for one in batched.pairs(single.query) if one[0] not in {"_format", "_pretty"}],
        headers=headers,
        body=partial(_body, resource, number),
        change=partial(_change, resource)
        if not name
        else partial(_of_meta, name, resource, number),
    )
    return Entry(
        number=number,
        method=method,
        full_url=told.get("fullUrl", ""),
        asked=asked,
        resource=resource,
        single=single,
    )


def _by_itself(asked: Single) -> Problem:
    """What is wrong with an entry that another request would do."""
    name = asked.found.operation or asked.path.rpartition("/")[2][:64] or "a Bundle"
    wrong = f"{name} is not done as an entry of a Bundle: ask it by itself"
    return Problem(404, "not-supported", wrong)


def _body(resource: Json | None, number: int) -> Json:
    if not isinstance(resource, dict):
        wrong = "a resource is expected here"
        place = f"Bundle.entry[{number}].resource"
        raise Problem(400, "required", wrong, issues=[Issue("required", wrong, place)])
    return resource


def _of_meta(operation: str, resource: Json | None, number: int) -> patching.Change:
    return metas.change(operation, _body(resource, number))


def _change(resource: Json | None) -> patching.Change:
    """What a patch in an entry does: Parameters, or a Binary that holds a JSON Patch."""
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if resource is not None and kind == "Parameters":
        validation.check(resource, "Parameters")
        return patching.fhirpath_patch(resource)
    if resource is not None and kind == "Binary":
        validation.check(resource, "Binary")
        if resource["contentType"] == patching.MEDIA_TYPE:
            try:
                return patching.json_patch(base64.b64decode(resource.get("data", "")))
            except binascii.Error:
                pass
    told = f"a patch in a Bundle is Parameters, or a Binary of {patching.MEDIA_TYPE}"
    raise Problem(400, "invalid", told)


# -- Batch ----------------------------------------------------------------------------------------


def _told(one: Json, number: int, table: Table, opened: Open, ask: Ask, base: str) -> Answered:
    """One entry of a batch, which may be no entry that is done here."""
    try:
        entry = _entry(one, number, table, base)
    except Problem as problem:
        return _failed(problem)
    return _alone(entry, opened, ask)


def _alone(entry: Entry, opened: Open, ask: Ask) -> Answered:
    """One entry of a batch; what goes wrong is its own answer."""
    try:
        return _written(entry, opened) if entry.single.found.writes else ask(entry.single)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Answered:
    response = outcome.response(error)
    return Answered(status=response.status_code, content=bytes(response.body))


def _written(entry: Entry, opened: Open) -> Answered:
    with opened() as here:
        act = interactions.ACTS[entry.method](here, entry.asked)
        return interactions.done(here, act, entry.asked.body)


# -- Transaction ----------------------------------------------------------------------------------


def _together(entries: Sequence[Entry], opened: Open, ask: Ask, base: str) -> list[Answered]:
    _once(entries)
    _named(entries)
    answered: dict[int, Answered] = {}
    ordered = precedence.ordered(entries)
    try:
        with opened() as here:
            plan = _Plan(here, sorted(ordered, key=lambda one: one.number))
            acts = [_Step(plan, one) for one in ordered]
            for one, kept in zip(ordered, recording.several(here.access, acts), strict=True):
                made = answers.kept(kept, base)
                is_meta = one.single.found.operation in metas.CHANGING
                answered[one.number] = metas.answer(made.content) if is_meta else made
    except (ExchangeError, Problem) as error:
        raise placed.problem(error, ordered, base) from error
    for one in entries:
        if one.number not in answered:
            # What was written is there by now, and is read as anybody reads it.
            answered[one.number] = _alone(one, opened, ask)
    return [answered[one.number] for one in entries]


def _once(entries: Sequence[Entry]) -> None:
    """Raise Problem where two entries would change one resource, or have one name."""
    seen: set[tuple[Any, ...]] = set()
    names: set[str] = set()
    once = provided.conditions(entries)
    for one in entries:
        # Two of one condition would find, or make, the same (R4 3.1.0.11.2).
        named = (one.asked.kind, one.asked.logical_id or tuple(sorted(_found_by(one, once))))
        twice = bool(named[1]) and ORDER[one.method] < 3 and named in seen
        again = bool(one.full_url) and ORDER[one.method] < 3 and one.full_url in names
        if twice or again:
            wrong = "a transaction changes each resource once, and names it once"
            raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, one.place)])
        if ORDER[one.method] < 3:
            seen.add(named)
            names.add(one.full_url)


def _named(entries: Sequence[Entry]) -> None:
    """Raise Problem where an entry refers to another that is not there (R4 3.1.0.11.2), or says of
    what another holds what is not so: by such a name nobody would find it."""
    written = {
        one.full_url: one
        for one in entries
        if one.full_url and one.method in {"POST", "PUT"} and isinstance(one.resource, dict)
    }
    contents = {
        name: one.resource["data"]
        for name, one in written.items()
        if one.resource and one.asked.kind == "Binary" and "data" in one.resource
    }
    for one in entries:
        if one.method not in {"POST", "PUT"} or not isinstance(one.resource, dict):
            continue
        if missing := sorted(links.temporary(one.resource) - written.keys()):
            wrong = f"no entry of the transaction has the fullUrl {missing[0][:64]}"
            issue = Issue("not-found", wrong, one.place)
            raise Problem(400, "not-found", wrong, issues=[issue])
        if contents and (issues := attached.wrong(one.resource, contents, f"{one.place}.resource")):
            raise Problem(422, "value", issues[0].told, issues=issues)


def _found_by(entry: Entry, once: Mapping[int, Pairs]) -> Pairs:
    """The condition by which an entry that changes something finds what it changes."""
    if entry.method != "POST":
        return entry.asked.query
    with _of(entry):
        return interactions.unless_there(entry.asked) or once.get(entry.number, ())


@contextmanager
def _of(entry: Entry) -> Iterator[None]:
    """What is raised inside is because of this entry."""
    try:
        yield
    except (ExchangeError, Problem) as error:
        error.add_note(entry.place)
        raise


@dataclass(slots=True)
class _Known:
    """What one run of a transaction knows of its entries so far."""

    writing: Writing
    lookup: dict[str, str] = field(default_factory=dict)
    """References by what entries are called: ``urn:uuid:…`` to ``Patient/1``."""
    found: dict[int, str | None] | None = None
    """Logical ids that conditions of entries found, by number of the entry."""
    patients: dict[int, str] = field(default_factory=dict)
    """The numbers that patients got who were registered, by number of the entry."""


class _Plan:
    """How the entries of a transaction become acts, once it is known what they refer to."""

    def __init__(self, here: Here, entries: Sequence[Entry]) -> None:
        self._here = replace(here, place=replace(here.place, unknown=self._unknown))
        self._outside = here.place.unknown
        self._entries = entries
        self._ids = {one.number: recording.new_id() for one in entries if one.method == "POST"}
        self._once = provided.conditions(entries)
        self._finders: dict[int, Finder] = {}
        self._references: dict[int, Mapping[str, Finder]] = {}
        for one in entries:
            with _of(one):
                if finder := self._condition(one):
                    self._finders[one.number] = finder
                self._references[one.number] = self._conditional(one)
        self._known: _Known | None = None
        self._ready: dict[int, Act] = {}
        registers = any(one.asked.kind == "Patient" for one in entries if one.method != "DELETE")
        if not self._finders and not any(self._references.values()) and not registers:
            lookup = self._lookup({})
            for one in entries:
                with _of(one):
                    self._ready[one.number] = self._act(one, lookup, {})

    def _unknown(self, names: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        """What is neither here nor made by this transaction."""
        if self._outside is None:
            return frozenset()
        made = {tuple(one.split("/")) for one in self._lookup({}).values()}
        named = {(one.asked.kind, self._id(one)) for one in self._entries if one.method != "DELETE"}
        return self._outside(names - made - named)

    def _conditional(self, entry: Entry) -> Mapping[str, Finder]:
        """What finds the targets of an entry's conditional references."""
        if not isinstance(entry.resource, dict):
            return {}
        return {
            told: self._here.find_any(match["kind"], interactions.condition_pairs(match["query"]))
            for told in links.conditional(entry.resource)
            if (match := links.CONDITIONAL.fullmatch(told))
        }

    def _condition(self, entry: Entry) -> Finder | None:
        asked = entry.asked
        if entry.method == "POST":
            if told := interactions.unless_there(asked):
                return self._here.find(asked.kind, told)
            if told := self._once.get(entry.number, ()):
                finder = self._here.find(asked.kind, told)
                return lambda session: finder(session)[:1]  # earlier releases kept some twice
            return None
        if asked.logical_id:
            return None
        if not asked.query:
            wrong = "name the resource, or a condition to find it by"
            raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, entry.place)])
        return self._here.find(asked.kind, asked.query)

    def _lookup(self, found: Mapping[int, str | None]) -> dict[str, str]:
        lookup: dict[str, str] = {}
        for one in self._entries:
            if not one.full_url or one.method not in {"POST", "PUT"}:
                continue
            logical_id = found.get(one.number)
            if logical_id is None and one.asked.kind == "Patient":
                logical_id = one.asked.logical_id
                if not logical_id:
                    continue  # not registered yet
            logical_id = logical_id or self._id(one)
            named = f"{one.asked.kind}/{logical_id}"
            lookup[one.full_url] = named
            base, _, own = one.full_url.rpartition(f"/{one.asked.kind}/")
            if one.method == "POST" and base and own:
                lookup[f"{one.asked.kind}/{own}"] = named
        return lookup

    def _id(self, entry: Entry) -> str:
        """The id that an entry's resource has, or will have."""
        if entry.method == "POST":
            return self._ids[entry.number]
        told = entry.resource.get("id") if isinstance(entry.resource, dict) else None
        if entry.asked.logical_id or isinstance(told, str):
            return entry.asked.logical_id or str(told)
        return self._ids.setdefault(entry.number, recording.new_id())

    def perform(self, entry: Entry, writing: Writing) -> Kept:
        """Do what an entry asks for."""
        if ready := self._ready.get(entry.number):
            return ready.perform(writing)
        known = self._known
        if known is None or known.writing is not writing:  # a unit may run a second time
            known = self._known = _Known(writing)
        if entry.method == "DELETE":
            return self._act(entry, {}, {}).perform(writing)
        if known.found is None:
            known.found = {
                number: writing.only(finder)
                for number, finder in self._finders.items()
                if self._entry(number).method != "DELETE"
                and self._entry(number).asked.kind != "Patient"
            }
            known.found |= self._provided(known.found, writing)
            known.lookup = self._lookup(known.found)
        lookup = known.lookup | {
            told: f"{told.partition('?')[0]}/{self._one(finder, writing)}"
            for told, finder in self._references.get(entry.number, {}).items()
        }
        kept = self._act(entry, lookup, known.found).perform(writing)
        if entry.asked.kind == "Patient":
            known.patients[entry.number] = kept.logical_id
            known.lookup = self._lookup(known.found | known.patients)
        return kept

    def _provided(self, found: Mapping[int, str | None], writing: Writing) -> dict[int, str]:
        """The Binaries that are there, as their documents are that were provided before."""
        once = {number: named for number in self._once if (named := found.get(number)) is not None}
        return provided.again(self._entries, once, writing, self._here.base) if once else {}

    def _entry(self, number: int) -> Entry:
        return next(one for one in self._entries if one.number == number)

    def _one(self, finder: Finder, writing: Writing) -> str:
        found = writing.only(finder)
        if found is None:
            raise Stale("a conditional reference matches nothing")
        return found

    def _act(self, entry: Entry, lookup: Mapping[str, str], found: Mapping[int, str | None]) -> Act:
        asked = entry.asked
        if entry.number in found and found[entry.number] is not None and entry.method == "POST":
            return _Present(asked.kind, str(found[entry.number]))
        if entry.method not in {"POST", "PUT"}:
            return interactions.ACTS[entry.method](self._here, asked)
        writing.writable(asked.kind)
        told = links.rewritten(interactions.of_kind(asked), lookup)
        if asked.kind == "Patient":
            return self._registered(entry, told)
        named = found.get(entry.number) or self._id(entry)
        if asked.logical_id:
            return interactions.update(self._here, replace(asked, body=lambda: told))
        draft = writing.validated(told, self._here.place, self._same(entry, told, named))
        if entry.method == "PUT":
            interactions.not_registered(self._here, replace(asked, logical_id=named))
            if_match = writing.if_match(asked.headers)
            return Update(draft, if_match=if_match, new=found.get(entry.number) is None)
        return Create(draft)

    def _registered(self, entry: Entry, told: Json) -> Act:
        access, place = self._here.access, self._here.place
        finder, asked = self._finders.get(entry.number), entry.asked
        if entry.method == "POST":
            return registering.create(access, told, place, unless=finder)
        return registering.update(
            access, told, place, asked.logical_id, asked.headers, matching=finder
        )

    def _same(self, entry: Entry, told: Json, named: str) -> str:
        sent = told.get("id")
        if entry.method == "PUT" and sent is not None and sent != named:
            wrong = "the resource that matches has another id than the one that was sent"
            raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, entry.place)])
        return named


@dataclass(frozen=True, slots=True)
class _Step:
    """The act of an entry."""

    plan: _Plan
    entry: Entry

    @property
    def action(self) -> Action | None:
        """Known once it is known what the entry refers to."""
        return None

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises what the interaction raises."""
        return self.plan.perform(self.entry, writing)


@dataclass(frozen=True, slots=True)
class _Present:
    """A conditional create of what is there."""

    kind: str
    logical_id: str

    @property
    def action(self) -> Action | None:
        """It is only read."""
        return None

    def perform(self, writing: Writing) -> Kept:
        """Give back what is there."""
        return writing.present(self.kind, self.logical_id)


# -- The answer -----------------------------------------------------------------------------------


def _answer(answered: Answered, *, full: bool) -> Json:
    failed = answered.status >= 400
    response: dict[str, Any] = present(
        status=f"{answered.status} {HTTPStatus(answered.status).phrase}",
        location=answered.location,
        etag=f'W/"{answered.version}"' if answered.version else None,
        lastModified=instant(answered.changed) if answered.changed else None,
    )
    content = orjson.Fragment(answered.content) if answered.content else None
    if failed and content is not None:
        response["outcome"] = content
    return present(
        fullUrl=answered.location.partition("/_history/")[0] or None,
        resource=content if full and not failed else None,
        response=response,
    )
