"""Sources that provide a submission set at the same moment, to several processes: it is kept once.

IHE MHD ITI-65; a source that had no answer sends again, and its first message may come late.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import ready
from profiles import PDF, patient, provided
from real_parts import PostgreSQL
from roles import small_exchange
from running import RunningExchange, fhir

SOURCES = 6


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def exchange(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningExchange]:
    settings = {"EXCHANGE_WEB_PROCESSES": "3"}
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        settings["EXCHANGE_DATABASE_URL"] = ready.postgresql(server)
    made = small_exchange(tmp_path_factory.mktemp("provided"), settings)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def author(exchange: RunningExchange) -> str:
    with exchange.web("ris.beicheng") as ris:
        assert ris.post("/fhir/Patient", json=patient("W1")).status_code == 201
        made = ris.post("/fhir/Practitioner", json={"resourceType": "Practitioner"})
    return f"Practitioner/{made.json()['id']}"


def at_once(exchange: RunningExchange, messages: list[list[Any]]) -> list[httpx2.Response]:
    """Each message over a connection of its own, all at the same moment."""
    together = threading.Barrier(len(messages))
    exchange.token("ris.beicheng")

    def send(entries: list[Any]) -> httpx2.Response:
        with exchange.web("ris.beicheng") as source:
            source.get("/fhir/metadata")
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            together.wait(180)
            return source.post("/fhir", json=bundle)

    with ThreadPoolExecutor(len(messages)) as sources:
        return list(sources.map(send, messages))


@pytest.mark.parametrize("number", [f"2.25.{uuid4().int}" for _ in range(5)], ids=range(5))
def test_a_submission_set_that_comes_many_times_at_once_is_kept_once(
    exchange: RunningExchange, author: str, number: str
) -> None:
    messages = [provided(PDF, "application/pdf", author, number) for _ in range(SOURCES)]

    responses = at_once(exchange, messages)

    assert [one.status_code for one in responses] == [200] * SOURCES, responses[0].text
    told = [[entry["response"] for entry in one.json()["entry"]] for one in responses]
    made = Counter(tuple(entry["status"][:3] for entry in one) for one in told)
    assert made == {("201",) * 3: 1, ("200",) * 3: SOURCES - 1}
    assert len({tuple(entry["location"] for entry in one) for one in told}) == 1
    with exchange.web("ris.beicheng") as ris:
        assert len(fhir(ris, "DocumentReference", identifier=f"urn:oid:{number}.1")) == 1
        assert len(fhir(ris, "List", identifier=f"urn:oid:{number}")) == 1


def test_of_two_documents_under_one_number_at_once_one_is_kept(
    exchange: RunningExchange, author: str
) -> None:
    number = f"2.25.{uuid4().int}"
    contents = [PDF + bytes([at + 65]) for at in range(SOURCES)]
    messages = [provided(one, "application/pdf", author, number) for one in contents]

    responses = at_once(exchange, messages)

    assert Counter(one.status_code for one in responses) == {200: 1, 409: SOURCES - 1}
    refused = next(one for one in responses if one.status_code == 409)
    assert refused.json()["issue"][0]["code"] == "duplicate"
    with exchange.web("ris.beicheng") as ris:
        assert len(fhir(ris, "DocumentReference", identifier=f"urn:oid:{number}.1")) == 1
