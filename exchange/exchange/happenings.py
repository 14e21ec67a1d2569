"""Happenings: changes of which somebody may have to be told, noted in their transaction.

An outbox, which costs one look where nobody has a subscription: the worker sees later whom each
concerns, decides for them, and numbers what they are told (`notifying`).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, insert, or_, select
from sqlalchemy.orm import Session

from exchange import jobs
from exchange_storage.prepared import Prepared
from exchange_storage.records import Happening, Subscription

WATCHED = frozenset(
    {"Appointment", "DiagnosticReport", "ImagingStudy", "Observation", "ServiceRequest", "Task"}
)
"""Kinds of which topics tell."""

WAITING = "all"
"""The subject of the job: there is one, so that the order is kept."""

_LIVE = Prepared(
    select(Subscription.id)
    .where(or_(*(Subscription.state == bindparam(one) for one in ("requested", "active"))))
    .limit(1)
)
_ADD = Prepared(
    insert(Happening), ["recorded", "kind", "logical_id", "version", "patient_id", "created"]
)


def changed(
    session: Session,
    kind: str,
    logical_id: str,
    version: int,
    patient: int | None,
    at: datetime,
    *,
    created: bool,
) -> None:
    """A resource has a new version, in the transaction of `session`."""
    if kind not in WATCHED:
        return
    connection = session.connection()
    if _LIVE.first(connection, {"requested": "requested", "active": "active"}) is None:
        return
    _ADD.run(
        connection,
        {
            "recorded": at,
            "kind": kind,
            "logical_id": logical_id,
            "version": version,
            "patient_id": patient,
            "created": created,
        },
    )
    jobs.ask(session, jobs.HAPPENED, WAITING, at)
