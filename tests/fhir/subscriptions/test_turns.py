"""No hospital is told late because another one's endpoints, or others of its own, do not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from subscribed import REPORT, Desk, Endpoint, active, endpoint, wish

from exchange import jobs
from exchange_fhir.subscribing import EXTENSION, TIMEOUT_MOST

PATIENCE = 180
SLOW = {"url": f"{EXTENSION}timeout", "valueUnsignedInt": TIMEOUT_MOST}
"""An endpoint has as long to answer as there is."""


@contextmanager
def working(desk: Desk) -> Iterator[None]:
    """A worker works as it does in a process of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=desk.worker.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def hanging(desk: Desk) -> Iterator[Endpoint]:
    """Another endpoint of nanhu, which answers handshakes."""
    with endpoint() as made:
        desk.allow("nanhu", made)
        yield made


def begun(desk: Desk) -> list[int]:
    """The subscriptions of which is told at a time, by as many workers as there may be."""
    database = desk.door.city.exchange.database
    found: list[int] = []
    while claimed := jobs.claim(database, [jobs.TELL], 1):
        found += [int(one.subject) for one in claimed]
    return found


def test_a_hospital_is_told_though_another_ones_endpoints_all_hang(
    desk: Desk, hook: Endpoint, hanging: Endpoint
) -> None:
    nanhu, beicheng = desk.system("nanhu"), desk.system("beicheng")
    stuck = [
        active(desk, nanhu, wish("report-final", hanging.url, extension=[SLOW]), hanging)
        for _ in range(12)
    ]
    active(desk, beicheng, wish("report-final", hook.url), hook)
    hanging.answers.clear()
    while not hanging.arrived.empty() or not hook.arrived.empty():
        (hook if hanging.arrived.empty() else hanging).arrived.get()

    with working(desk):
        try:
            nanhu.made(REPORT | {"subject": {"reference": "Patient/2"}})
            hanging.arrived.get(timeout=PATIENCE)  # and it is not answered
            beicheng.made(REPORT)
            hook.arrived.get(timeout=PATIENCE)
            assert [desk.row(one).failures for one in stuck] == [0] * 12  # they are waited for
        finally:
            hanging.answers.set()


def test_a_hospital_has_its_turns_and_what_failed_leaves_one_to_what_did_not(
    desk: Desk, hook: Endpoint, hanging: Endpoint
) -> None:
    nanhu, beicheng = desk.system("nanhu"), desk.system("beicheng")
    made = [active(desk, nanhu, wish("report-final", hanging.url), hanging) for _ in range(5)]
    made.append(active(desk, beicheng, wish("report-final", hook.url), hook))
    for one in made[:3]:
        desk.changed(one, failures=1)
    numbers = [desk.row(one).id for one in made]
    with desk.door.city.exchange.database.writing() as session:
        for number in numbers:
            jobs.ask(session, jobs.TELL, str(number), datetime.now(UTC))

    assert begun(desk) == [numbers[0], numbers[3], numbers[5]]

    desk.work(late=True)
