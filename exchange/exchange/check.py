"""Check: every row has its object, every object its row, and the bytes have their digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.policy import Action
from exchange_storage.database import Database
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import Instance

OBJECTS = "studies/"
"""Where the objects of instances lie."""

SETTLED = timedelta(hours=1)
"""Objects younger than this may be on their way into the index."""


_NAME = re.compile(r"/_?(?P<uid>[0-9.]{1,64})\.(?P<digest>[0-9a-f]{64})\.dcm")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: which object, and what is wrong with it."""

    key: str
    what: str
    harmless: bool = False
    """Takes room, but loses nothing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check has come."""

    done: int
    total: int


def check(access: Access, *, read: bool = True) -> Iterator[Finding | Progress]:
    """Compare the index with the object store; with `read` compute every digest from the bytes.

    Raises Refused, Unavailable.
    """
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="check of the store")
    with access.exchange.database.reading() as session:
        total = session.execute(select(func.count()).select_from(Instance)).scalar_one()
    for done, (key, digest, size) in enumerate(_rows(access.exchange.database), 1):
        try:
            stored = access.objects.stat(key)
            if stored.size != size:
                yield Finding(key, f"has {stored.size} bytes, not {size}")
            elif read and access.objects.digest(key) != digest:
                yield Finding(key, "its bytes do not have the digest that they came with")
        except ObjectNotFound:
            yield Finding(key, "the object is missing")
        yield Progress(done, total)
    for stored in access.objects.list(OBJECTS):
        young = access.now - stored.kept < SETTLED
        if not young:
            with access.exchange.database.reading() as session:
                known = _indexed(session, stored.key)
            if not known:
                yield Finding(stored.key, "has no row: it was never acknowledged", harmless=True)


def _rows(database: Database) -> Iterator[tuple[str, str, int]]:
    """Key, digest and size of every instance, in short transactions: reading terabytes takes hours,
    and an open transaction keeps both databases from clearing away what is outdated."""
    last = 0
    while True:
        page = (
            select(Instance.id, Instance.key, Instance.digest, Instance.size)
            .where(Instance.id > last)
            .order_by(Instance.id)
            .limit(1000)
        )
        with database.reading() as session:
            rows = session.execute(page).all()
        if not rows:
            return
        last = rows[-1].id
        yield from ((row.key, row.digest, row.size) for row in rows)


def _indexed(session: Session, key: str) -> bool:
    """Whether a row names the object; found by what the key says, since keys have no index."""
    named = _NAME.search(key)
    if named is None:
        return False
    known = select(Instance.id).where(
        Instance.sop_instance_uid == named["uid"],
        Instance.digest == named["digest"],
        Instance.key == key,
    )
    return session.execute(known).first() is not None
