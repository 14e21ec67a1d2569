"""Metadata of instances by WADO-RS (PS3.18 10.4.1.1.2), from the documents of their series."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from exchange import derived, retrieval
from exchange.access import Exchange
from exchange.policy import Requester
from exchange_dicom import media_types, series_metadata
from exchange_dicom.media_types import DICOM_JSON, JSON, MediaType
from exchange_dicom.resources import Root
from exchange_dicom.web_answers import CACHING, entity_tag, streamed, unchanged


def metadata(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str | None,
    instance: str | None,
    *,
    accept: Sequence[MediaType],
    if_none_match: str,
    compressed: bool = False,
) -> Response:
    """The attributes of instances as DICOM JSON; 304 where the asker has them already.

    Where the asker takes gzip, `compressed`, the document of a series goes out as it lies. Raises
    NotFound, Gone, Refused, NotAcceptable.
    """
    answered = media_types.choose(accept, (DICOM_JSON, JSON))
    with exchange.on_behalf_of(requester) as access:
        held = retrieval.instances(access, study, series, instance, purpose="metadata").instances
    tag = entity_tag(series_metadata.FORM, root.url, *(one.digest for one in held))
    packed_tag = f'{tag[:-1]}-gzip"'
    for one in (tag, packed_tag):
        if (same := unchanged(if_none_match, one)) is not None:
            return same
    headers = {"ETag": tag, "Cache-Control": CACHING, "Content-Type": answered}
    headers["Vary"] = "Accept-Encoding"
    if instance is not None:
        return Response(b"[" + series_metadata.told(held[0], root) + b"]", headers=headers)
    if (
        series is not None
        and compressed
        and (document := derived.find(held, series_metadata.form(root)))
    ):
        headers |= {"ETag": packed_tag, "Content-Encoding": "gzip"}
        return Response(document, headers=headers)
    return streamed(series_metadata.array(held, root), headers)
