"""Hospitals whose studies go on by routes: what they send, when it is quiet, and who gets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from caller import SUCCESS, Caller
from images import ct, data_set
from real_parts import LOOPBACK, ends_with_us
from region import ADMINISTRATOR, WORKER
from serving import Served
from sqlalchemy import select

from exchange import audit, jobs, organizations, routing
from exchange.errors import ExchangeError
from exchange.organizations import Entity
from exchange.routing import Rule
from exchange_dicom.forward import deliver
from exchange_storage.records import Job, Study

ZONE = ZoneInfo("Asia/Shanghai")
STUDY = "1.2.826.1"


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[None]:
    """DCMTK's storage SCP, writing what it gets to a folder."""
    folder.mkdir(exist_ok=True)
    program = shutil.which("storescp")
    assert program is not None
    process = subprocess.Popen(
        ends_with_us(program, "-od", str(folder), "+xa", "-aet", "WS", str(port))
    )
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if (
                subprocess.run(["echoscu", LOOPBACK, str(port)], capture_output=True).returncode
                == 0
            ):
                break
        yield
    finally:
        process.terminate()
        process.wait(180)


def send(served: Served, calling: str, folder: Path, count: int, **told: str) -> None:
    """The hospital's PACS sends a study of `count` CT slices."""
    for number in range(count):
        path = folder / f"{calling}{number}.dcm"
        image = ct(path, number=number + 1, **({"study": STUDY, "patient": "P1"} | told))  # type: ignore[arg-type]
        with Caller(served.port, calling=calling) as pacs:
            uid = str(image.SOPInstanceUID)
            assert pacs.store(data_set(path.read_bytes()), uid).status == SUCCESS
            pacs.release()


def listens(served: Served, code: str, title: str, port: int, *, priors: bool = False) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(
            access,
            code,
            Entity(title=title, address=LOOPBACK, port=port, receives_priors=priors),
        )


def routed(served: Served, code: str, **rule: str) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(access, code, Rule(**({"name": "on", "destination": "WS"} | rule)))


def worked(served: Served, study: str = STUDY) -> list[Exception]:
    """The study is quiet: plan, and do what is due, as the worker does; what it raised."""
    exchange = served.city.exchange
    with exchange.database.reading() as session:
        row = session.scalars(select(Study.id).where(Study.study_instance_uid == study)).one()
    with exchange.on_behalf_of(WORKER) as access:
        routing.plan(access, row)
    return delivered(served)


def delivered(served: Served) -> list[Exception]:
    raised: list[Exception] = []
    exchange = served.city.exchange
    for job in jobs.claim(exchange.database, [jobs.FORWARD]):
        try:
            deliver(exchange, WORKER, int(job.subject), calling="EXCHANGE", timezone=ZONE)
        except jobs.Later as later:
            raised.append(later)
            jobs.postpone(exchange.database, job, later.seconds)
        except ExchangeError as error:
            raised.append(error)
            jobs.fail(exchange.database, job, type(error).__name__)
            with exchange.database.writing() as session:
                jobs.ask(session, jobs.FORWARD, job.subject, datetime.now(UTC))
        else:
            jobs.finish(exchange.database, [job])
    return raised


def made_due(served: Served) -> None:
    """Time has passed: what was put off is due now."""
    with served.city.exchange.database.writing() as session:
        for job in session.scalars(select(Job)):
            job.due = datetime.now(UTC)


def got(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def trail(served: Served) -> list[dict[str, Any]]:
    """What the audit trail has recorded, the newest first."""
    with served.city.exchange.database.reading() as session:
        return [json.loads(record.content) for record in audit.latest(session, 40)]
