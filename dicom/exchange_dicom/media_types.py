"""Media types and their negotiation (RFC 9110 sections 5.6.6, 8.3 and 12.5.1; PS3.18 8.3.3, 8.7).

What negotiation can answer besides a media type is in the two errors here; the web door gives
them the HTTP status 406 and 415.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exchange.errors import Invalid

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"
MULTIPART = "multipart/related"
OCTET_STREAM = "application/octet-stream"
ZIP = "application/zip"

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# A lone asterisk is no media range, but Java's URLConnection sends it by default.
_TYPE = re.compile(rf"[ \t]*(?:({_WORD})/({_WORD})|\*)[ \t]*")
# Senders put media types in parameters without the quotes that the slash calls for.
_PARAMETER = re.compile(
    rf';[ \t]*(?:({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+)))?[ \t]*'
)


class NotAcceptable(Exception):
    """None of the media types that the asker accepts can be made (406)."""


class UnsupportedMediaType(Exception):
    """What was sent is of a media type that cannot be read here (415)."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or range: lower-case names, parameters without `q`."""

    type: str
    subtype: str
    parameters: Mapping[str, str]
    quality: float = 1.0

    @property
    def name(self) -> str:
        """``type/subtype``."""
        return f"{self.type}/{self.subtype}"

    def covers(self, name: str) -> bool:
        """Whether this range includes the media type of that name."""
        kind, _, subtype = name.partition("/")
        return self.type in ("*", kind) and self.subtype in ("*", subtype)


def parse(text: str) -> tuple[MediaType, ...]:
    """A list of media types. Raises Invalid where the syntax is not that of RFC 9110."""
    found = []
    at = 0
    while at < len(text):
        if text[at] in " \t,":
            at += 1
            continue
        start = _TYPE.match(text, at)
        if start is None:
            raise Invalid("not a media type, or a list of them")
        at = start.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, at):
            name, quoted, plain = parameter.groups()
            if name:
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[name.lower()] = value
            at = parameter.end()
        if at < len(text) and text[at] != ",":
            raise Invalid("not a media type, or a list of them")
        quality = _quality(parameters.pop("q", "1"))
        kind, subtype = start[1] or "*", start[2] or "*"
        found.append(MediaType(kind.lower(), subtype.lower(), parameters, quality))
    return tuple(found)


def acceptable(query: str | None, header: str | None) -> tuple[MediaType, ...]:
    """What the asker accepts, the most wanted first; anything, if nothing is said.

    The query parameter `accept` goes before the header field (PS3.18 8.3.3.1). Raises Invalid.
    """
    ranges = parse(query or header or "*/*")
    return tuple(
        sorted((one for one in ranges if one.quality), key=lambda one: one.quality, reverse=True)
    )


def choose(ranges: Sequence[MediaType], offered: Sequence[str]) -> str:
    """The offered media type that is wanted most, the first of several. Raises NotAcceptable."""
    for wanted in ranges:
        for name in offered:
            if wanted.covers(name):
                return name
    raise NotAcceptable(f"this can be had as {' or '.join(offered)}")


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        quality = -1
    if not 0 <= quality <= 1:
        raise Invalid("the weight of a media type must be between 0 and 1")
    return quality
