"""The URI service, WADO-URI (PS3.18 section 9): one object, named by the query parameters.

It ends in the same rooms as WADO-RS: instances go out as they do there, pictures are made there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from starlette.responses import Response

from exchange.access import Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange_dicom import media_types, web_rendered, web_retrieve
from exchange_dicom.grey_values import Window
from exchange_dicom.lettering import LATIN, Lettering
from exchange_dicom.media_types import DICOM, MediaType, NotAcceptable
from exchange_dicom.pixel_data import NoPixels
from exchange_dicom.rendering import Presentation
from exchange_dicom.resources import Root, uid
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_dicom.viewport import Viewport
from exchange_dicom.web_rendered import VIEWPORT, Subject

_OBJECT = {"requestType", "studyUID", "seriesUID", "objectUID", "contentType"}
_PICTURE = {
    "rows", "columns", "region", "windowCenter", "windowWidth", "frameNumber", "imageQuality",
    "annotation", "imageAnnotation", "presentationUID", "presentationSeriesUID",
}  # fmt: skip
_OF_DICOM = {"transferSyntax"}
_KNOWN = {"charset"} | _PICTURE | _OF_DICOM
_REFUSED = {"anonymize"}
"""Whose neglect would show what was not asked for."""

_BY_THE_STATE = {"windowCenter", "windowWidth", "region"}
"""What a presentation state says, and nobody else beside it (PS3.18 9.4.1.2.7)."""


def retrieve(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    query: Mapping[str, str],
    *,
    accept: str,
    if_none_match: str,
    lettering: Lettering = LATIN,
) -> Response:
    """The object as it is kept, or a picture of it.

    Without a content type it is a picture if it is an image, else the object. Raises NotFound,
    Gone, Refused, Invalid, TooLarge, NotAcceptable.
    """
    if query.get("requestType") != "WADO":
        raise Invalid("requestType is WADO")
    if refused := sorted(one for one in _REFUSED & query.keys() if query[one]):
        raise Invalid(f"not served: {', '.join(refused)}")
    study, series, instance = (_uid(query, f"{one}UID") for one in ("study", "series", "object"))
    wanted = _wanted(query.get("contentType", ""), accept)
    state = _state(query)
    written = query.get("imageAnnotation") or query.get("annotation") or ""
    if wanted is None or not wanted[0].covers(DICOM):
        try:
            return web_rendered.rendered(
                exchange,
                requester,
                root,
                Subject(study, series, instance, query.get("frameNumber") or None, state),
                _presentation(query),
                accept=wanted or media_types.parse("image/jpeg"),
                if_none_match=if_none_match,
                annotation=web_rendered.written(written),
                lettering=lettering,
                unused=web_rendered.named_or_not(query, _OBJECT | _PICTURE, _KNOWN),
            )
        except NoPixels:
            if wanted is not None or query.get("frameNumber") or state is not None:
                raise
    syntax = uid(query.get("transferSyntax") or EXPLICIT_VR_LITTLE_ENDIAN)
    return web_retrieve.instances(
        exchange,
        requester,
        root,
        study,
        series,
        instance,
        accept=media_types.parse(f"{DICOM}; transfer-syntax={syntax}"),
    )


def _wanted(content_type: str, accept: str) -> Sequence[MediaType] | None:
    """What is wanted most, of object and pictures; None where all is left open.

    Raises Invalid, NotAcceptable.
    """
    asked = media_types.acceptable(content_type or None, accept or None)
    if not content_type and any(one.type == "*" for one in asked):
        return None
    known = [
        one for one in asked if any(one.covers(name) for name in (DICOM, *web_rendered.MEDIA_TYPES))
    ]
    if not known:
        raise NotAcceptable(f"an object is had as {DICOM} or {', '.join(web_rendered.MEDIA_TYPES)}")
    return known


def _uid(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise Invalid(f"{name} is required")
    return uid(query[name])


def _presentation(query: Mapping[str, str]) -> Presentation:
    """Raises Invalid."""
    center, width = (_number(query, f"window{one}") for one in ("Center", "Width"))
    if (center is None) is not (width is None) or (width is not None and width < 1):
        raise Invalid("windowCenter and windowWidth come together, the width at least 1")
    window = None if center is None or width is None else Window(center, width)
    quality = _whole(query, "imageQuality", 100) or Presentation().quality
    return Presentation(window, _viewport(query), quality)


def _state(query: Mapping[str, str]) -> tuple[str, str] | None:
    """Series and instance of the presentation state, where one is named. Raises Invalid."""
    if not query.get("presentationUID") and not query.get("presentationSeriesUID"):
        return None
    if beside := sorted(one for one in _BY_THE_STATE if query.get(one)):
        raise Invalid(f"not together with a presentation state: {', '.join(beside)}")
    return _uid(query, "presentationSeriesUID"), _uid(query, "presentationUID")


def _viewport(query: Mapping[str, str]) -> Viewport | None:
    """``rows`` and ``columns`` to fit into, and ``region``: left, top, right, bottom, to 1."""
    rows, columns = _whole(query, "rows", VIEWPORT), _whole(query, "columns", VIEWPORT)
    if not query.get("region"):
        if rows is None and columns is None:
            return None
        return Viewport(columns or VIEWPORT, rows or VIEWPORT)
    try:
        left, top, right, bottom = (float(one) for one in query["region"].split(","))
    except ValueError:
        raise Invalid("region has four numbers with commas between them") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise Invalid("region is left,top,right,bottom, each from 0 to 1")
    return Viewport(
        columns or VIEWPORT,
        rows or VIEWPORT,
        left,
        top,
        right - left,
        bottom - top,
        relative=True,
        enlarging=rows is not None or columns is not None,
    )


def _number(query: Mapping[str, str], name: str) -> float | None:
    if not query.get(name):
        return None
    try:
        found = float(query[name])
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Invalid(f"{name} is a number")
    return found


def _whole(query: Mapping[str, str], name: str, most: int) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise Invalid(f"{name} is a number from 1 to {most}")
    return int(text)
