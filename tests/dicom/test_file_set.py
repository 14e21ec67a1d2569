"""A DICOMDIR leads whoever reads media to every file of the study, as pydicom and DCMTK read it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from images import opened_file_set
from pydicom import dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
)

from exchange_dicom import file_set
from exchange_dicom.file_set import Contents, Group, Member

CONCEPT = {
    "vr": "SQ",
    "Value": [
        {
            "00080100": {"vr": "SH", "Value": ["11528-7"]},
            "00080102": {"vr": "SH", "Value": ["LN"]},
            "00080104": {"vr": "LO", "Value": ["放射学报告"]},
        }
    ],
}


def member(sop_class: str, number: int, model: dict[str, object] | None = None) -> Member:
    return Member(
        sop_class_uid=sop_class,
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        instance_number=str(number),
        model=model or {},
    )


CONTENTS = Contents(
    patient_id="B1",
    patient_name="Wang^XiaoDong=王^小东",
    study_instance_uid="1.2.3",
    study_date="20261101",
    study_time="101500",
    study_id="",
    study_description="胸部CT",
    accession_number="A1",
    series=(
        Group(
            series_instance_uid="1.2.3.100",
            modality="CT",
            series_number="3",
            members=tuple(member(str(CTImageStorage), number) for number in range(1, 4)),
        ),
        Group(
            series_instance_uid="1.2.3.200",
            modality="SR",
            series_number="",
            members=(
                member(
                    str(BasicTextSRStorage),
                    9,
                    {
                        "0040A043": CONCEPT,
                        "0040A491": {"vr": "CS", "Value": ["COMPLETE"]},
                        "0040A493": {"vr": "CS", "Value": ["VERIFIED"]},
                        "00080023": {"vr": "DA", "Value": ["20261101"]},
                        "00080033": {"vr": "TM", "Value": ["101500"]},
                    },
                ),
                member(str(EncapsulatedPDFStorage), 10),
                member(str(KeyObjectSelectionDocumentStorage), 11),
            ),
        ),
    ),
)


def test_every_file_of_the_study_is_found_through_the_directory(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(file_set.directory(CONTENTS))
    for series, group in enumerate(CONTENTS.series, 1):
        for place, _ in enumerate(group.members, 1):
            path = tmp_path.joinpath(*file_set.file_id(series, place))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    with opened_file_set(tmp_path / "DICOMDIR") as read:
        assert read.find_values("PatientID") == ["B1"]
        assert str(read.find_values("PatientName")[0]).startswith("Wang^XiaoDong=王^小东")
        assert read.find_values("StudyInstanceUID") == ["1.2.3"]
        assert read.find_values("Modality") == ["CT", "SR"]
        assert {
            str(one.ReferencedSOPInstanceUIDInFile): Path(one.path).parts[-3:] for one in read
        } == {
            f"1.2.3.{number}": file_set.file_id(series, place)
            for series, numbers in ((1, (1, 2, 3)), (2, (9, 10, 11)))
            for place, number in enumerate(numbers, 1)
        }


def test_a_title_longer_than_a_value_can_be_keeps_no_study_from_being_taken_along(
    tmp_path: Path,
) -> None:
    title: dict[str, object] = {"00420010": {"vr": "ST", "Value": ["胸部" * 40_000]}}
    document = member(str(EncapsulatedPDFStorage), 10, title)
    group = replace(CONTENTS.series[1], members=(document,))
    path = tmp_path / "DICOMDIR"
    path.write_bytes(file_set.directory(replace(CONTENTS, series=(group,))))

    told = dcmread(path).DirectoryRecordSequence[-1].DocumentTitle

    assert told == "胸部" * 512


def test_records_are_of_the_types_of_their_classes_and_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(file_set.directory(CONTENTS))

    records = dcmread(path).DirectoryRecordSequence

    assert [one.DirectoryRecordType for one in records] == [
        *("PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE", "IMAGE"),
        *("SERIES", "SR DOCUMENT", "ENCAP DOC", "KEY OBJECT DOC"),
    ]
    assert records[7].ConceptNameCodeSequence[0].CodeMeaning == "放射学报告"
    assert records[7].VerificationFlag == "VERIFIED"
    assert records[1].StudyID == "1"


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(file_set.directory(CONTENTS))
    done = subprocess.run(
        ["dcmdump", "+L", "+P", "DirectoryRecordType", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DirectoryRecordType") == 10
    assert done.stderr == ""
