"""What differs between two instances that claim to be the same: attributes, and pixels."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag

from exchange_dicom import character_sets, codestream, data_set, part10, pixel_data, transcoding
from exchange_dicom.data_set import PIXEL_DATA_GROUP, Element
from exchange_dicom.header import DEFLATED, DataSetError, MalformedDataSet
from exchange_dicom.transcoding import CannotTranscode

LENGTH = 64
"""Characters of a value that are shown."""

HEADER_LIMIT = 64 << 20
"""Bytes of a data set that are read for its attributes."""

PIXEL_LIMIT = 256 << 20
"""Bytes of the largest object whose pixels are decoded to be compared, and of those pixels."""

STEP = 1 << 16
"""Values that are compared at a time: what is wider than the pixels themselves stays small."""

_CHARACTER_SET = 0x00080005
_PIXEL_DATA = 0x7FE00010
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, _PIXEL_DATA})
"""Float, Double Float and Pixel Data (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25)."""


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

    An object that cannot be read differs as a whole.
    """
    one, other = (_attributes(read, key) for key in (first, second))
    for tag in sorted(one.keys() | other.keys()):
        values = one.get(tag, _ABSENT), other.get(tag, _ABSENT)
        told = [value.text for value in values]
        if told[0] != told[1] or (not any(told) and values[0] != values[1]):
            name = keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            yield Difference(name, *(_shown(value.text or value.summary) for value in values))


def pixels(read: Read, first: str, second: str) -> str:
    """How the pixels of two objects differ, in words: "" where they do not, or there are none."""
    one, other = (_pixels(read, key) for key in (first, second))
    if isinstance(one, str) or isinstance(other, str):
        return next(told for told in (one, other) if isinstance(told, str))
    if one is None or other is None:
        return "" if one is other else "only one of them has pixels"
    if one.shape != other.shape:
        return f"{_size(one)} and {_size(other)}"
    count, most = 0, 0.0
    left, right = one.reshape(-1), other.reshape(-1)
    for at in range(0, one.size, STEP):
        some = left[at : at + STEP], right[at : at + STEP]
        apart = some[0] != some[1]
        count += int(np.count_nonzero(apart))
        # As numbers that hold the difference of any two samples of up to 32 bits.
        between = np.subtract(*(values[apart].astype(np.float64) for values in some))
        most = max(most, float(np.abs(between).max(initial=0)))
    if not count:
        return ""
    return f"{count} of {one.size} values differ, by {most:g} at most"


def _pixels(read: Read, key: str) -> np.ndarray[Any, Any] | str | None:
    raw = read(key, 0, PIXEL_LIMIT + 1)
    if len(raw) > PIXEL_LIMIT:
        return "too large to be compared"
    try:
        with warnings.catch_warnings(), codestream.coding():
            warnings.simplefilter("ignore")  # of what is wrong with the data set: that is shown
            found = pydicom.dcmread(io.BytesIO(raw), force=True)
            if "PixelData" not in found:
                return None
            if found.file_meta.TransferSyntaxUID.is_encapsulated:
                transcoding.judge(found, PIXEL_LIMIT)
            return found.pixel_array
    except CannotTranscode as error:
        return f"cannot be decoded ({error})"
    except Exception as error:  # whatever a decoder calls it
        return f"cannot be decoded ({type(error).__name__})"


def _size(values: np.ndarray[Any, Any]) -> str:
    return "×".join(str(side) for side in values.shape)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value as people read it, and what tells it from others where that is nothing: its bytes."""

    text: str
    digest: str = ""
    length: int = 0

    @property
    def summary(self) -> str:
        return f"{self.length} bytes" if self.length else ""


_ABSENT = _Value("")


def _attributes(read: Read, key: str) -> dict[int, _Value]:
    raw = read(key, 0, HEADER_LIMIT)
    try:
        meta = part10.read_file_meta(io.BytesIO(raw))
        body = raw[meta.data_set_offset :]
        if meta.transfer_syntax_uid in DEFLATED:
            return {0: _bytes(body)}
        found = {0x00020010: _Value(meta.transfer_syntax_uid)}
        elements: list[Element] = []
        for element, start, _ in data_set.located(body, meta.transfer_syntax_uid, PIXEL_DATA_GROUP):
            if element.tag < PIXEL_DATA_GROUP:
                elements.append(element)
                continue
            for behind in _behind(memoryview(body)[start:], meta.transfer_syntax_uid):
                if behind.tag in _PIXELS:
                    found[behind.tag] = _bytes(_stream(behind))
                else:
                    elements.append(behind)
        return found | _values(elements)
    except DataSetError:
        return {0: _bytes(raw)}


def _behind(rest: memoryview, transfer_syntax_uid: str) -> list[Element]:
    """The pixels and what is behind them, with all values; what cannot be told apart, or goes on
    behind what was read, as pixels."""
    found = []
    try:
        for one in data_set.walk(
            lambda at, length: bytes(rest[at : at + length]), transfer_syntax_uid
        ):
            if one.span is not None:
                start, length = one.span
                value = data_set.turned(rest[start : start + length], one.turned)
                one = replace(one, value=value, span=None)
            found.append(one)
    except MalformedDataSet:
        return [Element(_PIXEL_DATA, "UN", value=rest)]
    return found


def _stream(element: Element) -> bytes:
    """The pixels alone: how an encapsulated stream is cut into fragments is no part of them."""
    if element.fragments is not None:
        return bytes(pixel_data.joined(element.fragments))
    return bytes(element.value or b"")


def _bytes(value: bytes, text: str = "") -> _Value:
    # An empty value and none at all say the same.
    return _Value(text, hashlib.sha256(value).hexdigest(), len(value)) if value else _ABSENT


def _values(elements: list[Element]) -> dict[int, _Value]:
    declared = next((bytes(one.value or b"") for one in elements if one.tag == _CHARACTER_SET), b"")
    texts = [bytes(one.value) for one in elements if one.value is not None and one.vr in _TEXT]
    names = [bytes(one.value) for one in elements if one.value is not None and one.vr == "PN"]
    chosen = character_sets.determine(declared.decode("ascii", "replace"), texts, names)
    told = data_set.to_json(elements, chosen)
    # In DICOM JSON every text is UTF-8; here it is to be seen how each was written.
    told["00080005"] = {"Value": [declared.decode("ascii", "replace").strip()]}
    return {
        one.tag: _bytes(_raw(one), _written(told.get(f"{one.tag:08X}", {}))) for one in elements
    }


def _raw(element: Element) -> bytes:
    if element.value is not None:
        return bytes(element.value)
    return b"".join(bytes(piece) for piece in data_set.explicit([element]))


_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})


def _written(element: dict[str, Any]) -> str:
    if "InlineBinary" in element:
        return str(element["InlineBinary"])
    values = element.get("Value", ())
    return "\\".join(_one(value) for value in values)


def _one(value: Any) -> str:
    match value:
        case None:
            return ""
        case {"Alphabetic": _} | {"Ideographic": _} | {"Phonetic": _}:
            groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
            return "=".join(groups).rstrip("=")
        case float() if value.is_integer():
            return str(int(value))
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _shown(value: str) -> str:
    text = "".join(c if c.isprintable() else "." for c in value)
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
