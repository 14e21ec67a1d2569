"""Binary (FHIR R4 2.22): sent and fetched as FHIR, or as the content itself in its own type."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from exchange import spans
from exchange.attachments import Attachment, Lying
from exchange_fhir import json_format, negotiation
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json, present
from exchange_fhir.negotiation import Format
from exchange_fhir.outcome import Problem

_TYPE = re.compile(
    r"[a-z0-9!#$&^_.+\-]+/[a-z0-9!#$&^_.+\-]+(?: *;[\x20-\x7e]{1,200})?", re.IGNORECASE
)

_OF_FHIR = frozenset({"application/fhir+json", "application/fhir+xml"})

_MARK = 18
"""Random bytes that stand for content until it is read."""

_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""What somebody sent runs nothing in this server's name."""


def resource(request: Request, content: bytes | Attachment, logical_id: str) -> Json:
    """The Binary of content that was sent as itself; of what is to be attached, what stands for
    it. Raises Problem."""
    told = request.headers.get("content-type", "").strip()
    if not _TYPE.fullmatch(told):
        raise Problem(415, "not-supported", "the Content-Type of the content is needed")
    if not content:
        raise Problem(400, "structure", "the body is empty: content is expected")
    context = request.headers.get("x-security-context", "").strip()
    return present(
        resourceType="Binary",
        id=logical_id,
        contentType=told,
        securityContext={"reference": context} if context else None,
        data=content.stands
        if isinstance(content, Attachment)
        else base64.b64encode(content).decode(),
    )


Send = Callable[[Request, Lying | bytes, Mapping[str, str]], Response]
"""How content is sent, at hand or from where it lies, or the part of it that is asked for, with
headers."""


def sent(_: Request, content: Lying | bytes, headers: Mapping[str, str]) -> Response:
    """All of it, read as fast as it is taken."""
    if isinstance(content, bytes):
        return Response(content, headers=dict(headers))
    pieces = spans.read(content.pieces(0, content.size))
    return StreamingResponse(pieces, headers={**headers, "Content-Length": str(content.size)})


def whole(answered: Answered) -> Answered:
    """The answer with the content in the resource. Raises Unavailable."""
    if answered.lying is None:
        return answered
    return replace(answered, content=answered.lying.into(answered.content), lying=None)


def as_fhir(answered: Answered, written: Format) -> Response:
    """The resource, with its content as it is read from where it lies: it is never held whole.

    Raises Unavailable.
    """
    lying = answered.lying
    if lying is None:
        return negotiation.response(answered, written)
    mark = base64.b64encode(secrets.token_bytes(_MARK))
    told = written.write(lying.standing(answered.content, mark))
    head, found, tail = told.partition(mark)
    if not found:  # a part without the content was asked for
        return negotiation.response(replace(answered, content=told, lying=None), Format())
    size = len(head) + lying.text_size + len(tail)
    headers = negotiation.known_by(answered) | {"Content-Length": str(size)}
    media_type = f"{written.media_type}; charset=utf-8"
    return StreamingResponse(
        chain((head,), lying.text(), (tail,)), answered.status, headers, media_type
    )


def response(request: Request, answered: Answered, send: Send) -> Response | None:
    """The content of a Binary, in its own type; None where the resource is asked for.

    Who accepts FHIR's JSON or XML asks for that, unless it is just what the content is: a CDA
    document is text/xml as well.
    """
    if request.query_params.get("_format"):
        return None
    if not answered.content:  # that nothing has changed is said in no format
        return Response(status_code=answered.status, headers=negotiation.known_by(answered))
    told = json_format.parse(answered.content)
    told_of = negotiation.header(request, "accept") or "*/*"
    accept = [one.strip() for one in told_of.split(",")]
    types = {one.partition(";")[0].strip().lower() for one in accept}
    own = str(told.get("contentType", "")).partition(";")[0].strip().lower()
    named = own in types and own not in _OF_FHIR
    if not named and any(negotiation.is_fhir(one) for one in accept):
        return None
    headers = negotiation.known_by(answered) | {
        "Content-Disposition": "attachment",
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }
    known = _TYPE.fullmatch(told["contentType"])
    headers["Content-Type"] = known[0] if known else "application/octet-stream"
    held = answered.lying or base64.b64decode(told.get("data", ""))
    return send(request, held, headers)
