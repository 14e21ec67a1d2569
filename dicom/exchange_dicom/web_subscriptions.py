"""Subscriptions to workitems and to the worklist (PS3.18 sections 11.10 to 11.12)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo

from starlette.responses import Response

from exchange import watching
from exchange.access import Access, Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange.watching import FILTERED, GLOBAL
from exchange.worklist import Wanted
from exchange_dicom import web_search, web_workitems
from exchange_dicom.resources import Root, uid

CHANNEL = "/ws/subscribers/{subscriber}"
"""Where a subscriber opens its notification connection, below the door."""


def subscribe(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    number: str,
    title: str,
    parameters: Iterable[tuple[str, str]],
    *,
    zone: tzinfo,
) -> Response:
    """Subscribe an AE title (11.10): 201 with where it opens its connection.

    Raises Refused, NotFound, Gone, Invalid, TooBroad, TooLarge.
    """
    lock, filters = _read(parameters)
    known = watching.subscriber(title)
    if bool(filters) is not (number == FILTERED):
        raise Invalid("a filter is given with a Filtered Worklist Subscription, and only with that")
    with exchange.on_behalf_of(requester) as access:
        if number in (GLOBAL, FILTERED):
            wanted = _wanted(access, filters, zone) if filters else None
            watching.subscribe_to_all(access, known, wanted, deletion_lock=lock)
        else:
            watching.subscribe(access, uid(number), known, deletion_lock=lock)
    return Response(status_code=201, headers={"Content-Location": channel(root, known)})


def unsubscribe(exchange: Exchange, requester: Requester, number: str, title: str) -> Response:
    """End subscriptions of an AE title (11.11). Raises Refused, NotFound, Invalid."""
    with exchange.on_behalf_of(requester) as access:
        watching.unsubscribe(access, uid(number), title)
    return Response(status_code=200)


def suspend(exchange: Exchange, requester: Requester, number: str, title: str) -> Response:
    """Subscribe an AE title to no more workitems (11.12). Raises Refused, NotFound, Invalid."""
    with exchange.on_behalf_of(requester) as access:
        watching.suspend(access, uid(number), title)
    return Response(status_code=200)


def channel(root: Root, title: str) -> str:
    """The URL of a subscriber's notification connection."""
    scheme = "wss" if root.url.startswith("https:") else "ws"
    path = CHANNEL.replace("{subscriber}", title.replace("%", "%25").replace(" ", "%20"))
    return f"{scheme}:{root.url.partition(':')[2]}{path}"


def _read(parameters: Iterable[tuple[str, str]]) -> tuple[bool, Sequence[str]]:
    lock, filters = False, []
    for name, value in parameters:
        match name:
            case "deletionlock":
                if value.lower() not in ("true", "false"):
                    raise Invalid("deletionlock is true or false")
                lock = value.lower() == "true"
            case "filter":
                filters.append(value)
            case "accept" | "charset":
                pass
            case _:
                raise Invalid("a subscription has the parameters deletionlock and filter")
    return lock, filters


def _wanted(access: Access, filters: Sequence[str], zone: tzinfo) -> Wanted:
    """The matching keys of a filter: attribute=value, with commas between them."""
    pairs: list[tuple[str, str]] = []
    for piece in ",".join(filters).split(","):
        name, equals, value = piece.partition("=")
        if equals:
            pairs.append((name, value))
        elif pairs:  # a comma in a list of UIDs
            pairs[-1] = pairs[-1][0], f"{pairs[-1][1]},{piece}"
        else:
            raise Invalid("a filter is attribute=value, or several with commas between them")
    read = web_search.read({}, pairs)
    wanted, ignored = web_workitems.wanted(access, read.keys, zone=zone)
    if ignored or read.unknown:
        told = web_search.some(sorted({*ignored, *read.unknown}))
        raise Invalid(f"workitems cannot be filtered by {told}")
    if not wanted.keys and not wanted.patient:
        raise Invalid("a filter has a matching key with a value")
    return wanted
