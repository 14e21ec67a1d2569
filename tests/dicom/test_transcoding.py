"""Whatever is decompressed has the same pixels, and says of them what is true."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, FileMetaDataset, data, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from exchange_dicom import transcoding
from exchange_dicom.scu import File
from exchange_dicom.transcoding import CannotTranscode

BUNDLED = Path(data.__file__).parent / "test_files"
UNREADABLE = {"JPEG-lossy", "JPEG2000-embedded-sequence-delimiter", "SC_rgb_jpeg"}
"""Broken on purpose, or of a kind that pydicom cannot write."""


def lying(path: Path, syntax: str) -> File:
    return File(path, "", "", syntax, path.stat().st_size)


def compressed() -> Iterator[tuple[Path, Dataset]]:
    for path in sorted(BUNDLED.glob("*.dcm")):
        if "TransferSyntaxUID" in (found := dcmread(path, force=True)).file_meta:
            syntax = found.file_meta.TransferSyntaxUID
            if syntax not in transcoding.NATIVE and "PixelData" in found:
                yield path, found


def explicit(path: Path, syntax: str) -> Dataset:
    """A file as a receiver gets it who takes no compression."""
    pieces = transcoding.data_set_of(lying(path, syntax), ExplicitVRLittleEndian)
    whole = io.BytesIO(b"".join(bytes(piece) for piece in pieces))
    image = read_dataset(whole, is_implicit_VR=False, is_little_endian=True)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def test_a_decompressed_image_looks_as_before() -> None:
    failed, done, said = set(), 0, set()
    with warnings.catch_warnings(action="ignore"):  # of what is odd in them, and stays
        for path, sent in compressed():
            try:
                image = explicit(path, sent.file_meta.TransferSyntaxUID)
            except CannotTranscode as error:
                failed.add(path.stem)
                said.add(str(error))
                continue
            assert (image.pixel_array == sent.pixel_array).all(), path.stem
            assert image.PhotometricInterpretation != "YBR_FULL_422", path.stem
            done += 1
    assert failed == UNREADABLE
    assert [one for one in said if "Error" in one] == []  # which tells the asker nothing
    assert done > 25


def test_a_report_in_a_syntax_of_images_is_a_report(tmp_path: Path) -> None:
    report = dcmread(BUNDLED / "reportsi.dcm")
    report.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    report.save_as(tmp_path / "report.dcm")
    assert explicit(tmp_path / "report.dcm", JPEGLosslessSV1) == dcmread(BUNDLED / "reportsi.dcm")


@pytest.mark.parametrize("offered", [[], ["1.2.840.10008.1.2.4.80"]])
def test_nothing_is_compressed(offered: list[str]) -> None:
    with pytest.raises(CannotTranscode):
        transcoding.choose(ExplicitVRLittleEndian, offered)
