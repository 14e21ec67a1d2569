"""CDA documents as people read them (HL7 CDA Release 2, section 4.3): header, sections, body."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from exchange_fhir import legible, narrative
from exchange_fhir.datatypes import HAN

V3 = "{urn:hl7-org:v3}"

MEDIA_TYPES = frozenset(
    {
        *("text/xml", "application/xml", "application/cda+xml", "application/hl7-cda+xml"),
        *("text/x-hl7-text+xml", "text/hl7v3+xml", "application/hl7-sda+xml"),
    }
)
"""Under which CDA documents are sent."""

SIZE = 4_000_000
"""Bytes of a document that is read, at most."""

SECTIONS = 200
"""Of a document, at most, those in others included."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section, or one inside another."""

    title: str
    level: int
    """1 for those of the document itself."""
    html: str
    """Its text, safe to show as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cda:
    """What a document says."""

    title: str
    moment: str
    """YYYYMMDDHHMMSS, or as much of it as is known; "" for none."""
    patient: str
    authors: tuple[str, ...]
    custodian: str
    sections: tuple[Section, ...]
    more: bool
    """Whether there are more sections than are read."""
    media_type: str = ""
    """Of a body that is no XML (`nonXMLBody`)."""
    body: bytes = field(default=b"", repr=False)


def is_cda(media_type: str) -> bool:
    """Whether what has this media type may be a CDA document."""
    return media_type.partition(";")[0].strip().lower() in MEDIA_TYPES


def read(content: bytes) -> Cda:
    """The document in `content`. Raises ValueError for what is none, or too large."""
    if len(content) > SIZE:
        raise ValueError("the document is too large to be shown")
    root = narrative.parse(content)
    if root.tag != f"{V3}ClinicalDocument":
        raise ValueError("this is not a CDA document")
    sections = list(_sections(root.find(f"{V3}component/{V3}structuredBody"), 1))
    body = root.find(f"{V3}component/{V3}nonXMLBody/{V3}text")
    return Cda(
        title=_text(root.find(f"{V3}title")) or _display(root.find(f"{V3}code")),
        moment=_moment(root.find(f"{V3}effectiveTime")),
        patient=_name(root.find(f"{V3}recordTarget/{V3}patientRole/{V3}patient/{V3}name")),
        authors=tuple(
            name
            for author in root.findall(f"{V3}author/{V3}assignedAuthor")[:20]
            if (name := _name(author.find(f"{V3}assignedPerson/{V3}name")))
        ),
        custodian=_name(
            root.find(
                f"{V3}custodian/{V3}assignedCustodian/{V3}representedCustodianOrganization/{V3}name"
            )
        ),
        sections=tuple(sections[:SECTIONS]),
        more=len(sections) > SECTIONS,
        media_type="" if body is None else body.get("mediaType", "text/plain"),
        body=b"" if body is None else _body(body),
    )


def _sections(body: etree._Element | None, level: int) -> Iterator[Section]:
    if body is None or level > 8:
        return
    for section in body.findall(f"{V3}component/{V3}section"):
        text = section.find(f"{V3}text")
        yield Section(
            _text(section.find(f"{V3}title")) or _display(section.find(f"{V3}code")),
            level,
            "" if text is None else legible.html(text, legible.CDA),
        )
        yield from _sections(section, level + 1)


def _body(text: etree._Element) -> bytes:
    told = "".join(str(part) for part in text.itertext())
    if text.get("representation") != "B64":
        return told.encode()
    try:
        return base64.b64decode("".join(told.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the body of the document cannot be read") from None


def _text(element: etree._Element | None) -> str:
    if element is None:
        return ""
    return " ".join("".join(str(part) for part in element.itertext()).split())[:500]


def _name(element: etree._Element | None) -> str:
    """A name, of which family and given name may be elements."""
    if element is None:
        return ""
    parts = [part for told in element.itertext() if (part := " ".join(str(told).split()))]
    return ("" if HAN.search("".join(parts)) else " ").join(parts)[:500]


def _display(element: etree._Element | None) -> str:
    return "" if element is None else str(element.get("displayName", ""))[:500]


def _moment(element: etree._Element | None) -> str:
    told = "" if element is None else str(element.get("value", ""))
    found = re.match(r"\d{4,14}", told, re.ASCII)
    return found[0] if found else ""
