"""The header of a kept file: the same for ever, and read from whatever a hospital hands over."""

from __future__ import annotations

import hashlib
import io
from struct import pack

import pydicom
import pytest

from exchange_dicom.header import EXPLICIT_VR_BIG_ENDIAN, DataSetError
from exchange_dicom.part10 import (
    META_LIMIT,
    FileMeta,
    NotPart10,
    file_meta,
    read_file_meta,
)
from exchange_dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
SOP = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
META = file_meta(CT, SOP, EXPLICIT_VR_LITTLE_ENDIAN)
GROUP_2 = META[132:]
MODALITY = pack("<HH2sH", 8, 0x60, b"CS", 2) + b"CT"


def read(file: bytes) -> FileMeta:
    reader = io.BytesIO(file)
    meta = read_file_meta(reader)
    assert reader.tell() == meta.data_set_offset
    return meta


def test_the_header_of_kept_files_never_changes() -> None:
    # Digests of kept files cover these bytes: this test may not be adapted to a change.
    assert (
        hashlib.sha256(META).hexdigest()
        == "f2edab0d589e5e9ab65e4416d6b7158a68957104d1a15500d27b198b705ee9ac"
    )
    assert IMPLEMENTATION_CLASS_UID == "2.25.254796998370389141030813754796746478165"
    assert len(IMPLEMENTATION_CLASS_UID) <= 64
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_a_uid_is_the_same_with_the_padding_of_the_network_and_without() -> None:
    assert file_meta(CT + "\0", SOP + "\0", EXPLICIT_VR_LITTLE_ENDIAN + " ") == META


def test_other_software_reads_the_header_as_a_dicom_file() -> None:
    meta = pydicom.dcmread(io.BytesIO(META + MODALITY)).file_meta
    assert [element.keyword for element in meta] == [
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
    ]
    assert meta.FileMetaInformationGroupLength == len(GROUP_2) - 12
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPInstanceUID == SOP
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


@pytest.mark.parametrize(
    "header",
    [
        META,
        META[128:],  # no preamble
        GROUP_2,  # no DICM either
        META[:132] + GROUP_2[12:],  # no group length
        META[:140] + b"\xff\0\0\0" + META[144:],  # a wrong one
    ],
)
def test_a_file_is_read_with_or_without_preamble_and_group_length(header: bytes) -> None:
    assert read(header + MODALITY) == FileMeta(CT, SOP, EXPLICIT_VR_LITTLE_ENDIAN, len(header))


@pytest.mark.parametrize(
    ("data_set", "transfer_syntax_uid"),
    [
        (MODALITY, EXPLICIT_VR_LITTLE_ENDIAN),
        (pack("<HHL", 8, 0x60, 2) + b"CT", IMPLICIT_VR_LITTLE_ENDIAN),
        (pack(">HH2sH", 8, 0x60, b"CS", 2) + b"CT", EXPLICIT_VR_BIG_ENDIAN),
    ],
)
def test_a_bare_data_set_tells_its_transfer_syntax_by_its_first_element(
    data_set: bytes, transfer_syntax_uid: str
) -> None:
    assert read(data_set) == FileMeta(None, None, transfer_syntax_uid, 0)
    assert read(META[:132] + data_set) == FileMeta(None, None, transfer_syntax_uid, 132)


def test_a_file_is_read_from_where_the_reader_stands() -> None:
    reader = io.BytesIO(b"part" + META + MODALITY)
    reader.seek(4)
    assert read_file_meta(reader).data_set_offset == 4 + len(META)
    assert reader.read() == MODALITY


def test_a_group_longer_than_one_read_is_read_whole() -> None:
    private = pack("<HH2sHL", 2, 0x0102, b"OB", 0, 9000) + bytes(9000)
    assert read(META + private + MODALITY).data_set_offset == len(META) + len(private)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "empty"),
        (b"%PDF-1.7 not an image at all", "neither a DICM prefix nor"),
        (bytes(300), "neither a DICM prefix nor"),
        (META[:132], "neither a Transfer Syntax UID nor a data set"),
        (META[:150], "ends within group 0002"),
        (META[:-4], "ends within group 0002"),
        (META[:132] + pack("<HH2sHL", 2, 1, b"OB", 0, META_LIMIT), "longer than"),
        (META[:132] + pack("<HH2sH", 2, 16, b"UI", 6) + b"../etc", "not a UID"),
    ],
)
def test_what_is_no_dicom_file_is_refused_in_words(file: bytes, why: str) -> None:
    with pytest.raises(NotPart10, match=why) as refusal:
        read_file_meta(io.BytesIO(file))
    assert isinstance(refusal.value, DataSetError)
