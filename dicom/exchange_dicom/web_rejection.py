"""Rejecting and deleting through the web door: resources of ours, since PS3.18 has none.

They are those of other archives: POST to ``…/reject/{code}`` takes out of use what the URL names,
for a reason of CID 7011; DELETE is the rejection of what no policy keeps any more.
"""

from __future__ import annotations

import re

import orjson
from starlette.responses import Response

from exchange import rejection
from exchange.access import Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange_dicom.media_types import JSON
from exchange_dicom.resources import Root, uid

EXPIRED = "113039"
"""Data Retention Policy Expired (DCM): what DELETE is the rejection with."""

_CODE = re.compile(r"([0-9]{6})(\^DCM)?")


def reject(
    exchange: Exchange,
    requester: Requester,
    code: str,
    study: str,
    series: str | None,
    instance: str | None,
) -> Response:
    """Reject it: 200 with the count of its instances. Raises Refused, NotFound, Invalid, TooLarge.

    `code` is the code value of a document title, with or without ``^DCM`` behind it.
    """
    stated = _CODE.fullmatch(code)
    if stated is None:
        raise Invalid("the code is that of a rejection note, as in 113001^DCM")
    done = _rejected(exchange, requester, stated[1], study, series, instance)
    return Response(orjson.dumps({"count": done.count}), media_type=JSON)


def delete(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str | None,
    instance: str | None,
) -> Response:
    """Delete it: 204; 202 where a legal hold keeps it, out of use. Raises as `reject` does."""
    done = _rejected(exchange, requester, EXPIRED, study, series, instance)
    if not done.held:
        return Response(status_code=204)
    response = Response(status_code=202)
    response.headers.append(
        *root.warning("the study is under a legal hold: out of use now, but not deleted")
    )
    return response


def _rejected(
    exchange: Exchange,
    requester: Requester,
    code: str,
    study: str,
    series: str | None,
    instance: str | None,
) -> rejection.Rejected:
    with exchange.on_behalf_of(requester) as access:
        return rejection.reject_own(
            access,
            code,
            uid(study),
            None if series is None else uid(series),
            None if instance is None else uid(instance),
        )
