"""What the index reads from the bytes of an image, whoever encoded them and however badly."""

from __future__ import annotations

import contextlib
import io
import random
import re
import tracemalloc
import warnings
import zlib
from collections.abc import Mapping
from struct import pack
from typing import Any

import corpus
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from exchange_dicom import header
from exchange_dicom.character_sets import IS_GB18030, IS_UTF_8
from exchange_dicom.header import DataSetError, Header, MalformedDataSet, OtherID
from exchange_dicom.part10 import read_file_meta

EXPLICIT = str(ExplicitVRLittleEndian)
IMPLICIT = str(ImplicitVRLittleEndian)
DEFLATED = str(DeflatedExplicitVRLittleEndian)
BIG_ENDIAN = str(ExplicitVRBigEndian)

ALL_KEYWORDS = {
    tag: entry[4] for tag, entry in DicomDictionary.items() if entry[4] and tag < 0x7FE00000
}
NUMBER_VRS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
TEXT_VRS = frozenset(vr.decode() for vr in header.SHORT_FORM | {b"UC", b"UR", b"UT"}) - NUMBER_VRS

FILES = corpus.files()
UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0" + bytes(4)
SEQUENCE_END = b"\xfe\xff\xdd\xe0" + bytes(4)


def explicit(tag: int, vr: str, value: bytes) -> bytes:
    if vr.encode() in header.LONG_FORM:
        return pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def implicit(tag: int, value: bytes) -> bytes:
    return pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


NAME = explicit(0x00100010, "PN", b"Wang^XiaoDong ")
PIXELS = explicit(0x7FE00010, "OW", bytes(512))


def read(data_set: bytes, transfer_syntax_uid: str = EXPLICIT) -> Header:
    return header.read(io.BytesIO(data_set), transfer_syntax_uid, ALL_KEYWORDS)


def read_file(file: bytes) -> Header:
    reader = io.BytesIO(file)
    meta = read_file_meta(reader)
    return header.read(reader, meta.transfer_syntax_uid, ALL_KEYWORDS)


def written(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    data_set.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data_set.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, data_set, enforce_file_format=True)
    return file.getvalue()


def comparable(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes without spaces and trailing delimiters, which two readers may keep or not."""
    bare = {
        keyword: re.sub(r"[\^=]+(?=\\|$)", "", re.sub(r"[ \0]", "", text))
        for keyword, text in attributes.items()
    }
    return {keyword: text for keyword, text in bare.items() if text.strip("\\")}


def told_by_pydicom(data_set: Dataset) -> dict[str, str]:
    """The same attributes by a full parser; what has no text of its own is left out."""
    told: dict[str, str] = {}
    for tag in sorted(data_set.keys()):
        keyword = ALL_KEYWORDS.get(int(tag))
        if keyword is None:
            continue
        raw: Any = data_set.get_item(tag)
        plain = raw.value if isinstance(raw.value, bytes) else b""
        element = data_set[tag]
        if element.VR not in TEXT_VRS | NUMBER_VRS or element.is_empty:
            continue
        values = element.value if element.VM > 1 else [element.value]
        if len(plain) > header.VALUE_LIMIT:
            continue
        if element.VR in ("DS", "IS"):  # pydicom reads numbers; the index keeps what was written
            told[keyword] = plain.decode("latin_1")
        elif element.VR == "AT":
            told[keyword] = "\\".join(f"{value:08X}" for value in values)
        else:
            told[keyword] = "\\".join(map(str, values))
    return told


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
@pytest.mark.filterwarnings("ignore")
def test_an_image_of_any_vendor_is_read_as_a_full_parser_reads_it(file: corpus.File) -> None:
    content = file.content()
    # A stray first byte; cut off within the header; within the pixels.
    if file.path.name in ("no_meta.dcm", "rtplan_truncated.dcm", "MR_truncated.dcm"):
        with pytest.raises(DataSetError):
            read_file(content)
        return
    found = read_file(content)
    parsed = pydicom.dcmread(io.BytesIO(content), force=True)
    assert comparable(found.attributes) == comparable(told_by_pydicom(parsed))
    assert found.region == region_told_by_pydicom(parsed)


components = st.text(st.sampled_from("王小东李^абвéü Wang"), max_size=12)
names = st.lists(components, max_size=3).map("=".join)
texts = st.text(st.sampled_from("胸部平扫 CTäñ-1"), max_size=200)


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """Data sets with every kind of element that a scan must step over."""
    data_set = Dataset()
    optional: dict[str, st.SearchStrategy[Any]] = {
        "StudyDate": st.just("20261103"),
        "ImageType": st.just(["ORIGINAL", "PRIMARY", "AXIAL"]),
        "StudyDescription": texts,
        "PatientName": names,
        "PatientComments": texts,
        "Rows": st.integers(0, 0xFFFF),
        "SliceThickness": st.just("1.25"),
        "PresentationPixelMagnificationRatio": st.floats(width=32, allow_nan=False),
        "RealWorldValueSlope": st.floats(allow_nan=False),
        "FrameIncrementPointer": st.just(0x00181063),
        "SmallestImagePixelValue": st.integers(0, 0x7FFF),
        "CodeValue": st.text(st.sampled_from("T-D3000 胸ñ"), max_size=5),
        "CodingSchemeDesignator": st.sampled_from(["SCT", "SRT"]),
        "CodeMeaning": st.text(st.sampled_from("Thorax 胸部ñ"), max_size=12),
    }
    for keyword, values in optional.items():
        if draw(st.booleans()):
            setattr(data_set, keyword, draw(values))
    if draw(st.booleans()):
        data_set.private_block(0x0009, "HOSPITAL B", create=True)
        data_set.add_new(0x00091001, "UN", draw(st.binary(max_size=40)))
        data_set.add_new(0x00091002, "OB", draw(st.binary(max_size=40)))
    if depth:
        for tag in (0x00081140, 0x00082218, 0x00400275, 0x00091003):
            if tag == 0x00091003 and 0x00090010 not in data_set:
                continue
            if draw(st.booleans()):
                items = draw(st.lists(data_sets(depth=depth - 1), max_size=2))
                for item in items:
                    item.is_undefined_length_sequence_item = draw(st.booleans())
                data_set.add_new(tag, "SQ", Sequence(items))
                data_set[tag].is_undefined_length = draw(st.booleans())
    return data_set


@st.composite
def enhanced(draw: st.DrawFn) -> Dataset:
    """Data sets that may say of all their frames together what they show."""
    data_set = draw(data_sets())
    if draw(st.booleans()):
        frame = draw(data_sets(depth=1))
        anatomy = draw(data_sets(depth=1))
        frame.FrameAnatomySequence = Sequence([anatomy])
        data_set.SharedFunctionalGroupsSequence = Sequence([frame])
        if draw(st.booleans()):
            data_set["SharedFunctionalGroupsSequence"].is_undefined_length = True
            frame["FrameAnatomySequence"].is_undefined_length = True
    return data_set


def region_told_by_pydicom(data_set: Dataset) -> tuple[str, ...] | None:
    """The first code of the region, by a full parser."""
    coded = [*data_set.get("AnatomicRegionSequence", [])]
    for shared in data_set.get("SharedFunctionalGroupsSequence", []):
        for frame in shared.get("FrameAnatomySequence", []):
            coded += frame.get("AnatomicRegionSequence", [])
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    codes = [tuple(str(item.get(one, "")).strip(" ") for one in keywords) for item in coded]
    return next((code for code in codes if any(code)), None)


@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data_set=enhanced())
def test_what_one_hospital_writes_the_exchange_reads(
    transfer_syntax_uid: str, data_set: Dataset
) -> None:
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.PixelRepresentation = 0
    data_set.PatientID = "B-0001"
    file = written(data_set, transfer_syntax_uid)
    found = read_file(file)
    told = told_by_pydicom(pydicom.dcmread(io.BytesIO(file)))
    assert comparable(found.attributes) == comparable(told)
    assert found.region == region_told_by_pydicom(pydicom.dcmread(io.BytesIO(file)))
    assert found.character_set.reason is None


def test_numbers_padding_and_empty_values_are_told_as_text() -> None:
    found = read(
        explicit(0x00080020, "DA", b"20261103")
        + explicit(0x00080050, "SH", b" A1 \\ A2 ")
        + explicit(0x00080060, "CS", b"  ")
        + explicit(0x00081030, "LO", b"\\")
        + explicit(0x00100010, "PN", b"Wang ^XiaoDong  =\0")
        + explicit(0x00100020, "LO", b"B\x0017")
        + explicit(0x00104000, "LT", b"  indented \\ kept ")
        + explicit(0x00280009, "AT", pack("<HH", 0x18, 0x1063))
        + explicit(0x00280010, "US", pack("<HHB", 512, 256, 7))
        + explicit(0x00409224, "FD", pack("<d", -0.5))
    )
    assert found.attributes == {
        "StudyDate": "20261103",
        "AccessionNumber": "A1\\A2",
        "PatientName": "Wang^XiaoDong=",
        "PatientID": "B 17",
        "PatientComments": "  indented \\ kept",
        "FrameIncrementPointer": "00181063",
        "Rows": "512\\256",
        "RealWorldValueIntercept": "-0.5",
    }


@pytest.mark.parametrize("sign", [0, 1])
def test_the_sign_of_a_pixel_value_is_known_without_its_vr(sign: int) -> None:
    value = implicit(0x00280106, pack("<H", 0xFFFE))
    found = read(implicit(0x00280103, pack("<H", sign)) + value, IMPLICIT)
    assert found.attributes["SmallestImagePixelValue"] == ("-2" if sign else "65534")


class CountingReader(io.BytesIO):
    """Knows how many bytes were asked of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_neither_pixel_data_nor_a_huge_private_value_is_read() -> None:
    private = explicit(0x00091001, "OB", bytes(3_000_000))
    pixels = explicit(0x7FE00010, "OW", bytes(5_000_000))
    reader = CountingReader(private + NAME + pixels)
    found = header.read(reader, EXPLICIT, ALL_KEYWORDS)
    assert found.attributes == {"PatientName": "Wang^XiaoDong"}
    assert reader.taken <= 2 * header.WINDOW


ENCAPSULATED = b"".join(
    (
        pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF),
        *(ITEM + pack("<L", len(one)) + one for one in (b"", b"\xff\xd8", bytes(300))),
        SEQUENCE_END,
    )
)


@pytest.mark.parametrize("pixels", [PIXELS, ENCAPSULATED], ids=["native", "encapsulated"])
def test_pixel_data_cut_off_on_the_way_is_noticed_wherever_it_was_cut(pixels: bytes) -> None:
    assert read(NAME + pixels).attributes == {"PatientName": "Wang^XiaoDong"}
    for end in {*range(1, 60), *range(len(pixels) - 60, len(pixels))}:
        with pytest.raises(MalformedDataSet):
            read(NAME + pixels[:end])


def test_what_writers_append_to_the_pixels_is_no_reason_to_refuse() -> None:
    for appended in (bytes(64), explicit(0xFFFCFFFC, "OB", bytes(100)), bytes(1)):
        assert read(NAME + PIXELS + appended).attributes == {"PatientName": "Wang^XiaoDong"}


@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, DEFLATED])
def test_a_header_longer_than_one_read_is_read_on(transfer_syntax_uid: str) -> None:
    for gap in range(header.WINDOW - 44, header.WINDOW + 4):
        data_set = explicit(0x00091001, "OB", bytes(gap)) + NAME + PIXELS
        if transfer_syntax_uid == DEFLATED:
            data_set = zlib.compress(data_set, 1, wbits=-15)
        assert read(data_set, transfer_syntax_uid).attributes == {"PatientName": "Wang^XiaoDong"}


def test_implicit_vr_declared_as_explicit_is_read_as_found_and_the_reverse() -> None:
    bare = implicit(0x00080060, b"CT") + implicit(0x00100020, b"17")
    told = explicit(0x00080060, "CS", b"CT") + explicit(0x00100020, "LO", b"17")
    for declared in (EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.4.70"):
        for data_set in (bare, told):
            assert read(data_set, declared).attributes == {"Modality": "CT", "PatientID": "17"}


def test_odd_unknown_and_private_elements_are_no_reason_to_refuse() -> None:
    found = read(
        explicit(0x00080060, "CS", b"CTX")  # an odd length
        + explicit(0x00090001, "LO", b"no creator")
        + pack("<HH2sHL", 9, 0x1001, b"ZZ", 0, 4)  # a VR of the future, with the long form
        + b"\1\2\3\4"
        + pack("<HH2sH", 9, 0x1002, b"YY", 3)  # one with the short form
        + b"\1\2\3"
        + pack("<HH2sH", 9, 0x1003, b"YY", 0)  # and an empty one
        + explicit(0x00100010, "UN", "Müller".encode("latin_1"))  # a known one as unknown
        + implicit(0x00100020, b"17")  # an implicit element among explicit ones
        + bytes(3)
    )
    assert found.attributes == {"Modality": "CTX", "PatientName": "Müller", "PatientID": "17"}


def test_an_unknown_sequence_of_undefined_length_is_implicit_within() -> None:
    # PS3.5 6.2.2, note on UN; the delimiter's bytes inside of a value end nothing.
    item = ITEM + UNDEFINED + implicit(0x00091002, SEQUENCE_END * 2) + ITEM_END
    unknown = pack("<HH2sH", 9, 0x1001, b"UN", 0) + UNDEFINED + item + SEQUENCE_END
    fragments = ITEM + pack("<L", 4) + b"\1\2\3\4"
    icon = explicit(0x00280010, "US", b"\2\0") + pack("<HH2sH", 0x7FE0, 0x10, b"OB", 0)
    icon += UNDEFINED + fragments * 2 + SEQUENCE_END
    icons = pack("<HH2sH", 0x0088, 0x0200, b"SQ", 0) + UNDEFINED
    icons += ITEM + UNDEFINED + icon + ITEM_END + SEQUENCE_END
    series = explicit(0x02000010, "LO", b"after")
    found = header.read(
        io.BytesIO(unknown + NAME + icons + series), EXPLICIT, {0x02000010: "After"}
    )
    assert found.attributes == {"After": "after"}
    assert read(unknown + NAME).attributes == {"PatientName": "Wang^XiaoDong"}


def nested(depth: int) -> bytes:
    """A private sequence of undefined length, `depth` deep, in explicit VR."""
    opened = pack("<HH2sH", 9, 0x1001, b"SQ", 0) + UNDEFINED + ITEM + UNDEFINED
    return opened * depth + (ITEM_END + SEQUENCE_END) * depth


def test_sequences_as_deep_as_any_real_one_are_walked_and_a_trap_is_refused() -> None:
    found = read(nested(header.DEPTH_LIMIT) + NAME)
    assert found.attributes == {"PatientName": "Wang^XiaoDong"}
    for depth in (header.DEPTH_LIMIT + 1, 10_000):
        with pytest.raises(MalformedDataSet, match="64 nested sequences"):
            read(nested(depth) + NAME)


def test_other_patient_ids_within_other_patient_ids_do_not_deepen_the_scan() -> None:
    inner = b""
    for _ in range(2_000):
        item = explicit(0x00100020, "LO", b"17") + inner
        inner = explicit(0x00101002, "SQ", ITEM + pack("<L", len(item)) + item)
    assert read(inner).other_patient_ids == (OtherID("17"),)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_the_requests_of_a_series_are_read(syntax: str) -> None:
    image = Dataset()
    image.SpecificCharacterSet = "GB18030"
    image.PatientName = "王^小东"
    image.RequestAttributesSequence = Sequence([Dataset() for _ in range(4)])
    image.RequestAttributesSequence[0].RequestedProcedureID = "申请1"
    image.RequestAttributesSequence[0].ScheduledProcedureStepID = "S1 "
    image.RequestAttributesSequence[1].RequestedProcedureID = "R2"
    image.RequestAttributesSequence[3].RequestedProcedureID = "R2"  # the same again

    assert read_file(written(image, syntax)).requests == (("申请1", "S1"), ("R2", ""))


@pytest.mark.parametrize("tag", [0x00082218, 0x52009229])
@pytest.mark.parametrize("length", [None, 20])
def test_a_broken_region_does_not_keep_the_image_out(tag: int, length: int | None) -> None:
    if length is None:  # groups in the wrong order, in a sequence that can be walked
        inside = ITEM + UNDEFINED + explicit(0x00400001, "AE", b"X")
        inside += explicit(0x00080100, "SH", b"51185008") + ITEM_END + SEQUENCE_END
        broken = pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"SQ", 0) + UNDEFINED + inside
    else:
        broken = explicit(tag, "SQ", bytes(length))
    found = read(broken + NAME + PIXELS if tag == 0x00082218 else NAME + broken + PIXELS)

    assert found.attributes == {"PatientName": "Wang^XiaoDong"}
    assert found.region is None


@pytest.mark.parametrize("length", [None, 20])
def test_a_broken_sequence_of_requests_does_not_keep_the_image_out(length: int | None) -> None:
    if length is None:  # groups in the wrong order, in a sequence that can be walked
        inside = ITEM + UNDEFINED + explicit(0x00401001, "SH", b"R1")
        inside += explicit(0x00080060, "CS", b"CT") + ITEM_END + SEQUENCE_END
        broken = pack("<HH2sH", 0x40, 0x275, b"SQ", 0) + UNDEFINED + inside
    else:
        broken = explicit(0x00400275, "SQ", bytes(length))
    found = read(NAME + broken + explicit(0x00401400, "LT", b"kept") + PIXELS)

    assert found.attributes["PatientName"] == "Wang^XiaoDong"
    assert found.attributes["RequestedProcedureComments"] == "kept"
    assert found.requests == ()


@pytest.mark.parametrize(
    ("data_set", "what", "offset"),
    [
        (NAME + pack("<HH2sHL", 0x10, 0x21, b"UT", 0, 0xFFFFFFF0), "longer than", len(NAME)),
        (NAME + explicit(0x00100020, "LO", b"17")[:-1], "longer than", len(NAME)),
        (NAME + b"\x10\0\x20\0LO", "within an element", len(NAME)),
        (NAME + b"\x10\0\x20\0UT\0\0\1\0", "within an element", len(NAME)),
        (NAME + pack("<HHLL", 0x10, 0x20, 0x20202020, 0), "without a VR", len(NAME)),
        (NAME + explicit(0x00080060, "CS", b"CT"), "group 0008 follows group 0010", len(NAME)),
        (pack("<HH2sH", 8, 0x1140, b"SQ", 0) + UNDEFINED + NAME, "neither an item nor", 12),
        (pack("<HH2sH", 8, 0x1140, b"SQ", 0) + UNDEFINED + ITEM, "within a sequence", 12),
        (
            explicit(0x00101002, "SQ", ITEM + pack("<L", 90) + NAME),
            r"\(FFFE,E000\)|\(0010,1002\) is longer than what it lies in",
            12,
        ),
    ],
)
def test_a_data_set_that_breaks_off_is_refused_with_the_place(
    data_set: bytes, what: str, offset: int
) -> None:
    with pytest.raises(MalformedDataSet, match=what) as refusal:
        read(data_set)
    assert refusal.value.offset == offset
    assert "Wang" not in str(refusal.value)


def test_a_deflated_bomb_is_refused_in_little_memory() -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    size = header.INFLATE_LIMIT + (1 << 20)
    bomb = deflate.compress(pack("<HH2sHL", 9, 0x1001, b"OB", 0, size))
    bomb += b"".join(deflate.compress(bytes(1 << 20)) for _ in range(size >> 20))
    bomb += deflate.compress(NAME) + deflate.flush()
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(MalformedDataSet, match="inflates to more than"):
            read(bomb, DEFLATED)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_damaged_or_cut_deflate_stream_is_refused() -> None:
    stream = zlib.compress(NAME * 50, wbits=-15)
    with pytest.raises(MalformedDataSet, match="cut off"):
        read(stream[:-1], DEFLATED)
    with pytest.raises(MalformedDataSet, match="damaged"):
        read(b"\xff" + stream, DEFLATED)


def with_other_ids() -> Dataset:
    qualifiers, own, foreign = Dataset(), Dataset(), Dataset()
    qualifiers.UniversalEntityID = "2.16.156.10011.1.3"
    qualifiers.UniversalEntityIDType = "ISO"
    own.PatientID, own.IssuerOfPatientID, own.TypeOfPatientID = "A-17", "医院甲", "TEXT"
    own.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    foreign.SpecificCharacterSet = "GB18030"
    foreign.PatientID, foreign.IssuerOfPatientID = "B-4", "医院乙"
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.PatientID = "C-9"
    data_set.add_new(0x00101000, "LO", ["OLD-1", "OLD-2"])
    data_set.OtherPatientIDsSequence = [own, foreign, Dataset()]
    data_set.PatientSex = "F"
    return data_set


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_a_patient_s_numbers_elsewhere_come_with_their_issuers(
    transfer_syntax_uid: str, undefined: bool
) -> None:
    data_set = with_other_ids()
    sequence = data_set["OtherPatientIDsSequence"]
    sequence.is_undefined_length = undefined
    for item in sequence.value:
        item.is_undefined_length_sequence_item = undefined
    found = read_file(written(data_set, transfer_syntax_uid))
    assert found.other_patient_ids == (
        OtherID("OLD-1"),
        OtherID("OLD-2"),
        OtherID("A-17", "医院甲", "2.16.156.10011.1.3", "TEXT"),
        OtherID("B-4", "医院乙"),
    )
    assert found.attributes["PatientSex"] == "F"


@pytest.mark.parametrize(
    ("declared", "codec", "reason"),
    [
        (b"GB18030", "gb18030", None),
        (b"ISO_IR 192", "utf_8", None),
        (b"ISO_IR 100", "gbk", IS_GB18030),
        (b"ISO_IR 100", "utf_8", IS_UTF_8),
        (b"\\ISO 2022 IR 58", "gbk", IS_GB18030),
    ],
)
def test_a_chinese_header_is_read_under_a_right_and_a_wrong_declaration(
    declared: bytes, codec: str, reason: str | None
) -> None:
    found = read(
        explicit(0x00080005, "CS", declared)
        + explicit(0x00080080, "LO", "沈阳市第一人民医院".encode(codec))
        + explicit(0x00081030, "LO", "胸部CT平扫\\誠乗".encode(codec))
        + explicit(0x00100010, "PN", "Wang^XiaoDong=王^小东".encode(codec))
        + explicit(0x00180015, "CS", "胸部".encode(codec))
        + PIXELS
    )
    assert found.attributes == {
        "SpecificCharacterSet": declared.decode(),
        "InstitutionName": "沈阳市第一人民医院",
        "StudyDescription": "胸部CT平扫\\誠乗",
        "PatientName": "Wang^XiaoDong=王^小东",
        "BodyPartExamined": "胸部",
    }
    assert found.character_set.declared == declared.decode()
    assert found.character_set.reason == reason


def mutated(file: bytes, chance: random.Random) -> bytes:
    """The file after a few accidents, most of them early, where the header is."""
    data = bytearray(file)
    for _ in range(chance.randint(1, 4)):
        place = min(int(chance.expovariate(1 / 600)), len(data) - 1)
        match chance.randrange(5):
            case 0:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                data[place] = chance.randrange(256)
            case 2:
                del data[place : place + chance.randint(1, 9)]
            case 3:
                data[place:place] = chance.randbytes(chance.randint(1, 9))
            case _:
                del data[max(place, 132) :]
                return bytes(data)
    return bytes(data)


@pytest.mark.parametrize(
    "name", ["CT_small", "MR_small_implicit", "MR_small_bigendian", "image_dfl", "rtplan", "other"]
)
def test_damaged_bytes_are_read_or_refused_and_nothing_else(name: str) -> None:
    if name == "other":
        file = written(with_other_ids(), EXPLICIT)
    else:
        file = (corpus.PYDICOM / "test_files" / f"{name}.dcm").read_bytes()[:20_000]
    chance = random.Random(name)
    tracemalloc.start()
    try:
        for _ in range(500):
            try:
                found = read_file(mutated(file, chance))
            except DataSetError:
                continue
            text = "".join(found.attributes.values())
            assert b"\0" not in text.encode()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN]))
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes, transfer_syntax_uid: str) -> None:
    with contextlib.suppress(DataSetError):
        read(noise, transfer_syntax_uid)
