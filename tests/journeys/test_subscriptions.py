"""A subscriber misses nothing that was committed, whenever the exchange is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import ready
from fhir_door import BASE
from real_parts import LOOPBACK, PostgreSQL
from region import ADMINISTRATOR, credit_code
from running import PASSWORD, RunningExchange
from sqlalchemy import update
from subscribed import Endpoint, endpoint, events, said, wish

from exchange import organizations, subscriptions, users
from exchange.organizations import Entity
from exchange.policy import Role
from exchange_storage.records import Job

PATIENCE = 180


@pytest.fixture(params=["sqlite", "postgresql"])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningExchange]:
    """A hospital with an information system, which is notified on this machine."""
    told = {"EXCHANGE_HOOK_HTTP": "true", "EXCHANGE_HOOK_NETWORKS": "127.0.0.0/8"}
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        told["EXCHANGE_DATABASE_URL"] = ready.postgresql(server)
    made = RunningExchange(tmp_path, told)
    with made.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.register(
            access,
            code="north",
            name="north",
            credit_code=credit_code("12120000123450000"),
            issuer="2.25.1",
            entities=[Entity(title="NORTH", address=LOOPBACK)],
        )
        users.add(
            access,
            name="his",
            display_name="his",
            role=Role.SYSTEM,
            organization="north",
            password=PASSWORD,
        )
    made.start()
    try:
        yield made
    finally:
        made.kill()


def sent(client: httpx2.Client, resource: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(
        f"/fhir/{resource['resourceType']}",
        content=orjson.dumps(resource),
        headers={"Content-Type": "application/fhir+json"},
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def next_of(hook: Endpoint) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(hook.arrived.get(timeout=PATIENCE))
    return told


def test_what_was_committed_is_told_though_all_is_killed_before_it_was(
    region: RunningExchange,
) -> None:
    with endpoint() as hook:
        with region.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
            subscriptions.allow(access, "north", hook.host)
        with region.web("his") as client:
            number = {"system": "urn:oid:2.25.1", "value": "W1"}
            patient = sent(client, {"resourceType": "Patient", "identifier": [number]})
            report = {
                "resourceType": "DiagnosticReport",
                "status": "final",
                "code": {"text": "胸部CT"},
                "subject": {"reference": f"Patient/{patient['id']}"},
            }
            wished = wish("report-final", hook.url)
            wished["criteria"] = wished["criteria"].replace(BASE, f"{region.url}/fhir")
            made = sent(client, wished)
            assert said(next_of(hook), "type") == "handshake"
            while client.get(f"/fhir/Subscription/{made['id']}").json()["status"] != "active":
                pass  # its state is written as soon as the endpoint has answered
            hook.answers.clear()
            first = sent(client, report)
            told = next_of(hook)  # it has come, and is not answered
            second = sent(client, report)  # and this is committed
        region.kill()
        hook.answers.set()
        with region.opened() as exchange, exchange.database.writing() as session:
            session.execute(update(Job).values(leased_until=None))  # a minute has passed
        region.start()

        numbers = dict(event[::-1] for event in events(told))
        assert numbers == {f"{region.url}/fhir/DiagnosticReport/{first['id']}": 1}
        again: list[tuple[int, str]] = []
        while not any(second["id"] in focus for _, focus in again):
            again += events(next_of(hook))
        assert [number for number, _ in again] == [1, 2]
        assert [focus.rpartition("/")[2] for _, focus in again] == [first["id"], second["id"]]
    with suppress(httpx2.HTTPError), region.web("his") as client:
        client.delete(f"/fhir/Subscription/{made['id']}")
