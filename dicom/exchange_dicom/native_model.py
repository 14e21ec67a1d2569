"""The Native DICOM Model: data sets in XML (PS3.19 section A.1), from and to the DICOM JSON model.

A document type declaration is refused: with one a short text can stand for a very long one, or for
a file of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from exchange.errors import Invalid

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

DEPTH = 64
"""Sequences within each other."""

Model = Mapping[str, Mapping[str, Any]]
"""A data set in the DICOM JSON model (PS3.18 annex F)."""

GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})


def to_xml(model: Model) -> bytes:
    """The data set as an XML document in UTF-8."""
    return "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<NativeDicomModel xml:space="preserve" xmlns="{NAMESPACE}">',
            *_attributes(model),
            "</NativeDicomModel>",
        )
    ).encode()


def from_xml(document: bytes) -> dict[str, dict[str, Any]]:
    """The data set of an XML document. Raises Invalid."""
    parser = ET.XMLParser(target=_Builder())  # noqa: S314, which `_Builder` answers
    try:
        parser.feed(document)
        root = parser.close()
    except ET.ParseError as error:
        raise Invalid(f"the metadata are not well-formed XML, line {error.position[0]}") from None
    except (LookupError, ValueError):  # of the encoding that the document declares
        raise Invalid("metadata in XML are encoded in UTF-8, UTF-16 or ISO-8859-1") from None
    if _name(root) != "NativeDicomModel":
        raise Invalid("the metadata in XML are not a NativeDicomModel")
    return _model(root)


class _Builder(ET.TreeBuilder):
    """A tree without document type, not deeper than sequences go."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, *_: object) -> None:
        raise Invalid("metadata in XML have no document type declaration")

    def start(self, tag: Any, attrs: Any, /) -> ET.Element:
        self._depth += 1
        if self._depth > 2 * DEPTH + 5:
            raise Invalid(f"sequences are more than {DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def _attributes(model: Model) -> Iterator[str]:
    for tag, element in sorted(model.items()):
        keyword = keyword_for_tag(int(tag, 16))
        named = f' keyword="{keyword}"' if keyword else ""
        yield f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{named}>'
        if "InlineBinary" in element:
            yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
        elif "BulkDataURI" in element:
            yield f"<BulkData uri={quoteattr(_clean(element['BulkDataURI']))}/>"
        for number, value in enumerate(element.get("Value", ()), 1):
            yield from _value(element["vr"], number, value)
        yield "</DicomAttribute>"


def _value(vr: str, number: int, value: Any) -> Iterator[str]:
    if vr == "SQ":
        yield f'<Item number="{number}">'
        yield from _attributes(value or {})
        yield "</Item>"
    elif value is None:
        return  # an empty value between others: its number is left out
    elif vr == "PN":
        yield f'<PersonName number="{number}">'
        for group in GROUPS:
            if text := value.get(group):
                parts = zip(_COMPONENTS, _clean(text).split("^"), strict=False)
                inner = "".join(f"<{name}>{escape(part)}</{name}>" for name, part in parts if part)
                yield f"<{group}>{inner}</{group}>"
        yield "</PersonName>"
    else:
        yield f'<Value number="{number}">{escape(_clean(str(value)))}</Value>'


def _clean(text: str) -> str:
    """`text` without the characters that XML has no way to write."""
    return _NO_XML.sub("\ufffd", text)


def _name(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _model(element: ET.Element) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for attribute in element:
        if _name(attribute) != "DicomAttribute":
            raise Invalid("the metadata in XML hold something that is no DicomAttribute")
        tag, vr = attribute.get("tag", "").upper(), attribute.get("vr", "")
        told: dict[str, Any] = {"vr": vr}
        numbered: dict[int, Any] = {}
        for child in attribute:
            match _name(child):
                case "BulkData":
                    told["BulkDataURI"] = child.get("uri") or child.get("uuid") or ""
                case "InlineBinary":
                    told["InlineBinary"] = "".join((child.text or "").split())
                case "Item":
                    numbered[_number(child)] = _model(child)
                case "PersonName":
                    numbered[_number(child)] = _person(child)
                case "Value":
                    numbered[_number(child)] = _typed(vr, child.text or "")
                case _:
                    raise Invalid("a DicomAttribute holds what PS3.19 does not know")
        if numbered:
            told["Value"] = _in_order(numbered)
        found[tag] = told
    return found


def _in_order(numbered: Mapping[int, Any]) -> Sequence[Any]:
    last = max(numbered)
    # Some are left out since they are empty; what was not sent is not to fill the memory.
    if last > 2 * len(numbered) + 16:
        raise Invalid("the values of an attribute are not numbered one after the other")
    return [numbered.get(number) for number in range(1, last + 1)]


def _number(element: ET.Element) -> int:
    text = element.get("number", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise Invalid("the number of a value is not 1 or more")
    return int(text)


def _person(element: ET.Element) -> dict[str, str]:
    groups = {}
    for group in element:
        parts = {_name(part): part.text or "" for part in group}
        text = "^".join(parts.get(name, "") for name in _COMPONENTS).rstrip("^")
        groups[_name(group)] = text or (group.text or "").strip()
    return groups


def _typed(vr: str, text: str) -> Any:
    """A number where the VR has numbers in JSON."""
    if vr not in _NUMBERS:
        return text
    try:
        return float(text) if vr in {"FD", "FL"} else int(text)
    except ValueError:
        raise Invalid(f"a value of VR {vr} is not a number") from None
