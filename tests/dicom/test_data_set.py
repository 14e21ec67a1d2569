"""What is sent out says what the sender's bytes say, checked against pydicom on real images."""

from __future__ import annotations

import contextlib
import io
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from exchange_dicom import data_set, header, part10
from exchange_dicom.character_sets import determine
from exchange_dicom.data_set import PIXEL_DATA_GROUP
from exchange_dicom.header import MalformedDataSet

BUNDLED = Path(str(pydicom.data.__file__)).parent / "test_files"
EXPLICIT, IMPLICIT = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)


def opened(path: Path) -> tuple[bytes, str] | None:
    """Data set and transfer syntax, where the file is one that the exchange would keep."""
    reader = io.BytesIO(path.read_bytes())
    with contextlib.suppress(ValueError):
        meta = part10.read_file_meta(reader)
        return reader.read(), meta.transfer_syntax_uid
    return None


FILES = {
    path.name: found
    for path in sorted(BUNDLED.glob("*.dcm"))
    if path.stat().st_size < 1 << 20 and (found := opened(path)) is not None
}
SOUND = {
    name: found
    for name, found in FILES.items()
    # Cut off or broken on purpose.
    if not any(word in name for word in ("trunc", "bad_seq", "no_meta"))
}


def as_pydicom_reads(content: bytes, transfer_syntax_uid: str) -> Dataset:
    file = part10.file_meta("1.2", "1.3", transfer_syntax_uid) + content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(file))


@pytest.mark.parametrize(
    "name", [name for name, (_, syntax) in SOUND.items() if syntax == IMPLICIT]
)
def test_an_image_with_implicit_vr_is_the_same_image_with_explicit_vr(name: str) -> None:
    content, syntax = SOUND[name]

    made = b"".join(data_set.explicit(data_set.elements(content, syntax)))

    before, after = as_pydicom_reads(content, IMPLICIT), as_pydicom_reads(made, EXPLICIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correct_ambiguous_vr(before, True)
        assert raw_values(after) == raw_values(before)


def raw_values(read: Dataset) -> dict[int, Any]:
    """The values' bytes by tag, items in lists; no group lengths, which depend on the encoding."""
    found: dict[int, Any] = {}
    for element in data_set_elements(read):
        if element.tag.element:
            found[element.tag] = (
                [raw_values(item) for item in element.value]
                if element.VR == "SQ"
                else str(element.value)
            )
    return found


def data_set_elements(read: Dataset) -> Any:
    return (read[tag] for tag in read.keys())  # noqa: SIM118 - iterating decodes as well


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's, of a value kept as it is
@pytest.mark.parametrize("name", SOUND)
def test_the_json_of_an_image_says_what_the_image_says(name: str) -> None:
    content, syntax = SOUND[name]
    found = [
        element
        for element in data_set.elements(content, syntax, until=PIXEL_DATA_GROUP)
        if element.tag < PIXEL_DATA_GROUP
    ]
    read = as_pydicom_reads(content, syntax)
    declared = read.get("SpecificCharacterSet", "")
    declared = declared if isinstance(declared, str) else "\\".join(declared)

    told = data_set.to_json(found, determine(declared, ()))

    assert list(told) == sorted(told)
    assert told.pop("00080005")["Value"] == ["ISO_IR 192"]
    del read[0x00080005:0x00080006]
    for element in data_set_elements(read):
        if not element.tag.element or element.tag >= PIXEL_DATA_GROUP or is_bulk(element):
            continue
        values = told[f"{element.tag:08X}"].get("Value", [])
        if element.VR in CERTAIN:
            expected = element.value if element.VM > 1 else [element.value] * element.VM
            got = ["" if one is None else str(one) for one in values]
            assert got == [str(one).strip() for one in expected if element.VM > 1 or str(one)]


CERTAIN = {"AE", "AS", "CS", "DA", "LO", "SH", "TM", "UI", "US", "UL", "SS", "SL"}
"""VRs that pydicom gives back as they are written."""


def is_bulk(element: pydicom.DataElement) -> bool:
    return isinstance(element.value, bytes) and len(element.value) > data_set.BULK


@pytest.mark.parametrize("name", FILES)
def test_a_cut_off_image_is_an_error_and_never_a_surprise(name: str) -> None:
    content, syntax = FILES[name]
    for end in range(0, len(content), max(1, len(content) // 50)):
        with contextlib.suppress(MalformedDataSet):
            for element in data_set.elements(content[:end], syntax):
                data_set.to_json([element], determine("", ()))


def test_numbers_that_json_does_not_know_and_empty_values_have_forms_of_their_own() -> None:
    image = Dataset()
    image.ImageType = ["ORIGINAL", "", "AXIAL"]
    image.PatientName = "^^^"
    image.StudyDate = ""
    image.RealWorldValueIntercept = float("nan")
    written = io.BytesIO()
    image.save_as(written, implicit_vr=False, little_endian=True)

    told = data_set.to_json(
        list(data_set.elements(written.getvalue(), EXPLICIT)), determine("", ())
    )

    assert told["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert told["00080020"] == {"vr": "DA"}
    assert told["00409224"] == {"vr": "FD"}


def test_nested_deeper_than_anyone_needs_is_refused_before_the_stack_is() -> None:
    one = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"

    with pytest.raises(MalformedDataSet, match="nested"):
        list(data_set.elements(one * 5000, EXPLICIT))


def lying(content: bytes) -> data_set.Read:
    return lambda start, length: content[start : start + length]


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("window", [64, 1 << 10, 64 << 10])
def test_an_image_read_in_windows_is_the_image_read_at_once(
    name: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_set, "WINDOW", window)
    content, syntax = SOUND[name]
    if syntax in header.DEFLATED:
        read: data_set.Read = data_set.Inflated([content], 1 << 24)
    else:
        read = lying(content)
    whole = list(data_set.elements(content, syntax))

    walked = list(data_set.walk(read, syntax))

    assert [(one.tag, one.vr, one.items) for one in walked] == [
        (one.tag, one.vr, one.items) for one in whole
    ]
    for one, other in zip(walked, whole, strict=True):
        if one.span is None:
            assert one.value == other.value
        else:
            assert other.value is not None
            assert one.span[1] == len(other.value) > window
    if syntax == IMPLICIT:
        written = b"".join(data_set.explicit(data_set.walk(read, syntax), read))
        assert written == b"".join(data_set.explicit(whole))
        data_set.check(read, syntax)


@pytest.mark.parametrize(
    "name", [name for name, (_, syntax) in SOUND.items() if syntax == IMPLICIT]
)
def test_what_is_checked_can_be_written_wherever_it_was_cut(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_set, "WINDOW", 256)
    content, syntax = SOUND[name]
    for end in range(0, len(content), max(1, len(content) // 50)):
        read = lying(content[:end])
        try:
            data_set.check(read, syntax)
        except MalformedDataSet:
            continue
        for _ in data_set.explicit(data_set.walk(read, syntax), read):
            pass


def test_a_deflated_image_is_never_cut_in_silence() -> None:
    deflated = zlib.compress(bytes(1 << 16), wbits=-15)
    for sent, limit in ((deflated, 1 << 15), (deflated[:-8], 1 << 20), (b"\xff" * 64, 1 << 20)):
        inflated = data_set.Inflated([sent], limit)
        with pytest.raises(MalformedDataSet):
            inflated(0, 1 << 20)
    assert data_set.Inflated([deflated], 1 << 16)(0, 1 << 20) == bytes(1 << 16)
    monster = zlib.compress(bytes(header.INFLATE_LIMIT + 1), wbits=-15)
    with pytest.raises(MalformedDataSet, match="more than"):
        list(data_set.elements(monster, str(DeflatedExplicitVRLittleEndian)))


@pytest.mark.parametrize("size", [9, 300_001])
@pytest.mark.parametrize("write", [data_set.explicit, data_set.implicit])
def test_big_endian_pixels_are_little_endian_in_what_is_written_anew(
    size: int, write: Callable[..., Iterator[bytes]]
) -> None:
    values = np.arange(size, dtype=">u2")
    image = Dataset()
    image.BitsAllocated = 16
    image.PixelData = values.tobytes()
    image["PixelData"].VR = "OW"
    written = io.BytesIO()
    image.save_as(written, implicit_vr=False, little_endian=False)
    content = written.getvalue()

    def read(start: int, length: int) -> bytes:
        return content[start : start + length]

    anew = b"".join(write(data_set.walk(read, str(ExplicitVRBigEndian)), read))

    assert anew.endswith(values.astype("<u2").tobytes())


def test_a_sequence_where_none_belongs_is_stepped_over_without_its_vr() -> None:
    """Without VRs only the dictionary says what is a sequence: undefined lengths would mislead."""
    inner = Dataset()
    inner.PatientID = "P1"
    odd = Dataset()
    odd.add_new(0x00081030, "SQ", [inner])  # Study Description
    odd.add_new(0x00091001, "SQ", [inner])
    odd.PatientID = "P1"
    written = io.BytesIO()
    odd.save_as(written, implicit_vr=False, little_endian=True)

    sent = b"".join(data_set.implicit(data_set.elements(written.getvalue(), EXPLICIT)))

    read = {element.tag: element for element in data_set.elements(sent, IMPLICIT)}
    assert bytes(read[0x00100020].value or b"") == b"P1"
    assert read[0x00091001].items is not None
    assert read[0x00081030].items is None
