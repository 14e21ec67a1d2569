"""How answers of the web door leave: bodies in pieces, and entity tags (RFC 9110 8.8.3, 13.1.2)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import cast

from anyio import to_thread
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from exchange import spans
from exchange.spans import Span
from exchange_dicom.resources import Root

PIECE = 1 << 19
"""Bytes that are handed to the server at once, and read at a time: each with a change of threads.
"""

SMALL = 64 << 10
"""Bytes below which it costs less to copy a piece to its neighbours than to hand it on alone."""

PIECES = "exchange.response.pieces"
"""The ASGI extension, and the event of that type, by which a server is given a whole body at once.

Under ``pieces`` the event has an iterator of what `Piece` is; the server takes from it on a thread
of its own, as fast as the client reads, and sends a `Span` from where it lies. It follows
``http.response.start``, and nothing follows it. Without the extension all is read here.
"""

Piece = bytes | memoryview | Span

DAMAGED = "damaged in the archive; their hospital has to send them again"
"""Why instances are left out that a scrub has found so."""

MISSING = "not in the archive's store at this moment; ask again later"
"""Why instances are left out that may be on their way, or are lost."""

_Bytes = bytes | memoryview

CACHING = "private, no-cache"
"""Whether it may be seen is decided anew each time, so no cache may answer by itself."""


def streamed(pieces: Iterable[Piece], headers: Mapping[str, str], status: int = 200) -> Response:
    """An answer whose first piece is at hand: a missing object is told by the status."""
    rest = iter(pieces)
    first: list[Piece] = []
    size = 0
    while size < PIECE and (piece := next(rest, None)) is not None:
        first.append(piece)
        size += len(piece)
    if size < PIECE and not any(isinstance(piece, Span) for piece in first):
        whole = b"".join(cast(list[_Bytes], first))
        return Response(whole, status, headers=dict(headers))  # without a change of threads
    return _Streamed(chain(first, rest), status, headers)


class _Streamed(StreamingResponse):
    """A body that the server takes as fast as the client reads it.

    Of a server without the extension, more is read while the last that was read is on its way.
    """

    def __init__(self, pieces: Iterator[Piece], status: int, headers: Mapping[str, str]) -> None:
        super().__init__((), status, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises what is raised by the reading."""
        if PIECES not in scope.get("extensions", {}):
            await super().__call__(scope, receive, send)
            return
        await send(self._start())
        await send({"type": PIECES, "pieces": self._pieces})

    async def stream_response(self, send: Send) -> None:
        """Send what is read here."""
        gathered = _gathered(spans.read(self._pieces))
        more = _more(gathered)
        await send(self._start())
        # Where the client goes away the reading that has begun ends by itself.
        while group := await asyncio.shield(more):
            more = _more(gathered)
            await _sent(group, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _start(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }


def _more(groups: Iterator[list[_Bytes]]) -> asyncio.Task[list[_Bytes]]:
    more = asyncio.create_task(to_thread.run_sync(next, groups, []))
    more.add_done_callback(lambda done: done.cancelled() or done.exception())  # may go unread
    return more


async def _sent(group: Iterable[_Bytes], send: Send) -> None:
    for piece in group:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def partial(answer: Response, root: Root, left_out: int, why: str) -> None:
    """An answer that leaves something out, if it does, says so (206; PS3.18 Table 10.4.3-1)."""
    if left_out:
        answer.status_code = 206
        answer.headers.append(*root.warning(f"{left_out} instances are left out: {why}"))


def entity_tag(*parts: str) -> str:
    """A strong entity tag of what is made from these parts, and from nothing else."""
    return f'"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


def unchanged(if_none_match: str, tag: str) -> Response | None:
    """304 where the asker has what bears the tag already."""
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    if tag.removeprefix("W/") in known or "*" in known:
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": CACHING})
    return None


def takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is accepted by name (RFC 9110 12.5.3)."""
    for one in accept_encoding.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _gathered(pieces: Iterable[_Bytes]) -> Iterator[list[_Bytes]]:
    """The same bytes in groups of about `PIECE`, of pieces that are neither `SMALL` nor larger."""
    group: list[_Bytes] = []
    small: list[_Bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if len(piece) < SMALL:
            small.append(piece)
        else:
            group += [b"".join(small)] if small else []
            group += _cut(piece)
            small = []
        if size >= PIECE:
            yield [*group, b"".join(small)] if small else group
            group, small, size = [], [], 0
    if size:
        yield [*group, b"".join(small)] if small else group


def _cut(piece: _Bytes) -> list[_Bytes]:
    if len(piece) <= PIECE:
        return [piece]
    view = memoryview(piece)
    return [view[at : at + PIECE] for at in range(0, len(view), PIECE)]
