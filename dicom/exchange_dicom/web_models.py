"""Data sets as bodies of answers, in DICOM JSON or in XML (PS3.18 section 8.7.3.2, annex F)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from exchange_dicom import multipart, native_model
from exchange_dicom.media_types import (
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    MediaType,
    NotAcceptable,
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
