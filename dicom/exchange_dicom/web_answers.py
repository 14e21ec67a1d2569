"""How answers of the web door leave: bodies in pieces, and entity tags (RFC 9110 8.8.3, 13.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from starlette.responses import Response, StreamingResponse

PIECE = 1 << 20
"""Bytes handed to the server at once."""

CACHING = "private, no-cache"
"""Whether it may be seen is decided anew each time, so no cache may answer by itself."""


def streamed(
    pieces: Iterable[bytes | memoryview], headers: Mapping[str, str], status: int = 200
) -> Response:
    """An answer whose first piece is at hand: a missing object is told by the status."""
    gathered = _gathered(pieces)
    first = next(gathered, b"")
    second = next(gathered, None)
    if second is None:  # in one go, without a change of threads for each piece
        return Response(bytes(first), status, headers=dict(headers))
    return StreamingResponse(chain([first, second], gathered), status, headers=headers)


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


def _gathered(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of about `PIECE`, each of which costs a change of threads."""
    waiting: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        if size + len(piece) < PIECE:
            waiting.append(piece)
            size += len(piece)
            continue
        if waiting:
            yield b"".join(waiting)
            waiting, size = [], 0
        view = memoryview(piece)
        yield from (view[at : at + PIECE] for at in range(0, len(view), PIECE))
    if waiting:
        yield b"".join(waiting)
