"""What a reviewer is shown of two instances in conflict: the values, not how they are written."""

from __future__ import annotations

import struct

import pytest
from caller import CT, EXPLICIT, INSTANCE, element, image

from exchange_dicom import data_set
from exchange_dicom.differences import Difference, differences
from exchange_dicom.part10 import file_meta
from exchange_dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN

RLE = "1.2.840.10008.1.2.5"
PIXEL_DATA = 0x7FE00010
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def found(one: tuple[str, bytes], other: tuple[str, bytes]) -> list[Difference]:
    """What differs between two data sets, each with its transfer syntax."""
    kept = {
        str(number): file_meta(CT, INSTANCE, syntax) + body
        for number, (syntax, body) in enumerate((one, other))
    }
    told = differences(lambda key, at, length: kept[key][at : at + length], *kept)
    return [one for one in told if one.attribute != "TransferSyntaxUID"]


def encapsulated(*fragments: bytes) -> bytes:
    """Pixel data of one frame, behind an empty offset table (PS3.5 A.4)."""
    items = b"".join(ITEM + struct.pack("<L", len(one)) + one for one in (b"", *fragments))
    return struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + items + END


@pytest.mark.parametrize("size", [64, 4096, 200_000])
def test_the_same_pixels_written_in_another_way_are_no_difference(size: int) -> None:
    body = image(pixels=element(PIXEL_DATA, "OW", bytes(size)))
    other = b"".join(data_set.implicit(data_set.elements(body, EXPLICIT)))
    assert found((EXPLICIT, body), (IMPLICIT_VR_LITTLE_ENDIAN, other)) == []


def test_of_other_pixels_the_value_is_counted_and_not_what_is_around_it() -> None:
    bodies = [image(pixels=element(PIXEL_DATA, "OW", bytes(size))) for size in (64, 200_000)]
    assert found((EXPLICIT, bodies[0]), (EXPLICIT, bodies[1])) == [
        Difference("PixelData", "64 bytes", "200000 bytes")
    ]


def test_one_stream_in_other_fragments_is_no_difference() -> None:
    one, other = (
        image(pixels=encapsulated(b"streamed")),
        image(pixels=encapsulated(b"st", b"reamed")),
    )
    assert found((RLE, one), (RLE, other)) == []
    shorter = image(pixels=encapsulated(b"st", b"ream"))
    assert found((RLE, one), (RLE, shorter)) == [Difference("PixelData", "8 bytes", "6 bytes")]


def test_what_follows_the_pixels_is_no_part_of_them() -> None:
    padded = image() + element(0xFFFCFFFC, "OB", bytes(10))
    (told,) = found((EXPLICIT, image()), (EXPLICIT, padded))
    assert told.attribute == "DataSetTrailingPadding"


def test_pixels_that_end_too_early_differ_as_they_are() -> None:
    (cut,) = found((RLE, image(pixels=encapsulated(b"streamed"))), (RLE, image(pixels=b"")[:-10]))
    assert cut.attribute == "PixelData"
