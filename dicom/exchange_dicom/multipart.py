"""multipart/related bodies, read and written as streams (RFC 2046 section 5.1, RFC 2387).

Why not `python_multipart`: it reads multipart/form-data and refuses a preamble, which RFC 2046
allows; and here the reader of a part decides when more of it is pulled from the network.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesHeaderParser

from exchange.errors import Invalid, TooLarge

HEADER_LIMIT = 16 * 1024
"""Bytes that the header fields of one part may have."""

PART_LIMIT = 100_000
"""Parts in one body."""

BOUNDARY_LIMIT = 200
"""Characters of a boundary. RFC 2046 allows 70; Orthanc's DICOMweb plug-in sends 73."""

_BOUNDARY = re.compile(
    rf"[0-9A-Za-z'()+_,\-./:=? ]{{0,{BOUNDARY_LIMIT - 1}}}[0-9A-Za-z'()+_,\-./:=?]"
)


class MalformedMultipart(Invalid):
    """The body is not what RFC 2046 describes; nothing after this place can be read."""


@dataclass(frozen=True, slots=True)
class Part:
    """A body part: header fields under lower-case names, and its bytes, to be read once."""

    fields: Mapping[str, str]
    pieces: Iterator[bytes]


def parts(
    body: Iterable[bytes],
    boundary: str,
    *,
    header_limit: int = HEADER_LIMIT,
    part_limit: int = PART_LIMIT,
) -> Iterator[Part]:
    """The parts of `body`, each to be read before the next is asked for; what is left is skipped.

    Memory is bounded by the pieces that the body comes in. Raises MalformedMultipart, also from
    within a part's pieces (a body that ends there had been cut off), and TooLarge.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedMultipart("the boundary is not one of RFC 2046, of at least 1 character")
    reader = _Reader(body, b"\r\n--" + boundary.encode("ascii"))
    for _ in reader.content():
        pass  # the preamble
    count = 0
    while reader.another():
        count += 1
        if count > part_limit:
            raise TooLarge(f"a body may have at most {part_limit} parts")
        part = Part(reader.fields(header_limit), reader.content())
        yield part
        for _ in part.pieces:
            pass
    if not count:
        raise MalformedMultipart("the body has no parts")


class _Reader:
    """Bytes read ahead of where the next thing is expected."""

    def __init__(self, body: Iterable[bytes], delimiter: bytes) -> None:
        self._body = iter(body)
        self._delimiter = delimiter
        # The first delimiter needs no line before it: this is the end of one (RFC 2046 5.1.1).
        self._ahead = bytearray(b"\r\n")

    def content(self) -> Iterator[bytes]:
        """Everything up to the next delimiter, which is taken too."""
        while (at := self._ahead.find(self._delimiter)) < 0:
            # What may be the beginning of a delimiter waits for its end.
            if safe := max(0, len(self._ahead) - len(self._delimiter) + 1):
                piece = bytes(memoryview(self._ahead)[:safe])
                del self._ahead[:safe]
                yield piece
            self._more()
        last = bytes(memoryview(self._ahead)[:at])
        del self._ahead[: at + len(self._delimiter)]
        if last:
            yield last

    def another(self) -> bool:
        """Whether the delimiter just taken begins a part; its line is taken too."""
        self._need(2)
        if self._ahead.startswith(b"--"):
            return False
        padding = self._until(b"\r\n", HEADER_LIMIT)
        if padding.strip(b" \t"):
            raise MalformedMultipart("a delimiter line has more on it than the boundary")
        return True

    def fields(self, limit: int) -> Mapping[str, str]:
        """The header fields of a part, and the empty line after them."""
        self._need(2)
        if self._ahead.startswith(b"\r\n"):
            del self._ahead[:2]
            return {}
        block = self._until(b"\r\n\r\n", limit)
        if self._delimiter in block:
            raise MalformedMultipart("the header of a part has no empty line after it")
        read = BytesHeaderParser().parsebytes(block)
        return {name.lower(): " ".join(str(value).split()) for name, value in read.items()}

    def _until(self, end: bytes, limit: int) -> bytes:
        while (at := self._ahead.find(end)) < 0:
            if len(self._ahead) > limit:
                raise TooLarge(f"the header of a part may have at most {limit} bytes")
            self._more()
        if at > limit:
            raise TooLarge(f"the header of a part may have at most {limit} bytes")
        taken = bytes(self._ahead[:at])
        del self._ahead[: at + len(end)]
        return taken

    def _need(self, count: int) -> None:
        while len(self._ahead) < count:
            self._more()

    def _more(self) -> None:
        piece = next(self._body, None)
        if piece is None:
            raise MalformedMultipart("the body ends without its closing delimiter")
        self._ahead += piece


def new_boundary() -> str:
    """A boundary that no part contains: 128 random bits."""
    return secrets.token_hex(16)


def head(fields: Mapping[str, str], boundary: str) -> bytes:
    """What stands before a part's bytes: its delimiter and header fields."""
    lines = (f"{name}: {value}\r\n" for name, value in fields.items())
    return f"\r\n--{boundary}\r\n{''.join(lines)}\r\n".encode("ascii")


def tail(boundary: str) -> bytes:
    """What stands after the last part."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")
