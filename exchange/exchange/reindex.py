"""Reindexing: having all resources found under what the definitions say now (FHIR R4 3.1.1).

Values are computed while others write, and kept only where the resource is still the same version;
so it may be done while the exchange serves. A walk that was broken off goes on where it had come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import and_, func, select, update
from sqlalchemy.orm import Session

from exchange import attachments, clinical, enclosures, jobs, targets
from exchange.access import Access
from exchange.policy import Action
from exchange.targets import Target
from exchange_storage import resource_index
from exchange_storage.database import Database
from exchange_storage.records import Patient, Reindexing, Resource, Revision
from exchange_storage.resource_index import Reference, Value

BATCH = 100
"""Resources of one transaction."""

SUBJECT = "resources"
"""Of the job: there is one walk at a time."""

SAMPLE = 1000
"""Resources that a check looks at where not all are asked for."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a resource says of itself, by its bytes."""

    values: Sequence[Value]
    patients: tuple[int, ...] | None
    """Row numbers of the patients that it is about; None where that cannot be told."""
    targets: tuple[Target, ...] = ()
    """What it is about besides, and whose patients with it."""


Reader = Callable[[bytes], Said]
"""Reads the JSON of a resource; given by the door, which knows the definitions."""


def ask(access: Access) -> int:
    """Have all resources indexed anew, or go on with the walk that is not finished; its number.

    A worker does it. Raises Refused.
    """
    access.require_region()

    def unit(session: Session) -> int:
        walk = _unfinished(session) or _begun(session)
        jobs.ask(session, jobs.REINDEX, SUBJECT, datetime.now(UTC))
        access.note(Action.ADMINISTER, reason="reindexing", detail={"walk": walk.id})
        return walk.id

    return access.write(unit)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk has come, in resources; `total` is what is to be looked at, about."""

    read: int
    total: int
    changed: int
    finished: bool


def progress(access: Access, walk: int) -> Progress:
    """How far the walk with this number has come. Raises Refused."""
    access.require_region()
    with access.exchange.database.reading() as session:
        row = session.get_one(Reindexing, walk)
        left = session.scalar(
            select(func.count())
            .select_from(Resource)
            .where(Resource.id > row.position, Resource.id <= row.last, ~Resource.deleted)
        )
        done = row.finished is not None
        return Progress(row.read, row.read + (0 if done else left or 0), row.changed, done)


def walk(access: Access, read: Reader, *, until: datetime) -> bool:
    """Go on with the walk, or begin one, until the moment `until`; whether it is finished.

    Only for the worker. Raises Refused, Unavailable.
    """
    access.require(Action.VERIFY)
    database = access.exchange.database
    number = access.write(lambda session: (_unfinished(session) or _begun(session)).id)
    while datetime.now(UTC) < until:
        with database.reading() as session:
            row = session.get_one(Reindexing, number)
            position, last = row.position, row.last
        found = _page(database, position, last)
        differing = [one for one in found if _differs(database, one, read)]
        _keep(access, number, found, differing)
        if not found:
            return True
    return False


def differing(access: Access, read: Reader, *, every: bool) -> Iterator[tuple[int, list[str]]]:
    """How many more resources were looked at, and which of them are not found under what they say.

    All of them with `every`, else some, evenly. Raises Refused, Unavailable.
    """
    access.require_region()
    database = access.exchange.database
    with database.reading() as session:
        last = session.scalar(select(func.max(Resource.id))) or 0
    step = 1 if every else max(1, last // SAMPLE)
    position = 0
    while found := _page(database, position, last, step=step):
        position = found[-1].id
        yield (
            len(found),
            [f"{one.kind}/{one.logical_id}" for one in found if _differs(database, one, read)],
        )


@dataclass(slots=True)
class _Held:
    """A resource as it stands, and under what it is found; what it says once it was read."""

    id: int
    kind: str
    logical_id: str
    version: int
    organization: int | None
    is_directory: bool
    patients: tuple[int, ...]
    content: bytes = field(repr=False)
    found_under: set[Value]
    is_misplaced: bool
    """What it is found under says that it is about somebody else."""
    said: Said | None = None


def _page(database: Database, position: int, last: int, *, step: int = 1) -> list[_Held]:
    wanted = (
        select(Resource, Revision.content)
        .join(
            Revision,
            and_(Revision.resource_id == Resource.id, Revision.version == Resource.version),
        )
        .where(Resource.id > position, Resource.id <= last, ~Resource.deleted)
        .order_by(Resource.id)
        .limit(BATCH)
    )
    if step > 1:
        wanted = wanted.where(Resource.id % step == 0)
    with database.reading() as session:
        rows = session.execute(wanted).all()
        resources = [row.Resource.id for row in rows]
        under = resource_index.held(session, resources)
        misplaced = resource_index.misplaced(session, resources)
        return [
            _Held(
                id=row.Resource.id,
                kind=row.Resource.kind,
                logical_id=row.Resource.logical_id,
                version=row.Resource.version,
                organization=row.Resource.organization_id,
                is_directory=row.Resource.is_directory,
                patients=_about(session, row.Resource),
                content=attachments.without(row.content),
                found_under=under.get(row.Resource.id, set()),
                is_misplaced=row.Resource.id in misplaced,
            )
            for row in rows
        ]


def _about(session: Session, resource: Resource) -> tuple[int, ...]:
    others = resource.has_others
    return tuple(clinical.about(session, resource.id, resource.patient_id, others=others))


def _differs(database: Database, one: _Held, read: Reader) -> bool:
    one.said = _as_addressed(one, _followed(database, one, read(one.content)))
    if {resource_index.kept(value) for value in one.said.values} != one.found_under:
        return True
    if one.is_misplaced:
        return True
    patients = one.said.patients
    if patients is None:
        return one.is_directory
    stands = one.kind in clinical.DIRECTORY and not patients
    return stands != one.is_directory or set(patients) != set(one.patients)


def _followed(database: Database, one: _Held, said: Said) -> Said:
    """What it says, with the patients of its targets, or of what attaches it."""
    enclosed = one.kind == enclosures.KIND and not enclosures.is_confined(said.values)
    if said.patients is None or not (said.targets or enclosed):
        return said
    with database.reading() as session:
        followed = targets.patients(session, one.organization, said.targets)
        if enclosed:
            followed += enclosures.patients(session, one.organization, one.logical_id)
    return Said(said.values, tuple(dict.fromkeys((*said.patients, *followed))))


def _as_addressed(one: _Held, said: Said) -> Said:
    """What it says, with its references to this server under an address that it had once.

    By which name a client had called this server is not kept; that a reference was one to itself
    is seen by what it is found under.
    """
    held = {
        (value.parameter, value.position, f"/{value.target_kind}/{value.target}"): value
        for value in one.found_under
        if isinstance(value, Reference) and value.target_kind
    }
    values: list[Value] = []
    patients = said.patients
    for value in said.values:
        if isinstance(value, Reference) and not value.target_kind:
            end = "/" + "/".join(value.target.split("/_history/")[0].split("/")[-2:])
            if (known := held.get((value.parameter, value.position, end))) is not None:
                values.append(known)
                patients = one.patients
                continue
        values.append(value)
    return Said(values, patients)


def _keep(access: Access, number: int, found: Sequence[_Held], differing: Iterable[_Held]) -> None:
    def unit(session: Session) -> None:
        walk = session.get_one(Reindexing, number, with_for_update=True)
        for one in differing:
            walk.changed += _kept(session, one)
        walk.read += len(found)
        if found:
            walk.position = found[-1].id
        else:
            walk.finished = datetime.now(UTC)
            told = {"walk": number, "read": walk.read, "changed": walk.changed}
            access.note(Action.VERIFY, reason="reindexed", detail=told)

    access.write(unit)


def _kept(session: Session, one: _Held) -> bool:
    """Whether the resource is still what was read; what was written since is indexed already."""
    version = select(Resource.version).where(Resource.id == one.id, ~Resource.deleted)
    if one.said is None or session.scalar(version.with_for_update()) != one.version:
        return False
    attached = enclosures.attached_by(session, one.id) | enclosures.attached(one.said.values)
    resource_index.remove(session, one.id)
    resource_index.add(session, one.id, one.said.values, one.patients)
    _about_whom(session, one)
    enclosures.settle(session, one.organization, attached)
    return True


def _about_whom(session: Session, one: _Held) -> None:
    """Keep whom it is about.

    Where it names somebody's patient whom its hospital cannot write of, or nobody knows whom, it
    stays its own, and says not that it leads to no other patient: questions look at it itself.
    """
    patients = _own(session, one)
    if patients is None:
        session.execute(
            update(Resource)
            .where(Resource.id == one.id)
            .values(is_directory=False, has_others=True)
        )
        resource_index.place(session, one.id, ())
        return
    session.execute(
        update(Resource)
        .where(Resource.id == one.id)
        .values(is_directory=one.kind in clinical.DIRECTORY and not patients)
    )
    if set(patients) != set(one.patients):
        targets.place(session, one.id, one.version, patients)


def _own(session: Session, one: _Held) -> tuple[int, ...] | None:
    """The patients, if all of them are there, and of the hospital that wrote it."""
    if one.said is None or one.said.patients is None:
        return None
    patients = tuple(dict.fromkeys(one.said.patients))
    owners = session.scalars(select(Patient.organization_id).where(Patient.id.in_(patients))).all()
    if len(owners) != len(patients):
        return None
    is_own = one.organization is None or all(owner == one.organization for owner in owners)
    return patients if is_own else None


def _unfinished(session: Session) -> Reindexing | None:
    wanted = select(Reindexing).where(Reindexing.finished.is_(None)).order_by(Reindexing.id)
    return session.scalars(wanted.limit(1)).first()


def _begun(session: Session) -> Reindexing:
    last = session.scalar(select(func.max(Resource.id))) or 0
    made = Reindexing(begun=datetime.now(UTC), last=last)
    session.add(made)
    session.flush()
    return made
