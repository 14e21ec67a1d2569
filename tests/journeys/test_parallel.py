"""Many modalities send at once, to several node processes on one port: nothing is made twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ready
from caller import CT, EXPLICIT, SUCCESS, Caller, image
from real_parts import PostgreSQL
from roles import Role, small_exchange
from running import RunningExchange
from sqlalchemy import func, select

from exchange_storage.records import Conflict, Instance, Patient, Record, Series, Study

ASSOCIATIONS = 20
NODES = 2


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def exchange(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningExchange]:
    """An exchange with two node processes on one port; at the end all that it has is whole."""
    settings = {"EXCHANGE_NODE_PROCESSES": str(NODES)}
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        settings["EXCHANGE_DATABASE_URL"] = ready.postgresql(server)
    made = small_exchange(tmp_path_factory.mktemp("parallel"), settings)
    nodes = [Role(made, "node") for _ in range(NODES)]
    try:
        for node in nodes:
            node.start()
        both_listen(made.dimse_port)
        yield made
        made.run("audit", "verify")
        made.run("check")
    finally:
        for node in nodes:
            node.stop()


def both_listen(port: int) -> None:
    """Wait until as many sockets listen on the port as there are processes."""
    wanted, pause = f":{port:04X}", threading.Event()
    for _ in range(600):
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        found = [line.split() for line in lines]
        if sum(one[1].endswith(wanted) and one[3] == "0A" for one in found) == NODES:
            return
        pause.wait(0.1)
    raise AssertionError("not all of them listen")


MADE: tuple[type[Record], ...] = (Patient, Study, Series, Instance, Conflict)
"""Of what an instance may make a row."""


def numbers(exchange: RunningExchange) -> list[int]:
    """How many rows the index has of each of those."""
    with exchange.opened() as opened, opened.database.reading() as session:
        return [session.scalar(select(func.count()).select_from(one)) or 0 for one in MADE]


@pytest.mark.parametrize("studies", [1, ASSOCIATIONS], ids=["one study", "a study each"])
def test_twenty_first_associations_of_a_new_patient_make_one_patient(
    exchange: RunningExchange, studies: int
) -> None:
    together, before = threading.Barrier(ASSOCIATIONS), numbers(exchange)

    def modality(number: int) -> int:
        study, uid = f"1.22.{studies}.{number % studies}", f"1.44.{studies}.{number}"
        body = image(patient=f"N{studies}", instance=uid, study=study, series=f"{study}.1")
        with Caller(exchange.dimse_port, (CT, (EXPLICIT,))) as pacs:
            together.wait(180)
            status = pacs.store(body, uid).status
            pacs.release()
        return status

    with ThreadPoolExecutor(ASSOCIATIONS) as modalities:
        answered = Counter(modalities.map(modality, range(ASSOCIATIONS)))

    assert answered == {SUCCESS: ASSOCIATIONS}
    made = [now - then for now, then in zip(numbers(exchange), before, strict=True)]
    assert made == [1, studies, studies, ASSOCIATIONS, 0]


def test_the_same_image_over_many_associations_is_kept_once(exchange: RunningExchange) -> None:
    together, before = threading.Barrier(ASSOCIATIONS), numbers(exchange)

    def modality(_: int) -> int:
        with Caller(exchange.dimse_port, (CT, (EXPLICIT,))) as pacs:
            together.wait(180)
            return pacs.store(image(), "1.4.1").status

    with ThreadPoolExecutor(ASSOCIATIONS) as modalities:
        answered = Counter(modalities.map(modality, range(ASSOCIATIONS)))

    assert answered == {SUCCESS: ASSOCIATIONS}
    made = [now - then for now, then in zip(numbers(exchange), before, strict=True)]
    assert made == [1, 1, 1, 1, 0]
