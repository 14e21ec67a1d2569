"""The interactions of the RESTful API with one resource or its versions (FHIR R4 3.1.0).

They are the same whether they come by HTTP or as an entry of a batch: `Asked` in, `Answered` out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from heapq import merge
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from exchange import clinical, recording
from exchange.access import Access
from exchange.clinical import Kept, Page
from exchange.errors import Gone, NotFound, Stale, UnknownPatient
from exchange.recording import Act, Finder
from exchange_fhir import (
    answers,
    json_format,
    links,
    outcome,
    patching,
    registering,
    unwritten,
    validation,
    writing,
)
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json, instant
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.primitives import is_id, moment
from exchange_fhir.search import Scope
from exchange_fhir.unwritten import Version
from exchange_fhir.writing import Place

HISTORY = 50
"""Versions on a page of history where the asker does not say."""
MOST_HISTORY = 200
HISTORY_BYTES = 1 << 24
"""Bytes of versions after which a page ends."""

Pairs = Sequence[tuple[str, str]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One interaction, as it is asked for."""

    kind: str = ""
    logical_id: str = ""
    version: str = ""
    query: Pairs = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case."""
    body: Callable[[], Json] = dict
    """The resource that came along. Raises Problem."""
    change: Callable[[], patching.Change] | None = None
    """What a patch does. Raises Problem."""
    apart: bool = False
    """Whether what is attached to a version that is read is left where it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Where and for whom interactions are done."""

    access: Access
    place: Place
    find: Callable[[str, Pairs], Finder]
    """What finds the hospital's own resources by a condition. Raises Problem, Invalid."""
    find_any: Callable[[str, Pairs], Finder]
    """The same of whatever the asker may see."""
    scope: Callable[[], Scope]
    """Where questions are asked."""
    native: Mapping[str, Callable[[str], Answered]]
    """How resources are read that are no versions of JSON: by kind, given the logical id."""

    @property
    def base(self) -> str:
        """The address of this FHIR server."""
        return self.place.base


# -- Reading --------------------------------------------------------------------------------------


def read(here: Here, asked: Asked) -> Answered:
    """The current version. Raises NotFound, Gone, Refused, Problem."""
    writing.served(asked.kind)
    _known_id(asked)
    found = _derived(here, asked)
    if found is None:
        kept = clinical.read(here.access, asked.kind, asked.logical_id, apart=asked.apart)
        found = answers.read(kept)
    return _unless_known(found, asked.headers)


def vread(here: Here, asked: Asked) -> Answered:
    """One version. Raises NotFound, Gone, Refused, Problem."""
    writing.served(asked.kind)
    _known_id(asked)
    _has_versions(asked.kind)
    if asked.kind in writing.CURRENT:
        return _current_version(here, asked)
    if not asked.version.isdecimal() or len(asked.version) > 18:
        raise NotFound("no such version")
    version = int(asked.version)
    try:
        return answers.read(
            clinical.vread(here.access, asked.kind, asked.logical_id, version, apart=asked.apart)
        )
    except Gone:
        raise
    except NotFound:
        derived = _derived(here, asked)
        if derived is None or derived.version != asked.version:
            raise
        return derived


def _current_version(here: Here, asked: Asked) -> Answered:
    """A version of what has but its current one. Raises NotFound, Refused."""
    found = here.native[asked.kind](asked.logical_id)
    if found.version != asked.version:
        raise NotFound(f"{_DERIVED_ONLY.format(asked.kind)}: that is version {found.version}")
    return found


def _derived(here: Here, asked: Asked) -> Answered | None:
    """What is derived from a record of the exchange's own, which is served as its only version
    until somebody writes; None where there is none. Raises NotFound, Gone, Refused."""
    native = here.native.get(asked.kind)
    if native is None:
        return None
    try:
        return native(asked.logical_id)
    except NotFound:
        if asked.kind in writing.NATIVE:
            raise
        return None


def _unless_known(found: Answered, headers: Mapping[str, str]) -> Answered:
    """A conditional read (R4 3.1.0.1.6): 304 where the client has this version."""
    known = [one.strip() for one in headers.get("if-none-match", "").split(",")]
    if found.version and {f'W/"{found.version}"', f'"{found.version}"', "*"} & set(known):
        return Answered(status=304, version=found.version, changed=found.changed)
    if known == [""] and found.changed is not None and "if-modified-since" in headers:
        since = _http_date(headers["if-modified-since"])
        if since is not None and found.changed.replace(microsecond=0) <= since:
            return Answered(status=304, version=found.version, changed=found.changed)
    return found


def _http_date(told: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(told)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


# -- Writing --------------------------------------------------------------------------------------


def create(here: Here, asked: Asked) -> Act:
    """The act of a create, or of a conditional one (R4 3.1.0.8)."""
    writing.writable(asked.kind)
    resource = of_kind(asked)
    condition = unless_there(asked)
    unless = here.find(asked.kind, condition) if condition else None
    if asked.kind == "Patient":
        return registering.create(here.access, resource, here.place, unless=unless)
    return writing.create(resource, here.place, unless=unless)


def update(here: Here, asked: Asked) -> Act:
    """The act of an update, or of a conditional one (R4 3.1.0.4.3)."""
    writing.writable(asked.kind)
    resource = of_kind(asked)
    if asked.kind == "Patient":
        named = asked.logical_id
        matching = None if named else here.find(asked.kind, _condition(asked))
        return registering.update(
            here.access, resource, here.place, named, asked.headers, matching=matching
        )
    if asked.logical_id:
        _known_id(asked)
        not_registered(here, asked)
        return writing.update(resource, here.place, asked.logical_id, asked.headers)
    matching = here.find(asked.kind, _condition(asked))
    if isinstance(told := resource.get("id"), str):
        not_registered(here, replace(asked, logical_id=told))
    return writing.update_matching(resource, here.place, matching, asked.headers)


def patch(here: Here, asked: Asked) -> Act:
    """The act of a patch, or of a conditional one (R4 3.1.0.9)."""
    writing.writable(asked.kind)
    if asked.change is None:
        raise Problem(400, "required", "a patch is expected")
    matching = None if asked.logical_id else here.find(asked.kind, _condition(asked))
    if asked.kind == "Patient":
        named = _found(here, matching) if matching else asked.logical_id
        return registering.patch(
            *(here.access, _current(here), asked.change(), here.place, named, asked.headers),
            matching=matching,
        )
    not_registered(here, asked)
    return writing.patch(
        asked.kind, asked.logical_id, asked.change(), here.place, asked.headers, matching=matching
    )


def delete(here: Here, asked: Asked) -> Act:
    """The act of a delete, or of a conditional one (R4 3.1.0.7.1)."""
    writing.writable(asked.kind)
    matching = None if asked.logical_id else here.find(asked.kind, _condition(asked))
    if asked.kind == "Patient":
        return registering.delete(asked.logical_id, asked.headers, matching=matching)
    not_registered(here, asked)
    return writing.delete(asked.kind, asked.logical_id, asked.headers, matching=matching)


ACTS: Mapping[str, Callable[[Here, Asked], Act]] = {
    "POST": create,
    "PUT": update,
    "PATCH": patch,
    "DELETE": delete,
}
"""The interactions that change something, by their methods."""


def done(here: Here, act: Act, sent: Callable[[], Json] = dict) -> Answered:
    """Do one act, and answer; `sent` is the resource that came along.

    Raises what `exchange.recording` says; Problem for a patient who is not known.
    """
    try:
        made = recording.several(here.access, [act])
    except UnknownPatient as error:
        raise unknown(error, links.places(sent(), here.base)) from None
    return answers.kept(made[0], here.base)


def unknown(
    error: UnknownPatient, places: Mapping[tuple[str, str], str], place: str = ""
) -> Problem:
    """The error of a patient who is not known, and where that stands: one of `places`, or else
    `place`."""
    answer, told = outcome.HTTP[UnknownPatient], str(error)
    at = places.get(("Patient", str(error.patient)), place)
    return Problem(answer.http, answer.code, told, issues=[Issue(answer.code, told, at)])


def _found(here: Here, matching: Finder) -> str:
    """The one that a condition finds, before it is asked again in the commit. Raises NotFound,
    Stale."""
    found = matching(here.access.session)
    if not found:
        raise NotFound("nothing matches the condition")
    if len(found) > 1:
        raise Stale("the condition matches more than one resource")
    return found[0]


def _current(here: Here) -> Callable[[str], Json]:
    """What reads a Patient as it is served."""
    return lambda logical_id: json_format.parse(here.native["Patient"](logical_id).content)


def of_kind(asked: Asked) -> Json:
    """The resource that came along, which is of the kind that is asked for. Raises Problem."""
    resource = asked.body()
    if resource.get("resourceType") != asked.kind:
        validation.check(resource, asked.kind)  # which tells so
    return resource


def _known_id(asked: Asked) -> None:
    if not is_id(asked.logical_id):
        raise NotFound("an id has 1 to 64 letters, digits, hyphens and dots")


def not_registered(here: Here, asked: Asked) -> None:
    """Raise Problem for a hospital of the exchange, and its endpoint."""
    if asked.logical_id and (native := here.native.get(asked.kind)):
        try:
            native(asked.logical_id)
        except NotFound:
            return
        told = "the hospitals of the exchange are registered by its administrators"
        raise Problem(405, "not-supported", told, allow="GET")


def _has_versions(kind: str) -> None:
    if kind in writing.DERIVED and kind not in writing.CURRENT:
        raise Problem(404, "not-supported", _DERIVED_ONLY.format(kind))


_DERIVED_ONLY = "of {} only the current version is served, derived from the exchange's records"


def _condition(asked: Asked) -> Pairs:
    pairs = [(name, value) for name, value in asked.query if name not in {"_format", "_pretty"}]
    if not pairs:
        raise Problem(405, "not-supported", "name the resource, or a condition to find it by")
    return pairs


def unless_there(asked: Asked) -> Pairs:
    """The condition of a create, none for any. Raises Problem.

    In the address it means what it means in If-None-Exist: clients write it so (fhirpy does), and
    left unread it would make the same again and again.
    """
    if (told := asked.headers.get("if-none-exist")) is not None:
        pairs = condition_pairs(told.strip())
        if not pairs:
            raise Problem(400, "invalid", "If-None-Exist is a condition: name=value&name=value")
        return pairs
    return [(name, value) for name, value in asked.query if name not in _SHOWN]


def condition_pairs(query: str) -> Pairs:
    """The parameters of a condition. Raises Problem."""
    try:
        told = query.partition("?")[2] if "?" in query else query
        pairs = parse_qsl(
            told,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=100,
        )
    except ValueError:
        raise Problem(400, "invalid", "a condition is written name=value&name=value") from None
    return [(name, value) for name, value in pairs if name not in {"_format", "_pretty"}]


_SHOWN = frozenset({"_format", "_pretty", "_summary", "_elements"})
"""Parameters that tell how an answer is shown."""


# -- History --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A question about history, as its parameters ask it."""

    count: int = HISTORY
    since: datetime | None = None
    at: tuple[datetime, datetime] | None = None
    """Only versions that were current at some moment of this span."""
    used: Pairs = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """A page of history, its total where that was asked for, and where the next one goes on."""

    kept: Sequence[Kept]
    total: int | None
    following: Any


def history(
    here: Here, asked: Asked, past: Past, after: Any, next_page: Callable[[Any], str]
) -> bytes:
    """The Bundle of versions, newest first: of a resource, a kind, or all (R4 3.1.0.11).

    `after` is where the page goes on, as JSON, of which `next_page` makes the address of the next
    one. Raises NotFound, Refused, Problem.
    """
    if asked.kind:
        writing.served(asked.kind)
        _has_versions(asked.kind)
    page = (_of_one if asked.logical_id else _all)(here, asked, past, after)
    address = "/".join(part for part in (asked.kind, asked.logical_id, "_history") if part)
    query = f"?{urlencode(past.used)}" if past.used else ""
    links = [{"relation": "self", "url": f"{here.base}/{address}{query}"}]
    if page.following is not None:
        links.append({"relation": "next", "url": next_page(page.following)})
    entries = [_entry(here.base, one) for one in page.kept]
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "type": "history",
            **({"total": page.total} if page.total is not None else {}),
            "link": links,
            **({"entry": entries} if entries else {}),
        }
    )


def _of_one(here: Here, asked: Asked, past: Past, before: int | None) -> Versions:
    """The versions of a resource."""
    if asked.kind in writing.CURRENT:
        return _one(asked, past, here.native[asked.kind](asked.logical_id))
    try:
        page = _written(here, asked, past, before)
    except NotFound:
        derived = _derived(here, asked)
        if derived is None:
            raise
        return _one(asked, past, derived)
    return _fitting([(one, one.key) for one in page.kept], page.total, more=page.more)


def _all(here: Here, asked: Asked, past: Past, after: Any) -> Versions:
    """The versions of a kind, or of all, with those of what nobody wrote.

    What comes about meanwhile is on no further page.
    """
    # A number alone is from a page of an earlier release, which told of nothing else.
    last: dict[str, Any] = {"written": after} if isinstance(after, int) else dict(after or {})
    page = _written(here, asked, past, last.get("written"))
    newest = page.kept[0].key + 1 if page.kept else 0
    last = dict[str, Any](written=newest, until=here.access.now.isoformat()) | last
    until = datetime.fromisoformat(last["until"])
    within = unwritten.Within(
        kind=asked.kind,
        since=past.since,
        before=min(until, past.at[1]) if past.at is not None else until,
        after=last,
    )
    if not past.count:
        return Versions((), (page.total or 0) + unwritten.count(here.scope(), within), None)
    written = [Version(one.changed, "written", one.key, one) for one in page.kept]
    others = unwritten.versions(here.scope(), within, past.count + 1)
    merged = merge(written, others, key=lambda one: one.changed, reverse=True)
    wanted = list(islice(merged, past.count))
    told: list[tuple[Kept, Any]] = []
    for one, kept in zip(wanted, unwritten.told(here.scope(), wanted), strict=False):
        last = {**last, one.source: one.place}
        told.append((kept, last))
    return _fitting(told, None, more=page.more or len(written) + len(others) > len(told))


def _fitting(told: Sequence[tuple[Kept, Any]], total: int | None, *, more: bool) -> Versions:
    """As many versions as a page has bytes for; each comes with where a page goes on behind it."""
    size = 0
    for number, (one, _) in enumerate(told):
        size += len(one.content)
        if number and size > HISTORY_BYTES:
            told, more = told[:number], True
            break
    return Versions([one for one, _ in told], total, told[-1][1] if more and told else None)


def _written(here: Here, asked: Asked, past: Past, before: int | None) -> Page:
    return clinical.history(
        here.access,
        asked.kind,
        asked.logical_id,
        limit=past.count,
        since=past.since,
        before=before,
        at=past.at,
    )


def _one(asked: Asked, past: Past, derived: Answered) -> Versions:
    """The history of what has one version."""
    changed = derived.changed
    if changed is None:
        changed = moment(json_format.parse(derived.content)["meta"]["lastUpdated"])
    only = _only(asked, past, derived, changed)
    return Versions(only, None, None) if past.count else Versions((), len(only), None)


def _only(asked: Asked, past: Past, derived: Answered, changed: datetime) -> tuple[Kept, ...]:
    """The one version of what is derived, where it is asked for."""
    if past.since is not None and changed < past.since:
        return ()
    if past.at is not None and changed >= past.at[1]:
        return ()
    version = int(derived.version)
    return (
        Kept(
            kind=asked.kind,
            logical_id=asked.logical_id,
            version=version,
            changed=changed,
            content=derived.content,
            interaction="update" if asked.kind in writing.CURRENT and version > 1 else "create",
            key=0,
        ),
    )


_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_STATUSES = {"create": "201", "update": "200", "delete": "204"}


def _entry(base: str, one: Kept) -> Json:
    named = f"{one.kind}/{one.logical_id}"
    url = one.kind if one.interaction == "create" else named
    entry: dict[str, Any] = {"fullUrl": f"{base}/{named}"}
    if not one.deleted:
        entry["resource"] = orjson.Fragment(one.content)
    return entry | {
        "request": {"method": _METHODS[one.interaction], "url": url},
        "response": {
            "status": _STATUSES[one.interaction],
            "etag": f'W/"{one.version}"',
            "lastModified": instant(one.changed),
        },
    }


def span_of(found: tuple[int, int] | None) -> tuple[datetime, datetime]:
    """The span of a date, given in microseconds since 1970. Raises Problem where there is none."""
    if found is None:
        raise Problem(400, "invalid", "_at is a date, dateTime or instant")
    try:
        low, high = (_EPOCH + timedelta(microseconds=one) for one in found)
    except OverflowError:
        raise Problem(400, "value", "_at is too near to an end of the calendar") from None
    return low, high


def versions() -> Answered:
    """The versions of FHIR that are spoken here ($versions)."""
    told = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "version", "valueString": "4.0"},
            {"name": "default", "valueString": "4.0"},
        ],
    }
    return Answered(status=200, content=json_format.serialize(told))
