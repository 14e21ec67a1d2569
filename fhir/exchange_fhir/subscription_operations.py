"""$status, $events and $get-ws-binding-token of subscriptions (Subscriptions Backport 1.1.0)."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.websockets import WebSocket

from exchange import notifying, subscriptions
from exchange.errors import NotFound
from exchange.subscriptions import Channel, State
from exchange_fhir import json_format, negotiation, notifications, parameters
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN
from exchange_fhir.datatypes import Json, instant
from exchange_fhir.outcome import Problem
from exchange_fhir.rest_interactions import body
from exchange_fhir.serving import Serving
from exchange_fhir.subscribing import CONTENTS, EVENTS_MOST
from exchange_fhir.subscription_sockets import BOUND, PATH, Bindings, Sockets
from exchange_storage.records import Subscription

ASKED_MOST = 200
"""Subscriptions that are named in one question, at most."""


def subscribed(serving: Serving, route_class: type[APIRoute], bindings: Bindings) -> APIRouter:
    """The routes of the operations on subscriptions of `serving`, and of their WebSocket."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    sockets = Sockets(serving, bindings)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def status(request: Request, logical_id: str = "", content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        parameters.known(given, SHOWN | {"id", "status"})
        with serving.exchange.on_behalf_of(requester) as access:
            found = subscriptions.of_asker(access, logical_id)
        if not logical_id:
            found = _asked_for(given, found)
        base = serving.base(request)
        path = "/".join(part for part in ("Subscription", logical_id, "$status") if part)
        told = _statuses(base, path, found)
        return negotiation.response(Answered(status=200, content=told), written)

    @router.get("/Subscription/$status")
    def status_of_all(request: Request) -> Response:
        return status(request)

    @router.post("/Subscription/$status")
    def status_of_all_by_post(request: Request, content: Body) -> Response:
        return status(request, content=content)

    @router.get("/Subscription/{logical_id}/$status")
    def status_of_one(request: Request, logical_id: str) -> Response:
        return status(request, logical_id)

    @router.post("/Subscription/{logical_id}/$status")
    def status_of_one_by_post(request: Request, logical_id: str, content: Body) -> Response:
        return status(request, logical_id, content)

    def events(request: Request, logical_id: str, content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        names = SHOWN | {"eventsSinceNumber", "eventsUntilNumber", "content"}
        parameters.known(given, names)
        most = 2**62
        first = parameters.whole(given, "eventsSinceNumber", 1, most)
        last = parameters.whole(given, "eventsUntilNumber", most, most)
        wanted = parameters.text(given, "content")
        if wanted and wanted not in CONTENTS:
            raise Problem(400, "invalid", f"content is one of {', '.join(CONTENTS)}")
        with serving.exchange.on_behalf_of(requester) as access:
            (one,) = subscriptions.of_asker(access, logical_id)
            kept = notifying.events(access, one, first, last, limit=EVENTS_MOST)
        # Decided for who asks, now: what they may not see any more is told by its number alone.
        told = [notifications.shown(serving, one, event, requester) for event in kept]
        told = list(notifications.within(told, wanted or one.content))
        made = notifications.bundle(one, "query-event", events=told, content=wanted)
        return negotiation.response(Answered(status=200, content=made), written)

    @router.get("/Subscription/{logical_id}/$events")
    def events_of_one(request: Request, logical_id: str) -> Response:
        return events(request, logical_id)

    @router.post("/Subscription/{logical_id}/$events")
    def events_of_one_by_post(request: Request, logical_id: str, content: Body) -> Response:
        return events(request, logical_id, content)

    def binding(request: Request, logical_id: str = "", content: bytes = b"") -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        given = parameters.given(request, content)
        parameters.known(given, frozenset({"id"}))
        with serving.exchange.on_behalf_of(requester) as access:
            found = subscriptions.of_asker(access, logical_id)
            if not logical_id:
                found = _asked_for(given, found)
            # An administrator sees a hospital's subscriptions, but is not the one who is told.
            found = [
                one
                for one in found
                if one.channel == Channel.WEBSOCKET
                and one.state == State.ACTIVE
                and one.requester == access.requester.name
            ]
        if not found:
            raise NotFound("no active subscription by websocket of yours is meant")
        if len(found) > BOUND:
            told = f"at most {BOUND} subscriptions can be bound to a connection: name them"
            raise Problem(400, "too-costly", told)
        base = serving.base(request)
        token, until = bindings.token(found)
        told_of = [
            {"name": "subscription", "valueString": f"{base}/Subscription/{one.logical_id}"}
            for one in found
        ]
        made = {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "token", "valueString": token},
                {"name": "expiration", "valueDateTime": instant(until)},
                *told_of,
                {"name": "websocket-url", "valueUrl": address(base)},
            ],
        }
        answered = Answered(status=200, content=json_format.serialize(made))
        return negotiation.response(answered, written)

    @router.get("/Subscription/$get-ws-binding-token")
    def binding_of_all(request: Request) -> Response:
        return binding(request)

    @router.post("/Subscription/$get-ws-binding-token")
    def binding_of_all_by_post(request: Request, content: Body) -> Response:
        return binding(request, content=content)

    @router.get("/Subscription/{logical_id}/$get-ws-binding-token")
    def binding_of_one(request: Request, logical_id: str) -> Response:
        return binding(request, logical_id)

    @router.post("/Subscription/{logical_id}/$get-ws-binding-token")
    def binding_of_one_by_post(request: Request, logical_id: str, content: Body) -> Response:
        return binding(request, logical_id, content)

    @router.websocket(PATH)
    async def connected(socket: WebSocket) -> None:
        await sockets.serve(socket)

    return router


def address(base: str) -> str:
    """Where WebSocket connections of the server at `base` are opened."""
    return f"ws{base.removeprefix('http')}{PATH}"


def _asked_for(given: parameters.Given, found: Sequence[Subscription]) -> Sequence[Subscription]:
    ids, states = parameters.listed(given, "id"), parameters.listed(given, "status")
    if len(ids) > ASKED_MOST:
        raise Problem(400, "too-costly", f"at most {ASKED_MOST} subscriptions are named")
    if unknown := [one for one in states if one not in set(State)]:
        raise Problem(400, "invalid", f"no such status: {unknown[0][:32]}")
    return [
        one
        for one in found
        if (not ids or one.logical_id in ids) and (not states or one.state in states)
    ]


def _statuses(base: str, path: str, found: Sequence[Subscription]) -> bytes:
    entries: list[Json] = []
    for one in found:
        told = notifications.status(one, "query-status")
        entries.append(
            {
                "fullUrl": f"urn:uuid:{told['id']}",
                "resource": told,
                "search": {"mode": "match"},
            }
        )
    return json_format.serialize(
        {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(entries),
            "link": [{"relation": "self", "url": f"{base}/{path}"}],
            **({"entry": entries} if entries else {}),
        }
    )
