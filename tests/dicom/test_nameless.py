"""An image that is to name nobody has nothing left of its patient, and every pixel."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from exchange_dicom import nameless
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.part10 import file_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
TELLING = ("Wang", "王", "P12345", "19491231", "Bei Cheng", "Li^Na", "secret", "A-77", "13800")


def image() -> Dataset:
    """A CT slice that says who the patient is in every place where it can."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = CT, "1.2.3.4"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    made.StudyDate, made.Modality, made.AccessionNumber = "20261101", "CT", "A-77"
    made.InstitutionName, made.ReferringPhysicianName = "Bei Cheng", "Li^Na"
    made.PatientName, made.PatientID = "Wang^XiaoDong=王^小东", "P12345"
    made.PatientBirthDate, made.PatientSex, made.PatientAge = "19491231", "F", "076Y"
    made.PatientTelephoneNumbers, made.PatientComments = "13800", "secret"
    made.StudyDescription, made.ImageComments = "Chest", "secret"
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "P12345", "TEXT"
    made.OtherPatientIDsSequence = [other]
    request = Dataset()
    request.AccessionNumber, request.RequestedProcedureDescription = "A-77", "secret"
    made.RequestAttributesSequence = [request]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "L", "kept"
    observer = Dataset()
    observer.PersonName, observer.PersonIdentificationCodeSequence = "Li^Na", [code]
    code_with_person = Dataset()
    code_with_person.CodeValue, code_with_person.CodeMeaning = "2", "also kept"
    code_with_person.OperatorsName = "Li^Na"
    made.ProcedureCodeSequence = [code_with_person]
    made.ContentCreatorName = "Li^Na"
    replaced = Dataset()
    replaced.ModifiedAttributesSequence = [other]
    made.OriginalAttributesSequence = [replaced]
    made.private_block(0x0009, "SECRET", create=True).add_new(1, "LO", "secret")
    made.Rows = made.Columns = 2
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = b"\1\2\3\4\5\6\7\x08"
    return made


def written(made: Dataset, *, implicit: bool = False) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, made)
    return buffer.getvalue()


def stripped(data: bytes, syntax: str, piece: int = 1 << 16) -> bytes:
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    return b"".join(bytes(one) for one in nameless.nameless(pieces, syntax))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("piece", [1 << 16, 7])
def test_nothing_of_the_patient_is_left_and_every_pixel_is(syntax: str, piece: int) -> None:
    data = written(image(), implicit=syntax == ImplicitVRLittleEndian)

    out = stripped(data, syntax, piece)

    for word in TELLING:
        assert word.encode() not in out, word
    read = dcmread(io.BytesIO(file_meta(CT, "1.2.3.4", syntax) + out))
    assert read.PixelData == b"\1\2\3\4\5\6\7\x08"
    assert (read.PatientName, read.PatientID) == (nameless.NAME, nameless.NUMBER)
    assert (read.PatientSex, read.PatientAge) == ("F", "076Y")
    assert read.PatientIdentityRemoved == "YES"
    assert (read.StudyInstanceUID, read.StudyDate) == ("1.2.3", "20261101")
    assert read.StudyDescription == "Chest"
    assert read.ProcedureCodeSequence[0].CodeMeaning == "also kept"
    assert "OperatorsName" not in read.ProcedureCodeSequence[0]
    tags = [element.tag for element in read]
    assert tags == sorted(tags)


def test_an_image_that_says_that_it_shows_a_name_is_not_made_nameless() -> None:
    made = image()
    made.BurnedInAnnotation = "YES"
    with pytest.raises(MalformedDataSet):
        stripped(written(made), ExplicitVRLittleEndian)


def test_only_images_are_made_nameless() -> None:
    assert nameless.can_be(CT)
    assert not nameless.can_be("1.2.840.10008.5.1.4.1.1.88.11")
    assert not nameless.can_be("1.2.840.10008.5.1.4.1.1.104.1")
