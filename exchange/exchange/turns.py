"""Turns: whose job comes next where jobs wait for somebody else, so that nobody waits for another.

Who hangs when called holds a thread of the worker for as long as its time-out, and a hospital may
have hundreds of such endpoints. What is being done, and who was silent the last time, stands in the
index, so that it counts for all workers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session, aliased

from exchange_storage.records import Commitment, Delivery, Job, Route, Subscription

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


def _number(job: type[Job], kind: str) -> ColumnElement[int]:
    """The number of what a job of this kind is about; 0 of another kind's."""
    # By a CASE, since the subjects of other kinds are no numbers, whatever is looked at first.
    return cast(case((job.kind == kind, job.subject), else_="0"), Job.id.type)


AT_ONE = 4
"""Deliveries at a time to a destination that has lately taken one; to any other, one."""

LATELY = timedelta(minutes=10)
"""For so long a destination that has taken a study is taken to be well."""

_THERE = func.coalesce(cast(func.coalesce(Route.entity_id, Delivery.entity_id), String), Route.url)
"""Where a delivery goes: the number of a node, or the URL of a service."""


def _of_delivery(job: type[Job], kind: str) -> ColumnElement[str]:
    there = select(_THERE).select_from(Delivery).outerjoin(Route, Route.id == Delivery.route_id)
    return there.where(Delivery.id == _number(job, kind)).scalar_subquery()


def _of_commitment(job: type[Job], kind: str) -> ColumnElement[str]:
    asker = cast(Commitment.organization_id, String) + " " + Commitment.requester
    return select(asker).where(Commitment.id == _number(job, kind)).scalar_subquery()


def _of_notification(job: type[Job], _: str) -> ColumnElement[str]:
    return func.rtrim(job.subject, "0123456789")  # of "node:study", the node


@dataclass(frozen=True, slots=True)
class Calling:
    """How jobs of one kind call: whom, and how many at a time."""

    peer: Callable[[type[Job], str], ColumnElement[str]]
    """Who is called by a `Job` of this kind, in SQL; NULL of what is gone."""
    silent: int
    """Who were silent the last time, of these so many are called at a time. There are twice as many
    threads: half of them are for those that answer."""
    well: bool = False
    """Whether who has lately taken something is called by several at a time (`AT_ONE`)."""


TO_NODES = Calling(_of_delivery, 4, well=True)
TO_ASKERS = Calling(_of_commitment, 2)
TO_WATCHERS = Calling(_of_notification, 2)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is, of all that jobs of one kind call."""

    kind: str
    calling: Calling
    busy: frozenset[str]
    """They are called as often as they may be at a time."""
    silent: Mapping[str, datetime]
    """They did not answer the last time, and are called next then."""

    def comes(self) -> ColumnElement[bool]:
        """Whether a `Job` may be done now, as far as this kind goes, in SQL.

        A silent peer is called by a job that has waited for it: one finds out.
        """
        peer = self.calling.peer(Job, self.kind)
        free = and_(peer.not_in(self.busy), or_(Job.put_off, peer.not_in(self.silent)))
        return or_(Job.kind != self.kind, peer.is_(None), free)

    def newcomers(self) -> ColumnElement[bool]:
        """Whether a `Job` calls who is silent, and has not been put off for that, in SQL."""
        if not self.silent:
            return false()
        peer = self.calling.peer(Job, self.kind)
        return and_(Job.kind == self.kind, ~Job.put_off, peer.in_(self.silent))

    def by_peer(self, moments: Mapping[str, datetime]) -> ColumnElement[datetime]:
        """The moment that these have for the peer of a `Job`, in SQL; else when it is due."""
        values = {peer: literal(at, Job.due.type) for peer, at in moments.items()}
        return case(values, value=self.calling.peer(Job, self.kind), else_=Job.due)


def turn(session: Session, kind: str, calling: Calling, now: datetime) -> Turn:
    """Whose turn it is now among those that jobs of this kind call."""
    peer = calling.peer(Job, kind).label("peer")
    under_way = case((Job.leased_until >= now, 1), else_=0)
    called = session.execute(
        select(
            peer,
            func.sum(under_way).label("under_way"),
            func.min(case((Job.put_off, Job.due))).label("due"),
        )
        .where(Job.kind == kind, ~Job.dead, or_(Job.put_off, Job.leased_until >= now))
        .group_by(peer)
    ).all()
    known = [one for one in called if one.peer is not None]
    silent = {one.peer: one.due for one in known if one.due is not None}
    busy = {one.peer for one in known if one.under_way}
    if len(busy & silent.keys()) >= calling.silent:
        busy |= silent.keys()
    if calling.well and (several := busy - silent.keys()):
        well = set(
            session.scalars(
                select(_THERE)
                .select_from(Delivery)
                .outerjoin(Route, Route.id == Delivery.route_id)
                .where(Delivery.delivered >= now - LATELY)
                .distinct()
            )
        )
        full = {one.peer for one in known if one.under_way >= AT_ONE}
        busy -= (several & well) - full
    return Turn(kind, calling, frozenset(busy), silent)
