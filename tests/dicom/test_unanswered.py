"""A node that does not answer is called by one study; what it cannot read keeps nothing from it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from finding_out import one_finds_out
from real_parts import LOOPBACK, free_port
from region import ADMINISTRATOR, WORKER
from retrieving import workstation
from routed import STUDY, ZONE, delivered, listens, routed, send, worked
from serving import Served, serving
from sqlalchemy import select

from exchange import deliveries, jobs, routing
from exchange.errors import ExchangeError
from exchange_dicom import verification
from exchange_dicom.forward import deliver
from exchange_dicom.negotiation import Conduct
from exchange_server.observability import place
from exchange_server.worker import Worker
from exchange_storage.records import Job, Study

OTHER = "1.2.826.2"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def do(served: Served, subject: str, conduct: Conduct | None = None) -> None:
    exchange = served.city.exchange
    deliver(exchange, WORKER, int(subject), calling="EXCHANGE", timezone=ZONE, conduct=conduct)


def two_studies_are_due(served: Served, folder: Path, port: int, each: int) -> None:
    """At one node, of so many images each."""
    listens(served, "beicheng", "WS", port)
    routed(served, "beicheng")
    send(served, "BEICHENG", folder, each)
    send(served, "BEICHENG", folder, each, study=OTHER, series=f"{OTHER}.1")
    exchange = served.city.exchange
    with exchange.database.reading() as session:
        rows = session.scalars(select(Study.id).order_by(Study.id)).all()
    for row in rows:
        with exchange.on_behalf_of(WORKER) as access:
            routing.plan(access, row)


def fails(served: Served, conduct: Conduct | None = None) -> str:
    """The study that is due first is tried in vain: why."""
    database = served.city.exchange.database
    (job,) = jobs.claim(database, [jobs.FORWARD], 1)
    with pytest.raises(ExchangeError) as failed:
        do(served, job.subject, conduct)
    jobs.fail(database, job, place(failed.value))
    return str(failed.value)


def due(served: Served) -> int:
    """How many studies may be tried now."""
    with served.city.exchange.database.reading() as session:
        found = session.scalars(select(Job.due).where(Job.kind == jobs.FORWARD))
        return sum(one <= datetime.now(UTC) for one in found)


def test_of_a_node_that_hangs_one_study_finds_out_whether_it_is_well_again(
    served: Served, tmp_path: Path
) -> None:
    with workstation("WS") as ws:
        ws.hangs = True
        two_studies_are_due(served, tmp_path, ws.port, 2)

        @contextmanager
        def well() -> Iterator[None]:
            ws.hangs = False
            ws.received.clear()
            yield

        one_finds_out(served, jobs.FORWARD, lambda subject: do(served, subject), well())
    assert sorted(str(one.StudyInstanceUID) for one in ws.received) == [STUDY] * 2 + [OTHER] * 2


@pytest.mark.parametrize("images", [1, 5])
def test_images_at_which_a_node_aborts_put_nothing_else_off(
    served: Served, tmp_path: Path, images: int
) -> None:
    with workstation("WS") as ws:
        ws.meanwhile = lambda: ws.associations[-1].abort()
        two_studies_are_due(served, tmp_path, ws.port, images)
        assert "were not taken" in fails(served)
    assert due(served) == 1


def test_an_image_at_which_a_node_falls_silent_keeps_no_other_from_it(
    served: Served, tmp_path: Path
) -> None:
    over = threading.Event()
    with workstation("WS") as ws:

        def silent() -> None:
            if len(ws.associations) == 2:
                over.wait(60)

        ws.meanwhile = silent
        two_studies_are_due(served, tmp_path, ws.port, 4)
        soon = Conduct(network_timeout=1.0, artim_timeout=2.0)
        assert fails(served, soon) == "1 instances were not taken: the peer took too long"
        assert (len(ws.received), len(set(ws.associations))) == (3, 2)
        assert due(served) == 1
        over.set()


def test_a_node_that_falls_silent_at_each_image_is_not_called_for_all_of_them(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    soon = Conduct(network_timeout=1.0, artim_timeout=1.0)
    monkeypatch.setattr(verification, "SOON", soon)
    with workstation("WS") as ws:
        ws.meanwhile = ws.meanwhile_asked = lambda: over.wait(60)
        two_studies_are_due(served, tmp_path, ws.port, 5)
        assert fails(served, soon) == "the peer took too long"
        assert len(ws.associations) == 3
        assert due(served) == 0
        over.set()


def test_why_a_node_rejects_the_association_is_told_to_who_looks_what_waits(
    served: Served, tmp_path: Path
) -> None:
    with workstation("WS", knows=["SOMEBODY"]) as ws:
        two_studies_are_due(served, tmp_path, ws.port, 1)
        fails(served)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        first, _ = deliveries.waiting(access)
    assert first.last_error == (
        "Rejected: the node rejected the association (permanent, by its service-user): "
        "calling AE title not recognized; ours has to be registered there"
    )
    assert due(served) == 0  # the other would be rejected as well


def test_a_node_that_answers_again_gets_all_else_also_where_it_refuses_the_first_study(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "beicheng", "WS", port)
    routed(served, "beicheng")
    send(served, "BEICHENG", tmp_path, 1)
    (down,) = worked(served)
    assert "does not answer" in str(down)
    send(served, "BEICHENG", tmp_path, 1, study=OTHER, series=f"{OTHER}.1")
    assert worked(served, OTHER) == []  # was asked for meanwhile, and waits as the first does
    of_route = select(Job).where(Job.kind == jobs.FORWARD).order_by(Job.due)
    with served.city.exchange.database.writing() as session:
        first, last = session.scalars(of_route).all()
        assert last.due > datetime.now(UTC)
        first.due = datetime.now(UTC)
    with workstation("WS", port=port) as ws:
        ws.answers = [0xA900]
        (refused,) = delivered(served)
        assert "A900" in str(refused)
        assert delivered(served) == []
    assert len(ws.received) == 2


def test_a_study_reaches_who_answers_while_six_others_take_the_call_and_say_nothing(
    served: Served, tmp_path: Path
) -> None:
    silent = [socket.create_server((LOOPBACK, 0)) for _ in range(6)]  # which nobody ever accepts
    for number, listener in enumerate(silent):
        listens(served, "beicheng", f"SILENT{number}", listener.getsockname()[1])
        routed(served, "beicheng", name=f"to {number}", destination=f"SILENT{number}")
    exchange, stop, arrived = served.city.exchange, threading.Event(), threading.Event()
    with workstation("WS") as ws:
        ws.meanwhile = arrived.set
        listens(served, "beicheng", "WS", ws.port)
        routed(served, "beicheng", name="well")
        send(served, "BEICHENG", tmp_path, 1)
        with exchange.database.reading() as session:
            study = session.scalars(select(Study.id)).one()
        with exchange.on_behalf_of(WORKER) as access:
            routing.plan(access, study)
        worker = Worker(exchange, {jobs.FORWARD: lambda _, subject: do(served, subject)})
        running = threading.Thread(target=worker.run, args=(stop,))
        running.start()
        try:
            assert arrived.wait(180)
            with exchange.database.reading() as session:
                left = session.scalars(select(Job.attempts).where(Job.kind == jobs.FORWARD)).all()
            assert len(left) >= 6
            assert not any(left)  # all the others still wait for an answer
        finally:
            stop.set()
            for listener in silent:
                listener.close()
            running.join(180)
    assert not running.is_alive()
