"""Bodies that go from the files where they lie to a connection (sendfile(2)), on threads.

A body of ASGI goes through this process: read into memory, copied to the server, and copied to the
kernel by the one thread that has all connections. A server that offers `PIECES` is given the body
as pieces instead. A thread takes them one after another and writes to a duplicate of the
connection's socket, as long as the client reads: for a client that does not, the event loop waits.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto

from anyio import CapacityLimiter, to_thread

from exchange.spans import Span
from exchange_dicom.web_answers import Piece

LINGER = 10
"""Milliseconds for which a thread waits for a client to read on: a change of threads costs more
than one on the same network takes."""

TURN = 0.1
"""Seconds after which a body gives its thread to the next one that waits for a thread."""

SMALL = 64 << 10
"""Bytes below which a piece may wait for the next, and share a packet with it."""


class Sent(Enum):
    """How far a body has been sent when a thread returns."""

    ALL = auto()
    SOME = auto()
    """It was the turn of others."""
    AS_MUCH_AS_IS_READ = auto()
    """The client has to make room."""


class Sending:
    """A body on its way to a socket. `push` is for threads, all else for the event loop."""

    def __init__(self, number: int, pieces: Iterator[Piece], *, chunked: bool) -> None:
        """Send to the connected socket with the descriptor `number`, which is duplicated.

        With `chunked` each piece is a chunk of HTTP/1.1 (RFC 9112 7.1); the last chunk, which ends
        the body, is the caller's to write.
        """
        self._socket = socket.socket(fileno=os.dup(number))
        self._pieces = pieces
        self._chunked = chunked
        self._left: deque[memoryview | Span] = deque()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self.size = 0
        """Bytes of the pieces taken so far."""

    def push(self) -> Sent:
        """Send on. Raises ConnectionError or TimeoutError where the client has gone, and whatever
        the pieces raise."""
        until = time.monotonic() + TURN
        while self._left or self._take():
            try:
                self._send()
            except BlockingIOError:
                if not self._poll.poll(LINGER):
                    return Sent.AS_MUCH_AS_IS_READ
            if time.monotonic() > until:
                return Sent.SOME
        # What waited for a next piece goes now (tcp(7)).
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Sent.ALL

    async def all(self, seconds: float, threads: CapacityLimiter) -> None:
        """Send all of it on `threads`.

        Raises what `push` raises, and TimeoutError where the client does not read in so many
        seconds. When it ends, however, no thread sends any more.
        """
        while True:
            push = asyncio.ensure_future(to_thread.run_sync(self.push, limiter=threads))
            try:
                sent = await asyncio.shield(push)
            except asyncio.CancelledError:
                self.abandon()
                await asyncio.wait([push])
                push.exception()
                raise
            match sent:
                case Sent.ALL:
                    return
                case Sent.AS_MUCH_AS_IS_READ:
                    await self._room(seconds)
                case Sent.SOME:
                    pass

    async def _room(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_writer(self._socket, there.set)
        try:
            await asyncio.wait_for(there.wait(), seconds)
        finally:
            loop.remove_writer(self._socket)

    def abandon(self) -> None:
        """Have `push` raise ConnectionError soon."""
        with suppress(OSError):  # it is not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket and of all files, when no thread sends any more."""
        self._socket.close()
        self._pieces = iter(())  # the error of a lost client may hold this for long, by its frames
        for one in self._left:
            if isinstance(one, Span):
                one.file.close()
        self._left.clear()

    def _take(self) -> bool:
        """Take a piece that is not empty, with what goes around it; whether there is one."""
        for piece in self._pieces:
            if size := len(piece):
                self.size += size
                taken = piece if isinstance(piece, Span) else memoryview(piece)
                if self._chunked:
                    frame = memoryview(b"%x\r\n" % size), taken, memoryview(b"\r\n")
                    self._left.extend(frame)
                else:
                    self._left.append(taken)
                return True
        return False

    def _send(self) -> None:
        """Send some of what is next. Raises BlockingIOError where there is no room for any."""
        one = self._left[0]
        if isinstance(one, Span):
            sent = self._send_file(one)
        else:
            sent = self._socket.send(one, socket.MSG_MORE if len(one) < SMALL else 0)
        if sent < len(one):
            self._left[0] = one.rest(sent) if isinstance(one, Span) else one[sent:]
            return
        self._left.popleft()
        if isinstance(one, Span):
            one.file.close()

    def _send_file(self, span: Span) -> int:
        try:
            sent = os.sendfile(self._socket.fileno(), span.file.number, span.start, span.length)
        except OSError as error:
            if isinstance(error, BlockingIOError | ConnectionError | TimeoutError):
                raise
            # Of the file; where it is not that its file system has no sendfile, reading tells.
            sent = 0
        return sent or self._socket.send(span.read())
