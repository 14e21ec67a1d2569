"""Notifications over WebSocket (Subscriptions Backport 1.1.0, RFC 6455): bound by a token.

    bind-with-token: TOKEN

Events are rows, so that it does not matter which process numbered them: each process that has
connections looks once in a while which of the subscriptions bound there have news. What was missed
while nobody was connected is told by $events.
"""

import asyncio
import hashlib
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ParamSpec, TypeVar

import orjson
from anyio import CapacityLimiter, to_thread
from cryptography.fernet import Fernet, InvalidToken
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from exchange import notifying
from exchange.errors import ExchangeError
from exchange.policy import Requester, Role
from exchange.subscriptions import Channel, State
from exchange_fhir import notifications
from exchange_fhir.serving import Serving
from exchange_storage.records import Subscription

PATH = "/ws"
"""Where connections are opened, below the door."""

GOOD_FOR = timedelta(seconds=60)
"""How long a token binds; what it has bound stays so until the connection ends."""

UNBOUND = 20.0
"""Seconds that a connection may be there without a token."""

LOOK = 1.0
"""Seconds between two looks for events."""

AGAIN = 60.0
"""Seconds after which it is asked again whether the owner may be told anything."""

CONNECTIONS = 200
"""Connections that one process has at a time."""

BOUND = 50
"""Subscriptions of one connection."""

LOOKS = 8
"""Threads on which the connections of a process read."""

MESSAGE = 16 << 10
"""Characters of the longest message that a client sends."""

NORMAL, NOT_VALID, TRY_AGAIN = 1000, 1008, 1013
"""Close codes of RFC 6455 section 7.4.1."""

NOTIFIER = Requester(
    name="notifier", role=Role.EXCHANGE, organization=None, purpose=None, door="fhir"
)

_BIND = re.compile(r"bind-with-token:?\s+(\S+)\s*")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Bindings:
    """Makes and reads tokens that bind connections, with a key that all processes share."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Fernet(urlsafe_b64encode(hashlib.sha256(b"fhir binding\n" + key).digest()))

    def token(self, subscriptions: Sequence[Subscription]) -> tuple[str, datetime]:
        """A token for these subscriptions, and until when it is good."""
        until = datetime.now(UTC) + GOOD_FOR
        told = orjson.dumps([one.id for one in subscriptions])
        return self._cipher.encrypt(told).decode(), until

    def read(self, token: str) -> list[int]:
        """The numbers of the subscriptions that a token binds; none where it is not good."""
        try:
            told = self._cipher.decrypt(token.encode(), ttl=int(GOOD_FOR.total_seconds()))
        except (InvalidToken, UnicodeEncodeError):
            return []
        return list(orjson.loads(told))


@dataclass(slots=True)
class _Bound:
    """A subscription as it is bound to a connection."""

    number: int
    last: int
    """The number of the last event that was sent, or was there when it was bound."""
    heartbeat: float | None
    spoken: float
    asked: float
    fresh: bool = False

    def due(self, now: float) -> float:
        """Seconds until something is to be done though there is no news."""
        beat = self.spoken + self.heartbeat if self.heartbeat else now + AGAIN
        return max(0.0, min(beat, self.asked + AGAIN) - now)


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection, and what is bound to it."""

    since: float
    receiving: "asyncio.Task[str]"
    """What waits for the next message."""
    bound: dict[int, _Bound] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Sockets:
    """The notification connections of one process."""

    def __init__(self, serving: Serving, bindings: Bindings) -> None:
        self._serving = serving
        self._bindings = bindings
        self._open: set[_Connection] = set()
        self._limiter: CapacityLimiter | None = None
        self._looking: asyncio.Task[None] | None = None

    async def serve(self, socket: WebSocket) -> None:
        """Answer an opening handshake, and notify until the connection ends."""
        self._limiter = self._limiter or CapacityLimiter(LOOKS)
        await socket.accept()
        if len(self._open) >= CONNECTIONS:
            await _close(socket, TRY_AGAIN, "too many connections; try again in a moment")
            return
        connection = _Connection(time.monotonic(), asyncio.create_task(_received(socket)))
        self._open.add(connection)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_news())
        try:
            code, why = await self._converse(socket, connection)
            await _close(socket, code, why)
        except WebSocketDisconnect:
            pass
        except ExchangeError:
            await _close(socket, TRY_AGAIN, "connect again in a moment")
        finally:
            self._open.discard(connection)
            connection.receiving.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect):
                await connection.receiving
            if not self._open and self._looking is not None:
                self._looking.cancel()

    async def _converse(self, socket: WebSocket, connection: _Connection) -> tuple[int, str]:
        """Bind and notify; with which code and reason the connection is to be closed."""
        while True:
            now = time.monotonic()
            waits = [one.due(now) for one in connection.bound.values()]
            wait = min(waits) if waits else connection.since + UNBOUND - now
            news = asyncio.create_task(connection.news.wait())
            await asyncio.wait(
                {connection.receiving, news},
                timeout=max(0.0, wait),
                return_when=asyncio.FIRST_COMPLETED,
            )
            news.cancel()
            connection.news.clear()
            if connection.receiving.done():
                told = connection.receiving.result()
                numbers = self._bindings.read(_token(told))
                if not numbers:
                    return NOT_VALID, "bind-with-token: and a token that is good"
                if not await self._bind(socket, connection, numbers):
                    return NOT_VALID, "no subscription of this token is active"
                connection.receiving = asyncio.create_task(_received(socket))
            for one in list(connection.bound.values()):
                if (one.fresh or not one.due(time.monotonic())) and not await self._speak(
                    socket, one
                ):
                    del connection.bound[one.number]
                    if not connection.bound:
                        return NORMAL, "the subscription has ended"
            if not connection.bound and time.monotonic() - connection.since >= UNBOUND:
                return NOT_VALID, "nothing was bound"

    async def _bind(
        self, socket: WebSocket, connection: _Connection, numbers: Sequence[int]
    ) -> bool:
        """Whether there is something to be told of; each subscription begins with a handshake."""
        for number in numbers:
            if number not in connection.bound and len(connection.bound) >= BOUND:
                break
            one = await self._in_thread(self._live, number)
            if one is None:
                continue
            now = time.monotonic()
            held = connection.bound.get(number)
            connection.bound[number] = _Bound(
                number=number,
                last=held.last if held else one.events,
                heartbeat=one.heartbeat,
                spoken=now,
                asked=now,
                fresh=True,
            )
            await socket.send_text(_text(one, notifications.bundle(one, "handshake")))
        return bool(connection.bound)

    async def _speak(self, socket: WebSocket, bound: _Bound) -> bool:
        """Send what is to be sent now; False where there is nothing to be told any more."""
        bound.fresh = False
        while True:
            one, content, upto = await self._in_thread(self._next, bound)
            if one is None:
                return False
            bound.asked = time.monotonic()
            bound.heartbeat = one.heartbeat
            if not content:
                return True
            await socket.send_text(_text(one, content))
            bound.spoken = time.monotonic()
            bound.last = upto

    def _next(self, bound: _Bound) -> tuple[Subscription | None, bytes, int]:
        """The next notification of a subscription, and up to which event it tells."""
        one = self._live(bound.number)
        if one is None:
            return None, b"", 0
        with self._serving.exchange.on_behalf_of(NOTIFIER) as access:
            waiting = notifying.events(access, one, bound.last + 1, one.events, limit=one.most)
        if waiting:
            told = [notifications.shown(self._serving, one, event) for event in waiting]
            told = list(notifications.within(told, one.content))
            content = notifications.bundle(one, "event-notification", events=told)
            upto = told[-1].event.number
        elif one.heartbeat and time.monotonic() - bound.spoken >= one.heartbeat:
            content, upto = notifications.bundle(one, "heartbeat"), bound.last
        else:
            return one, b"", bound.last
        with self._serving.exchange.on_behalf_of(NOTIFIER) as access:
            notifying.taken(access, one, max(upto, one.told))
        return one, content, upto

    def _live(self, number: int) -> Subscription | None:
        """A subscription of which something can be told here and now."""
        with self._serving.exchange.on_behalf_of(NOTIFIER) as access:
            one = notifying.of_number(access, number)
            if (
                one is None
                or one.channel != Channel.WEBSOCKET
                or one.state != State.ACTIVE
                or (one.ends is not None and one.ends <= access.now)
                or notifying.why_over(access.session, one)
            ):
                return None
            return one

    async def _look_for_news(self) -> None:
        while self._open:
            await asyncio.sleep(LOOK)
            numbers = {number for one in self._open for number in one.bound}
            if not numbers:
                continue
            try:
                last = await self._in_thread(self._news, sorted(numbers))
            except ExchangeError:
                continue
            for connection in self._open:
                for bound in connection.bound.values():
                    if last.get(bound.number, -1) != bound.last:
                        bound.fresh = True
                        connection.news.set()

    def _news(self, numbers: Sequence[int]) -> dict[int, int]:
        with self._serving.exchange.on_behalf_of(NOTIFIER) as access:
            return notifying.news(access, numbers)

    async def _in_thread(self, call: Callable[_P, _T], *told: _P.args, **named: _P.kwargs) -> _T:
        return await to_thread.run_sync(partial(call, *told, **named), limiter=self._limiter)


def _text(one: Subscription, content: bytes) -> str:
    return notifications.written(one, content).decode()


def _token(told: str) -> str:
    """The token of a message, in either of the forms that clients write."""
    if found := _BIND.fullmatch(told):
        return found[1]
    try:
        message = orjson.loads(told)
        return str(message["payload"]["token"]) if message["type"] == "bind-with-token" else ""
    except (ValueError, KeyError, TypeError):
        return ""


async def _received(socket: WebSocket) -> str:
    """The next message; "" for one that is none. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005)
    told = message.get("text") or ""
    return told if len(told) <= MESSAGE else ""


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(code, reason)
