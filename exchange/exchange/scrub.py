"""Scrubbing: what is kept is read again, before somebody needs it, and must have its digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.policy import Action
from exchange_storage.objects import ObjectNotFound
from exchange_storage.records import Instance

BATCH = 50
"""Instances that are read between two commits."""


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is gone, or no longer what was received."""

    key: str
    what: str


def scrub(access: Access, *, before: datetime, limit: int) -> Iterator[Damage | int]:
    """Read up to `limit` objects that were not verified since `before`, in the order they came.

    Yields each `Damage`, and how many were read now and then; what was found whole is noted, so
    that a scrub that was interrupted goes on where it stopped. Raises Refused, Unavailable.
    """
    access.require(Action.ADMINISTER)
    done = last = damaged = 0
    while done < limit:
        rows = access.session.execute(
            select(Instance.id, Instance.key, Instance.digest, Instance.verified)
            .where(Instance.id > last)
            .order_by(Instance.id)
            .limit(BATCH)
        ).all()
        if not rows:
            break
        last = rows[-1].id
        whole: list[int] = []
        for row in rows:
            if done >= limit or (row.verified is not None and row.verified >= before):
                continue
            done += 1
            try:
                digest = access.objects.digest(row.key)
            except ObjectNotFound:
                damaged += 1
                yield Damage(row.key, "missing")
                continue
            if digest != row.digest:
                damaged += 1
                yield Damage(row.key, "not the bytes that were received")
            else:
                whole.append(row.id)
        if whole:
            _note(access, whole)
        yield done
    access.note(Action.ADMINISTER, reason="scrubbed", detail={"read": done, "damaged": damaged})


def _note(access: Access, whole: list[int]) -> None:
    def unit(session: Session) -> None:
        session.execute(update(Instance).where(Instance.id.in_(whole)).values(verified=access.now))

    access.write(unit)
