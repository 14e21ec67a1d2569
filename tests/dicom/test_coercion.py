"""Another hospital's PACS reads its own number in the image, and all else as it was sent."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from images import ct, data_set
from pydicom import Dataset, data, dcmread
from pydicom.filereader import read_dataset

from exchange_dicom import part10
from exchange_dicom.coercion import Coercion, coerced
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.transcoding import NATIVE
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

NANHU = Coercion(
    patient_id="N7",
    issuer="2.25.102",
    owner_patient_id="P1",
    owner_issuer="2.25.101",
    institution="北城医院",
    at=datetime(2026, 11, 1, tzinfo=UTC),
    system="Imaging Exchange",
)
CHANGED = {
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OriginalAttributesSequence",
    "InstitutionName",
}


def corpus() -> Iterator[tuple[Path, str]]:
    """Files of pydicom's whose data sets are little endian and readable, and their syntaxes."""
    for path in sorted((Path(data.__file__).parent / "test_files").rglob("*.dcm")):
        try:
            with warnings.catch_warnings(action="ignore"):
                found = dcmread(path)
                found.walk(lambda *_: None)
                syntax = str(found.file_meta.TransferSyntaxUID)
        except Exception:  # noqa: S112 - some of them are broken on purpose
            continue
        deflated_or_big = NATIVE - {EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN}
        if "PatientID" in found and syntax not in deflated_or_big:
            yield path, syntax


def body(path: Path) -> bytes:
    """The data set of a file."""
    with path.open("rb") as opened:
        start = part10.read_file_meta(opened).data_set_offset
    return path.read_bytes()[start:]


def parsed(whole: bytes, syntax: str) -> Dataset:
    return read_dataset(
        io.BytesIO(whole),
        is_implicit_VR=syntax == IMPLICIT_VR_LITTLE_ENDIAN,
        is_little_endian=True,
    )


def test_nothing_else_changes_however_the_data_set_comes() -> None:
    done = 0
    for path, syntax in corpus():
        sent = body(path)
        with suppress(MalformedDataSet):  # it is not written as it says
            whole = b"".join(coerced([sent], syntax, NANHU))
            compare(path.stem, sent, whole, syntax)
            done += 1
    assert done > 50


def compare(name: str, sent: bytes, whole: bytes, syntax: str) -> None:
    for size in (1 << 16, 997):
        pieces = (sent[at : at + size] for at in range(0, len(sent), size))
        assert b"".join(coerced(pieces, syntax, NANHU)) == whole, name
    with warnings.catch_warnings(action="ignore"):
        before, after = parsed(sent, syntax), parsed(whole, syntax)
        assert (after.PatientID, after.IssuerOfPatientID) == ("N7", "2.25.102")
        assert after.OtherPatientIDsSequence[-1].PatientID == "P1"
        original = after.OriginalAttributesSequence[-1]
        assert original.ModifiedAttributesSequence[0].PatientID == before.PatientID
        assert [e.tag for e in after] == sorted(e.tag for e in after), name
        for element in before:
            if element.keyword not in CHANGED and element.tag.element:
                assert after[element.tag].value == element.value, name


@pytest.mark.parametrize(
    ("declared", "name", "institution"),
    [
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", "北城医院"),
        ("GB18030", "Wang^XiaoDong=王^小东", "北城医院"),
        ("GBK", "Wang^XiaoDong=王^小东", "北城医院"),
        ("", "Wang^XiaoDong", None),  # it cannot be written there
    ],
)
def test_what_is_added_is_written_in_the_images_own_character_set(
    tmp_path: Path, declared: str, name: str, institution: str | None
) -> None:
    ct(tmp_path / "one.dcm", patient="P1", study="1.2.3", SpecificCharacterSet=declared,
       PatientName=name)  # fmt: skip
    sent = data_set((tmp_path / "one.dcm").read_bytes())
    hanzi = replace(NANHU, patient_id="住院7", owner_patient_id="门诊1")
    if declared:
        after = parsed(
            b"".join(coerced([sent], EXPLICIT_VR_LITTLE_ENDIAN, hanzi)), EXPLICIT_VR_LITTLE_ENDIAN
        )
        assert (after.PatientID, after.PatientName) == ("住院7", name)
        assert after.OtherPatientIDsSequence[-1].PatientID == "门诊1"
    else:  # rather not at all than under another number
        with pytest.raises(MalformedDataSet):
            b"".join(coerced([sent], EXPLICIT_VR_LITTLE_ENDIAN, hanzi))
        after = parsed(
            b"".join(coerced([sent], EXPLICIT_VR_LITTLE_ENDIAN, NANHU)), EXPLICIT_VR_LITTLE_ENDIAN
        )
    assert after.get("InstitutionName") == institution
