"""Turns: whose job comes next where jobs wait for somebody else, so that nobody waits for another.

An endpoint that hangs holds a thread of the worker for as long as its time-out, and a hospital may
have hundreds. What is being done stands in the index, so that it counts for all workers alike.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import aliased

from exchange_storage.records import Job, Subscription

AT_A_TIME = 2
"""Endpoints of one hospital that are called at a time."""

IN_DOUBT = 4
"""Endpoints that are called at a time of those that did not answer the last time: of one hospital
one, so that another of its own is called beside it."""


def waits(tell: str, now: datetime) -> ColumnElement[bool]:
    """Whether a `Job` of the kind `tell` has to wait for its hospital's turn, in SQL."""
    doing, called = aliased(Job), aliased(Subscription)
    called_now = (
        select(called.organization_id)
        .join(doing, called.id == _number(doing, tell))
        .where(doing.kind == tell, doing.leased_until >= now)
    )
    in_doubt = called_now.where(called.failures > 0)
    full = called_now.group_by(called.organization_id).having(func.count() >= AT_A_TIME)
    many_in_doubt = select(func.count()).select_from(in_doubt.subquery()).scalar_subquery()
    return exists(
        select(Subscription.id).where(
            Subscription.id == _number(Job, tell),
            or_(
                Subscription.organization_id.in_(full),
                and_(
                    Subscription.failures > 0,
                    or_(
                        Subscription.organization_id.in_(in_doubt),
                        many_in_doubt >= IN_DOUBT,
                    ),
                ),
            ),
        )
    )


def _number(job: type[Job], tell: str) -> ColumnElement[int]:
    """The number of the subscription that a job of this kind is about."""
    # By a CASE, since the subjects of other kinds are no numbers, whatever is looked at first.
    return cast(case((job.kind == tell, job.subject), else_="0"), Subscription.id.type)
