"""Pictures of what has several: a cine, a series, a study; and the one that stands for all."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import ONE, image_of, sent, shown
from PIL import Image
from pydicom.dataset import Dataset
from web_door import IMAGE, SERIES, STUDY, Door, data_set, parts_of


def slices(count: int = 5) -> list[Dataset]:
    return [
        image_of(
            np.full((16, 16), 100 * number, "<u2"),
            SOPInstanceUID=f"{SERIES}.{number}",
            InstanceNumber=str(number),
            WindowCenter="300",
            WindowWidth="600",
        )
        for number in range(1, count + 1)
    ]


def test_a_cine_is_shown_as_its_first_frame_or_as_an_animation(door: Door) -> None:
    values = np.stack([np.full((16, 16), 60 * number, "<u2") for number in range(4)])
    sent(
        door,
        image_of(values, NumberOfFrames=4, WindowCenter="90", WindowWidth="180", FrameTime="40"),
    )

    animation = Image.open(io.BytesIO(door.get(f"{ONE}/rendered", Accept="image/gif").content))

    assert getattr(animation, "n_frames", 1) == 4
    assert animation.info["duration"] == 40
    tones = []
    for number in range(4):
        animation.seek(number)
        tones.append(int(np.asarray(animation.convert("L")).mean()))
    assert tones[0] == 0
    assert tones == sorted(tones)
    assert int(shown(door).mean()) == 0
    parts = parts_of(
        door.get(f"{ONE}/frames/4,2/rendered", Accept='multipart/related; type="image/png"')
    )
    assert [fields["content-type"] for fields, _ in parts] == ["image/png"] * 2
    assert [int(np.asarray(Image.open(io.BytesIO(one))).mean()) for _, one in parts] == [
        int(shown(door, f"{ONE}/frames/{number}/rendered").mean()) for number in (4, 2)
    ]
    assert door.get(f"{ONE}/frames/1,2/rendered", Accept="image/jpeg").status_code == 406
    assert door.get(f"{ONE}/frames/5/rendered").status_code == 404
    assert door.get(f"{ONE}/frames/0/rendered").status_code == 400


@pytest.mark.parametrize("above", [f"studies/{STUDY}", f"studies/{STUDY}/series/{SERIES}"])
def test_a_series_is_shown_picture_by_picture_or_by_the_one_in_its_middle(
    door: Door, above: str
) -> None:
    report = data_set(
        SOPInstanceUID="1.9", SeriesInstanceUID=f"{STUDY}.2", Rows=None, PixelData=None
    )
    sent(door, *slices(), report)

    parts = parts_of(door.get(f"{above}/rendered"))
    tones = [int(np.asarray(Image.open(io.BytesIO(one))).mean()) for _, one in parts]
    assert len(tones) == 5
    assert tones == sorted(tones)
    assert int(shown(door, f"{above}/rendered").mean()) in range(tones[2] - 1, tones[2] + 2)
    animation = Image.open(io.BytesIO(door.get(f"{above}/rendered", Accept="image/gif").content))
    assert getattr(animation, "n_frames", 1) == 5
    thumbnail = shown(door, f"{above}/thumbnail")
    assert thumbnail.shape == (128, 128)
    assert int(thumbnail.mean()) in range(tones[2] - 1, tones[2] + 2)


def test_a_thumbnail_is_small_and_of_the_frame_that_stands_for_all(door: Door) -> None:
    values = np.stack([np.full((150, 200), 60 * number, "<u2") for number in range(5)])
    sent(door, image_of(values, NumberOfFrames=5, WindowCenter="120", WindowWidth="240"))

    middle = shown(door, f"{ONE}/thumbnail")
    assert middle.shape == (96, 128)
    assert int(middle.mean()) in range(125, 131)
    again = door.get(f"{ONE}/thumbnail?viewport=32,32", Accept="image/jpeg")
    assert again.content == door.get(f"{ONE}/thumbnail?viewport=32,32", Accept="image/*").content
    assert np.asarray(Image.open(io.BytesIO(again.content))).shape == (24, 32)
    assert shown(door, f"{ONE}/frames/1/thumbnail").mean() == 0


def test_a_foreign_client_renders(door: Door) -> None:
    sent(door, *slices())
    client = door.client("dr.nanhu")

    picture = client.retrieve_instance_rendered(STUDY, SERIES, IMAGE, media_types=("image/png",))
    assert Image.open(io.BytesIO(picture)).size == (16, 16)
    picture = client.retrieve_instance_frames_rendered(
        STUDY, SERIES, IMAGE, [1], media_types=("image/jpeg",), params={"quality": 50}
    )
    assert Image.open(io.BytesIO(picture)).format == "JPEG"
    picture = client.retrieve_series_rendered(STUDY, SERIES, media_types=("image/jpeg",))
    assert Image.open(io.BytesIO(picture)).format == "JPEG"
