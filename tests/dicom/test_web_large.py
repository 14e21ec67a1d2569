"""Images of usual size by WADO-RS: they are sent from the files where they lie."""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from web_door import STUDY, Door, body_of, data_set, empty, file, parts_of

PIXELS = random.Random(1).randbytes(300_000)
IN_PARTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with empty(tmp_path) as made:
        yield made


def large(number: int, private: int = 8) -> bytes:
    """With so many bytes of private data before what a coercion adds."""
    image = data_set(SOPInstanceUID=f"1.2.9.{number}", InstanceNumber=number, PixelData=PIXELS)
    block = image.private_block(0x0019, "BEICHENG", create=True)
    block.add_new(1, "OB", bytes(private))
    return file(image)


def data_sets(door: Door, who: str) -> list[Dataset]:
    answer = door.get(f"studies/{STUDY}", who, Accept=IN_PARTS)
    assert answer.status_code == 200, answer.text
    return [pydicom.dcmread(io.BytesIO(content)) for _, content in parts_of(answer)]


def test_a_study_is_sent_to_its_own_hospital_as_it_came_with_its_length(door: Door) -> None:
    images = [large(number) for number in range(3)]
    assert door.send(*images).status_code == 200

    answer = door.get(f"studies/{STUDY}", Accept=IN_PARTS)

    assert int(answer.headers["content-length"]) == len(answer.content)
    assert [body_of(content) for _, content in parts_of(answer)] == list(map(body_of, images))
    packed = door.get(f"studies/{STUDY}", Accept="application/zip").content
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        assert [body_of(files.read(one)) for one in files.namelist()] == list(map(body_of, images))


@pytest.mark.parametrize("private", [8, 60_000, 200_000])
def test_another_hospital_gets_it_under_its_own_number_however_long_the_head(
    door: Door, private: int
) -> None:
    assert door.send(large(1, private), large(2, private)).status_code == 200
    here, there = data_sets(door, "dr.beicheng"), data_sets(door, "dr.nanhu")

    for kept, sent in zip(here, there, strict=True):
        assert sent.PixelData == PIXELS
        assert sent[0x00191001].value == bytes(private)
        changed = sent.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
        assert changed.PatientID == kept.PatientID
        assert sent.InstitutionName != kept.get("InstitutionName")
        assert sent.IssuerOfPatientID
        unchanged = [one for one in kept if one.tag not in sent or sent[one.tag] != one]
        assert unchanged == []


def test_an_image_that_the_disk_has_cut_short_is_not_sent_for_whole(
    door: Door, tmp_path: Path
) -> None:
    assert door.send(large(1)).status_code == 200
    (image,) = (one for one in door.city.exchange.objects.list("studies/") if one.size > 300_000)
    (place,) = tmp_path.rglob(image.key.rpartition("/")[2])
    os.truncate(place, 200_000)

    answer = door.get(f"studies/{STUDY}", Accept=IN_PARTS)

    assert answer.status_code == 503
