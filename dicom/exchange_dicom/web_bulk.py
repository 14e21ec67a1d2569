"""Bulk data of an instance (PS3.18 10.4.1.1.5), whole or in ranges (RFC 9110 section 14).

A value is named by its path: its tag, or for values in sequences tags and numbers of items in turn,
``52009230/1/00400275``. Native values are streams of bytes, little endian; the encapsulated pixels
are frames, or one video. What is served is the sender's, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from starlette.responses import Response

from exchange import retrieval
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound, TooLarge
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import (
    data_set,
    frame_coding,
    kept,
    media_types,
    multipart,
    pixel_data,
    series_metadata,
    web_frames,
)
from exchange_dicom.data_set import PIXELS, Element
from exchange_dicom.header import DEFLATED, MalformedDataSet
from exchange_dicom.media_types import MULTIPART, OCTET_STREAM, MediaType, NotAcceptable
from exchange_dicom.pixel_data import INFLATED_LIMIT, VIDEO
from exchange_dicom.resources import Root
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_dicom.web_answers import (
    CACHING,
    DAMAGED,
    PIECE,
    entity_tag,
    partial,
    streamed,
    unchanged,
)
from exchange_dicom.web_errors import NotSatisfiable
from exchange_dicom.web_frames import Form

PIXEL_DATA = "7FE00010"

SWAPPED_LIMIT = 1 << 28
"""Bytes of the longest big endian value that is served: it is in memory as a whole."""

_PATH = re.compile(r"[0-9A-F]{8}(/[1-9][0-9]{0,5}/[0-9A-F]{8}){0,63}")
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.IGNORECASE)
_VIDEO_TYPES = {
    syntax: "video/mpeg2" if ".4.100" in syntax or ".4.101" in syntax else "video/mp4"
    for syntax in VIDEO
}
_ANYTHING = media_types.parse("*/*")
_BULK_FORM = "bulk 1"
"""Changes when the same values are answered in another way."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The header fields Range and If-Range, or "" each."""

    range: str
    if_range: str

    def span(self, size: int, tag: str) -> tuple[int, int] | None:
        """First byte and the one behind the last, of `size`; None for all of them.

        Several ranges, other units and what is no range are ignored, as RFC 9110 14.2 allows.
        Raises NotSatisfiable.
        """
        found = _RANGE.fullmatch(self.range.replace(" ", ""))
        if found is None or (self.if_range and self.if_range != tag):
            return None
        first, last, final = found.groups()
        if final is not None:
            start, stop = max(0, size - int(final)), size
        else:
            start, stop = int(first), min(size, int(last) + 1) if last else size
            if last and int(last) < start:
                return None
        if start >= stop:
            raise NotSatisfiable(size)
        return start, stop


@dataclass(frozen=True, slots=True)
class Value:
    """Bytes that lie in the object in pieces, one behind the other, or are in memory."""

    media_type: str
    spans: tuple[tuple[int, int], ...] = ()
    """First byte in the data set, and bytes."""
    content: memoryview | None = None

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return (
            sum(length for _, length in self.spans) if self.content is None else len(self.content)
        )

    def pieces(self, held: Held, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes from `start` up to `stop`. Raises Unavailable, MalformedDataSet."""
        if self.content is not None:
            yield self.content[start:stop]
            return
        for at, length in self.spans:
            first, end = max(0, start), min(length, stop)
            if first < end:
                yield from _read(held, at + first, end - first)
            start, stop = start - length, stop - length


def bulk_data(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str,
    instance: str,
    path: str,
    *,
    accept: Sequence[MediaType],
    if_none_match: str,
    asked: Asked,
) -> Response:
    """The value at `path`: 200, or 206 for a range of it.

    Raises NotFound, Gone, Refused, Invalid, TooLarge, NotAcceptable, NotSatisfiable.
    """
    if not _PATH.fullmatch(path := path.upper()):
        raise Invalid("bulk data are named by a tag, or by tags with numbers of items between them")
    with exchange.on_behalf_of(requester) as access:
        (held,) = retrieval.instances(
            access, study, series, instance, purpose="bulk data", part={"attribute": path[:256]}
        ).instances
    try:
        value = pixel_value(held, path) if int(path[:8], 16) >= PIXELS else found(held, path)
        if value is None:
            return web_frames.answered(root, held, None, accept=accept, if_none_match=if_none_match)
        return _answer(held, path, value, accept, if_none_match, asked)
    except MalformedDataSet as error:
        raise NotAcceptable("the value is damaged: retrieve the instance itself") from error


def several(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str | None,
    instance: str | None,
    *,
    pixels: bool,
    accept: Sequence[MediaType],
) -> Response:
    """All values that the metadata name by a URI, or the pixels alone: a part for each, or frame.

    200, or 206 where some instances are damaged, or their frames cannot be had in a form that is
    accepted. Raises NotFound where there are none, Gone, Refused, Damaged, NotAcceptable.
    """
    if not any(one.covers(MULTIPART) for one in accept):
        raise NotAcceptable(f"many values are had as {MULTIPART}")
    with exchange.on_behalf_of(requester) as access:
        found = retrieval.instances(
            access, study, series, instance, purpose="pixel data" if pixels else "bulk data"
        ).instances
        held = retrieval.whole(found)
    sent: list[tuple[Held, Form | None]] = []
    refusal: NotAcceptable | None = None
    for one in held:
        try:
            sent.append((one, _form(one, accept)))
        except NotAcceptable as error:
            refusal = error
    if not sent and refusal is not None:
        raise refusal
    boundary = multipart.new_boundary()
    parts = (part for one, form in sent for part in _parts(root, one, form, pixels, boundary))
    try:
        first = next(parts, None)
    except (CannotTranscode, MalformedDataSet) as error:
        raise NotAcceptable("a value is damaged: retrieve the instances themselves") from error
    if first is None:
        raise NotFound("these instances have no such bulk data")
    kind = f'{MULTIPART}; type="{OCTET_STREAM}"; boundary={boundary}'
    pieces = chain([first], parts, [multipart.tail(boundary)])
    answer = streamed(pieces, {"Content-Type": kind, "Cache-Control": CACHING})
    partial(answer, root, len(held) - len(sent), "their frames cannot be had in this form")
    partial(answer, root, len(found) - len(held), DAMAGED)
    return answer


def _form(held: Held, accept: Sequence[MediaType]) -> Form | None:
    """How compressed frames go out; None where the pixels are a value. Raises NotAcceptable."""
    syntax = held.transfer_syntax_uid
    if held.rows is None or syntax in VIDEO or syntax in frame_coding.PLAIN or syntax in DEFLATED:
        return None
    return web_frames.negotiated(syntax, accept, single=False)


def _parts(
    root: Root, held: Held, form: Form | None, pixels: bool, boundary: str
) -> Iterator[bytes | memoryview]:
    """Raises MalformedDataSet, CannotTranscode, TooLarge, Unavailable at any piece."""
    where = root.resource(held.study_instance_uid, held.series_instance_uid, held.sop_instance_uid)
    for path in _paths(series_metadata.describe(held, Root(""))):
        of_pixels = int(path[:8], 16) >= PIXELS
        if pixels and not of_pixels:
            continue
        value = pixel_value(held, path) if of_pixels else found(held, path)
        if value is not None:
            fields = _fields(value) | {
                "Content-Length": str(value.size),
                "Content-Location": f"{where}/bulkdata/{path}",
            }
            yield multipart.head(fields, boundary)
            yield from value.pieces(held, 0, value.size)
            continue
        known = pixel_data.pixels(held)
        shown = form or web_frames.negotiated(held.transfer_syntax_uid, _ANYTHING, single=False)
        for number in range(1, known.frames + 1):
            content = web_frames.frame(held, known, number, shown)
            fields = {
                "Content-Type": shown.content_type,
                "Content-Length": str(len(content)),
                "Content-Location": f"{where}/frames/{number}",
            }
            yield multipart.head(fields, boundary)
            yield content


def _paths(model: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The paths of all values that are named by a URI."""
    for tag, attribute in model.items():
        if "BulkDataURI" in attribute:
            yield above + tag
        if attribute["vr"] == "SQ":
            for number, item in enumerate(attribute.get("Value", ()), 1):
                yield from _paths(item, f"{above}{tag}/{number}/")


def _fields(value: Value) -> dict[str, str]:
    if value.media_type != OCTET_STREAM:
        return {"Content-Type": value.media_type}
    return {"Content-Type": f"{OCTET_STREAM}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}"}


def _answer(
    held: Held,
    path: str,
    value: Value,
    accept: Sequence[MediaType],
    if_none_match: str,
    asked: Asked,
) -> Response:
    in_parts = _in_parts(accept, value.media_type)
    tag = entity_tag(_BULK_FORM, held.digest, path, str(in_parts))
    if (same := unchanged(if_none_match, tag)) is not None:
        return same
    size = value.size
    span = asked.span(size, tag)
    start, stop = span or (0, size)
    fields = _fields(value)
    if span is not None:
        fields["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers = {"ETag": tag, "Cache-Control": CACHING, "Accept-Ranges": "bytes"}
    pieces = value.pieces(held, start, stop)
    if in_parts:
        boundary = multipart.new_boundary()
        headers["Content-Type"] = f'{MULTIPART}; type="{value.media_type}"; boundary={boundary}'
        pieces = _wrapped(pieces, fields, boundary)
    else:
        headers |= fields | {"Content-Length": str(stop - start)}
    return streamed(pieces, headers, 200 if span is None else 206)


def _wrapped(
    pieces: Iterator[bytes | memoryview], fields: dict[str, str], boundary: str
) -> Iterator[bytes | memoryview]:
    yield multipart.head(fields, boundary)
    yield from pieces
    yield multipart.tail(boundary)


def _in_parts(accept: Sequence[MediaType], media_type: str) -> bool:
    """Whether the value is wanted in a multipart body, or bare. Raises NotAcceptable."""
    for one in accept:
        if one.covers(media_type) or one.covers(OCTET_STREAM):
            return False
        inner = media_types.parse(one.parameters.get("type", "*/*"))
        if not one.covers(MULTIPART) or not inner:
            continue
        if inner[0].covers(media_type) or inner[0].covers(OCTET_STREAM):
            return True
    raise NotAcceptable(f'this can be had as {media_type}, or {MULTIPART}; type="{media_type}"')


def pixel_value(held: Held, path: str) -> Value | None:
    """The pixels of the instance as one value, or None where they are frames. Raises NotFound."""
    known = pixel_data.pixels(held)
    if path != f"{known.tag:08X}":
        raise NotFound("the instance has no such bulk data")
    if held.transfer_syntax_uid in VIDEO:
        return Value(_VIDEO_TYPES[held.transfer_syntax_uid], pixel_data.fragments(held, known))
    if known.length is None:
        return None
    if known.swapped == 1:
        return Value(OCTET_STREAM, ((known.at, known.length),))
    if known.length > SWAPPED_LIMIT:
        raise TooLarge(f"a big endian value may have at most {SWAPPED_LIMIT} bytes: ask for frames")
    straight = data_set.turned(memoryview(_whole(held, known.at, known.length)), known.swapped)
    return Value(OCTET_STREAM, content=straight)


def found(held: Held, path: str) -> Value:
    """The value at `path`. Raises NotFound, MalformedDataSet, TooLarge."""
    tag, *below = path.split("/")
    read = kept.reading(held, INFLATED_LIMIT)
    element: Element | None = None
    for one in data_set.walk(read, held.transfer_syntax_uid, until=int(tag, 16) + 1):
        if one.tag >= int(tag, 16):
            element = one if one.tag == int(tag, 16) else None
            break
    while element is not None and below:
        number, tag, *below = below
        items = element.items or ()
        item = items[int(number) - 1] if int(number) <= len(items) else ()
        element = next((one for one in item if one.tag == int(tag, 16)), None)
    if element is None or element.items is not None:
        raise NotFound("the instance has no such bulk data")
    if element.value is not None:
        return Value(OCTET_STREAM, content=element.value)
    if element.fragments is not None:  # the frame of an icon
        fragments = pixel_data.joined(element.fragments)
        return Value(web_frames.media_type(held.transfer_syntax_uid), content=fragments)
    if element.span is None:
        raise NotFound("the instance has no such bulk data")
    start, length = element.span
    if element.turned == 1:
        return Value(OCTET_STREAM, (element.span,))
    if length > SWAPPED_LIMIT:
        raise TooLarge(f"a big endian value may have at most {SWAPPED_LIMIT} bytes")
    whole = memoryview(_whole(held, start, length))
    return Value(OCTET_STREAM, content=data_set.turned(whole, element.turned))


def _whole(held: Held, start: int, length: int) -> bytes:
    return b"".join(_read(held, start, length))


def _read(held: Held, start: int, length: int) -> Iterator[bytes]:
    """So many bytes of the data set. Raises MalformedDataSet where it ends before, Unavailable."""
    pieces: Iterator[bytes]
    if held.transfer_syntax_uid in DEFLATED:
        read = kept.reading(held, INFLATED_LIMIT)
        places = range(start, start + length, PIECE)
        pieces = (read(at, min(PIECE, start + length - at)) for at in places)
    else:
        pieces = held.stream(kept.offset(held) + start, length)
    left = length
    for piece in pieces:
        left -= len(piece)
        yield piece
    if left:
        raise MalformedDataSet("ends within a value", start)
