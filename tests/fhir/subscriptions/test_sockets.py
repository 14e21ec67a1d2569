"""Subscriptions by WebSocket: who shows a token is told what happens, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fhir_door import opened, outcome
from region import ADMINISTRATOR, ID_CARD, region
from subscribed import CONDUCT, Desk, bound, events, heard, said, serving, wish
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from exchange import users
from exchange_fhir import subscription_sockets
from exchange_fhir.subscribing import EXTENSION
from exchange_fhir.subscription_sockets import Bindings

REPORT = {
    "resourceType": "DiagnosticReport",
    "status": "final",
    "code": {"text": "胸部CT"},
    "subject": {"reference": "Patient/1"},
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sockets') / 'exchange.sqlite'}"
    with region(url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.identify()
        yield Desk(opened(city, CONDUCT))


@pytest.fixture(scope="module")
def address(desk: Desk) -> Iterator[str]:
    with serving(desk) as made:
        yield made


def test_what_happens_is_told_at_once_and_what_was_missed_by_events(
    desk: Desk, address: str
) -> None:
    system = desk.system("beicheng")
    made = system.made(wish("report-final", content="full-resource"))
    assert made["status"] == "active"
    named = f"Subscription/{made['id']}"
    missed = f"DiagnosticReport/{system.made(REPORT)['id']}"
    desk.work()

    with connect(address, proxy=None, compression=None) as connection:
        connection.send(f"bind-with-token: {bound(system, f'{named}/$get-ws-binding-token')}")
        handshake = heard(connection)
        assert said(handshake, "type") == "handshake"
        assert said(handshake, "events-since-subscription-start") == "1"
        told = f"DiagnosticReport/{system.made(REPORT)['id']}"
        desk.work()
        event = heard(connection)
        assert events(event) == [(2, told)]
        assert event["entry"][1]["resource"]["code"] == REPORT["code"]

    kept = system.bundle(f"{named}/$events?eventsUntilNumber=1", "history")
    assert events(kept) == [(1, missed)]
    assert system.send("DELETE", named).status_code == 204


def test_one_connection_has_several_subscriptions_of_its_owner(desk: Desk, address: str) -> None:
    system = desk.system("beicheng")
    first = system.made(wish("report-final"))
    second = system.made(wish("critical-finding", payload="application/fhir+xml", content="empty"))
    token = bound(system, f"Subscription/$get-ws-binding-token?id={first['id']},{second['id']}")
    with connect(address, proxy=None, compression=None) as connection:
        connection.send(f'{{"type": "bind-with-token", "payload": {{"token": "{token}"}}}}')
        handshakes = [connection.recv(timeout=120) for _ in range(2)]
        assert sorted(str(one)[0] for one in handshakes) == ["<", "{"]
        coding = {"system": "http://radlex.org", "code": "RID49480"}
        system.made(REPORT | {"conclusionCode": [{"coding": [coding]}]})
        desk.work()
        assert sorted(str(connection.recv(timeout=120))[0] for _ in range(2)) == ["<", "{"]
        assert system.send("DELETE", f"Subscription/{first['id']}").status_code == 204
        assert system.send("DELETE", f"Subscription/{second['id']}").status_code == 204
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=120)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000


def test_a_token_is_the_owners_to_ask_for_and_good_for_a_short_time(
    desk: Desk, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = desk.system("beicheng")
    made = system.made(wish("report-final"))
    path = f"Subscription/{made['id']}/$get-ws-binding-token"
    clerk = replace(ADMINISTRATOR, name="clerk", organization=desk.door.city.ids["beicheng"])
    for asker, status in ((desk.clinician("beicheng"), 404), (desk.user(clerk), 404)):
        assert asker.get(path).status_code == status
    outcome(desk.clinician("nanhu").get("Subscription/$get-ws-binding-token"), 404, "not-found")

    row = desk.row(made)
    forged = Bindings(b"another key of 16 bytes").token([row])[0]
    for token in (forged, "x", "", '{"type": "bind-with-token"}', "é" * 10_000):
        with connect(address, proxy=None, compression=None) as connection:
            connection.send(f"bind-with-token: {token}")
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(timeout=120)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    token = bound(system, path)
    assert Bindings(b"sixteen bytes or more").read(token) == [row.id]
    monkeypatch.setattr(subscription_sockets, "GOOD_FOR", subscription_sockets.GOOD_FOR * -1)
    assert Bindings(b"sixteen bytes or more").read(token) == []
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_who_may_not_sign_in_any_more_is_told_nothing_on_an_open_connection(
    desk: Desk, address: str
) -> None:
    leaving = desk.user(replace(desk.door.city.system("beicheng"), name="leaving"))
    made = leaving.made(wish("report-final"))
    token = bound(leaving, f"Subscription/{made['id']}/$get-ws-binding-token")
    with connect(address, proxy=None, compression=None) as connection:
        connection.send(f"bind-with-token {token}")
        heard(connection)
        with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.deactivate(access, "leaving")
        desk.system("beicheng").made(REPORT)
        desk.work()
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=120)
    assert desk.row(made).events == 0


def test_a_heartbeat_comes_over_an_open_connection(desk: Desk, address: str) -> None:
    system = desk.system("beicheng")
    beat = [{"url": f"{EXTENSION}heartbeat-period", "valueUnsignedInt": 10}]
    made = system.made(wish("report-final", extension=beat))
    desk.changed(made, heartbeat=1)
    token = bound(system, f"Subscription/{made['id']}/$get-ws-binding-token")
    with connect(address, proxy=None, compression=None) as connection:
        connection.send(f"bind-with-token: {token}")
        assert said(heard(connection), "type") == "handshake"
        assert said(heard(connection), "type") == "heartbeat"
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204
