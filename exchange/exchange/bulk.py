"""Many resources at once, in the background: asked for, followed, fetched by who asked, and ended.

Who may have what written out is the policy's (`Action.EXPORT`, `policy.exporting`): a hospital's
system all of its own, others' for public health only; of a group, patients whom the hospital
treats. What an export holds is decided for the asker, resource by resource, when it is written; its
files are theirs alone, as long as they are who they were and nothing in it was withdrawn since, and
are deleted after a day. A user is known by name: no name is ever given to another. The door knows
what is asked and how far it is; here it is only kept, so that a worker that dies is followed by
another.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, true, update
from sqlalchemy.orm import Session

from exchange import jobs, policy, users, visibility
from exchange.access import Access, Exchange, translated
from exchange.errors import Gone, NotFound, TooBroad
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage.objects import ObjectNotFound, Staged
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Agreement,
    BulkFile,
    BulkJob,
    Consent,
    Link,
    Organization,
    Patient,
    Study,
    User,
)
from exchange_storage.rows import one_of

KEPT = timedelta(days=1)
"""For so long the files of an export, and what came of an import, can be fetched."""

AT_ONCE = 4
"""Exports and imports that one requester may have going on."""

PREFIX = "bulk"
"""Where their files are in the object store."""

TIDIED = 100
"""Expired ones that are removed at a time."""

ON_ITS_WAY = timedelta(hours=1)
"""Files younger than this may be of a job whose row is not committed yet."""


class Direction(StrEnum):
    """What is done."""

    EXPORT = "export"
    IMPORT = "import"


class State(StrEnum):
    """How far it has come."""

    WORKING = "working"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


WITHDRAWN = "a consent or an agreement has changed since: ask for the export again"


class Cancelled(Exception):
    """Raised by what would go on with something that was called off meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file that lies in the object store."""

    kind: str
    key: str
    size: int
    count: int
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Extent:
    """The greatest row numbers there are: how far a walk over all records goes."""

    patients: int
    studies: int


def ask(
    access: Access,
    direction: Direction,
    *,
    request: str,
    asked: Mapping[str, Any],
    content: Staged | None = None,
) -> BulkJob:
    """Ask for an export or import; a worker does it. `content` is what is to be imported.

    Raises Refused, TooBroad while too many of the asker's are going on.
    """
    action = _action(direction, asked)
    access.require(action, detail={"what": f"bulk {direction}"})
    reader = access.requester
    if action is Action.EXPORT:
        reader = policy.exporting(reader)
    token = secrets.token_urlsafe(24)
    told = dict(asked)
    if content is not None:
        told["content"] = _key(token)
        with translated():
            content.keep(told["content"])  # the object before the row that leads to it

    def unit(session: Session) -> BulkJob:
        requester = access.requester
        going_on = session.scalar(
            select(func.count())
            .select_from(BulkJob)
            .where(BulkJob.requester == requester.name, BulkJob.state == State.WORKING)
        )
        if going_on is not None and going_on >= AT_ONCE:
            raise TooBroad(f"{AT_ONCE} of yours are going on: wait for one, or cancel it")
        now = datetime.now(UTC)  # what is committed before this is part of it
        job = BulkJob(
            token=token,
            direction=direction,
            requester=requester.name,
            role=requester.role,
            organization_id=requester.organization,
            purpose=reader.purpose or "",
            request=request[:4096],
            asked=told,
            made=now,
            expires=now + KEPT,
        )
        session.add(job)
        session.flush()
        jobs.ask(session, jobs.BULK, str(job.id), now)
        access.note(action, detail={"what": f"bulk {direction}", "job": job.id})
        return job

    try:
        return access.write(unit)
    except BaseException:
        if content is not None:
            _remove(access, token)
        raise


def of(access: Access, token: str) -> BulkJob:
    """One of the asker's own.

    Raises Refused, NotFound for anybody else's, or one that is over, and Gone for an export of
    which something was withdrawn since.
    """
    requester = access.requester
    job = access.session.scalars(
        select(BulkJob).where(
            BulkJob.token == token,
            BulkJob.requester == requester.name,
            BulkJob.role == requester.role,
            BulkJob.organization_id.is_not_distinct_from(requester.organization),
            BulkJob.state != State.CANCELLED,
            BulkJob.expires > access.now,
        )
    ).one_or_none()
    if job is None:
        raise NotFound("you have asked for no such export or import, or it is over")
    access.require(_action(job.direction, job.asked), detail={"job": job.id})
    if withdrawn(access, job):
        raise Gone(WITHDRAWN)
    return job


def withdrawn(access: Access, job: BulkJob) -> bool:
    """Whether the asker of an export might not see all of it any more that others' hospitals share.

    What was withdrawn before it was asked for is not in it.
    """
    if job.direction != Direction.EXPORT:
        return False
    reader = asker(job)
    given = visibility.parameters(reader, access.now)
    patients = job.asked.get("patients")
    if patients is not None:
        wanted = {"wanted": f"[{','.join(map(str, patients))}]"}
        seen = _seen(visibility.reach(reader, Action.RETRIEVE))
        return seen.number(access.session.connection(), given | wanted) < len(set(patients))
    if reader.purpose is not Purpose.PUBLIC_HEALTH:
        return False  # its own hospital's, which nobody withdraws from it
    denied = visibility.denials_since(job.made)
    left = select(Agreement.id).where(
        Agreement.kind == policy.REPORTING,
        Agreement.until >= job.made,
        Agreement.until <= access.now,
    )
    found = (denied, left, _linked_to_a_denial(job.made))
    return any(access.session.execute(one.limit(1), given).first() for one in found)


def _linked_to_a_denial(since: datetime) -> Select[int]:
    """Links since then of patient records to persons who deny sharing elsewhere."""
    denying = (
        visibility.denials()
        .join(Patient, Patient.id == Consent.patient_id)
        .with_only_columns(Patient.person_id, maintain_column_froms=True)
        .where(Patient.person_id.is_not(None))
    )
    return select(Link.id).where(
        Link.person_id.in_(denying), Link.decision == "link", Link.decided >= since
    )


@lru_cache(len(visibility.Reach))
def _seen(reach: visibility.Reach) -> Prepared:
    return Prepared(
        lambda dialect: (
            select(func.count())
            .select_from(Patient)
            .where(one_of(Patient.id, "wanted", dialect), visibility.within(reach))
        )
    )


def _action(direction: str, asked: Mapping[str, Any]) -> Action:
    if direction == Direction.IMPORT:
        return Action.RECORD
    return Action.EXPORT if asked.get("patients") is None else Action.EXPORT_GROUP


def _is_still(session: Session, job: BulkJob) -> bool:
    """Whether who asked is who they were: not deactivated, nor of another role or hospital."""
    user = session.scalars(select(User).where(User.name == job.requester)).one_or_none()
    if user is None:  # a system that is known otherwise than by a password
        of = job.organization_id
        return of is None or session.get_one(Organization, of).active
    is_same = (user.role, user.organization_id) == (job.role, job.organization_id)
    return is_same and users.may_sign_in(session, user)


def files(access: Access, job: BulkJob) -> Sequence[BulkFile]:
    """The files of a job that `of` gave."""
    return access.session.scalars(
        select(BulkFile).where(BulkFile.job_id == job.id).order_by(BulkFile.number)
    ).all()


def file(access: Access, token: str, number: int) -> BulkFile:
    """A file of the asker's own. Raises Refused, NotFound."""
    job = of(access, token)
    found = access.session.get(BulkFile, (job.id, number))
    if found is None:
        raise NotFound("no such file")
    detail = {"what": "bulk file", "job": job.id, "file": number, "resources": found.count}
    access.note(_action(job.direction, job.asked), detail=detail)
    return found


def cancel(access: Access, token: str) -> None:
    """End one of the asker's own, and have its files removed. Raises Refused, NotFound."""
    number = of(access, token).id

    def unit(session: Session) -> None:
        job = session.get_one(BulkJob, number, with_for_update=True)
        job.state = State.CANCELLED
        jobs.ask(session, jobs.BULK, str(number), datetime.now(UTC))
        action = _action(job.direction, job.asked)
        access.note(action, detail={"what": "bulk cancelled", "job": number})

    access.write(unit)


class Files:
    """The files that a worker writes for a job, one for each type; discarded unless kept."""

    def __init__(self, exchange: Exchange, job: BulkJob) -> None:
        self._objects = exchange.objects
        self._job = job
        self._open: dict[tuple[bool, str], Staged] = {}
        self._counts: dict[tuple[bool, str], int] = {}

    @property
    def count(self) -> int:
        """Resources in them, without those that tell of errors."""
        return sum(count for (is_error, _), count in self._counts.items() if not is_error)

    def write(self, kind: str, line: bytes, *, is_error: bool = False) -> None:
        """Add a resource. Raises NoRoom, Unavailable."""
        place = (is_error, kind)
        with translated():
            if place not in self._open:
                self._open[place] = self._objects.stage()
            self._open[place].write(line + b"\n")
        self._counts[place] = self._counts.get(place, 0) + 1

    def kept(self) -> list[Written]:
        """Make them durable, under keys that nothing has. Raises NoRoom, Unavailable."""
        made: list[Written] = []
        with translated():
            for (is_error, kind), staged in sorted(self._open.items()):
                stored = staged.keep(_key(self._job.token))
                made.append(
                    Written(
                        kind=kind,
                        key=stored.key,
                        size=stored.size,
                        count=self._counts[is_error, kind],
                        is_error=is_error,
                    )
                )
        return made

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for staged in self._open.values():
            staged.discard()


def content(exchange: Exchange, job: BulkJob, start: int) -> Iterator[bytes]:
    """What is to be imported, from a byte on. Only for the worker. Raises Unavailable."""
    with translated():
        yield from exchange.objects.stream(job.asked["content"], start)


# -- For those who run the exchange ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """An export or import as a list of them shows it; never what it holds."""

    number: int
    direction: str
    requester: str
    organization: str
    state: str
    done: int
    """Resources that have been exported, or lines that have been read."""
    files: int
    made: datetime
    expires: datetime
    told: str


def listed(access: Access, *, number: int | None = None, limit: int = 100) -> Sequence[Listed]:
    """The last exports and imports, the newest first; to a hospital's administrator, its own.

    Only the one with this `number`, where one is given. Raises Refused.
    """
    access.require(Action.ADMINISTER, detail={"what": "bulk jobs", "job": number})
    files = select(func.count()).where(BulkFile.job_id == BulkJob.id).scalar_subquery()
    wanted = (
        select(BulkJob, Organization.code, files.label("files"))
        .outerjoin(Organization, Organization.id == BulkJob.organization_id)
        .where(_administered(access))
        .order_by(BulkJob.id.desc())
        .limit(limit)
    )
    if number is not None:
        wanted = wanted.where(BulkJob.id == number)
    access.note(Action.ADMINISTER, reason="bulk jobs listed", detail={"job": number})
    return [
        Listed(
            number=row.BulkJob.id,
            direction=row.BulkJob.direction,
            requester=row.BulkJob.requester,
            organization=row.code or "",
            state=row.BulkJob.state,
            done=row.BulkJob.done,
            files=row.files,
            made=row.BulkJob.made,
            expires=row.BulkJob.expires,
            told=row.BulkJob.told,
        )
        for row in access.session.execute(wanted)
    ]


def call_off(access: Access, number: int) -> None:
    """End an export or import, whoever asked for it, and have its files removed.

    Raises Refused, NotFound.
    """
    access.require(Action.ADMINISTER, detail={"what": "bulk cancelled", "job": number})

    def unit(session: Session) -> None:
        found = select(BulkJob.id).where(
            BulkJob.id == number, BulkJob.state != State.CANCELLED, _administered(access)
        )
        if session.execute(found).first() is None:
            raise NotFound("no export or import has this number; `exchange export list`")
        session.execute(update(BulkJob).where(BulkJob.id == number).values(state=State.CANCELLED))
        jobs.ask(session, jobs.BULK, str(number), datetime.now(UTC))
        detail = {"what": "bulk cancelled", "job": number}
        access.note(Action.ADMINISTER, reason="bulk job cancelled", detail=detail)

    access.write(unit)


def _administered(access: Access) -> ColumnElement[bool]:
    own = access.requester.organization
    return true() if own is None else BulkJob.organization_id == own


# -- What the worker does -------------------------------------------------------------------------


def going_on(access: Access, number: int) -> BulkJob | None:
    """The job with this number, where there is something to be done. Only for the worker."""
    access.require(Action.VERIFY)
    job = access.session.get(BulkJob, number)
    if job is None or job.state != State.WORKING:
        return None
    if not _is_still(access.session, job):
        _called_off(access, [number], "who asked may no longer")
        return None
    return job


def asker(job: BulkJob) -> Requester:
    """Who asked, as who asks now: what may be seen is decided as of now."""
    return Requester(
        name=job.requester,
        role=Role(job.role),
        organization=job.organization_id,
        purpose=Purpose(job.purpose) if job.purpose else None,
        door="fhir",
    )


def kept(
    access: Access,
    job: BulkJob,
    *,
    progress: Mapping[str, Any],
    done: int,
    files: Sequence[Written] = (),
    state: State = State.WORKING,
    told: str = "",
) -> None:
    """How far the job has come, with the files that were made since. Raises Cancelled."""
    access.require(Action.VERIFY)

    def unit(session: Session) -> None:
        held = session.get(BulkJob, job.id, with_for_update=True)
        if held is None or held.state != State.WORKING:
            raise Cancelled
        known = session.scalar(
            select(func.count()).select_from(BulkFile).where(BulkFile.job_id == job.id)
        )
        for number, one in enumerate(files, known or 0):
            session.add(
                BulkFile(
                    job_id=job.id,
                    number=number,
                    kind=one.kind,
                    key=one.key,
                    size=one.size,
                    count=one.count,
                    is_error=one.is_error,
                )
            )
        held.progress, held.done, held.state = dict(progress), done, state
        held.told = told[:4096]
        if state is not State.WORKING:
            held.expires = datetime.now(UTC) + KEPT

    access.write(unit)


def discard(access: Access, job: BulkJob) -> None:
    """Remove what was written in vain for a job that is over: others may have tidied already.

    What its rows lead to stays, should another worker have completed it. Only for the worker.
    """
    access.require(Action.VERIFY)
    known = set(access.session.scalars(select(BulkFile.key).where(BulkFile.job_id == job.id)))
    _remove(access, job.token, known)


def extent(access: Access) -> Extent:
    """How far a walk over all records goes. Only for the worker."""
    access.require(Action.VERIFY)
    patients = access.session.scalar(select(func.max(Patient.id)))
    studies = access.session.scalar(select(func.max(Study.id)))
    return Extent(patients or 0, studies or 0)


def _called_off(access: Access, numbers: Sequence[int], reason: str) -> None:
    def unit(session: Session) -> None:
        state = {"state": State.CANCELLED, "told": reason}
        session.execute(update(BulkJob).where(BulkJob.id.in_(numbers)).values(state))
        detail = {"what": "bulk cancelled", "jobs": list(numbers), "why": reason}
        access.note(Action.VERIFY, detail=detail)

    if numbers:
        access.write(unit)


def tidy(access: Access) -> int:
    """Remove what has expired or was cancelled, `TIDIED` at a time; how many there were.

    So are exports of which something was withdrawn, and those of who is no longer who they were.
    """
    access.require(Action.VERIFY)
    ended = access.session.scalars(select(BulkJob).where(BulkJob.state == State.COMPLETE)).all()
    void = [one.id for one in ended if withdrawn(access, one) or not _is_still(access.session, one)]
    _called_off(access, void, WITHDRAWN)
    over = or_(BulkJob.expires < access.now, BulkJob.state == State.CANCELLED, BulkJob.id.in_(void))
    found = access.session.execute(select(BulkJob.id, BulkJob.token).where(over).limit(TIDIED))
    jobs_over = found.all()
    for _, token in jobs_over:
        _remove(access, token)

    def unit(session: Session) -> None:
        numbers = [number for number, _ in jobs_over]
        session.execute(delete(BulkFile).where(BulkFile.job_id.in_(numbers)))
        session.execute(delete(BulkJob).where(BulkJob.id.in_(numbers)))

    if jobs_over:
        access.write(unit)
    return len(jobs_over)


def sweep(access: Access) -> int:
    """Remove files to which no job leads, such as after a crash between a file and its row; how
    many there were. Only for the worker."""
    access.require(Action.VERIFY)
    with translated():
        old = [
            one.key
            for one in access.objects.list(f"{PREFIX}/")
            if access.now - one.kept >= ON_ITS_WAY
        ]
    tokens = {key.split("/")[1] for key in old}
    if not tokens:
        return 0
    known = set(access.session.scalars(select(BulkJob.token)))
    for token in tokens - known:
        _remove(access, token)
    return len(tokens - known)


def _key(token: str) -> str:
    return f"{PREFIX}/{token}/{secrets.token_hex(8)}"


def _remove(access: Access, token: str, known: Collection[str] = ()) -> None:
    with translated():
        for stored in list(access.objects.list(f"{PREFIX}/{token}/")):
            if stored.key in known:
                continue
            try:
                access.objects.delete(stored.key)
            except ObjectNotFound:
                continue
