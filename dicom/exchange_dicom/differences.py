"""What differs between two instances that claim to be the same: attributes, and pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag

from exchange_dicom import data_set, part10
from exchange_dicom.data_set import PIXEL_DATA_GROUP, Element, explicit
from exchange_dicom.header import DEFLATED, DataSetError

LENGTH = 64
"""Characters of a value that are shown."""

HEADER_LIMIT = 64 << 20
"""Bytes of a data set that are read for its attributes."""


Read = Callable[[str, int, int], bytes]
"""The bytes of an object from a place on, at most so many."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute: its keyword or tag, and the two values, "" where one has none."""

    attribute: str
    first: str
    second: str


def differences(read: Read, first: str, second: str) -> Iterator[Difference]:
    """The attributes in which the objects of two keys differ, in their order; pixels as one.

    Pixels are the same when their bytes are: nothing is decoded. An object that cannot be read
    differs as a whole.
    """
    one, other = (_attributes(read, key) for key in (first, second))
    for tag in sorted(one.keys() | other.keys()):
        values = one.get(tag, b""), other.get(tag, b"")
        if values[0] != values[1]:
            name = keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            yield Difference(name, *(_shown(value) for value in values))


def _attributes(read: Read, key: str) -> dict[int, bytes]:
    raw = read(key, 0, HEADER_LIMIT)

    try:
        meta = part10.read_file_meta(io.BytesIO(raw))
        body = raw[meta.data_set_offset :]
        if meta.transfer_syntax_uid in DEFLATED:
            return {0: hashlib.sha256(body).hexdigest().encode()}
        found: dict[int, bytes] = {0x00020010: meta.transfer_syntax_uid.encode()}
        for element, start, end in data_set.located(
            body, meta.transfer_syntax_uid, PIXEL_DATA_GROUP
        ):
            if element.tag >= PIXEL_DATA_GROUP:
                found[0x7FE00010] = hashlib.sha256(body[start:]).hexdigest().encode()
            else:
                found[element.tag] = _value(element)
            del end
    except DataSetError:
        return {0: hashlib.sha256(raw).hexdigest().encode()}
    return found


def _value(element: Element) -> bytes:
    if element.value is not None:
        return bytes(element.value).rstrip(b" \0")
    return b"".join(bytes(piece) for piece in explicit([element]))


def _shown(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "." for c in text)[:LENGTH]
