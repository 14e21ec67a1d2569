"""What the worker does about studies that have changed: of many together, in few commits.

Each commit and each question costs as much for one study as for some: while images arrive, the
disk and the processor are for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from exchange import availability, jobs, reports, retrieval, routing
from exchange.access import Exchange
from exchange_dicom import coded_report
from exchange_fhir import reported
from exchange_fhir.refresh import refresh
from exchange_server.worker import WORKER


def derive(exchange: Exchange, studies: Sequence[int], *, fhir: str, timezone: ZoneInfo) -> None:
    """Derive again what is kept of studies, by row numbers, and plan who is to hear of them.

    `fhir` is the address of the FHIR server. Safe to repeat, as a whole too. Raises Invalid and
    Unavailable.
    """
    with exchange.on_behalf_of(WORKER) as access:
        refresh(access, studies, timezone=timezone)
    with exchange.on_behalf_of(WORKER) as access:
        for study in studies:
            routing.plan(access, study)
        availability.plan(access, studies)
        access.write(partial(_have_described, studies, access.now + retrieval.SETTLED))
    with exchange.on_behalf_of(WORKER) as access:
        subjects = reports.subjects(access, studies)
    for study, subject in subjects.items():
        with exchange.on_behalf_of(WORKER) as access:
            held = retrieval.of_study(access, study)
            said = [one for one in map(coded_report.read, coded_report.saying(held)) if one]
            reported.refresh(access, subject, said, base=fhir, timezone=timezone)


def _have_described(studies: Sequence[int], settled: datetime, session: Session) -> None:
    for study in studies:
        jobs.ask(session, jobs.DESCRIBE, str(study), settled)
