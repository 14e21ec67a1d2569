"""Small CT images as Part 10 files, made to order for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.fileset import FileSet
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    generate_uid,
)

RESIDENT_ID_ISSUER = "2.16.156.10011.1.3"


def ct(
    path: Path,
    *,
    patient: str,
    study: str,
    series: str | None = None,
    instance: str | None = None,
    number: int = 1,
    card: str | None = None,
    pixel: int = 0,
    size: int = 64,
    **attributes: str,
) -> Dataset:
    """Write a CT slice of `size`² pixels of one value, and return its data set."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = instance or generate_uid()
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = series or generate_uid(entropy_srcs=[study])
    image.PatientID = patient
    image.PatientName = "Wang^XiaoDong=王^小东"
    image.PatientBirthDate = "19491231"
    image.PatientSex = "F"
    image.StudyDate = "20261101"
    image.StudyTime = "101500"
    image.StudyID = "1"
    image.AccessionNumber = ""
    image.ReferringPhysicianName = ""
    image.Modality = "CT"
    image.SeriesNumber = 1
    image.InstanceNumber = number
    if card is not None:
        other, issuer = Dataset(), Dataset()
        other.PatientID = card
        other.TypeOfPatientID = "TEXT"
        issuer.UniversalEntityID = RESIDENT_ID_ISSUER
        issuer.UniversalEntityIDType = "ISO"
        other.IssuerOfPatientIDQualifiersSequence = [issuer]
        image.OtherPatientIDsSequence = [other]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = size
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = pixel.to_bytes(2, "little") * size * size
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return image


def series_of(
    folder: Path, count: int, *, patient: str, study: str, card: str | None = None, size: int = 64
) -> Iterator[tuple[Path, str]]:
    """Write `count` slices of a new series; yields path and SOP Instance UID of each."""
    series = generate_uid()
    for number in range(1, count + 1):
        path = folder / f"{number:05}.dcm"
        made = ct(
            path,
            patient=patient,
            study=study,
            series=series,
            number=number,
            card=card,
            pixel=number % 4096,
            size=size,
        )
        yield path, str(made.SOPInstanceUID)


def data_set(part10: bytes) -> bytes:
    """The bytes behind preamble and group 2: what has to come back exactly as it was sent."""
    length = int.from_bytes(part10[140:144], "little")
    return part10[144 + length :]


def read(path: Path) -> Dataset:
    """The data set of a file."""
    return dcmread(path)


def files(folder: Path) -> Sequence[Path]:
    """The DICOM files below `folder`."""
    return sorted(folder.rglob("*.dcm"))


def rejection_note(
    code: str,
    *instances: str,
    uid: str = "1.9.1",
    study: str,
    of: str = "",
    kind: str = CTImageStorage,
) -> bytes:
    """A rejection note as a PACS writes it; its images are of the study, unless `of` another."""
    title, reference, series = Dataset(), [], Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, "DCM", "Rejected"
    for one in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, one
        reference.append(item)
    series.ReferencedSOPSequence, series.SeriesInstanceUID = reference, f"{study}.1"
    evidence = Dataset()
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = of or study, [series]
    document = Dataset()
    document.SOPClassUID, document.SOPInstanceUID = KeyObjectSelectionDocumentStorage, uid
    document.StudyInstanceUID, document.SeriesInstanceUID = study, "1.9"
    document.PatientID, document.Modality = "P1", "KO"
    document.ConceptNameCodeSequence = [title]
    document.CurrentRequestedProcedureEvidenceSequence = [evidence]
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, False
    write_dataset(written, document)
    return bytes(written.getvalue())


@contextmanager
def opened_file_set(directory: Path) -> Iterator[FileSet]:
    """The File-set of a DICOMDIR, as pydicom reads it."""
    read = FileSet(dcmread(directory))
    try:
        yield read
    finally:  # pydicom leaves it to the garbage collector, which warns of it
        read._stage["t"].cleanup()
