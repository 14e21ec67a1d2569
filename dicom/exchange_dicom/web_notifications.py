"""Notification connections (PS3.18 section 8.10): event reports over WebSocket (RFC 6455).

The reports are rows, so that it does not matter which process wrote them: each process that has
connections looks for new rows once in a while, and at once when it wrote some itself. A report is
removed when its connection has outlived it by some time, or was closed in order; after any other
end it is sent again on the next connection.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import orjson
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from exchange import watching
from exchange.access import Exchange
from exchange.errors import ExchangeError, NotAuthenticated, Refused, Unavailable
from exchange.policy import Requester, Role
from exchange.watching import Report
from exchange_dicom import web_errors
from exchange_dicom.web_errors import problem

LOOK = 1.0
"""Seconds between two looks for what other processes have written."""

FAREWELL = 5.0
"""Seconds within which what waits is sent before the process ends."""

HELD = 45.0
"""Seconds for which a report is kept after it was sent: longer than a connection that is dead
remains unnoticed (two times 20 s, see the settings of the server)."""

AGAIN = 60.0
"""Seconds after which it is asked again whether the token of a connection is still good."""

BATCH = 100
"""Reports that are read at once."""

CONNECTIONS = 200
"""Notification connections that one process has at a time."""

LOOKS = 8
"""Threads on which the connections of a process read their reports."""

NORMAL, GOING_AWAY, TOKEN_EXPIRED, TRY_AGAIN = 1000, 1001, 1008, 1013
"""Close codes of RFC 6455 section 7.4.1."""

NOTIFIER = Requester(
    name="notifier", role=Role.EXCHANGE, organization=None, purpose=None, door="dicomweb"
)

Identify = Callable[[Request], Requester]
_P = ParamSpec("_P")
_T = TypeVar("_T")
Subscriber = tuple[int | None, str]


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection of a subscriber."""

    of: Subscriber
    news: asyncio.Event = field(default_factory=asyncio.Event)
    sent: deque[tuple[int, float]] = field(default_factory=deque)
    """Reports that were sent and are kept, with the moment."""
    last: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """It has been sent all that there was."""


class Channels:
    """The notification connections of one process."""

    def __init__(self, exchange: Exchange, identify: Identify) -> None:
        self._exchange = exchange
        self._identify = identify
        self._open: set[_Connection] = set()
        self._limiter: CapacityLimiter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """There may be reports: look now. From any thread."""
        loop = self._loop
        if loop is not None and self._open:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._wake.set)

    async def farewell(self) -> None:
        """Send what waits now, such as that the service goes down: the process is to end."""
        waited = [*self._open]
        for one in waited:
            one.told.clear()
            one.news.set()
        if waited:
            telling = [asyncio.create_task(one.told.wait()) for one in waited]
            _, late = await asyncio.wait(telling, timeout=FAREWELL)
            for task in late:
                task.cancel()

    async def serve(self, socket: WebSocket, title: str) -> None:
        """Answer an opening handshake, and send reports until the connection ends."""
        self._loop = asyncio.get_running_loop()
        self._limiter = self._limiter or CapacityLimiter(LOOKS)
        connection: _Connection | None = None
        try:
            requester = await self._in_thread(self._who, socket)
            connection = _Connection((requester.organization, watching.subscriber(title)))
            if len(self._open) >= CONNECTIONS:
                raise Unavailable("too many notification connections; try again in a moment")
            self._open.add(connection)  # before it looks, so that it misses nothing
            first = await self._in_thread(self._pending, requester, connection)
        except ExchangeError as error:
            if connection is not None:
                self._open.discard(connection)
            await socket.send_denial_response(_denied(error))
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_news())
        closed: asyncio.Task[int] | None = None
        try:
            await socket.accept()
            closed = asyncio.create_task(_closed(socket))
            code = await self._send(socket, requester, connection, first, closed)
            if code in (NORMAL, GOING_AWAY):
                await self._in_thread(self._received, requester, connection, 0.0)
        except (ExchangeError, WebSocketDisconnect):
            pass  # what was sent is sent again on the next connection
        finally:
            self._open.discard(connection)
            connection.told.set()
            if closed is not None:
                closed.cancel()
            if not self._open and self._looking is not None:
                self._looking.cancel()

    async def _send(
        self,
        socket: WebSocket,
        requester: Requester,
        connection: _Connection,
        reports: list[Report],
        closed: "asyncio.Task[int]",
    ) -> int:
        """Send what there is and what comes; the code with which the connection was closed."""
        checked = time.monotonic()
        try:
            while not closed.done():
                for report in reports:
                    await socket.send_text(_written(report))
                    connection.sent.append((report.number, time.monotonic()))
                if not reports:
                    if not connection.news.is_set():
                        connection.told.set()
                    news = asyncio.create_task(connection.news.wait())
                    await asyncio.wait(
                        {news, closed}, timeout=HELD / 3, return_when=asyncio.FIRST_COMPLETED
                    )
                    news.cancel()
                connection.news.clear()
                if closed.done():
                    break
                if time.monotonic() - checked > AGAIN:
                    checked = time.monotonic()
                    requester = await self._in_thread(self._who, socket)
                await self._in_thread(self._received, requester, connection, HELD)
                reports = await self._in_thread(self._pending, requester, connection)
        except (NotAuthenticated, Refused):
            await _close(socket, TOKEN_EXPIRED, "connect again with a new token")
            return TOKEN_EXPIRED
        except Unavailable:
            await _close(socket, TRY_AGAIN, "connect again in a moment")
            return TRY_AGAIN
        except WebSocketDisconnect as error:
            return error.code
        return closed.result() if closed.done() and not closed.cancelled() else GOING_AWAY

    async def _look_for_news(self) -> None:
        last = 0
        while self._open:
            try:
                last, who = await self._in_thread(self._news, last)
            except ExchangeError:
                who = frozenset()
            for connection in self._open:
                if connection.of in who:
                    connection.news.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            self._wake.clear()

    async def _in_thread(self, call: Callable[_P, _T], *told: _P.args, **named: _P.kwargs) -> _T:
        return await to_thread.run_sync(partial(call, *told, **named), limiter=self._limiter)

    def _who(self, socket: WebSocket) -> Requester:
        # A handshake is a GET request, whatever the scheme is called (RFC 6455 section 4.1).
        scheme = "https" if socket.scope["scheme"] == "wss" else "http"
        scope = {**socket.scope, "type": "http", "method": "GET", "scheme": scheme}
        return self._identify(Request(scope))

    def _pending(self, requester: Requester, connection: _Connection) -> list[Report]:
        with self._exchange.on_behalf_of(requester) as access:
            title, last = connection.of[1], connection.last
            found = list(watching.pending(access, title, last, limit=BATCH))
        if found:
            connection.last = found[-1].number
        return found

    def _received(self, requester: Requester, connection: _Connection, held: float) -> None:
        numbers = []
        while connection.sent and time.monotonic() - connection.sent[0][1] >= held:
            numbers.append(connection.sent.popleft()[0])
        if numbers:
            with self._exchange.on_behalf_of(requester) as access:
                watching.received(access, connection.of[1], numbers)

    def _news(self, after: int) -> tuple[int, frozenset[Subscriber]]:
        with self._exchange.on_behalf_of(NOTIFIER) as access:
            return watching.news(access, after)


def _written(report: Report) -> str:
    """An event report as DICOM JSON, with a Message ID."""
    number = report.number % 0xFFFF + 1
    content = {**report.content, "00000110": {"vr": "US", "Value": [number]}}
    return orjson.dumps(dict(sorted(content.items()))).decode()


def _denied(error: ExchangeError) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotAuthenticated) else None
    return problem(web_errors.of(error).http, str(error), headers)


async def _closed(socket: WebSocket) -> int:
    """The close code, when the other end closes; what it sends is passed over."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return int(message.get("code") or 1005)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(code, reason)
