"""The DICOM JSON model as somebody sends it (PS3.18 annex F): read with mistrust, made canonical.

Tags in upper case and in their order, VRs of PS3.6 where it has the attribute, values of the type
that the VR has in JSON, empty elements without a Value. Bulk data and what is not of a data set
(groups 0000 and 0002, lengths of groups) are refused.
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR

from exchange.errors import Invalid
from exchange_dicom.native_model import DEPTH, GROUPS

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_UID = re.compile(r"[0-9.]{0,64}")
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_INTEGERS = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_FLOATS = frozenset({"FD", "FL"})
_DECIMALS = frozenset({"DS", "IS"})
_TEXTS = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_VRS = _BYTES | _INTEGERS | _FLOATS | _DECIMALS | _TEXTS | {"PN", "SQ"}


def canonical(model: Any, *, depth: int = 0) -> dict[str, dict[str, Any]]:
    """The data set that `model` is meant to be. Raises Invalid."""
    if not isinstance(model, Mapping):
        raise Invalid("a data set is an object with elements by tag")
    if depth > DEPTH:
        raise Invalid(f"sequences are more than {DEPTH} deep")
    found: dict[str, dict[str, Any]] = {}
    for key, element in model.items():
        if not _TAG.fullmatch(key) or not isinstance(element, Mapping):
            raise Invalid("a data set holds something that is no element by its tag")
        tag = key.upper()
        if tag in found:
            raise Invalid(f"({tag}) is given twice")
        if tag < "00080000" or tag.endswith("0000"):
            raise Invalid(f"({tag}) is not of a data set")
        found[tag] = _element(tag, element, depth)
    return dict(sorted(found.items()))


@cache
def _known(tag: str) -> frozenset[str]:
    """The VRs that PS3.6 has for the attribute; none where it does not know it."""
    try:
        return frozenset(dictionary_VR(int(tag, 16)).split(" or "))
    except KeyError:
        return frozenset()


def _element(tag: str, element: Mapping[str, Any], depth: int) -> dict[str, Any]:
    vr = element.get("vr")
    if not isinstance(vr, str) or vr not in _VRS:
        raise Invalid(f"({tag}) has no VR of PS3.5")
    if (known := _known(tag)) and vr not in known:
        raise Invalid(f"({tag}) is of VR {' or '.join(sorted(known))}")
    if "BulkDataURI" in element:
        raise Invalid(f"({tag}) comes as bulk data, which are not taken here")
    if "InlineBinary" in element:
        return {"vr": vr, "InlineBinary": _binary(tag, vr, element["InlineBinary"])}
    values = element.get("Value", [])
    if not isinstance(values, list):
        raise Invalid(f"the Value of ({tag}) is not an array")
    if vr == "SQ":
        kept: list[Any] = [canonical(item or {}, depth=depth + 1) for item in values]
    else:
        try:
            kept = [None if one is None else _value(vr, one) for one in values]
        except (TypeError, ValueError):
            raise Invalid(f"a value of ({tag}) is not one of VR {vr}") from None
    while kept and kept[-1] in (None, ""):
        kept.pop()
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}


def _binary(tag: str, vr: str, value: Any) -> str:
    try:
        if vr not in _BYTES or not isinstance(value, str):
            raise ValueError
        b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"({tag}) does not have binary values in base64") from None
    return value


def _value(vr: str, value: Any) -> Any:
    """Raises TypeError, ValueError."""
    if isinstance(value, bool) or vr in _BYTES:
        raise TypeError
    if vr == "PN":
        return _name(value)
    if vr in _INTEGERS:
        return int(value) if isinstance(value, int | str) else _whole(value)
    if vr in _FLOATS or (vr in _DECIMALS and isinstance(value, int | float)):
        number = float(value) if vr in _FLOATS else value
        if not math.isfinite(number):
            raise ValueError
        return number
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    if vr == "UI" and not _UID.fullmatch(value):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, float) or not value.is_integer():
        raise TypeError
    return int(value)


def _name(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        groups = dict(zip(GROUPS, value.split("="), strict=False))
    elif isinstance(value, Mapping):
        groups = {name: value[name] for name in GROUPS if value.get(name)}
    else:
        raise TypeError
    for group in groups.values():
        if not isinstance(group, str) or "\0" in group or "=" in group:
            raise TypeError
    return groups
