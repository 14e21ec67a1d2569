"""Connections of HTTP, bounded before a request is one (RFC 9112, RFC 6585 section 5).

uvicorn bounds neither what comes before the application is called nor how long it takes: header
fields, trailers and pipelined requests are kept as they come, from whoever can reach the port.

Why uvicorn with uvloop and httptools: granian 2 with the same application answered as many health
checks (1.0) and searches (0.94 at 8 clients), and sent a study of 26 MB at a twentieth of the rate
(one process each, on the same machine in turns, 2026-11), since it is not given `PIECES`.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Iterator
from http import HTTPStatus

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from exchange_dicom.web_answers import PIECES, Piece
from exchange_server.sending import Sending

CONNECTIONS = 1000
"""Connections at a time, in each process."""

HEADER_LIMIT = 96 << 10
"""Bytes of a request line with its header fields, or of trailers."""

FIELDS = 256
"""Header fields of a request, with its trailers."""

PIPELINED = 16
"""Requests that may come before the one ahead of them is answered."""

HEADER_SECONDS = 30.0
"""How long a header may take to come whole."""

WRITE_SECONDS = 120.0
"""How long a client may take to make room for more of an answer."""

WEBSOCKET_MESSAGE = 16 << 10
"""Bytes of a message that a client sends over a WebSocket, where nothing is expected of it."""

SENDERS = 16
"""Threads that send bodies at a time, in each process; see `sending`."""

GATHERED = 64 << 10
"""Bytes of a body that leave in one piece with the header, at most: they are copied for it."""

SLICE = 32 << 10
"""Bytes parsed between two looks at the limits."""


_SENDERS: RunVar[CapacityLimiter] = RunVar("senders")


def _senders() -> CapacityLimiter:
    """The threads of this event loop that send bodies."""
    if (known := _SENDERS.get(None)) is None:
        _SENDERS.set(known := CapacityLimiter(SENDERS))
    return known


class _TooMuch(Exception):
    """Ends the parsing of what came; how it is answered is in `Connection._refusal`."""


class _Gathered:
    """A transport to which several pieces are written as one: each takes a way to the kernel, and
    the client wakes for each."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()


async def _together(cycle: RequestResponseCycle, *messages: Message) -> None:
    """Send the messages of an answer in one piece."""
    transport = cycle.transport
    gathered = _Gathered(transport)
    cycle.transport = gathered  # type: ignore[assignment]
    try:
        for message in messages:
            await cycle.send(message)  # type: ignore[arg-type]
    finally:
        cycle.transport = transport
        gathered.flush()


class Connection(HttpToolsProtocol):
    """A connection of uvicorn that answers 408, 414, 431 and 503 before the application could."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header; one connection too many is told so and closed."""
        super().connection_made(transport)
        self.url = b""
        self._in_header = True
        self._upgraded = False
        """It is another protocol's now (RFC 9110 7.8)."""
        self._unread = 0
        """Bytes that came since the last that brought the request forward."""
        self._refusal = HTTPStatus.BAD_REQUEST
        self._late: TimerHandle | None = None
        self._stuck: TimerHandle | None = None
        self._sending: Sending | None = None
        self._answered_by = self.app
        self.app = self._serve
        if len(self.connections) > CONNECTIONS:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._header_came()
        self.resume_writing()
        if self._sending is not None:
            self._sending.abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data` slice by slice, as far as the limits allow."""
        for at in range(0, len(data), SLICE):
            if self.transport.is_closing():
                return
            if self._upgraded:
                self.transport.get_protocol().data_received(data[at:])  # type: ignore[attr-defined]
                return
            if self._in_header:
                self._await_header()
            part = data[at : at + SLICE]
            self._unread += len(part)
            super().data_received(part)
            if self._unread > HEADER_LIMIT:
                long_url = self._in_header and len(self.url) > HEADER_LIMIT // 2
                self._refuse(
                    HTTPStatus.REQUEST_URI_TOO_LONG
                    if long_url
                    else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                )

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self.scheme == "http":
            self.scope["extensions"] = {PIECES: {}}
        self._await_header()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One more header field, or trailer."""
        if len(self.headers) >= FIELDS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _TooMuch
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application's turn."""
        self._in_header = False
        self._unread = 0
        self._header_came()
        if len(self.pipeline) >= PIPELINED:
            raise _TooMuch
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request; what comes now is the next."""
        self._in_header = True
        self._unread = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on; the handshake is the other protocol's to answer."""
        self._upgraded = True
        self._header_came()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the status says enough
        """Answer what cannot be parsed, or is more than may be."""
        self._refuse(self._refusal)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, which may send what `PIECES` says."""
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        head: Message | None = None

        async def sent(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start" and head is None:
                head = message  # it leaves with what follows, as ASGI has it
                return
            first, head = head, None
            if first is not None:
                if len(message.get("body", b"")) <= GATHERED and message["type"] != PIECES:
                    await _together(cycle, first, message)
                    return
                await send(first)
            if message["type"] == PIECES:
                await self._send_pieces(cycle, message["pieces"])
            else:
                await send(message)

        await self._answered_by(scope, receive, sent)

    async def _send_pieces(self, cycle: RequestResponseCycle, pieces: Iterator[Piece]) -> None:
        """Send a whole body. Raises what the pieces raise."""
        if cycle.scope["method"] != "HEAD":
            await self._emptied()
            if cycle.disconnected:
                return
            number = self.transport.get_extra_info("socket").fileno()
            sending = Sending(number, pieces, chunked=bool(cycle.chunked_encoding))
            self._sending = sending
            del pieces  # they are closed when nobody sends them any more
            try:
                await sending.all(WRITE_SECONDS, _senders())
            except (ConnectionError, TimeoutError):
                cycle.disconnected = True
                self.transport.abort()
                return
            finally:
                self._sending = None
                sending.close()
            if not cycle.chunked_encoding:
                cycle.expected_content_length -= sending.size
        await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _emptied(self) -> None:
        """Wait until nothing that was written before is still here."""
        await asyncio.sleep(0)  # uvloop writes at the end of a round
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(0)
            await self.flow.drain()
            self.transport.set_write_buffer_limits()

    def _await_header(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self._header_is_late)

    def _header_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _header_is_late(self) -> None:
        self._late = None
        if self._answering():
            self._await_header()  # the next request may wait for the answer to this one
        elif not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer and close; close at once where another answer is under way."""
        if self.transport.is_closing():
            return
        if self._answering():
            self.transport.abort()
            return
        text = status.phrase.encode("ascii")
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (status, text, len(text), text)
        )
        self.transport.close()


class Conversation(WebSocketsSansIOProtocol):
    """A WebSocket (RFC 6455) that ends with a client who does not read any more.

    uvicorn closes it when a ping is not answered, and closing waits until what was sent is taken:
    for good, by a client that stands still. It kept its place, and whoever sends to it.
    """

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
