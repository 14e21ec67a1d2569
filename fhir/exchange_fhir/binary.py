"""Binary (FHIR R4 2.22): sent and fetched as FHIR, or as the content itself in its own type."""

from __future__ import annotations

import base64
import re

from fastapi import Request, Response

from exchange_fhir import json_format, negotiation
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json, present
from exchange_fhir.outcome import Problem

_TYPE = re.compile(
    r"[a-z0-9!#$&^_.+\-]+/[a-z0-9!#$&^_.+\-]+(?: *;[\x20-\x7e]{1,200})?", re.IGNORECASE
)

_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""What somebody sent runs nothing in this server's name."""


def resource(request: Request, content: bytes, logical_id: str) -> Json:
    """The Binary of content that was sent as itself. Raises Problem."""
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
        data=base64.b64encode(content).decode(),
    )


def wants_content(request: Request) -> bool:
    """Whether the content itself is asked for, not the resource: neither JSON nor XML of FHIR."""
    if request.query_params.get("_format"):
        return False
    accept = request.headers.get("accept", "*/*")
    return not any(negotiation.is_fhir(one) for one in accept.split(","))


def response(answered: Answered) -> Response:
    """The content of a Binary, in its own type."""
    told = json_format.parse(answered.content)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept",
        "ETag": f'W/"{answered.version}"',
    }
    content = base64.b64decode(told.get("data", ""))
    made = Response(content, headers=headers)
    known = _TYPE.fullmatch(told["contentType"])
    made.headers["Content-Type"] = known[0] if known else "application/octet-stream"
    return made
