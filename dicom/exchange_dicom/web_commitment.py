"""The Storage Commitment Service of DICOMweb (PS3.18 section 13), with the transactions of DIMSE's.

A request is durable before it is answered. Small ones are judged while the asker waits; the rest is
the worker's, and its result is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.responses import Response

from exchange import commitment
from exchange.access import Exchange
from exchange.commitment import InUse, Reference, Report
from exchange.errors import ExchangeError, Invalid
from exchange.jobs import Later
from exchange.policy import Requester
from exchange_dicom import attributes, web_models
from exchange_dicom.commitment import information
from exchange_dicom.contexts import stored
from exchange_dicom.media_types import MediaType
from exchange_dicom.resources import uid
from exchange_dicom.web_errors import problem

REQUEST_LENGTH = 16 << 20
"""Bytes of the longest request."""

SECONDS = 5.0
"""How long an asker is kept waiting for its result before it has to come again."""

RETRY_AFTER = 10
"""Seconds after which a result may be asked for again."""

_SEQUENCE, _CLASS, _INSTANCE = "00081199", "00081150", "00081155"


def request(
    exchange: Exchange,
    requester: Requester,
    transaction: str,
    content_type: str,
    body: Iterable[bytes],
    *,
    accept: Sequence[MediaType],
) -> Response:
    """Ask for a commitment (13.4): 200 with the result, 202 without, 409 where the UID is in use.

    The same request again is the same transaction, as long as its result was not given. Raises
    Invalid, Refused, TooLarge, UnsupportedMediaType, NotAcceptable.
    """
    kind = web_models.choose(accept, parted=False)
    model = web_models.received(content_type, web_models.read(body, REQUEST_LENGTH))
    references = _references(model)
    try:
        with exchange.on_behalf_of(requester) as access:
            number = commitment.ask(
                access,
                uid(transaction),
                references,
                unsupported={one for one, _ in references if stored(one) is None},
                fresh=True,
            )
    except InUse as error:
        return problem(409, str(error))
    return _result(exchange, requester, number, kind)


def result(
    exchange: Exchange, requester: Requester, transaction: str, *, accept: Sequence[MediaType]
) -> Response:
    """The result of a commitment (13.5): 200 with it, 202 where there is none yet.

    Raises NotFound, Invalid, Refused, NotAcceptable.
    """
    kind = web_models.choose(accept, parted=False)
    with exchange.on_behalf_of(requester) as access:
        number = commitment.number_of(access, uid(transaction))
    return _result(exchange, requester, number, kind)


def _result(exchange: Exchange, requester: Requester, number: int, kind: str) -> Response:
    told = _judged(exchange, requester, number)
    if told is None:
        return Response(status_code=202, headers={"Retry-After": str(RETRY_AFTER)})
    with exchange.on_behalf_of(requester) as access:
        commitment.reported(access, number)
    return web_models.one(kind, attributes.to_json(information(told)))


def _judged(exchange: Exchange, requester: Requester, number: int) -> Report | None:
    """The verdict; None where the worker goes on with it."""
    try:
        with exchange.on_behalf_of(requester) as access:
            done = commitment.check(access, number, seconds=SECONDS)
        if not done:
            return None
        with exchange.on_behalf_of(requester) as access:
            return commitment.report(access, number)
    except (ExchangeError, Later):
        return None


def _references(model: Any) -> list[Reference]:
    try:
        return [(_uid(item, _CLASS), _uid(item, _INSTANCE)) for item in model[_SEQUENCE]["Value"]]
    except (KeyError, TypeError, ValueError, IndexError):
        raise Invalid(
            "the request has no Referenced SOP Sequence with class and instance UIDs"
        ) from None


def _uid(item: Any, tag: str) -> str:
    (value,) = item[tag]["Value"]
    return uid(value)
