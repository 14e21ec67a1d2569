"""Text as a PACS writes it in ISO 2022 IR 58, escapes included (PS3.5 6.1.2.5 and Annex K).

pydicom 3.0.2 writes GB 2312 without its escapes, so the values are encoded here and put into the
data set as raw elements, which pydicom writes as they are. ISO_IR 192 and GB18030 know no escapes
and are left to pydicom.
"""

import re

from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

GB2312_ESCAPE = b"\x1b$)A"
_PERSON_NAME_RESETS = r"([\\^=])"
_VALUE_RESETS = r"(\\)"
# In unlimited text the backslash is a character, and only a control character ends a line.
_TEXT_RESETS = r"([\t\n\f\r])"
_RESETS = {
    "PN": _PERSON_NAME_RESETS,
    **dict.fromkeys(("LO", "SH", "UC"), _VALUE_RESETS),
    **dict.fromkeys(("LT", "ST", "UT"), _TEXT_RESETS),
}


def encode_ir58(text: str, vr: str) -> bytes:
    """Bytes of even length; each part with hanzi begins with ESC $)A, as delimiters reset G1.

    Raises UnicodeEncodeError for a character that GB 2312 lacks.
    """
    parts = re.split(_RESETS[vr], text)
    encoded = b"".join(
        part.encode("ascii") if part.isascii() else GB2312_ESCAPE + part.encode("gb2312")
        for part in parts
    )
    return encoded + b" " * (len(encoded) % 2)


def decode_ir58(value: bytes) -> str:
    """What a reader makes of those bytes; trailing padding is not significant."""
    return value.replace(GB2312_ESCAPE, b"").decode("gb2312").rstrip(" ")


def is_in_gb2312(text: str) -> bool:
    """Whether a PACS limited to ISO 2022 IR 58 can write this at all: 喆 and 玥 it cannot."""
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def put_escapes(dataset: Dataset) -> None:
    """Replace every text with hanzi, in sequences too, by a raw element with its escapes.

    A data set into which such elements are copied must announce them by `set_original_encoding`
    too, or pydicom decodes and encodes them once more.
    """
    # pydicom takes an item without Specific Character Set for the default repertoire.
    dataset.set_original_encoding(False, True, default_encoding)
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element is None or isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                put_escapes(item)
        elif element.VR in _RESETS and not element.is_empty:
            values = element.value if element.VM > 1 else [element.value]
            text = "\\".join(map(str, values))
            if not text.isascii():
                dataset[tag] = _raw(element.tag, element.VR, encode_ir58(text, element.VR))


def _raw(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    return RawDataElement(tag, vr, len(value), value, 0, False, True)
