"""Large content of FHIR resources, sent from the file where it lies: all of it, or a range."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from exchange.attachments import Lying
from exchange_dicom.web_answers import streamed
from exchange_dicom.web_bulk import Asked
from exchange_dicom.web_errors import NotSatisfiable
from exchange_fhir import negotiation
from exchange_fhir.outcome import Problem


def send(request: Request, lying: Lying, headers: Mapping[str, str]) -> Response:
    """The answer with the content: 200, or 206 or 416 where a range is asked for (RFC 9110 14).

    Its entity tag is weak, so that with If-Range all of it is sent. Raises Unavailable.
    """
    asked = Asked(request.headers.get("range", ""), request.headers.get("if-range", ""))
    try:
        span = asked.span(lying.size, "")
    except NotSatisfiable as error:
        told = Problem(416, "invalid", str(error))
        refused = negotiation.error(told, request)
        refused.headers["Content-Range"] = f"bytes */{lying.size}"
        return refused
    start, stop = span or (0, lying.size)
    of_body = {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if span is not None:
        of_body["Content-Range"] = f"bytes {start}-{stop - 1}/{lying.size}"
    pieces = lying.pieces(start, stop)
    return streamed(pieces, {**headers, **of_body}, 200 if span is None else 206)
