"""Operation: what those who run the exchange look at: queues, errors, growth, and who is sending.

For the region's own administrators only: it tells of all hospitals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, func, literal_column, select

from exchange import jobs, scrub, traffic
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import NotFound
from exchange.policy import Action
from exchange.traffic import Grown
from exchange_storage.records import (
    ApplicationEntity,
    AuditRecord,
    Instance,
    Job,
    Organization,
)

SENDERS = 5000
"""Instances that came last, by which it is told who is sending."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of one kind."""

    kind: str
    waiting: int
    given_up: int


@dataclass(frozen=True, slots=True)
class Node:
    """An application entity, and when it last sent something, as far as that is known."""

    title: str
    address: str
    organization: str
    last_sent: datetime | None


@dataclass(frozen=True, slots=True)
class Failures:
    """How often an act was refused or failed today."""

    action: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class State:
    """What an operator looks at first."""

    queues: tuple[Queue, ...]
    dead: Sequence[Job]
    damaged: int
    growth: tuple[Grown, ...]
    nodes: tuple[Node, ...]
    failures: tuple[Failures, ...]


def state(access: Access, *, days: int, timezone: ZoneInfo) -> State:
    """How the exchange does, and what came on each of the last `days`. Raises Refused."""
    access.require_region()
    today = access.now.astimezone(timezone).date()
    first = datetime.combine(today, time(), timezone)
    backlog = jobs.backlog(access.session)
    told = State(
        queues=tuple(
            Queue(kind, backlog.get((kind, False), 0), backlog.get((kind, True), 0))
            for kind in sorted({kind for kind, _ in backlog})
        ),
        dead=jobs.dead_letters(access.session),
        damaged=scrub.known_damages(access),
        growth=traffic.grown(
            access.session, today - timedelta(days=days - 1), days, timezone=timezone
        ),
        nodes=_nodes(access),
        failures=_failures(access, first),
    )
    access.note(Action.ADMINISTER, reason="operation looked at")
    return told


def retry(access: Access, number: int) -> None:
    """Try a job again that was given up, by its row number. Raises Refused, NotFound."""
    access.require_region()
    access.note(Action.ADMINISTER, reason="jobs retried", detail={"job": number})
    if not access.write(lambda session: jobs.retry(session, number)):
        raise NotFound("no job that was given up has this number; `exchange job list` shows them")


def _nodes(access: Access) -> tuple[Node, ...]:
    last = access.session.scalar(select(func.max(Instance.id))) or 0
    sent = {
        (organization, source): at
        for organization, source, at in access.session.execute(
            select(Instance.organization_id, Instance.source, func.max(Instance.received))
            .where(Instance.id > last - SENDERS)
            .group_by(Instance.organization_id, Instance.source)
        )
    }
    rows = access.session.execute(
        select(ApplicationEntity, Organization)
        .join(Organization, Organization.id == ApplicationEntity.organization_id)
        .order_by(Organization.code, ApplicationEntity.title, ApplicationEntity.id)
    )
    return tuple(
        Node(
            entity.title,
            entity.address,
            organization.name,
            sent.get((organization.id, entity.title)),
        )
        for entity, organization in rows
    )


_SUCCESS: ColumnElement[str] = literal_column(f"'{Outcome.SUCCESS}'")
"""As it stands in the condition of the index that is meant for this question."""


def _failures(access: Access, since: datetime) -> tuple[Failures, ...]:
    rows = access.session.execute(
        select(AuditRecord.action, AuditRecord.outcome, func.count())
        .where(AuditRecord.recorded >= since, AuditRecord.outcome != _SUCCESS)
        .group_by(AuditRecord.action, AuditRecord.outcome)
        .order_by(func.count().desc(), AuditRecord.action)
    )
    return tuple(Failures(*row) for row in rows)
