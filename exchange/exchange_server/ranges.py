"""Content of FHIR resources, large ones sent from the file where they lie: all, or a range."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from exchange.attachments import Lying
from exchange_dicom.web_answers import streamed
from exchange_dicom.web_bulk import Asked
from exchange_dicom.web_errors import NotSatisfiable
from exchange_fhir import negotiation
from exchange_fhir.outcome import Problem


def send(request: Request, content: Lying | bytes, headers: Mapping[str, str]) -> Response:
    """The answer with the content: 200, or 206 or 416 where a range is asked for (RFC 9110 14).

    Its entity tag is weak, so that with If-Range all of it is sent. Raises Unavailable.
    """
    size = content.size if isinstance(content, Lying) else len(content)
    asked = Asked(request.headers.get("range", ""), request.headers.get("if-range", ""))
    try:
        span = asked.span(size, "")
    except NotSatisfiable as error:
        told = Problem(416, "invalid", str(error))
        refused = negotiation.error(told, request)
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    start, stop = span or (0, size)
    of_body = {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if span is not None:
        of_body["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if span is None else 206
    if isinstance(content, bytes):
        return Response(content[start:stop], status, {**headers, **of_body})
    return streamed(content.pieces(start, stop), {**headers, **of_body}, status)
