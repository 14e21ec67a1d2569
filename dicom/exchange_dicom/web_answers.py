"""How answers of the web door leave: bodies in pieces, and entity tags (RFC 9110 8.8.3, 13.1.2)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from anyio import to_thread
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

PIECE = 1 << 19
"""Bytes that are handed to the server at once, and read at a time: each with a change of threads.
"""

SMALL = 64 << 10
"""Bytes below which it costs less to copy a piece to its neighbours than to hand it on alone."""

_Piece = bytes | memoryview

CACHING = "private, no-cache"
"""Whether it may be seen is decided anew each time, so no cache may answer by itself."""


def streamed(pieces: Iterable[_Piece], headers: Mapping[str, str], status: int = 200) -> Response:
    """An answer whose first piece is at hand: a missing object is told by the status."""
    gathered = _gathered(pieces)
    first = next(gathered, [])
    second = next(gathered, None)
    if second is None:  # in one go, without a change of threads for each piece
        return Response(b"".join(first), status, headers=dict(headers))
    return _ReadAhead([first, second], gathered, status, headers)


class _ReadAhead(StreamingResponse):
    """A body of which more is read while the last that was read is on its way."""

    def __init__(
        self,
        read: Iterable[Sequence[_Piece]],
        rest: Iterator[Sequence[_Piece]],
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__((), status, headers)
        self._read = read
        self._rest = rest

    async def stream_response(self, send: Send) -> None:
        """Send it. Raises what is raised by the reading."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        more = self._more()
        for group in self._read:
            await _sent(group, send)
        # Where the client goes away the reading that has begun ends by itself.
        while group := await asyncio.shield(more):
            more = self._more()
            await _sent(group, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _more(self) -> asyncio.Task[Sequence[_Piece]]:
        more = asyncio.create_task(to_thread.run_sync(next, self._rest, ()))
        more.add_done_callback(lambda done: done.cancelled() or done.exception())  # may go unread
        return more


async def _sent(group: Iterable[_Piece], send: Send) -> None:
    for piece in group:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


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


def _gathered(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """The same bytes in groups of about `PIECE`, of pieces that are neither `SMALL` nor larger."""
    group: list[_Piece] = []
    small: list[_Piece] = []
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


def _cut(piece: _Piece) -> list[_Piece]:
    if len(piece) <= PIECE:
        return [piece]
    view = memoryview(piece)
    return [view[at : at + PIECE] for at in range(0, len(view), PIECE)]
