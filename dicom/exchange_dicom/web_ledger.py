"""The completeness ledger of a hospital at the web door: a resource of ours, as PS3.18 has none.

A hospital's system tells what it counts itself as sent on a day, as it would on paper, and reads
what has come of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime, tzinfo
from typing import Any

import orjson
from starlette.responses import Response

from exchange import ledger
from exchange.access import Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange_dicom import media_types, web_models
from exchange_dicom.media_types import JSON, MediaType, UnsupportedMediaType

REQUEST_LENGTH = 64 << 10

_COUNTS = ("studies", "instances")


def tell(
    exchange: Exchange, requester: Requester, day: str, content_type: str, body: Iterable[bytes]
) -> Response:
    """Take a count of what ``source`` has sent: 204. Told again, it is replaced.

    Raises Invalid, Refused, TooLarge, UnsupportedMediaType.
    """
    when = _day(day)
    kinds = media_types.parse(content_type)
    if not kinds or kinds[0].name != JSON:
        raise UnsupportedMediaType(f"a count is sent as {JSON}")
    told = _object(web_models.read(body, REQUEST_LENGTH))
    if unknown := sorted(set(told) - {"source", *_COUNTS}):
        raise Invalid(f"a count has source, studies and instances: {len(unknown)} are not known")
    source, counts = told.get("source", "PACS"), [told.get(name) for name in _COUNTS]
    if not isinstance(source, str):
        raise Invalid("source is text")
    if any(one is not None and type(one) is not int for one in counts):
        raise Invalid("studies and instances are whole numbers")
    studies, instances = counts
    with exchange.on_behalf_of(requester) as access:
        # Also an administrator of the region tells for no hospital here.
        ledger.tell(access, when, source, studies=studies, instances=instances)
    return Response(status_code=204)


def read(
    exchange: Exchange,
    requester: Requester,
    day: str,
    *,
    zone: tzinfo,
    accept: tuple[MediaType, ...],
) -> Response:
    """What should have come of the asker's hospital on a day, and what came.

    Raises Invalid, Refused, NotAcceptable.
    """
    when = _day(day)
    kind = media_types.choose(accept, (JSON,))
    with exchange.on_behalf_of(requester) as access:
        lines = ledger.lines(access, when, when, timezone=zone)
    told = [asdict(one) | {"complete": one.complete} for one in lines]
    return Response(orjson.dumps({"day": f"{when:%Y%m%d}", "hospitals": told}), media_type=kind)


def _object(content: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Invalid("the body is no JSON") from None
    if not isinstance(told, dict):
        raise Invalid("a count is a JSON object")
    return told


def _day(text: str) -> date:
    try:
        if len(text) == 8 and text.isascii() and text.isdigit():
            return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a day, not a moment
    except ValueError:
        pass
    raise Invalid("a day is written YYYYMMDD")
