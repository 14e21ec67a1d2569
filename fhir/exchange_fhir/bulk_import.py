"""NDJSON that is taken in: every line by itself, so that a broken one does not keep the rest out.

Lines are taken together while nothing is wrong with any of them, else one by one; what is wrong is
told by the number of the line. A worker that died is followed by one that takes some lines again:
each has a logical id that does not depend on who takes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from exchange import bulk
from exchange.access import Exchange
from exchange.bulk import State
from exchange.errors import ExchangeError, Unavailable
from exchange.jobs import Later
from exchange.policy import Requester
from exchange_fhir import batched, json_format, outcome, routed, transaction
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.interactions import Here
from exchange_fhir.outcome import Issue, Problem, of_issues
from exchange_fhir.routed import Table
from exchange_fhir.serving import Serving
from exchange_storage.records import BulkJob

TOGETHER = 50
"""Lines that are taken in one transaction."""

SEGMENT = 2000
"""Lines after which it is kept how far it has come."""

LINE = 4 << 20
"""Bytes of one line, at most."""

_ROUTES = Table([Route(path, batched.nothing, methods=["POST", "PUT"]) for path in routed.WRITING])
"""What a line does."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line and its number, from 1."""

    number: int
    content: bytes
    """Of one that is too long only its end."""
    is_too_long: bool = False


def take_in(exchange: Exchange, worker: Requester, job: BulkJob, serving: Serving) -> None:
    """Take in the next segment. Raises Later where there is more, Cancelled, Unavailable."""
    asker = bulk.asker(job)
    offset, number = int(job.progress.get("offset", 0)), int(job.progress.get("line", 0))
    taken: dict[str, int] = dict(job.progress.get("taken", {}))
    wrong: list[Json] = []
    ended = True
    waiting: list[Line] = []
    for line, ends in _lines(exchange, job, offset, number):
        number, offset = line.number, ends
        waiting.append(line)
        if len(waiting) == TOGETHER:
            _take(waiting, asker, job, serving, taken, wrong)
            waiting.clear()
            if number % SEGMENT == 0:
                ended = False
                break
    _take(waiting, asker, job, serving, taken, wrong)
    with bulk.Files(exchange, job) as told:
        for one in wrong:
            told.write("OperationOutcome", json_format.serialize(one), is_error=True)
        files = told.kept()
    with exchange.on_behalf_of(worker) as access:
        bulk.kept(
            access,
            job,
            progress={"offset": offset, "line": number, "taken": taken},
            done=number,
            files=files,
            state=State.COMPLETE if ended else State.WORKING,
        )
    if not ended:
        raise Later(0)


def _lines(
    exchange: Exchange, job: BulkJob, offset: int, number: int
) -> Iterator[tuple[Line, int]]:
    """Lines from a byte on, each with the byte where the next one begins."""
    pending = bytearray()
    pieces = bulk.content(exchange, job, offset)
    skipping = False
    for piece in pieces:
        pending += piece
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            offset += end + 1
            number += 1
            yield Line(number, line, skipping or len(line) > LINE), offset
            skipping = False
        if len(pending) > LINE:
            # Too long to be a resource: told of as such, and never held whole.
            offset += len(pending)
            pending.clear()
            skipping = True
    if pending or skipping:
        yield Line(number + 1, bytes(pending), skipping), offset + len(pending)


def _take(
    lines: Sequence[Line],
    asker: Requester,
    job: BulkJob,
    serving: Serving,
    taken: dict[str, int],
    wrong: list[Json],
) -> None:
    """Take lines in, together if that can be, else each by itself."""
    read: list[tuple[Line, Json]] = []
    for line in lines:
        if not line.content.strip() and not line.is_too_long:
            continue
        try:
            if line.is_too_long:
                raise Problem(413, "too-long", f"a line has at most {LINE} bytes")
            read.append((line, json_format.parse(line.content)))
        except Problem as problem:
            wrong.append(_told(line, problem.issues))
    if not read:
        return
    try:
        _done(read, asker, job, serving)
    except Unavailable:
        raise
    except (ExchangeError, Problem):
        for one in read:
            try:
                _done([one], asker, job, serving)
            except Unavailable:
                raise
            except Problem as problem:
                wrong.append(_told(one[0], problem.issues, one[1]))
            except ExchangeError as error:
                code = outcome.HTTP[type(error)].code
                wrong.append(_told(one[0], [Issue(code, str(error))]))
            else:
                _count(taken, one[1])
    else:
        for _, resource in read:
            _count(taken, resource)


def _count(taken: dict[str, int], resource: Json) -> None:
    kind = str(resource["resourceType"])
    taken[kind] = taken.get(kind, 0) + 1


def _done(
    read: Sequence[tuple[Line, Json]], asker: Requester, job: BulkJob, serving: Serving
) -> None:
    """Take lines in as one transaction. Raises Problem, and what the exchange raises."""
    base: str = job.asked["base"]
    place = serving.place_at(base)

    @contextmanager
    def opened() -> Iterator[Here]:
        with serving.exchange.on_behalf_of(asker) as access:
            yield serving.here(place, access)

    with serving.exchange.on_behalf_of(asker) as access:
        scope = serving.scope(base, access)
        owner = next((one for one in scope.organizations if one.id == asker.organization), None)
    issuer = "" if owner is None else owner.issuer
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [_entry(line, resource, job, issuer) for line, resource in read],
    }
    transaction.processed(
        bundle, opened, _ROUTES, batched.nothing, base, limit=TOGETHER, full=False
    )


def _entry(line: Line, resource: Json, job: BulkJob, issuer: str) -> Json:
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise Problem(422, "structure", "a line is a resource")
    if kind == "Patient":
        # A hospital's patient is known by its number; the logical id is the exchange's to give.
        resource = {name: value for name, value in resource.items() if name != "id"}
        number = _number(resource, issuer)
        condition = f"?identifier=urn:oid:{issuer}|{number}" if number else ""
        request = {"method": "PUT" if number else "POST", "url": f"Patient{condition}"}
        return {"resource": resource, "request": request}
    named = resource.get("id")
    if not isinstance(named, str):
        named = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job.token}/{line.number}"))
    resource = {**resource, "id": named}
    return {"resource": resource, "request": {"method": "PUT", "url": f"{kind}/{named}"}}


def _number(resource: Mapping[str, Any], issuer: str) -> str:
    listed = resource.get("identifier")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("system") == f"urn:oid:{issuer}":
            value = one.get("value")
            if isinstance(value, str) and not set(value) & set("&|,\\$#%+"):
                return value
    return ""


def _told(line: Line, issues: Sequence[Issue], resource: Json | None = None) -> Json:
    """What is wrong with a line, which holds a resource or none; never what stands in it."""
    kind = str((resource or {}).get("resourceType", ""))
    told = [
        Issue(one.code, f"line {line.number}: {one.told}", _place(one.expression, kind))
        for one in issues[:20]
    ]
    return of_issues(told)


def _place(expression: str, kind: str) -> str:
    """Where in the resource, not in the transaction that took it."""
    if not expression.startswith("Bundle.entry"):
        return expression
    _, inside, rest = expression.partition("].resource.")
    return f"{kind}.{rest}" if inside and kind in elements.resources() else ""
