"""The page of a record: what a hospital wrote, its results over time, its documents, its source."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from fastapi import APIRouter, Request, Response

from exchange import clinical, dossier, spans, timeline
from exchange.access import Access, Exchange
from exchange.attachments import Lying
from exchange.clinical import Kept
from exchange.dossier import Beside
from exchange.errors import ExchangeError, Invalid, NotFound
from exchange_fhir import cda, readable, summary
from exchange_fhir.cda import Cda
from exchange_fhir.readable import Attached, Lead, Readable, Result
from exchange_server import ranges
from exchange_server.portal.charts import Course, Point, course
from exchange_server.portal.clinical_words import CRITICAL, NEGATING, element
from exchange_server.portal.language import Words, spoken
from exchange_server.portal.pages import FRAMED, Number, Pages

SOURCES = (*timeline.KINDS, "Provenance")
"""Types of which those are told that refer to a record."""

SHOWN = 5
"""Documents whose text stands on the page of their record, at most."""

PLAIN = 100_000
"""Characters of a document of plain text that are shown."""

DRAWN = 2
"""Results of one kind that make a course, at least."""

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif"})
PDF = "application/pdf"
PDF_BEGINS = b"%PDF-"

_KIND = re.compile("[A-Z][A-Za-z]{1,63}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9.\-]{1,64}", re.ASCII)
_CHARSETS = {"utf-8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030", "gb18030": "gb18030"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of a record, as its page shows it."""

    number: int
    attached: Attached
    media_type: str
    text: str = ""
    cda: Cda | None = None
    wrong: str = ""
    """Why it cannot be shown."""

    @property
    def is_framed(self) -> bool:
        """Whether the browser shows it by itself."""
        return self.media_type == PDF and not self.wrong

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture that browsers know."""
        return self.media_type in PICTURES and not self.wrong


@dataclass(frozen=True, slots=True)
class Measured:
    """A result of the same kind at another time, or this one."""

    logical_id: str
    moment: str
    result: Result
    hospital: str


@dataclass(frozen=True, slots=True)
class Told:
    """A record that belongs to another, in a line."""

    beside: Beside
    readable: Readable
    results: tuple[Result, ...]


def records(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes about one record."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)
    telling = summary.said(pages.timezone)

    def read(request: Request, kind: str, content: bytes) -> Readable:
        said = telling(kind, content)
        return readable.read(
            content,
            base=_base(request),
            timezone=pages.timezone,
            moment=said.moment if said else "",
            naming=partial(element, words=spoken(request)),
        )

    @router.get("/records/{kind}/{logical_id}")
    def show(request: Request, kind: str, logical_id: str) -> Response:
        visitor = pages.visitor(request)
        kind, logical_id = _named(kind, logical_id)
        version = _version(request.query_params.get("version", ""))
        words = spoken(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            opened = dossier.opened(access, kind, logical_id, version)
            record = read(request, kind, opened.kept.content)
            results = dossier.named(access, "Observation", _results(record.leads))
            told = [
                Told(one, read(request, one.hit.kind, one.hit.content), ())
                for one in dossier.alongside(
                    access,
                    kind,
                    logical_id,
                    {source: readable.referring(source, kind) for source in SOURCES},
                )
            ]
            course_of = (
                dossier.over_time(access, opened.patient, record.codes)
                if kind == "Observation"
                else ()
            )
            documents = [
                _document(access, number, one) for number, one in enumerate(record.attachments)
            ]
        measured = _measured(record, course_of, pages, telling)
        return pages.page(
            request,
            "record.html",
            opened=opened,
            record=record,
            results=[
                Told(
                    one,
                    read(request, "Observation", one.hit.content),
                    readable.results(one.hit.content, pages.timezone),
                )
                for one in results
            ],
            leads=[one for one in record.leads if one.kind in SOURCES],
            beside=[one for one in told if one.beside.hit.kind != "Provenance"],
            provenance=[one for one in told if one.beside.hit.kind == "Provenance"],
            measured=measured,
            chart=_course(record, measured, words),
            documents=documents,
            critical=CRITICAL,
            earlier=version is not None and version != _newest(opened.versions),
        )

    @router.get("/records/{kind}/{logical_id}/documents/{number}")
    def document(request: Request, kind: str, logical_id: str, number: Number) -> Response:
        visitor = pages.visitor(request)
        kind, logical_id = _named(kind, logical_id)
        with exchange.on_behalf_of(visitor.requester) as access:
            opened = dossier.opened(access, kind, logical_id)
            attached = readable.attachment(read(request, kind, opened.kept.content), number)
            if attached is None:
                raise NotFound("this record has no such document")
            content = _content(access, attached)
        media_type = _media_type(attached)
        begins = _begin(content, len(PDF_BEGINS))
        inline = media_type in PICTURES or (media_type == PDF and begins == PDF_BEGINS)
        headers = {
            **FRAMED,
            "Content-Disposition": "inline" if inline else "attachment",
            "X-Content-Type-Options": "nosniff",
            "Content-Type": media_type if inline else "application/octet-stream",
        }
        return ranges.send(request, content, headers)

    return router


def _named(kind: str, logical_id: str) -> tuple[str, str]:
    """Raises NotFound for what is no name of a record."""
    if not _KIND.fullmatch(kind) or not _ID.fullmatch(logical_id):
        raise NotFound("no such resource")
    return kind, logical_id


def _version(stated: str) -> int | None:
    """Raises Invalid."""
    if not stated:
        return None
    if not (stated.isascii() and stated.isdigit() and len(stated) < 10):
        raise Invalid("a version is a number from 1 on")
    return int(stated)


def _newest(versions: Sequence[Kept]) -> int:
    return versions[0].version if versions else 0


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/fhir/"


def _results(leads: Sequence[Lead]) -> list[str]:
    """The observations of a report, or of a panel, that stand among its results."""
    named = [
        one.logical_id
        for one in leads
        if one.kind == "Observation" and one.element in {"result", "hasMember"}
    ]
    return list(dict.fromkeys(named))[: dossier.MEASURED]


def _media_type(attached: Attached) -> str:
    return attached.media_type.partition(";")[0].strip().lower()


def _content(access: Access, attached: Attached) -> bytes | Lying:
    """What it holds, or where that lies, to be read after the gate has closed.

    Raises NotFound, Refused, Invalid.
    """
    if attached.encoded is not None:
        if (held := attached.data) is None:
            raise Invalid("the document cannot be read")
        return held
    if not attached.binary:
        raise NotFound("this document lies with another system")
    kept = clinical.read(access, "Binary", attached.binary, apart=True)
    if kept.lying is not None:
        return kept.lying
    content = readable.binary(kept.content)
    if content is None:
        raise Invalid("the document cannot be read")
    return content


def _begin(content: bytes | Lying, limit: int) -> bytes:
    """So many bytes of it, from the first. Raises Unavailable."""
    if isinstance(content, Lying):
        return b"".join(spans.read(content.pieces(0, min(limit, content.size))))
    return content[:limit]


def _document(access: Access, number: int, attached: Attached) -> Document:
    media_type = _media_type(attached)
    try:
        if attached.encoded is None and not attached.binary:
            raise NotFound("this document lies with another system")
        if number < SHOWN and (media_type == "text/plain" or cda.is_cda(media_type)):
            content = _content(access, attached)
            if media_type == "text/plain":
                # Four bytes are the longest character; a part of one at the end is cut away.
                text = _decoded(_begin(content, 4 * PLAIN), attached.media_type)[:PLAIN]
                return Document(number=number, attached=attached, media_type=media_type, text=text)
            begin = _begin(content, cda.SIZE + 1)
            return Document(
                number=number, attached=attached, media_type=media_type, cda=cda.read(begin)
            )
    except ExchangeError as error:
        return Document(number=number, attached=attached, media_type=media_type, wrong=str(error))
    except ValueError as error:  # it can be taken along all the same
        return Document(number=number, attached=attached, media_type="", text=str(error))
    return Document(number=number, attached=attached, media_type=media_type)


def _decoded(content: bytes, media_type: str) -> str:
    found = re.search(r"charset=\"?([a-z0-9\-]+)", media_type.lower())
    return content.decode(_CHARSETS.get(found[1] if found else "", "utf-8"), "replace")


def _measured(
    record: Readable, found: Sequence[Beside], pages: Pages, telling: timeline.Reading
) -> list[Measured]:
    """The results of the same kind in the same unit, the oldest first."""
    own = next((one for one in record.results if one.number is not None), None)
    if own is None:
        return []
    same = []
    for one in found:
        said = telling("Observation", one.hit.content)
        results = readable.results(one.hit.content, pages.timezone)
        if said is None or said.status in NEGATING or not results:
            continue
        if results[0].number is not None and results[0].unit == own.unit:
            hospital = one.organization.name if one.organization else ""
            same.append(Measured(one.hit.logical_id, said.moment, results[0], hospital))
    return same if len(same) >= DRAWN else []


def _course(record: Readable, measured: Sequence[Measured], words: Words) -> str:
    points = [
        Point(_seconds(one.moment), one.result.number, f"{one.moment[:8]} {one.result.value}")
        for one in measured
        if one.result.number is not None and one.moment
    ]
    if len(points) < DRAWN:
        return ""
    own: Mapping[str, float | None] = next(
        ({"low": one.low, "high": one.high} for one in record.results if one.number is not None), {}
    )
    first, last = (f"{one[:4]}-{one[4:6]}-{one[6:8]}" for one in _ends(measured))
    return course(
        Course(
            words.say(f"{record.title}：变化", f"{record.title} over time"),
            points,
            low=own.get("low"),
            high=own.get("high"),
            ends=(first, last),
        )
    )


def _ends(measured: Sequence[Measured]) -> tuple[str, str]:
    known = [one.moment for one in measured if one.moment]
    return known[0], known[-1]


def _seconds(moment: str) -> float:
    """Of a moment with zeros for what is not known."""
    year, month, day = int(moment[:4]), int(moment[4:6]) or 1, int(moment[6:8]) or 1
    clock = [int(moment[at : at + 2] or 0) for at in (8, 10, 12)]
    return datetime(year, month, day, clock[0], clock[1], min(clock[2], 59), tzinfo=UTC).timestamp()
