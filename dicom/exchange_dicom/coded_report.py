"""Reports and encapsulated documents in codes and numbers, for programs (PS3.3 C.17 and C.24).

From the DICOM JSON model of an instance, so that text is read as the index has read it. See
`structured_report` for what people read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exchange.reports import Concept, Document, Item, Report
from exchange.retrieval import Held
from exchange.sop_classes import (
    ENCAPSULATED_CDA,
    ENCAPSULATED_PDF,
    KEY_OBJECT_SELECTION,
    STRUCTURED,
)
from exchange_dicom import data_set, kept, series_metadata
from exchange_dicom.header import INFLATE_LIMIT, MalformedDataSet
from exchange_dicom.resources import Root
from exchange_dicom.structured_report import text

DEPTH = 32
"""Levels of content items that are read."""

ITEMS = 20_000
"""Content items of one report that are read."""

SIZE = 64 << 20
"""Bytes of the largest report that is read."""

CONTENT = 10 << 20
"""Bytes of an encapsulated document that is kept as a resource too: base64 makes it a third more,
and a resource has its own limit."""

_TYPES: Mapping[str, str] = {ENCAPSULATED_PDF: "application/pdf", ENCAPSULATED_CDA: "text/xml"}
_ENCAPSULATED_DOCUMENT = 0x00420011

Json = Mapping[str, Any]


def saying(held: Iterable[Held]) -> Iterator[Held]:
    """Those of the instances that are reports or documents."""
    for one in held:
        is_report = one.sop_class_uid.startswith(STRUCTURED)
        if one.sop_class_uid in _TYPES or (is_report and one.sop_class_uid != KEY_OBJECT_SELECTION):
            yield one


def read(held: Held) -> Report | Document | None:
    """What the instance says; None where it is too large, or has no content. Raises Unavailable."""
    if held.size > SIZE and held.sop_class_uid not in _TYPES:
        return None
    told = series_metadata.describe(held, Root(""))
    if held.sop_class_uid in _TYPES:
        return Document(
            sop_instance_uid=held.sop_instance_uid,
            title=text(told, "00420010"),
            concept=_concept(told, "0040A043"),
            media_type=text(told, "00420012") or _TYPES[held.sop_class_uid],
            date=text(told, "00080023"),
            time=text(told, "00080033"),
            accession_number=text(told, "00080050"),
            content=_document(held),
        )
    return report(told)


def report(told: Json) -> Report | None:
    """The report that a data set in the DICOM JSON model is, or None where it has no content."""
    items = _items(told, 0, [ITEMS])
    if not items:
        return None
    return Report(
        sop_instance_uid=text(told, "00080018"),
        title=_concept(told, "0040A043"),
        is_complete=text(told, "0040A491") != "PARTIAL",
        is_preliminary=text(told, "0040A496") == "PRELIMINARY",
        is_verified=text(told, "0040A493") == "VERIFIED",
        date=text(told, "00080023"),
        time=text(told, "00080033"),
        accession_number=text(told, "00080050")
        or next((text(one, "00080050") for one in _sequence(told, "0040A370")), ""),
        verifiers=tuple(
            name for one in _sequence(told, "0040A073") if (name := _name(one, "0040A075"))
        ),
        items=items,
    )


def _items(told: Json, depth: int, left: list[int]) -> tuple[Item, ...]:
    if depth >= DEPTH:
        return ()
    found: list[Item] = []
    for one in _sequence(told, "0040A730"):
        if not left[0]:
            break
        left[0] -= 1
        value_type = text(one, "0040A040")
        measured = next(iter(_sequence(one, "0040A300")), {})
        texts = (
            text(one, tag) for tag in ("0040A160", "0040A124", "0040A121", "0040A120", "0040A122")
        )
        found.append(
            Item(
                relationship=text(one, "0040A010"),
                value_type=value_type,
                concept=_concept(one, "0040A043"),
                said=next(filter(None, texts), "") or _name(one, "0040A123"),
                code=_concept(one, "0040A168"),
                number=text(measured, "0040A30A"),
                unit=_concept(measured, "004008EA"),
                items=_items(one, depth + 1, left),
            )
        )
    return tuple(found)


def _concept(told: Json, tag: str) -> Concept | None:
    for one in _sequence(told, tag):
        code = text(one, "00080100") or text(one, "00080119") or text(one, "00080120")
        if code:
            return Concept(code, text(one, "00080102"), text(one, "00080104"))
    return None


def _values(told: Json, tag: str) -> Sequence[Any]:
    values: Sequence[Any] = told.get(tag, {}).get("Value", ())
    return values


def _sequence(told: Json, tag: str) -> list[Json]:
    return [one for one in _values(told, tag) if isinstance(one, dict)]


def _name(told: Json, tag: str) -> str:
    for one in _sequence(told, tag):
        groups = [str(one.get(name, "")) for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return ""


def _document(held: Held) -> bytes | None:
    """The encapsulated document without its padding, unless it is too large."""
    reading = kept.reading(held, INFLATE_LIMIT)
    try:
        for element in data_set.walk(
            reading, held.transfer_syntax_uid, until=_ENCAPSULATED_DOCUMENT + 1
        ):
            if element.tag == _ENCAPSULATED_DOCUMENT:
                if element.span is not None and element.span[1] > CONTENT:
                    return None
                value = reading(*element.span) if element.span is not None else element.value
                content = bytes(value or b"")
                return content[:-1] if content.endswith(b"\0") else content or None
    except MalformedDataSet:
        return None
    return None
