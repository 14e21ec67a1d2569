"""The change feed of the web door: a resource of ours, since PS3.18 has none.

A reader keeps the number that `through` tells and asks for what is after it; nothing is kept here
of who has read what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.responses import Response

from exchange import changes
from exchange.access import Exchange
from exchange.changes import Entry, Page, State
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange_dicom import media_types
from exchange_dicom.media_types import JSON, MediaType
from exchange_dicom.resources import Root

PAGE = 100
"""Changes of an answer where the asker sets no limit."""

_PARAMETERS = frozenset({"after", "since", "before", "limit", "accept"})


def feed(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    parameters: Iterable[tuple[str, str]],
    *,
    accept: tuple[MediaType, ...],
) -> Response:
    """The changes after `after`, from `since` to before `before`; 200 also where there are none.

    Raises Invalid, NotAcceptable, Refused.
    """
    kind = media_types.choose(accept, (JSON,))
    asked: dict[str, str] = {}
    unknown = []
    for name, value in parameters:
        if name not in _PARAMETERS:
            unknown.append(name)
        elif name in asked:
            raise Invalid(f"{name} is given twice")
        else:
            asked[name] = value
    limit = _number("limit", asked.get("limit", str(PAGE)))
    with exchange.on_behalf_of(requester) as access:
        page = changes.after(
            access,
            _number("after", asked.get("after", "0")),
            limit=min(limit, changes.LIMIT),
            since=_moment("since", asked.get("since")),
            before=_moment("before", asked.get("before")),
        )
    response = Response(orjson.dumps(_told(root, page)), media_type=kind)
    going_on = {name: asked[name] for name in ("since", "before", "limit") if name in asked}
    query = urlencode({"after": page.through} | going_on)
    response.headers["Link"] = f'<{root.url}/changefeed?{query}>; rel="next"'
    if unknown:
        count = len(unknown)
        response.headers.append(*root.warning(f"{count} parameters are not known, and ignored"))
    return response


def latest(exchange: Exchange, requester: Requester, *, accept: tuple[MediaType, ...]) -> Response:
    """Where the feed ends now, for a reader that wants only what comes from here on."""
    kind = media_types.choose(accept, (JSON,))
    with exchange.on_behalf_of(requester) as access:
        last = changes.latest(access)
    return Response(orjson.dumps({"through": last}), media_type=kind)


def _told(root: Root, page: Page) -> Mapping[str, Any]:
    return {
        "changes": [_entry(root, entry) for entry in page.entries],
        "through": page.through,
        "more": page.more,
    }


def _entry(root: Root, entry: Entry) -> dict[str, Any]:
    told = {
        "sequence": entry.sequence,
        "recorded": entry.recorded.astimezone(UTC).isoformat(),
        "action": entry.action,
        "state": entry.state,
        "studyInstanceUID": entry.study_instance_uid,
        "seriesInstanceUID": entry.series_instance_uid,
        "sopInstanceUID": entry.sop_instance_uid,
    }
    if entry.state is State.CURRENT:
        told["retrieveURL"] = root.resource(
            entry.study_instance_uid, entry.series_instance_uid, entry.sop_instance_uid
        )
    return told


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"{name} is a whole number")
    return int(text)


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        # In a query a plus that was not escaped is a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        moment.astimezone(UTC)  # which the first and the last day may not have
    except (ValueError, OverflowError):
        raise Invalid(f"{name} is a moment as in 2026-11-26T08:00:00+08:00") from None
    if moment.tzinfo is None:
        raise Invalid(f"{name} needs a time zone, as in 2026-11-26T08:00:00+08:00")
    return moment
