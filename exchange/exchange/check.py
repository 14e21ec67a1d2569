"""Check: every row has its object, every object its row, and the bytes have their digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Row, and_, func, select
from sqlalchemy.orm import Session

from exchange import attachments, derived, reindex, scrub, settling
from exchange.access import Access
from exchange.audit import Outcome
from exchange.policy import Action
from exchange_storage.database import Database
from exchange_storage.objects import ObjectNotFound, StoreUnavailable
from exchange_storage.records import (
    AuditRecord,
    Damage,
    Destroyed,
    Instance,
    Resource,
    Revision,
    Series,
)

OBJECTS = "studies/"
"""Where the objects of instances lie."""

SETTLED = timedelta(hours=1)
"""Objects younger than this may be on their way into the index."""

COMING = "is not there yet: it came lately, and may wait in the spool of another machine"

_NAME = re.compile(
    r"studies/_?(?P<study>[0-9.]{1,64})/[^/]+/_?(?P<uid>[0-9.]{1,64})\.(?P<digest>[0-9a-f]{64})\.dcm"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: which object, and what is wrong with it."""

    key: str
    what: str
    harmless: bool = False
    """Loses nothing: it takes room, or is still on its way."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check has come."""

    done: int
    total: int


def check(
    access: Access,
    *,
    read: bool = True,
    resources: reindex.Reader | None = None,
    every: bool = False,
) -> Iterator[Finding | Progress]:
    """Compare the index with the object store; with `read` compute every digest from the bytes.

    Where it is given what reads them, `resources` are looked at too, some of them or `every` one:
    whether they are found under what they say. What a scrub found damaged, and is whole again, is
    taken off its list. Raises Refused, Unavailable.
    """
    access.require_region()
    access.catch_up()
    access.note(Action.ADMINISTER, reason="check of the store")
    with access.exchange.database.reading() as session:
        total = session.execute(select(func.count()).select_from(Instance)).scalar_one()
    for done, row in enumerate(_rows(access.exchange.database), 1):
        key = row.key
        try:
            stored = access.objects.stat(key)
            if stored.size != row.size:
                yield Finding(key, f"has {stored.size} bytes, not {row.size}")
            elif read and access.objects.digest(key) != row.digest:
                yield Finding(key, "its bytes do not have the digest that they came with")
            elif read and row.damaged and access.objects.settled(key):
                access.write(partial(scrub.note_whole, instances=[row.id], now=access.now))
        except ObjectNotFound:
            yield _missing(access, key, row.received)
        except StoreUnavailable as error:
            yield _unreadable(access, key, error)
        yield Progress(done, total)
    yield from _of_attached(access, read=read)
    with access.exchange.database.reading() as session:
        lost = session.execute(_WITHOUT_VERSION).all()
    for kind, logical_id in lost:
        yield Finding(f"{kind}/{logical_id}", "the resource is there, its current version is not")
    if resources is not None:
        for _, named in reindex.differing(access, resources, every=every):
            for one in named:
                yield Finding(one, "is not found under what it says: `exchange reindex`")
    for stored in access.objects.list(OBJECTS):
        if access.now - stored.kept >= SETTLED:
            with access.exchange.database.reading() as session:
                if finding := _without_row(session, stored.key):
                    yield finding
    for stored in access.objects.list(f"{derived.PREFIX}/"):
        if access.now - stored.kept >= SETTLED:
            with access.exchange.database.reading() as session:
                if not _tells_of_something(session, stored.key):
                    yield Finding(stored.key, "tells of a series of which nothing is kept")


def _of_attached(access: Access, *, read: bool) -> Iterator[Finding]:
    """What is wrong with what is attached to versions of resources."""
    last, rows = 0, [(0, "", "", 0)]
    while rows:
        with access.exchange.database.reading() as session:
            rows = list(attachments.named(session, last, 1000))
        last = rows[-1][0] if rows else last
        for number, key, digest, size in rows:
            try:
                if access.objects.stat(key).size != size:
                    yield Finding(key, f"does not have {size} bytes")
                elif read and access.objects.digest(key) != digest:
                    yield Finding(key, "its bytes do not have the digest that they came with")
            except ObjectNotFound:
                with access.exchange.database.reading() as session:
                    recorded = attachments.recorded(session, number)
                yield _missing(access, key, recorded)
            except StoreUnavailable as error:
                yield _unreadable(access, key, error)
    for stored in access.objects.list(f"{attachments.PREFIX}/"):
        if access.now - stored.kept >= SETTLED:
            with access.exchange.database.reading() as session:
                if not attachments.is_named(session, stored.key):
                    yield Finding(stored.key, "no version of a resource names it", harmless=True)


def _unreadable(access: Access, key: str, error: StoreUnavailable) -> Finding:
    """What the error says of this object. Raises it where it is the store that does not answer."""
    if not scrub.unreadable(access, key):
        raise error
    return Finding(key, "the object cannot be read")


def _missing(access: Access, key: str, received: datetime) -> Finding:
    if settling.may_come(access.objects, received):
        return Finding(key, COMING, harmless=True)
    return Finding(key, "the object is missing")


_WITHOUT_VERSION = (
    select(Resource.kind, Resource.logical_id)
    .outerjoin(
        Revision,
        and_(Revision.resource_id == Resource.id, Revision.version == Resource.version),
    )
    .where(Revision.id.is_(None))
    .order_by(Resource.id)
)


def _rows(database: Database) -> Iterator[Row[int, str, str, int, datetime, bool]]:
    """What is looked at of every instance, in short transactions: reading terabytes takes hours,
    and an open transaction keeps both databases from clearing away what is outdated."""
    last = 0
    while True:
        page = (
            select(*_LOOKED_AT)
            .outerjoin(Damage, Damage.instance_id == Instance.id)
            .where(Instance.id > last)
            .order_by(Instance.id)
            .limit(1000)
        )
        with database.reading() as session:
            rows = session.execute(page).all()
        if not rows:
            return
        last = rows[-1].id
        yield from rows


_LOOKED_AT = (
    Instance.id,
    Instance.key,
    Instance.digest,
    Instance.size,
    Instance.received,
    Damage.instance_id.is_not(None).label("damaged"),
)


def _tells_of_something(session: Session, key: str) -> bool:
    """Whether anything is kept of the series from which a document was derived."""
    series = derived.series_of(key)
    kept = select(Instance.id).join(Series).where(Series.series_instance_uid == series)
    return session.execute(kept.limit(1)).first() is not None


def _without_row(session: Session, key: str) -> Finding | None:
    """What is wrong if no row names the object; found by what its key says of it."""
    named = _NAME.fullmatch(key)
    if named is None:
        return Finding(key, "is not named as an instance", harmless=True)
    row = select(Instance.id).where(
        Instance.sop_instance_uid == named["uid"],
        Instance.digest == named["digest"],
        Instance.key == key,
    )
    if session.execute(row).first() is not None:
        return None
    deleted = select(Destroyed.removed).where(
        Destroyed.sop_instance_uid == named["uid"], Destroyed.key == key
    )
    if removed := session.scalars(deleted).all():
        if None in removed:
            return Finding(key, "was deleted and is still to be removed", harmless=True)
        return Finding(key, "was deleted and removed, and is there again")
    acknowledged = select(AuditRecord.sequence).where(
        AuditRecord.study_instance_uid == named["study"],
        AuditRecord.action == Action.STORE,
        AuditRecord.outcome == Outcome.SUCCESS,
        AuditRecord.content.contains(named["digest"]),
    )
    record = session.execute(acknowledged).first()
    if record is None:
        return Finding(key, "has no row: it was never acknowledged", harmless=True)
    return Finding(key, f"its row is gone: audit record {record.sequence} acknowledged it")
