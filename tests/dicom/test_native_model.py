"""The XML of a data set says what its JSON says, and no XML does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import Invalid
from exchange_dicom.native_model import DEPTH, NAMESPACE, Model, from_xml, to_xml

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1)
NAMES = st.dictionaries(
    st.sampled_from(("Alphabetic", "Ideographic")),
    TEXT.filter(lambda text: text.strip("^ ") == text and text.count("^") < 5),
    min_size=1,
)


@given(TEXT, NAMES, st.integers(0, 2**32 - 1), st.binary(min_size=1))
def test_what_was_written_is_read_back(
    text: str, name: dict[str, str], number: int, raw: bytes
) -> None:
    model: Model = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00081030": {"vr": "LO", "Value": [text, None, "x"]},
        "00081110": {
            "vr": "SQ",
            "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}, {}],
        },
        "00090010": {"vr": "LO", "Value": ["SOMEBODY"]},
        "00091001": {"vr": "OB", "InlineBinary": raw.hex()},
        "00100010": {"vr": "PN", "Value": [name]},
        "00280009": {"vr": "UL", "Value": [number]},
        "7FE00010": {"vr": "OW", "BulkDataURI": f"cid:pixels?{text}"},
    }

    assert from_xml(to_xml(model)) == model


def test_what_xml_cannot_write_is_replaced() -> None:
    read = from_xml(to_xml({"00081030": {"vr": "LO", "Value": ["a\x00b\x1bc"]}}))
    assert read["00081030"]["Value"] == ["a\ufffdb\ufffdc"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "well-formed"),
        (b"<a", "well-formed"),
        (b"<a/>", "not a NativeDicomModel"),
        (b'<?xml version="1.0" encoding="UTX-8"?><NativeDicomModel/>', "encoded in UTF-8"),
        (b'<?xml version="1.0" encoding="GB18030"?><NativeDicomModel/>', "encoded in UTF-8"),
        (b"<!DOCTYPE a [<!ENTITY b 'bb'>]><NativeDicomModel/>", "document type"),
        (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><NativeDicomModel/>", "document type"),
        (b"<NativeDicomModel><b/></NativeDicomModel>", "no DicomAttribute"),
        (b"<NativeDicomModel>" + b"<DicomAttribute><Item>" * DEPTH * 2, "deep"),
        (
            b'<NativeDicomModel><DicomAttribute tag="00280010" vr="US"><Value>x</Value>'
            b"</DicomAttribute></NativeDicomModel>",
            "not a number",
        ),
        (
            b'<NativeDicomModel><DicomAttribute tag="00280010" vr="US">'
            b'<Value number="999999">1</Value></DicomAttribute></NativeDicomModel>',
            "one after the other",
        ),
    ],
)
def test_xml_that_is_no_data_set_is_refused_in_words(document: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        from_xml(document)


def test_the_namespace_may_have_a_prefix() -> None:
    document = (
        f'<n:NativeDicomModel xmlns:n="{NAMESPACE}"><n:DicomAttribute tag="0020000d" vr="UI">'
        '<n:Value number="1">1.2</n:Value></n:DicomAttribute></n:NativeDicomModel>'
    )
    assert from_xml(document.encode()) == {"0020000D": {"vr": "UI", "Value": ["1.2"]}}


def test_values_that_were_not_sent_take_no_memory() -> None:
    """Some are left out since they are empty, but not a thousand before each one that is there."""
    document = (
        '<NativeDicomModel><DicomAttribute tag="00181152" vr="IS">'
        '<Value number="{}">1</Value></DicomAttribute></NativeDicomModel>'
    )

    assert from_xml(document.format(3).encode()) == {
        "00181152": {"vr": "IS", "Value": [None, None, "1"]}
    }
    with pytest.raises(Invalid, match="one after the other"):
        from_xml(document.format(1001).encode())
