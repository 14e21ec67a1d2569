"""The routes of the Worklist Service, UPS-RS (PS3.18 Table 11.1.1-1)."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from exchange.access import Exchange
from exchange.policy import Requester
from exchange_dicom import web_subscriptions, web_workitems
from exchange_dicom.media_types import MediaType
from exchange_dicom.resources import Root
from exchange_dicom.web_notifications import Channels
from exchange_dicom.web_workitems import Sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How the web door does what all its routes do."""

    identify: Callable[[Request], Requester]
    receive: Callable[[Request, Callable[[], Response]], Awaitable[Response]]
    """Run what pulls the body of a request, on a thread of the receptions."""
    root: Callable[[Request], Root]
    accept: Callable[[Request], Sequence[MediaType]]
    body: Callable[[Request], Iterator[bytes]]
    zone: tzinfo
    """Of moments that come without an offset."""


def add_worklist(router: APIRouter, exchange: Exchange, manners: Manners) -> Channels:
    """Add the routes to those of the web door; gives the notification connections."""
    identify, root, zone = manners.identify, manners.root, manners.zone
    channels = Channels(exchange, identify)

    def sent(request: Request) -> Sent:
        return Sent(
            request.headers.get("content-type", ""),
            manners.body(request),
            request.query_params.multi_items(),
        )

    async def change(request: Request, do: Callable[[], Response]) -> Response:
        response = await manners.receive(request, do)
        channels.look()
        return response

    @router.post("/workitems")
    async def create_workitem(request: Request) -> Response:
        def do() -> Response:
            who = identify(request)
            return web_workitems.create(exchange, who, root(request), sent(request), zone=zone)

        return await change(request, do)

    @router.get("/workitems")
    def search_workitems(request: Request) -> Response:
        return web_workitems.search(
            exchange,
            identify(request),
            root(request),
            request.query_params.multi_items(),
            accept=manners.accept(request),
            zone=zone,
            asked=request.url.path + "?" * bool(request.url.query) + request.url.query,
        )

    @router.get("/workitems/{workitem}")
    def retrieve_workitem(request: Request, workitem: str) -> Response:
        accept = manners.accept(request)
        return web_workitems.retrieve(exchange, identify(request), workitem, accept=accept)

    @router.post("/workitems/{workitem}")
    async def update_workitem(request: Request, workitem: str) -> Response:
        def do() -> Response:
            who, at = identify(request), root(request)
            return web_workitems.update(exchange, who, at, workitem, sent(request), zone=zone)

        return await change(request, do)

    @router.put("/workitems/{workitem}/state")
    async def change_workitem_state(request: Request, workitem: str) -> Response:
        def do() -> Response:
            who, at = identify(request), root(request)
            return web_workitems.change_state(exchange, who, at, workitem, sent(request), zone=zone)

        return await change(request, do)

    @router.post("/workitems/{workitem}/cancelrequest")
    async def request_cancellation(request: Request, workitem: str) -> Response:
        def do() -> Response:
            who, at = identify(request), root(request)
            return web_workitems.request_cancellation(
                exchange, who, at, workitem, sent(request), zone=zone
            )

        return await change(request, do)

    @router.post("/workitems/{workitem}/subscribers/{subscriber}")
    def subscribe(request: Request, workitem: str, subscriber: str) -> Response:
        who, at = identify(request), root(request)
        told = request.query_params.multi_items()
        answer = web_subscriptions.subscribe(
            exchange, who, at, workitem, subscriber, told, zone=zone
        )
        channels.look()
        return answer

    @router.delete("/workitems/{workitem}/subscribers/{subscriber}")
    def unsubscribe(request: Request, workitem: str, subscriber: str) -> Response:
        return web_subscriptions.unsubscribe(exchange, identify(request), workitem, subscriber)

    @router.post("/workitems/{workitem}/subscribers/{subscriber}/suspend")
    def suspend(request: Request, workitem: str, subscriber: str) -> Response:
        return web_subscriptions.suspend(exchange, identify(request), workitem, subscriber)

    @router.websocket(web_subscriptions.CHANNEL)
    async def open_channel(socket: WebSocket, subscriber: str) -> None:
        await channels.serve(socket, subscriber)

    return channels
