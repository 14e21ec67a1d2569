"""Bulk data by DICOMweb: every value that the metadata name by a URI, whole or in ranges."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from region import ADMINISTRATOR
from web_door import IMAGE, SERIES, STUDY, Door, data_set, file, parts_of

from exchange import consent

ONE = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"
PIXELS = f"{ONE}/bulkdata/7FE00010"
OCTETS = "application/octet-stream"
NOISE = random.Random(4).randbytes(300_000)


def waveform() -> Dataset:
    """A waveform with its samples in a sequence, two groups of them, and something private."""
    groups = []
    for number in range(2):
        group = Dataset()
        group.NumberOfWaveformChannels = 1
        group.WaveformBitsAllocated = 16
        group.add_new(0x54001010, "OW", NOISE[number * 2000 : number * 2000 + 2000])
        groups.append(group)
    made = data_set(PixelData=None, WaveformSequence=groups)
    made.private_block(0x0019, "SOMEBODY", create=True).add_new(0x10, "OB", NOISE[:200_000])
    return made


def uris(told: Any) -> dict[str, str]:
    """The URIs of bulk data in metadata, by tag as the last was found."""
    found: dict[str, str] = {}
    for tag, element in told.items():
        if "BulkDataURI" in element:
            found[tag] = element["BulkDataURI"]
        for item in element.get("Value", []):
            if element["vr"] == "SQ":
                found |= {f"{tag}.{below}": uri for below, uri in uris(item).items()}
    return found


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ],
)
def test_what_the_metadata_name_can_be_had(door: Door, syntax: str) -> None:
    original = waveform()
    assert door.send(file(original, str(syntax))).status_code == 200

    (told,) = door.get(f"{ONE}/metadata").json()

    assert uris(told) == {
        "00191010": f"{door.root}/{ONE}/bulkdata/00191010",
        "54000100.54001010": f"{door.root}/{ONE}/bulkdata/54000100/2/54001010",
    }
    for number, group in enumerate(original.WaveformSequence, 1):
        path = f"{ONE}/bulkdata/54000100/{number}/54001010"
        # Whose words pydicom writes as it was given them.
        order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
        straight = np.frombuffer(group[0x54001010].value, order)
        answer = door.get(path, Accept=OCTETS)
        assert answer.headers["content-type"].startswith(OCTETS)
        assert np.array_equal(np.frombuffer(answer.content, "<u2"), straight), number
    private = door.get(f"{ONE}/bulkdata/00191010")
    assert private.content == NOISE[:200_000]
    assert int(private.headers["content-length"]) == 200_000


def test_a_foreign_client_follows_the_uri_of_the_pixels(door: Door) -> None:
    assert door.send(file(data_set())).status_code == 200
    client = door.client("dr.nanhu")
    told = client.retrieve_instance_metadata(STUDY, SERIES, IMAGE)

    uri = told["7FE00010"]["BulkDataURI"]

    assert client.retrieve_bulkdata(uri) == [b"\0\1\2\3\4\5\6\7"]
    assert client.retrieve_bulkdata(uri, byte_range=(2, 4)) == [b"\2\3\4"]


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100000-200000", 100_000, 200_000),
        ("bytes=299990-", 299_990, 299_999),
        ("bytes=299990-999999999", 299_990, 299_999),
        ("bytes=-5", 299_995, 299_999),
        ("bytes=-999999999", 0, 299_999),
    ],
)
def test_a_range_of_the_pixels_is_had_alone(
    door: Door, syntax: str, asked: str, first: int, last: int
) -> None:
    image = data_set(PixelData=NOISE, Rows=300, Columns=500)
    assert door.send(file(image, str(syntax))).status_code == 200
    straight = NOISE
    if syntax == ExplicitVRBigEndian:  # the same
        straight = np.frombuffer(NOISE, ">u2").astype("<u2").tobytes()

    part = door.get(PIXELS, Accept=OCTETS, Range=asked)

    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes {first}-{last}/300000"
    assert part.content == straight[first : last + 1]
    assert int(part.headers["content-length"]) == last - first + 1


def test_a_range_beyond_the_end_is_told_and_odd_ones_are_ignored(door: Door) -> None:
    assert door.send(file(data_set())).status_code == 200

    beyond = door.get(PIXELS, Accept=OCTETS, Range="bytes=8-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */8")
    assert door.get(PIXELS, Accept=OCTETS, Range="bytes=-0").status_code == 416
    for ignored in ("bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "nonsense"):
        whole = door.get(PIXELS, Accept=OCTETS, Range=ignored)
        assert (whole.status_code, whole.content) == (200, b"\0\1\2\3\4\5\6\7")
    tag = whole.headers["ETag"]
    assert door.get(PIXELS, Accept=OCTETS, Range="bytes=0-1", If_Range=tag).status_code == 206
    assert door.get(PIXELS, Accept=OCTETS, Range="bytes=0-1", If_Range='"x"').status_code == 200
    assert door.get(PIXELS, Accept=OCTETS, If_None_Match=tag).status_code == 304


def test_compressed_pixels_are_frames_each_in_its_part(door: Door) -> None:
    image = data_set(NumberOfFrames=3)
    frames = [b"\xff\x4f\xff\x51" + bytes([number]) * 10 for number in range(3)]
    image.PixelData = encapsulate(frames)
    icon = data_set(PixelData=encapsulate([frames[1]]), SpecificCharacterSet=None)
    for one in (image, icon):
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
    image.IconImageSequence = [icon]
    assert door.send(file(image, str(JPEG2000Lossless))).status_code == 200

    parts = parts_of(door.get(f"{ONE}/pixeldata"))
    assert [content for _, content in parts] == frames
    assert {fields["content-type"] for fields, _ in parts} == {
        f"image/jp2; transfer-syntax={JPEG2000Lossless}"
    }
    (told,) = door.get(f"{ONE}/metadata").json()
    small = door.get(uris(told)["00880200.7FE00010"].removeprefix(f"{door.root}/"))
    assert (small.headers["content-type"], small.content) == ("image/jp2", frames[1])


def test_a_video_is_one_stream_with_ranges(door: Door) -> None:
    image = data_set(NumberOfFrames=300)
    image.PixelData = encapsulate([NOISE], 3, has_bot=False)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    image = pydicom.dcmread(io.BytesIO(file(image, str(JPEG2000Lossless))))
    image.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    written = io.BytesIO()
    image.save_as(written, enforce_file_format=True)
    assert door.send(written.getvalue()).status_code == 200

    whole = door.get(PIXELS, Accept="video/mp4")
    assert (whole.headers["content-type"], whole.content) == ("video/mp4", NOISE)
    part = door.get(PIXELS, Accept="*/*", Range="bytes=99990-200010")
    assert (part.status_code, part.content) == (206, NOISE[99_990:200_011])
    assert part.headers["content-range"] == "bytes 99990-200010/300000"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("7FE00010/1/00100010", 404),
        ("7FE00008", 404),
        ("00400275", 404),
        ("54000100", 404),
        ("54000100/3/54001010", 404),
        ("54000100/1/54001011", 404),
        ("54000100/0/54001010", 400),
        ("54000100/1", 400),
        ("PixelData", 400),
        ("7fe0001", 400),
        ("/".join(["54000100/1"] * 70) + "/54001010", 400),
    ],
)
def test_what_is_no_bulk_data_is_told(door: Door, path: str, status: int) -> None:
    assert door.send(file(waveform())).status_code == 200

    assert door.get(f"{ONE}/bulkdata/{path}").status_code == status


def test_bulk_data_pass_the_gate(door: Door) -> None:
    assert door.send(file(data_set())).status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    assert door.get(PIXELS, "dr.nanhu").status_code == 404
    assert door.get(PIXELS, "dr.beicheng").status_code == 200
    assert door.get(PIXELS, Accept="text/html").status_code == 406
    assert door.get(f"{ONE}/bulkdata/00100010").content.startswith(b"Wang^XiaoDong")
