"""A frame is found where it lies, however long the image is, and read alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from frames import AS_STORED, UNCOMPRESSED, cine, frames_of
from pictures import ONE
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from web_door import Door, data_set, file, parts_of

from exchange_dicom import pixel_data
from exchange_storage.filesystem import FilesystemStore

CINE = 2000


@pytest.fixture
def given_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that the store gave out, by read."""
    sizes: list[int] = []
    stream = FilesystemStore.stream

    def counted(self: FilesystemStore, *asked: Any) -> Iterator[bytes]:
        for piece in stream(self, *asked):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(FilesystemStore, "stream", counted)
    return sizes


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_one_frame_of_a_long_cine_costs_one_frame(
    door: Door, table: str, given_out: list[int]
) -> None:
    frames = frames_of(CINE, 400)
    assert door.send(cine(frames, table)).status_code == 200
    first = door.get(f"{ONE}/frames/1000", Accept=AS_STORED)
    assert parts_of(first)[0][1] == frames[999]
    given_out.clear()

    for number in (1, 1001, CINE):
        answer = door.get(f"{ONE}/frames/{number}", Accept=AS_STORED)
        assert parts_of(answer)[0][1] == frames[number - 1]

    assert sum(given_out) <= 3 * (400 + 16)


@pytest.mark.parametrize(
    ("table", "most"), [("basic", 8), ("extended", 16), ("native", 0), ("none", 420)]
)
def test_the_first_look_at_a_long_cine_reads_its_table_and_no_more(
    door: Door, table: str, most: int, given_out: list[int]
) -> None:
    frames = frames_of(CINE, 400)
    if table == "native":
        image = data_set(
            NumberOfFrames=CINE, Rows=20, Columns=10, PixelData=b"".join(frames), BitsAllocated=16
        )
        sent = door.send(file(image))
    else:
        sent = door.send(cine(frames, table))
    assert sent.status_code == 200
    given_out.clear()

    answer = door.get(f"{ONE}/frames/1500", Accept=AS_STORED)

    assert parts_of(answer)[0][1] == frames[1499]
    head = 64 << 10
    assert sum(given_out) <= head + most * CINE + 1024


def test_the_walk_over_large_fragments_reads_their_heads_only(
    door: Door, given_out: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_data, "WINDOW", 1024)
    frames = frames_of(20, 40_000)
    assert door.send(cine(frames, "none")).status_code == 200
    given_out.clear()

    answer = door.get(f"{ONE}/frames/20", Accept=AS_STORED)

    assert parts_of(answer)[0][1] == frames[19]
    assert sum(given_out) <= (64 << 10) + 40_000 + 5 * 1024


@pytest.mark.parametrize("count", [1, 2])
def test_a_frame_of_very_many_fragments_costs_few_reads(
    door: Door, count: int, given_out: list[int]
) -> None:
    """Fragments may be empty: 2.4 MB of those were 600,000 reads."""
    item, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
    starts = [0, 8 + 4][:count]
    table = b"".join(start.to_bytes(4, "little") for start in starts)
    short = item + (4).to_bytes(4, "little") + b"\xff\x4f\xff\x51"
    frames = short * count + item.ljust(8, b"\0") * 30_000 + short
    image = data_set(NumberOfFrames=count, Rows=64, Columns=64)
    image.PixelData = item + len(table).to_bytes(4, "little") + table + frames + end.ljust(8, b"\0")
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    assert door.send(file(image, str(JPEG2000Lossless))).status_code == 200
    given_out.clear()

    answer = door.get(f"{ONE}/frames/{count}", Accept=AS_STORED)

    assert parts_of(answer)[0][1] == b"\xff\x4f\xff\x51" * 2
    assert len(given_out) < 20


def test_the_places_of_frames_are_remembered_within_a_bound(
    door: Door, monkeypatch: pytest.MonkeyPatch, given_out: list[int]
) -> None:
    assert door.send(cine(frames_of(CINE, 404), "basic")).status_code == 200
    monkeypatch.setattr(pixel_data, "REMEMBERED_BYTES", 16 * CINE - 1)
    costs = []
    for _ in range(2):
        given_out.clear()
        assert door.get(f"{ONE}/frames/1", Accept=AS_STORED).status_code == 200
        costs.append(sum(given_out))

    assert costs[0] == costs[1] > 4 * CINE


def test_the_fragments_of_a_frame_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frames_of(1, 600)
    assert door.send(cine(frame, "none", 3)).status_code == 200
    monkeypatch.setattr(pixel_data, "FRAMES", 2)

    assert door.get(f"{ONE}/frames/1", Accept=AS_STORED).status_code == 413


@pytest.mark.parametrize("table", ["basic", "none"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_frame_may_lie_in_several_fragments(door: Door, table: str, fragments: int) -> None:
    frames = frames_of(5, 600)
    assert door.send(cine(frames, table, fragments)).status_code == 200

    answer = door.get(f"{ONE}/frames/5,1,3", Accept=AS_STORED)

    assert [content for _, content in parts_of(answer)] == [frames[4], frames[0], frames[2]]


def test_frames_of_single_bits_need_not_begin_with_a_byte(door: Door) -> None:
    noise = np.random.default_rng(1).integers(0, 2, (3, 5, 7), np.uint8)
    image = data_set(
        Rows=5,
        Columns=7,
        NumberOfFrames=3,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
        SmallestImagePixelValue=None,
        PixelData=np.packbits(noise, bitorder="little").tobytes(),
    )
    image["PixelData"].VR = "OB"
    assert door.send(file(image)).status_code == 200

    for number, expected in enumerate(noise, 1):
        packed = door.get(f"{ONE}/frames/{number}", Accept="application/octet-stream").content
        single = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[:35]
        assert np.array_equal(single.reshape(5, 7), expected)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_frames_behind_long_sequences_are_found(door: Door, syntax: str) -> None:
    """As enhanced multi-frame images have them: functional groups of every frame."""
    image = data_set(NumberOfFrames=300, PixelData=bytes(range(256)) * 300, Rows=8, Columns=16)
    groups = []
    for number in range(300):
        group, content, voi = Dataset(), Dataset(), Dataset()
        content.StackID = "1"
        content.InStackPositionNumber = number + 1
        voi.WindowCenterWidthExplanation = "x" * 60
        group.FrameContentSequence = [content]
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    assert door.send(file(image, str(syntax))).status_code == 200

    answer = door.get(f"{ONE}/frames/300", Accept=UNCOMPRESSED)

    assert parts_of(answer)[0][1] == bytes(range(256))
