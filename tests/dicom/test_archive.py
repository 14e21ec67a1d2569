"""Studies as ZIP archives, which any tool opens, made while they are sent."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest
from region import ADMINISTRATOR
from web_door import IMAGE, SERIES, STUDY, Door, body_of, ct

from exchange import consent
from exchange_dicom.archive import archive

ZIP = "application/zip"


@pytest.mark.parametrize(
    ("path", "count"),
    [
        (f"studies/{STUDY}", 3),
        (f"studies/{STUDY}/series/{SERIES}", 2),
        (f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}", 1),
    ],
)
def test_a_study_is_had_as_an_archive(door: Door, path: str, count: int) -> None:
    other = f"{STUDY}.2"
    images = [ct(1), ct(2), ct(3, SeriesInstanceUID=other)]
    assert door.send(*images).status_code == 200

    answer = door.get(path, Accept=ZIP)

    assert (answer.status_code, answer.headers["content-type"]) == (200, ZIP)
    assert answer.headers["content-disposition"] == f'attachment; filename="{STUDY}.zip"'
    opened = zipfile.ZipFile(io.BytesIO(answer.content))
    assert opened.testzip() is None
    assert opened.namelist() == [
        f"{SERIES}/{SERIES}.1.dcm", f"{SERIES}/{SERIES}.2.dcm", f"{other}/{SERIES}.3.dcm"
    ][:count]  # fmt: skip
    for name, image in zip(opened.namelist(), images, strict=False):
        assert body_of(opened.read(name)) == body_of(image)
        assert pydicom.dcmread(io.BytesIO(opened.read(name))).PatientID == "P1"
    again = door.get(f"{path}?accept={ZIP}")
    assert again.content == answer.content


@pytest.mark.parametrize("series", ["..", ".", ".1"])
def test_nothing_in_an_archive_lies_outside_of_its_folder(door: Door, series: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # pydicom would not write such a UID
        image = ct(1, SeriesInstanceUID=series)
    assert door.send(image).status_code == 200

    answer = door.get(f"studies/{STUDY}", Accept=ZIP)

    opened = zipfile.ZipFile(io.BytesIO(answer.content))
    assert opened.namelist() == [f"_{series}/{SERIES}.1.dcm"]


def test_an_archive_passes_the_gate(door: Door) -> None:
    assert door.send(ct(1)).status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    assert door.get(f"studies/{STUDY}", "dr.nanhu", Accept=ZIP).status_code == 404
    assert door.get("studies/1.2.3", Accept=ZIP).status_code == 404


def test_a_foreign_tool_opens_an_archive_of_large_files(tmp_path: Path) -> None:
    noise = random.Random(2)
    files = {f"{number}/a.dcm": noise.randbytes(400_000) for number in range(5)}
    made = tmp_path / "made.zip"
    pieces = archive(
        (path, (content[at : at + 70_000] for at in range(0, len(content), 70_000)))
        for path, content in files.items()
    )

    longest = 0
    with made.open("wb") as file:
        for piece in pieces:
            longest = max(longest, len(piece))
            file.write(piece)

    assert longest < 200_000
    with zipfile.ZipFile(made) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == files
    if tool := shutil.which("unzip"):
        done = subprocess.run([tool, "-tqq", str(made)], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
