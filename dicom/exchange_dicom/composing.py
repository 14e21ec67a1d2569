"""A data set from DICOM JSON (PS3.18 annex F): Explicit VR Little Endian, its text in UTF-8."""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from exchange.errors import Invalid
from exchange_dicom.native_model import DEPTH, GROUPS

_CHARACTER_SET = "00080005"
_LEFT_OUT = frozenset({_CHARACTER_SET, "00083002"})  # Available Transfer Syntax UID: of the archive
_TAG = re.compile(r"[0-9A-F]{8}")
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXT = frozenset(
    {
        "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI",
        "UR", "UT",
    }
)  # fmt: skip
_NUMBERS = {
    "FD": "<d", "FL": "<f", "SL": "<l", "SS": "<h", "SV": "<q", "UL": "<L", "US": "<H", "UV": "<Q",
}  # fmt: skip
_VRS = _TEXT | _BYTES | frozenset(_NUMBERS) | {"AT", "SQ"}
_UNDEFINED = 0xFFFFFFFF
_END_OF_ITEM = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
"""The end of a sequence, or of encapsulated pixels."""

Bulk = Callable[[str, str, Any, int], Iterator[bytes]]
"""An element whose value lies elsewhere: by its tag, its VR, the URI of its value, and how deep it
lies in sequences. Raises Invalid."""


def data_set(model: Any, bulk: Bulk) -> Iterator[bytes]:
    """The data set of a whole model. Raises Invalid where that is wrong."""
    return _attributes(model, bulk, 0)


def element(
    tag: str, told: Mapping[str, Any], bulk: Bulk | None = None, depth: int = 0
) -> Iterator[bytes]:
    """One element; its value is the first thing that is made of it. Raises Invalid."""
    vr = told.get("vr")
    if not isinstance(vr, str) or vr not in _VRS:
        raise Invalid(f"({tag}) has no VR of PS3.5")
    if "BulkDataURI" in told:
        if bulk is None:
            raise Invalid(f"the value of ({tag}) lies elsewhere")
        yield from bulk(tag, vr, told["BulkDataURI"], depth)
    elif vr == "SQ":
        yield head(tag, vr, None)
        for one in _values(tag, told):
            yield item(_UNDEFINED)
            yield from _attributes(one or {}, bulk, depth + 1)
            yield _END_OF_ITEM
        yield END
    else:
        value = _encoded(tag, vr, told)
        yield head(tag, vr, len(value)) + value


def head(tag: str, vr: str, length: int | None) -> bytes:
    """Tag, VR and length of an element; None for an undefined one. Raises Invalid."""
    group, number = int(tag[:4], 16), int(tag[4:], 16)
    if vr in _LONG:
        size = _UNDEFINED if length is None else length
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, size)
    if length is None or length > 0xFFFE:
        raise Invalid(f"the value of ({tag}) is too long for VR {vr}")
    return struct.pack("<HH2sH", group, number, vr.encode(), length)


def item(length: int) -> bytes:
    """What stands before an item, or before a fragment of encapsulated pixels."""
    return struct.pack("<HHL", 0xFFFE, 0xE000, length)


def _attributes(model: Any, bulk: Bulk | None, depth: int) -> Iterator[bytes]:
    if not isinstance(model, dict):
        raise Invalid("an item of a sequence is not an object with attributes by tag")
    if depth > DEPTH:
        raise Invalid(f"sequences are more than {DEPTH} deep")
    by_tag = {str(tag).upper(): told for tag, told in model.items()}
    if not depth:
        by_tag[_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    for tag, told in sorted(by_tag.items()):
        if not _TAG.fullmatch(tag) or not isinstance(told, dict):
            raise Invalid("the metadata hold something that is no attribute by its tag")
        if tag < "00080000" or tag.endswith("0000") or (depth and tag == _CHARACTER_SET):
            continue  # of the file, not of the data set; or a length, which is ours to tell
        if tag in _LEFT_OUT and tag != _CHARACTER_SET:
            continue
        yield from element(tag, told, bulk, depth)


def _values(tag: str, told: Mapping[str, Any]) -> Sequence[Any]:
    values = told.get("Value", [])
    if not isinstance(values, list):
        raise Invalid(f"the Value of ({tag}) is not an array")
    return values


def _encoded(tag: str, vr: str, told: Mapping[str, Any]) -> bytes:
    try:
        if "InlineBinary" in told:
            value = b64decode(told["InlineBinary"], validate=True)
        elif vr == "AT":
            value = b"".join(
                struct.pack("<HH", int(one[:4], 16), int(one[4:8], 16))
                for one in _values(tag, told)
            )
        elif vr in _NUMBERS:
            form = _NUMBERS[vr]
            value = b"".join(struct.pack(form, _number(vr, one)) for one in _values(tag, told))
        elif vr in _BYTES:
            if _values(tag, told):
                raise Invalid(f"({tag}) has binary values: they come as InlineBinary or bulk data")
            value = b""
        else:
            value = "\\".join(_text(vr, one) for one in _values(tag, told)).encode()
    except (ValueError, TypeError, OverflowError, struct.error):
        raise Invalid(f"a value of ({tag}) is not one of VR {vr}") from None
    if len(value) % 2:
        value += b"\0" if vr in _BYTES or vr == "UI" else b" "
    return value


def _number(vr: str, value: Any) -> int | float:
    if isinstance(value, bool):
        raise TypeError
    return float(value) if vr in ("FD", "FL") else int(value)


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr == "PN" and isinstance(value, dict):
        groups = [value.get(name) or "" for name in GROUPS]
        return "=".join(groups).rstrip("=")
    if vr in ("DS", "IS") and isinstance(value, int | float) and not isinstance(value, bool):
        whole = repr(value)
        return whole if len(whole) <= 16 else f"{value:.10g}"
    if not isinstance(value, str):
        raise TypeError
    return value
