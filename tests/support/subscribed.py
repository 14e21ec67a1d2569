"""Subscribers of a region: an endpoint that really listens, and the worker that notifies it."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from queue import SimpleQueue
from typing import Any

import orjson
from fhir_door import BASE, KEY, SHANGHAI, Asker, Door, is_fhir
from hosting import hosted
from region import ADMINISTRATOR, WORKER
from sqlalchemy import select, update
from websockets.sync.client import ClientConnection

from exchange import jobs, subscriptions
from exchange.policy import Requester
from exchange_fhir import telling
from exchange_fhir.bundle import Pages
from exchange_fhir.hooks import Hooks
from exchange_fhir.serving import Conduct, Serving
from exchange_fhir.subscribing import EXTENSION
from exchange_server.connection import Connection, Conversation
from exchange_server.worker import Worker
from exchange_storage.records import Job, Subscription, User

LOOPBACK = Hooks(plain_http=True, networks=[ip_network("127.0.0.0/8")])
CONDUCT = Conduct(plain_http=True)

REPORT = {
    "resourceType": "DiagnosticReport",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]},
    "subject": {"reference": "Patient/1"},
}


@dataclass(slots=True)
class Endpoint:
    """A subscriber's endpoint: what it was sent, and what it answers."""

    url: str
    host: str
    received: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """What it answers to the next notifications; 200 when there is nothing here."""
    location: str = ""
    arrived: SimpleQueue[bytes] = field(default_factory=SimpleQueue)
    """What comes, for who waits for it."""
    answers: threading.Event = field(default_factory=threading.Event)
    """It answers while this is set."""

    def bundles(self) -> list[dict[str, Any]]:
        """The notifications that it took or not, in their order, and no more of them again."""
        found = [orjson.loads(content) for _, content in self.received]
        self.received.clear()
        for one in found:
            is_notification(one)
        return found


@contextlib.contextmanager
def endpoint(tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """An endpoint on a free port of the loopback."""
    made: Endpoint

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            made.received.append((dict(self.headers), content))
            made.arrived.put(content)
            made.answers.wait(180)
            self.send_response(made.statuses.pop(0) if made.statuses else 200)
            if made.location:
                self.send_header("Location", made.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what came."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        port = server.server_address[1]
        scheme, name = ("https", "localhost") if tls is not None else ("http", "127.0.0.1")
        made = Endpoint(f"{scheme}://{name}:{port}/told?to=me", f"{name}:{port}")
        made.answers.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            made.answers.set()
            server.shutdown()
            thread.join()


def is_notification(bundle: dict[str, Any]) -> None:
    """It is FHIR, and what the Subscriptions Backport says of one."""
    is_fhir(bundle)
    assert bundle["type"] == "history"
    first = bundle["entry"][0]
    assert first["resource"]["resourceType"] == "Parameters"
    assert first["request"]["url"].endswith("/$status")
    assert all("request" in entry and "response" in entry for entry in bundle["entry"])


def said(bundle: dict[str, Any], name: str) -> Any:
    """What the state of the subscription says under a name; "" where it says nothing."""
    for one in bundle["entry"][0]["resource"]["parameter"]:
        if one["name"] == name:
            return next(value for key, value in one.items() if key.startswith("value"))
    return ""


def events(bundle: dict[str, Any]) -> list[tuple[int, str]]:
    """Number and focus of the events of a notification."""
    found = []
    for one in bundle["entry"][0]["resource"]["parameter"]:
        if one["name"] == "notification-event":
            parts = {part["name"]: part for part in one["part"]}
            focus = parts.get("focus", {}).get("valueReference", {}).get("reference", "")
            number = int(parts["event-number"]["valueString"])
            found.append((number, focus.removeprefix(f"{BASE}/")))
    return found


def wish(
    topic: str, to: str = "", *filters: str, content: str = "id-only", **channel: Any
) -> dict[str, Any]:
    """A Subscription to a topic, at an endpoint or else by websocket."""
    extensions = channel.pop("extension", [])
    made: dict[str, Any] = {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "to be told",
        "criteria": f"{BASE}/SubscriptionTopic/{topic}",
        "channel": {
            "extension": extensions,
            "type": "rest-hook" if to else "websocket",
            "endpoint": to,
            "payload": "application/fhir+json",
            "_payload": {
                "extension": [{"url": f"{EXTENSION}payload-content", "valueCode": content}]
            },
            **channel,
        },
    }
    made["channel"] = {name: value for name, value in made["channel"].items() if value}
    if filters:
        told = [{"url": f"{EXTENSION}filter-criteria", "valueString": one} for one in filters]
        made["_criteria"] = {"extension": told}
    return made


@dataclass(slots=True)
class Desk:
    """The door of a region whose users are known, and the worker behind it."""

    door: Door
    hooks: Hooks = LOOPBACK

    @property
    def serving(self) -> Serving:
        """What the worker works by."""

        def refused(_: object) -> Any:
            raise AssertionError

        return Serving(
            exchange=self.door.city.exchange,
            identify=refused,
            pages=Pages(KEY),
            base_url=None,
            dicomweb="/dicom-web",
            timezone=SHANGHAI,
            conduct=CONDUCT,
        )

    def user(self, requester: Requester) -> Asker:
        """A user who is registered, and asks the door."""
        known = select(User).where(User.name == requester.name)
        with self.door.city.exchange.database.writing() as session:
            if session.scalars(known).first() is None:
                session.add(
                    User(
                        name=requester.name,
                        display_name=requester.name,
                        role=requester.role,
                        organization_id=requester.organization,
                        password_hash="",
                        created=datetime.now(UTC),
                    )
                )
        return self.door.asker(replace(requester, door="fhir"))

    def clinician(self, code: str) -> Asker:
        return self.user(self.door.city.clinician(code))

    def system(self, code: str) -> Asker:
        return self.user(self.door.city.system(code))

    def allow(self, code: str, *endpoints: Endpoint) -> None:
        """An administrator lets the hospital be notified there."""
        for one in endpoints:
            with self.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                subscriptions.allow(access, code, one.host)

    @property
    def worker(self) -> Worker:
        """Whoever sees what has happened, and tells of it."""
        return Worker(
            self.door.city.exchange,
            {
                jobs.HAPPENED: lambda exchange, _: telling.see(exchange, WORKER, self.serving),
                jobs.TELL: lambda exchange, number: telling.tell(
                    exchange, WORKER, int(number), self.serving, self.hooks
                ),
            },
        )

    def work(self, *, late: bool = False) -> None:
        """Let the worker do what is due; with `late`, what was put off too."""
        exchange = self.door.city.exchange
        if late:
            with exchange.database.writing() as session:
                session.execute(update(Job).values(due=datetime.now(UTC), leased_until=None))
        while self.worker.run_once():
            pass
        with exchange.database.reading() as session:
            failed = select(Job.last_error).where(Job.last_error != "")
            assert session.scalars(failed).all() == []

    def happens(self) -> None:
        """Studies are quiet, and what is due is done."""
        self.door.refresh()
        self.work()

    def row(self, resource: dict[str, Any]) -> Subscription:
        """What the exchange works by."""
        with self.door.city.exchange.database.reading() as session:
            return session.scalars(
                select(Subscription).where(Subscription.logical_id == resource["id"])
            ).one()

    def changed(self, resource: dict[str, Any], **columns: Any) -> None:
        """Time has passed, for instance."""
        with self.door.city.exchange.database.writing() as session:
            session.execute(
                update(Subscription)
                .where(Subscription.logical_id == resource["id"])
                .values(**columns)
            )


@contextlib.contextmanager
def serving(desk: Desk) -> Iterator[str]:
    """The door on a real socket; gives the address of its WebSocket."""
    application = desk.door.client.app
    with hosted(application, http=Connection, ws=Conversation) as port:
        yield f"ws://127.0.0.1:{port}/fhir/ws"


def bound(asker: Asker, path: str) -> str:
    """A token that binds a connection to subscriptions."""
    told = asker.read(path)
    values = {one["name"]: one for one in told["parameter"]}
    assert values["websocket-url"]["valueUrl"] == "wss://exchange.example/fhir/ws"
    return str(values["token"]["valueString"])


def heard(connection: ClientConnection) -> dict[str, Any]:
    """The next notification of a connection."""
    made: dict[str, Any] = orjson.loads(connection.recv(timeout=120))
    is_notification(made)
    return made


def active(desk: Desk, asker: Asker, resource: dict[str, Any], hook: Endpoint) -> dict[str, Any]:
    """A Subscription whose endpoint has answered its handshake."""
    made = asker.made(resource)
    desk.work()
    assert said(hook.bundles()[-1], "type") == "handshake"
    return made


def only(told: list[dict[str, Any]]) -> list[str]:
    """What the events of notifications are about, in their order."""
    return [focus for bundle in told for _, focus in events(bundle)]
