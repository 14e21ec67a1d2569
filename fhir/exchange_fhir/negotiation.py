"""What a client sends and takes (FHIR R4 3.1.0.1.11): formats, parts, content codings, Prefer."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from enum import StrEnum
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from exchange_fhir import json_format, outcome, subset, xml_format
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Problem
from exchange_fhir.subset import WHOLE, Summary, Wanted

JSON = json_format.MEDIA_TYPE
XML = xml_format.MEDIA_TYPE

_FORMATS: Mapping[str, str] = {
    "json": JSON,
    "application/json": JSON,
    "text/json": JSON,
    JSON: JSON,
    "application/json+fhir": JSON,  # of clients as old as DSTU2
    "xml": XML,
    "application/xml": XML,
    "text/xml": XML,
    XML: XML,
    "application/xml+fhir": XML,
}
"""What `_format`, Accept and Content-Type may say."""
_RANGES = frozenset({"*/*", "application/*"})
_TOLD = f"this server takes and answers {JSON} and {XML} of FHIR 4.0"

_OF_ERRORS = ("WWW-Authenticate", "Retry-After", "Allow", "Cache-Control")

COMPRESSED = 1 << 10
"""Bytes from which an answer is compressed for who takes that."""


FORM_LIMIT = 1 << 16
"""Bytes of a form to search by."""


class Return(StrEnum):
    """What the answer to a change is to hold (Prefer: return)."""

    MINIMAL = "minimal"
    REPRESENTATION = "representation"
    OUTCOME = "OperationOutcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How an answer is written."""

    media_type: str = JSON
    pretty: bool = False
    wanted: Wanted = WHOLE

    @property
    def as_kept(self) -> bool:
        """Whether kept bytes can be answered as they are."""
        return self.media_type == JSON and not self.pretty and self.wanted.everything

    def write(self, content: bytes) -> bytes:
        """A resource, which is given as JSON, in this format."""
        if self.as_kept or not content:
            return content
        if self.media_type == JSON and self.wanted.everything:
            return json_format.pretty(content)
        told = subset.part(json_format.parse(content), self.wanted)
        write = xml_format.serialize if self.media_type == XML else json_format.serialize
        return write(told, pretty=self.pretty)


def negotiated(request: Request, asked: Sequence[tuple[str, str]] | None = None) -> Format:
    """The format that a request asks for, by its parameters and headers. Raises Problem.

    `asked` are its parameters, where they do not all stand in the address.
    """
    given = dict(request.query_params.multi_items() if asked is None else asked)
    return Format(
        media_type=_accepted(request, given.get("_format", "")),
        pretty=given.get("_pretty") == "true",
        wanted=_wanted(given),
    )


def error(error: Exception, request: Request) -> Response:
    """The answer to a request that ended in `error`, in JSON where what is asked for is neither."""
    answer = outcome.response(error)
    try:
        media_type = negotiated(request).media_type
    except Problem:
        return answer
    if media_type == XML:
        content = Format(media_type=XML).write(bytes(answer.body))
        headers = {name: answer.headers[name] for name in _OF_ERRORS if name in answer.headers}
        return Response(content, answer.status_code, headers, f"{XML}; charset=utf-8")
    return answer


def _wanted(given: Mapping[str, str]) -> Wanted:
    told, named = given.get("_summary", ""), given.get("_elements", "")
    try:
        summary = Summary(told) if told else Summary.FALSE
    except ValueError:
        choice = ", ".join(Summary)
        raise Problem(400, "invalid", f"_summary is one of {choice}") from None
    elements = frozenset(one.strip() for one in named.split(",") if one.strip())
    if elements and summary is not Summary.FALSE:
        raise Problem(400, "invalid", "_summary and _elements do not go together")
    return Wanted(summary, elements)


def _accepted(request: Request, asked: str) -> str:
    # An unescaped "+" of application/fhir+json arrives as a space.
    accept = asked.replace(" ", "+") or header(request, "accept") or "*/*"
    ranges: dict[str, float] = {}
    for one in accept.split(","):
        media_type, parameters = _media_type(one)
        if parameters.get("fhirversion", "4.0") in {"4.0", "4.0.1"}:
            known = _FORMATS.get(media_type, media_type)
            ranges[known] = max(ranges.get(known, 0.0), _quality(parameters))
    # Who takes anything gets what they sent.
    sent = _FORMATS.get(_media_type(request.headers.get("content-type", ""))[0], JSON)
    best, found = 0.0, ""
    for one in sorted(ranges, key=_RANGES.__contains__):
        media_type = sent if one in _RANGES else one
        if media_type not in {JSON, XML}:
            continue
        # What a range says of all holds for none that is named itself (RFC 9110 12.5.1).
        if one in _RANGES and media_type in ranges:
            media_type = next((other for other in (JSON, XML) if other not in ranges), one)
        if media_type in {JSON, XML} and ranges[one] > best:
            best, found = ranges[one], media_type
    if not found:
        raise Problem(406, "not-supported", _TOLD)
    return found


def _quality(parameters: Mapping[str, str]) -> float:
    """The weight of what is accepted (RFC 9110 12.4.2)."""
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _media_type(told: str) -> tuple[str, Mapping[str, str]]:
    media_type, *parameters = (part.strip() for part in told.lower().split(";"))
    pairs = (part.partition("=")[::2] for part in parameters)
    return media_type, {name.strip(): value.strip(' "') for name, value in pairs}


def media_type(request: Request) -> str:
    """The media type of a request's body, without parameters, in lower case."""
    return _media_type(request.headers.get("content-type", ""))[0]


def is_fhir(told: str) -> bool:
    """Whether a media type, with parameters or without, is one of FHIR's own."""
    return _media_type(told)[0] in _FORMATS


def resource(content: bytes, told: str) -> Json:
    """The resource in a body of which the Content-Type is `told`. Raises Problem."""
    kind, parameters = _media_type(told)
    charset = parameters.get("charset", "utf-8").replace("_", "-")
    version = parameters.get("fhirversion", "4.0")
    if kind not in _FORMATS or version not in {"4.0", "4.0.1"}:
        raise Problem(415, "not-supported", _TOLD)
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise Problem(415, "not-supported", "FHIR is written in UTF-8")
    if not content.strip():
        raise Problem(400, "structure", "the body is empty: a resource is expected")
    return xml_format.parse(content) if _FORMATS[kind] == XML else json_format.parse(content)


def form(content: bytes, request: Request) -> list[tuple[str, str]]:
    """The pairs of a form to search by. Raises Problem."""
    if content and media_type(request) != "application/x-www-form-urlencoded":
        form_type = "a search by POST is sent as application/x-www-form-urlencoded"
        raise Problem(415, "not-supported", form_type)
    try:
        text = content.decode()
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise Problem(400, "structure", "the form cannot be read: it is in UTF-8") from None


def in_utf8(request: Request) -> None:
    """Raise Problem where what was escaped in a query is not UTF-8: with marks in the place of
    characters another question would be asked."""
    query = request.scope["query_string"]
    if b"%" not in query:
        return
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        told = "characters in an address are escaped as UTF-8 (RFC 3986 2.5)"
        raise Problem(400, "invalid", told) from None


def unpacked(content: bytes, request: Request, limit: int) -> bytes:
    """A body without its content coding, of `limit` bytes at most. Raises Problem."""
    coding = header(request, "content-encoding").strip().lower() or "identity"
    if coding == "identity":
        return content
    if coding not in {"gzip", "x-gzip"}:
        raise Problem(415, "not-supported", "of content codings only gzip is taken")
    inflater = zlib.decompressobj(wbits=31)
    try:
        made = inflater.decompress(content, limit + 1)
    except zlib.error:
        raise Problem(400, "structure", "the body is not gzip") from None
    if len(made) > limit:
        raise Problem(413, "too-long", f"a body may have at most {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Problem(400, "structure", "the body is not one whole gzip member")
    return made


def returning(request: Request) -> Return:
    """What the answer to a change is to hold: the resource, where the client does not say."""
    told = preferences(request).get("return", "")
    return Return(told) if told in set(Return) else Return.REPRESENTATION


def preferences(request: Request) -> Mapping[str, str]:
    """What a client prefers (RFC 7240), by name; where something is told twice, what comes first.

    Semicolons between preferences are taken for commas, as clients write them.
    """
    found: dict[str, str] = {}
    for one in header(request, "prefer").replace(";", ",").split(","):
        name, _, value = one.partition("=")
        found.setdefault(name.strip().lower(), value.strip(' \t"'))
    return found


def header(request: Request, name: str) -> str:
    """A header that is a list, on however many lines it came (RFC 9110 5.3); "" for none."""
    return ", ".join(request.headers.getlist(name))


def headers(request: Request) -> dict[str, str]:
    """The headers of a request by their names in lower case; what came on several lines is one list
    (RFC 9110 5.3)."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def known_by(answered: Answered) -> dict[str, str]:
    """The headers that say which version an answer is, and that it depends on who asks for what."""
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
    if answered.version:
        headers["ETag"] = f'W/"{answered.version}"'
    if answered.changed is not None:
        headers["Last-Modified"] = format_datetime(answered.changed, usegmt=True)
    return headers


class Written(Response):
    """A response that knows what was answered."""

    def __init__(
        self,
        answered: Answered,
        content: bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(content, status, headers, media_type)
        self.answered = answered


def response(answered: Answered, written: Format, *, prefer: Return | None = None) -> Written:
    """The HTTP response of an answer; `prefer` for one to a change."""
    headers = known_by(answered)
    if answered.location:
        headers["Location"] = answered.location
        headers["Content-Location"] = answered.location
    content, status = answered.content, answered.status
    match prefer:
        case Return.MINIMAL:
            content = b""
            status = 204 if status == 200 else status
        case Return.OUTCOME:
            content = json_format.serialize(answered.outcome())
            status = 200 if status == 204 else status  # of a delete (R4 3.1.0.7)
    if not content or status in {204, 304}:
        return Written(answered, b"", status, headers)
    return Written(
        answered,
        written.write(content),
        status,
        headers,
        f"{written.media_type}; charset=utf-8",
    )


def takes_gzip(request: Request) -> bool:
    """Whether the client takes gzip (RFC 9110 section 12.5.3)."""
    told = (_media_type(one) for one in header(request, "accept-encoding").split(","))
    taken = {coding: _quality(parameters) for coding, parameters in told}
    return taken.get("gzip", taken.get("x-gzip", taken.get("*", 0.0))) > 0


def zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces compressed on their way (RFC 1952), as fast as that can be."""
    zipping = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        if made := zipping.compress(piece):
            yield made
    yield zipping.flush()


def compressed(response: Response, request: Request) -> Response:
    """The response as gzip, where the client takes that and it is worth it; not a stream, nor
    what can be had in parts."""
    if isinstance(response, StreamingResponse) or "accept-ranges" in response.headers:
        return response
    body = bytes(response.body)
    if (
        takes_gzip(request)
        and len(body) >= COMPRESSED
        and "content-encoding" not in response.headers
    ):
        response.body = gzip.compress(body, 5, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response
