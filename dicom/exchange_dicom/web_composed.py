"""Instances that come as metadata and bulk data (PS3.18 sections 8.7.3.3 and 10.5.1): composed.

Bulk data wait on the disk until the body has ended, since the metadata may name them in any order;
then each data set is written piece by piece, in Explicit VR Little Endian or with encapsulated
pixels, its text in UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from exchange.errors import Invalid, TooLarge
from exchange.ingest import Incoming
from exchange_dicom import composing, media_types, native_model, part10
from exchange_dicom.media_types import DICOM, DICOM_JSON, DICOM_XML, OCTET_STREAM, MediaType
from exchange_dicom.multipart import Part
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_dicom.web_frames import TRANSFER_SYNTAXES

METADATA = (DICOM_JSON, DICOM_XML)

METADATA_LIMIT = 32 << 20
"""Bytes of the metadata of one request."""

INSTANCES = 20_000
"""Instances that the metadata of one request may describe."""

PIECE = 1 << 20
"""Bytes of bulk data that are in memory at once."""

_PIXELS = "7FE00010"
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Composed(Part):
    """A file that is composed while it is read; raises Invalid where its metadata are wrong."""

    reference: Mapping[str, str]
    """SOP Class UID and SOP Instance UID, by keyword, as far as the metadata have them."""


@dataclass(frozen=True, slots=True)
class _Bulk:
    """A part that waits in the spool."""

    start: int
    length: int
    media_type: MediaType


@dataclass(slots=True)
class _Spool:
    """The bulk data of a body, by what names them."""

    staged: Incoming
    parts: dict[str, list[_Bulk]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    given: int = 0
    """Bytes that instances were made of."""

    def keep(self, part: Part) -> None:
        name = part.fields.get("content-location", "").strip()
        if not name and (content_id := part.fields.get("content-id", "").strip()):
            name = f"cid:{content_id.removeprefix('<').removesuffix('>')}"
        if not name:
            raise Invalid("a part of bulk data has no Content-Location")
        kind = media_types.parse(part.fields.get("content-type", OCTET_STREAM))
        if len(kind) != 1:
            raise Invalid("a part has one media type")
        start = self.staged.written
        for piece in part.pieces:
            self.staged.write(piece)
        bulk = _Bulk(start, self.staged.written - start, kind[0])
        self.parts.setdefault(name, []).append(bulk)

    def named(self, name: Any) -> Sequence[_Bulk]:
        """The parts of that name: more than one are the frames of compressed pixels, in order."""
        if not isinstance(name, str) or name.strip() not in self.parts:
            raise Invalid("the metadata name bulk data that no part brings")
        self.used.add(name.strip())
        return self.parts[name.strip()]

    def read(self, bulk: _Bulk) -> Iterator[bytes]:
        """The bytes, padded to an even length. Raises TooLarge: a few parts that many instances
        name shall not become more than a request could bring."""
        self.given += bulk.length
        if self.given > self.staged.limit:
            raise TooLarge(f"the instances of a request may have {self.staged.limit} bytes")
        with self.staged.staged.reader() as reader:
            reader.seek(bulk.start)
            left = bulk.length
            while left:
                piece = reader.read(min(left, PIECE))
                left -= len(piece)
                yield piece
        if bulk.length % 2:
            yield b"\0"


def composed(parts: Iterator[Part], spool: Incoming) -> Iterator[Part]:
    """The instances that `parts` describe, as files; bulk data that no metadata name fail too.

    Raises Invalid, TooLarge and what reading the parts raises, before the first instance.
    """
    bulk = _Spool(spool)
    models: list[Any] = []
    size = 0
    for part in parts:
        kind = media_types.parse(part.fields.get("content-type", ""))
        name = kind[0].name if kind else ""
        if name not in METADATA:
            bulk.keep(part)
            continue
        document = bytearray()
        for piece in part.pieces:
            size += len(piece)
            if size > METADATA_LIMIT:
                raise TooLarge(f"the metadata of a request may have {METADATA_LIMIT} bytes")
            document += piece
        models += _models(bytes(document), name)
        if len(models) > INSTANCES:
            raise TooLarge(f"the metadata of a request may describe {INSTANCES} instances")
    if not models:
        raise Invalid("no part has metadata")
    for model in models:
        reference = _reference(model)
        yield Composed({"content-type": DICOM}, _file(model, reference, bulk), reference)
    for name in bulk.parts:
        if name not in bulk.used:
            yield Part({"content-type": DICOM}, _unnamed())


def _unnamed() -> Iterator[bytes]:
    raise Invalid("no metadata name a part of bulk data")
    yield b""


def _models(document: bytes, kind: str) -> list[Any]:
    if kind == DICOM_XML:
        return [native_model.from_xml(document)]
    try:
        read = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise Invalid("the metadata are not JSON") from None
    return read if isinstance(read, list) else [read]


def _reference(model: Any) -> dict[str, str]:
    found = {}
    for keyword, tag in (("SOPClassUID", "00080016"), ("SOPInstanceUID", "00080018")):
        try:
            (value,) = model[tag]["Value"]
        except (KeyError, TypeError, ValueError):
            continue
        if isinstance(value, str) and _UID.fullmatch(value):
            found[keyword] = value
    return found


def _file(model: Any, reference: Mapping[str, str], bulk: _Spool) -> Iterator[bytes]:
    if not isinstance(model, dict):
        raise Invalid("the metadata of an instance are not an object with attributes by tag")
    syntax = _syntax(model, bulk)
    yield part10.file_meta(
        reference.get("SOPClassUID", ""), reference.get("SOPInstanceUID", ""), syntax
    )
    yield from _data_set(model, bulk, encapsulated=syntax != EXPLICIT_VR_LITTLE_ENDIAN)


def _syntax(model: Mapping[str, Any], bulk: _Spool) -> str:
    """The transfer syntax of the instance: that of its pixels."""
    pixels = model.get(_PIXELS)
    if not isinstance(pixels, dict) or "BulkDataURI" not in pixels:
        return EXPLICIT_VR_LITTLE_ENDIAN
    found = {_transfer_syntax(one.media_type) for one in bulk.named(pixels["BulkDataURI"])}
    if len(found) != 1:
        raise Invalid("the frames of an image are of different transfer syntaxes")
    return found.pop()


def _transfer_syntax(kind: MediaType) -> str:
    stated = kind.parameters.get("transfer-syntax")
    if stated is None:
        if kind.name not in TRANSFER_SYNTAXES:
            raise Invalid("the media type of the pixels does not tell their transfer syntax")
        return TRANSFER_SYNTAXES[kind.name][0]
    if not _UID.fullmatch(stated) or stated in _NOT_HERE:
        raise Invalid("pixels cannot come in this transfer syntax")
    return stated


_NOT_HERE = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
}
"""Ways to write a whole data set, which bulk data do not have (PS3.18 8.7.3)."""


def _data_set(model: Any, bulk: _Spool, *, encapsulated: bool) -> Iterator[bytes]:
    def given(tag: str, vr: str, name: Any, depth: int) -> Iterator[bytes]:
        found = bulk.named(name)
        if encapsulated and tag == _PIXELS and not depth:
            yield composing.head(tag, "OB", None)
            yield composing.item(0)  # an empty Basic Offset Table
            for one in found:
                yield composing.item(_even(tag, one.length))
                yield from bulk.read(one)
            yield composing.END
            return
        if len(found) != 1:
            raise Invalid("bulk data that are no frames come in one part")
        yield composing.head(tag, vr, _even(tag, found[0].length))
        yield from bulk.read(found[0])

    return composing.data_set(model, given)


def _even(tag: str, length: int) -> int:
    if length > 0xFFFFFFFD:
        raise Invalid(f"the value of ({tag}) is longer than PS3.5 allows")
    return length + length % 2
