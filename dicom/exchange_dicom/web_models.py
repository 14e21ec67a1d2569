"""Data sets as bodies, in DICOM JSON or in XML (PS3.18 section 8.7.3.2, annex F)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from exchange.errors import Invalid, TooLarge
from exchange_dicom import media_types, multipart, native_model
from exchange_dicom.media_types import (
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    MediaType,
    NotAcceptable,
    UnsupportedMediaType,
)

Model = Mapping[str, Mapping[str, Any]]


def choose(ranges: Sequence[MediaType], *, parted: bool) -> str:
    """DICOM_JSON, JSON or DICOM_XML, whichever is wanted most. Raises NotAcceptable.

    An answer of many data sets in XML is `parted`: had as multipart/related (Table 8.7.3-2).
    """
    for wanted in ranges:
        for name in (DICOM_JSON, JSON):
            if wanted.covers(name):
                return name
        if not parted and wanted.covers(DICOM_XML):
            return DICOM_XML
        if parted and wanted.covers(MULTIPART):
            inner = wanted.parameters.get("type", DICOM_XML)
            if inner.lower() == DICOM_XML:
                return DICOM_XML
    xml = f'{MULTIPART}; type="{DICOM_XML}"' if parted else DICOM_XML
    raise NotAcceptable(f"this can be had as {DICOM_JSON}, {JSON} or {xml}")


def many(kind: str, models: Sequence[Model]) -> Response:
    """An answer of many data sets: an array, or a part for each."""
    if kind != DICOM_XML:
        return Response(orjson.dumps(models), media_type=kind)
    boundary = multipart.new_boundary()
    fields = {"Content-Type": DICOM_XML}
    parts = [multipart.head(fields, boundary) + native_model.to_xml(one) for one in models]
    return Response(
        b"".join(parts) + multipart.tail(boundary),
        media_type=f'{MULTIPART}; type="{DICOM_XML}"; boundary={boundary}',
    )


def one(kind: str, model: Model, http: int = 200) -> Response:
    """An answer of one data set."""
    body = native_model.to_xml(model) if kind == DICOM_XML else orjson.dumps(model)
    return Response(body, http, media_type=kind)


def read(body: Iterable[bytes], limit: int) -> bytes:
    """A body of at most so many bytes. Raises TooLarge."""
    found = bytearray()
    for piece in body:
        found += piece
        if len(found) > limit:
            raise TooLarge(f"a request has at most {limit} bytes")
    return bytes(found)


def received(content_type: str, body: bytes) -> Any:
    """The data set of a request's body, whatever it is; of an array of one the one.

    XML may stand in a part of its own. Raises Invalid, UnsupportedMediaType.
    """
    sent = media_types.parse(content_type)
    match [one.name for one in sent]:
        case ["application/dicom+xml"]:
            return native_model.from_xml(body)
        case ["multipart/related"] if sent[0].parameters.get("type", "").lower() == DICOM_XML:
            parts = [
                b"".join(part.pieces)
                for part in multipart.parts([body], sent[0].parameters.get("boundary", ""))
            ]
            if len(parts) != 1:
                raise Invalid("the request has one part")
            return native_model.from_xml(parts[0])
        case ["application/dicom+json" | "application/json"]:
            try:
                found = orjson.loads(body)
            except orjson.JSONDecodeError:
                raise Invalid("the request is not JSON") from None
            return found[0] if isinstance(found, list) and len(found) == 1 else found
        case _:
            raise UnsupportedMediaType(f"send {DICOM_JSON}, {JSON} or {DICOM_XML}")
