"""A damaged image keeps nobody busy, and fills no memory, when somebody wants to see it."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator

import corpus
import pytest
from kept import held
from pydicom import dcmread
from pydicom.encaps import generate_frames

from exchange_dicom import codestream, differences, frame_coding, pixel_data, transcoding
from exchange_dicom.part10 import read_file_meta
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

JPEG_LS, JPEG_2000 = "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"
JPEG = "SC_rgb_jpeg_dcmtk.dcm"
WHAT_IT_IS_ABOUT = "JPEG2000-embedded-sequence-delimiter.dcm"
"""Its width has been overwritten by pydicom's authors."""

JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
HEADER = b"\0\0\0\x08jp2h"
GREY = b"\xff\x4f\xff\x51" + struct.pack(">HHLLLLLLLLH", 41, 0, 16, 16, 0, 0, 16, 16, 0, 0, 1)
CODESTREAM = b"\0\0\0\x08jp2c"
SIZED_JP2 = b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "


def frames() -> Iterator[tuple[str, bytes, tuple[int, int, int]]]:
    """Every compressed frame of the corpus, and its rows, columns and samples."""
    for file in corpus.files():
        with warnings.catch_warnings(action="ignore"):
            told = dcmread(io.BytesIO(file.content()), force=True)
        syntax = told.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(told) else None
        if syntax is None or not syntax.is_encapsulated or "PixelData" not in told:
            continue
        count = int(told.get("NumberOfFrames", 1) or 1)
        for frame in generate_frames(told.PixelData, number_of_frames=count):
            yield file.path.name, frame, (told.Rows, told.Columns, told.SamplesPerPixel)


def test_no_sound_frame_is_objected_to() -> None:
    objected = {
        name: why for name, frame, size in frames() if (why := codestream.objection(frame, *size))
    }
    assert objected.keys() == {WHAT_IT_IS_ABOUT}


def sound(name: str) -> tuple[bytes, str]:
    """The data set of a file of the corpus, and its transfer syntax."""
    (file,) = [one for one in corpus.files() if one.path.name == name]
    reader = io.BytesIO(file.content())
    syntax = read_file_meta(reader).transfer_syntax_uid
    return reader.read(), syntax


def lines(body: bytes, marker: bytes, count: int) -> bytes:
    """The data set with another number of lines in the frame header behind `marker`."""
    at = body.index(marker) + len(marker) + 3
    return body[:at] + count.to_bytes(2, "big") + body[at + 2 :]


def wrapped(body: bytes, boxes: bytes) -> bytes:
    """The data set with `boxes` put before its JPEG 2000 codestream, over what follows."""
    at = body.index(b"\xff\x4f\xff\x51")
    return body[:at] + boxes + body[at + len(boxes) :]


@pytest.mark.parametrize(
    ("name", "marker", "count"),
    [
        (JPEG_LS, b"\xff\xf7", 65535),
        (JPEG_LS, b"\xff\xf7", 0),
        (JPEG, b"\xff\xc0", 65535),
        (JPEG, b"\xff\xc0", 0),
    ],
)
def test_a_frame_that_claims_to_be_larger_than_its_image_is_not_decoded(
    name: str, marker: bytes, count: int
) -> None:
    body, syntax = sound(name)
    refused(lines(body, marker, count), syntax)


@pytest.mark.parametrize(
    ("name", "marker", "place", "components"),
    [
        (JPEG_2000, b"\xff\x4f\xff\x51", 36, b"\x40\x00"),
        (JPEG_LS, b"\xff\xf7", 7, b"\xff"),
        (JPEG, b"\xff\xc0", 7, b"\xff"),
    ],
)
def test_a_frame_that_claims_more_components_than_its_image_has_is_not_decoded(
    name: str, marker: bytes, place: int, components: bytes
) -> None:
    """JPEG 2000 may have 16,384 of them: of 49 KB its decoder would make more than a gigabyte."""
    body, syntax = sound(name)
    at = body.index(marker) + len(marker) + place
    claimed = body[:at] + components + body[at + len(components) :]
    refused(claimed, syntax)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("box", [bytes(8), b"\0\0\0\1jp2h", b"\0\0\0\x07xxxx"])
def test_a_frame_whose_boxes_have_no_end_is_not_followed(box: bytes) -> None:
    body, syntax = sound(JPEG_2000)
    refused(wrapped(body, JP2 + SIZED_JP2 + box), syntax)


def refused(body: bytes, syntax: str) -> None:
    """Neither the instance nor its frame is had uncompressed or compared; both as they are."""
    kept = held(body, syntax)
    with pytest.raises(CannotTranscode, match="codestream"):
        list(transcoding.data_set_of(kept, EXPLICIT_VR_LITTLE_ENDIAN))
    known = pixel_data.pixels(kept)
    frame = pixel_data.stored_frame(kept, known, 1)
    with pytest.raises(CannotTranscode, match="codestream"):
        frame_coding.decoded(known, syntax, frame)
    whole = b"".join(kept.stream())
    assert "the codestream" in differences.pixels(lambda *_: whole, "one", "other")
    assert b"".join(transcoding.data_set_of(kept, syntax)) == body


def test_a_decoder_that_panics_has_only_not_decoded() -> None:
    """What pylibjpeg-rle raises at a run beyond the end is not an Exception."""
    body, syntax = sound("SC_rgb_rle_16bit.dcm")
    delimiter = 8
    damaged = body[: -delimiter - 4] + b"\x81" * 4 + body[-delimiter:]
    with pytest.raises(CannotTranscode, match=codestream.UNREADABLE):
        list(transcoding.data_set_of(held(damaged, syntax), EXPLICIT_VR_LITTLE_ENDIAN))
    known = pixel_data.pixels(kept := held(damaged, syntax))
    with pytest.raises(CannotTranscode, match=codestream.UNREADABLE):
        frame_coding.decoded(known, syntax, pixel_data.stored_frame(kept, known, 1))


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", ""),
        (b"RLE or whatever", ""),
        (b"\xff\xd8\xff\xd9", "does not say"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0", "does not say"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\x10\0\x10\1", ""),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\x10\0\x10\2", "components"),
        (b"\xff\xd8\xff\xff\xff\xe0\0\x02\xff\xc0\0\x0b\x08\0\x11\0\x10\1", "larger"),
        (b"\xff\xd8\xff\xf8\0\x04\4\0\xff\xf7\0\x0b\x08\0\x10\0\x10\1", "does not say"),
        (b"\xff\x4f\xff\x51\0\x29", "does not say"),
        (JP2, "does not say"),
        (JP2 + HEADER + b"\0\0\0\x08jp2c" + GREY, ""),
        # Behind the header as it ends a decoder would see the middle of a box, for ever.
        (JP2 + b"\0\0\0\x10jp2h\0\0\0\x18colr" + bytes(16) + CODESTREAM + GREY, "does not say"),
        (JP2 + b"\0\0\0\x20jp2h\0\0\0\x18colr" + bytes(16) + CODESTREAM + GREY, ""),
        (JP2 + HEADER + b"\0\0\0\x0bpclr\0\1\xff\0\0\0\x08jp2c" + GREY, "components"),
    ],
)
def test_a_frame_is_judged_by_its_headers(frame: bytes, why: str) -> None:
    objection = codestream.objection(frame, 16, 16, 1)
    assert why in objection
    assert bool(why) == bool(objection)
