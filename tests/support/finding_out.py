"""Two jobs wait for a node that does not answer: one of them finds out when it is well again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest
from serving import Served
from sqlalchemy import select

from exchange import jobs
from exchange.errors import Unavailable
from exchange_storage.records import Job


def one_finds_out(
    served: Served, kind: str, do: Callable[[str], None], well: AbstractContextManager[object]
) -> None:
    """`do` does a job of the kind, given its subject, and fails as long as the node is not `well`.

    Two jobs are due. The first is tried again and again, the second follows it.
    """
    database = served.city.exchange.database
    of_kind = select(Job).where(Job.kind == kind).order_by(Job.due)
    for tries in range(1, 4):
        (job,) = jobs.claim(database, [kind], 1)
        with pytest.raises(Unavailable):
            do(job.subject)
        jobs.fail(database, job, "Unavailable")
        with database.reading() as session:
            first, second = session.scalars(of_kind).all()
        assert (first.id, first.attempts, second.attempts) == (job.id, tries, 0)
        with database.writing() as session:  # it is time for it again
            session.get_one(Job, job.id).due = datetime.now(UTC)
    with well:
        for _ in range(2):
            (job,) = jobs.claim(database, [kind], 1)
            do(job.subject)
            jobs.finish(database, [job])
    with database.reading() as session:
        assert session.scalars(of_kind).all() == []
