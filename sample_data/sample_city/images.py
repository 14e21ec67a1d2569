"""Image-level modules of CT, MR, DX, CR and US objects (PS3.3 C.7.6, C.8), one data set each.

Each function yields what differs from instance to instance of one series; patient, study, series
and equipment are added by `generation`. Windows are chosen so that a viewer opens every picture as
a radiologist wants it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from . import phantoms
from .phantoms import Lesion


@dataclass(frozen=True, slots=True)
class Image:
    """One instance without its patient: its class, its encoding, its image-level attributes."""

    sop_class_uid: UID
    transfer_syntax_uid: UID
    attributes: Dataset


@dataclass(frozen=True, slots=True)
class Subject:
    """Who lies in the scanner: own noise, own size, and a lesion or none."""

    rng: np.random.Generator
    scale: float
    """How much larger than the phantom, as a factor of the pixel spacing."""
    lesion: bool


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def ds(*values: float) -> list[str] | str:
    """Decimal strings of at most 16 characters (PS3.5 6.2)."""
    texts = [f"{value:.6g}" for value in values]
    return texts if len(texts) > 1 else texts[0]


def pixels(
    array: NDArray[np.uint16] | NDArray[np.uint8], photometric: str, bits_stored: int
) -> Dataset:
    """The Image Pixel Module (C.7.6.3) of unsigned values: ([frames,] rows, columns[, 3])."""
    image = Dataset()
    colour = photometric == "RGB"
    image.SamplesPerPixel = 3 if colour else 1
    image.PhotometricInterpretation = photometric
    if colour:
        image.PlanarConfiguration = 0
    image.Rows, image.Columns = array.shape[-3:-1] if colour else array.shape[-2:]
    image.BitsAllocated = array.dtype.itemsize * 8
    image.BitsStored, image.HighBit = bits_stored, bits_stored - 1
    image.PixelRepresentation = 0
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    image.PixelData = little.tobytes()
    image["PixelData"].VR = "OW" if image.BitsAllocated > 8 else "OB"
    return image


def place(image: Dataset, spacing: float, y_middle: float, z: float, thickness: float) -> None:
    """The Image Plane Module (C.7.6.2) of an axial slice, its matrix centred on x = 0."""
    image.PixelSpacing = ds(spacing, spacing)
    image.ImageOrientationPatient = ds(1, 0, 0, 0, 1, 0)
    x0 = -(image.Columns - 1) / 2 * spacing
    image.ImagePositionPatient = ds(x0, -(image.Rows - 1) / 2 * spacing + y_middle, z)
    image.SliceThickness = ds(thickness)
    image.SliceLocation = ds(z)


def window(image: Dataset, *windows: tuple[float, float, str]) -> None:
    """The VOI LUT Module (C.11.2): (centre, width, explanation), the first being the default."""
    centres, widths, names = zip(*windows, strict=True)
    image.WindowCenter, image.WindowWidth = ds(*centres), ds(*widths)
    image.WindowCenterWidthExplanation = list(names)


def heights(middle: float, count: int, step: float) -> list[float]:
    """`count` slice positions (mm) around `middle`, from the head downwards."""
    return [round(middle + (count - 1) * step / 2 - i * step, 3) for i in range(count)]


def ct(contrast: str, count: int, subject: Subject) -> Iterator[Image]:
    """An axial series of the "chest", the "chest contrast" or the "head"."""
    head = contrast == "head"
    spacing = phantoms.HEAD_SPACING if head else phantoms.CHEST_SPACING
    middle, step = (12.0, 4.5) if head else (0.0, 5.0)
    lesion = Lesion((27, -4, 12), 5.0, 14.0) if head else Lesion((-78, -14, 2.5), 6.0, 35.0)
    for z in heights(middle, count, step):
        array = phantoms.ct_slice(contrast, z, subject.rng, lesion if subject.lesion else None)
        image = pixels(array, "MONOCHROME2", 12)
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        place(image, spacing * subject.scale, 0 if head else 8, z, step)
        image.RescaleIntercept, image.RescaleSlope = str(phantoms.CT_INTERCEPT), "1"
        image.RescaleType = "HU"
        image.KVP, image.XRayTubeCurrent, image.ExposureTime = "120", "220", "500"
        image.ConvolutionKernel = "H30s" if head else "B40f"
        image.ReconstructionDiameter = ds(512 * spacing * subject.scale)
        image.GantryDetectorTilt = "0"
        image.AcquisitionNumber = 1
        image.PatientPosition = "HFS"
        if contrast == "chest contrast":
            image.ContrastBolusAgent = "Iohexol 350"
            image.ContrastBolusRoute = "IV"
        if head:
            window(image, (38, 85, "BRAIN"), (500, 2000, "BONE"))
        elif contrast == "chest":
            window(image, (-550, 1500, "LUNG"), (40, 380, "MEDIASTINUM"))
        else:
            window(image, (50, 380, "MEDIASTINUM"), (-550, 1500, "LUNG"))
        yield Image(CTImageStorage, ExplicitVRLittleEndian, image)


def mr(contrast: str, count: int, subject: Subject) -> Iterator[Image]:
    """An axial spin-echo series, T1 or T2 weighted, of the head."""
    lesion = Lesion((27, -4, 10), 4.5, 200.0 if contrast == "T1" else 1050.0)
    for z in heights(14, count, 5.5):
        array = phantoms.mr_slice(contrast, z, subject.rng, lesion if subject.lesion else None)
        image = _mr_image(array, contrast, subject, z)
        yield Image(MRImageStorage, ExplicitVRLittleEndian, image)


def mr_localizer(count: int, subject: Subject) -> Iterator[Image]:
    """A few widely spaced slices, RLE Lossless as some scanners send them (PS3.5 A.4.2)."""
    for z in heights(10, count, 30):
        fine = phantoms.mr_slice("T1", z, subject.rng, None)
        side = phantoms.MR_MATRIX // 2
        array = fine.reshape(side, 2, side, 2).mean((1, 3)).astype(np.uint16)
        image = _mr_image(array, "T1", subject, z)
        frame = RLELosslessEncoder.encode(
            array,
            encoding_plugin="pydicom",
            rows=image.Rows,
            columns=image.Columns,
            number_of_frames=1,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=12,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
        image.PixelData = encapsulate([frame])
        image["PixelData"].VR = "OB"
        yield Image(MRImageStorage, RLELossless, image)


def _mr_image(array: NDArray[np.uint16], contrast: str, subject: Subject, z: float) -> Dataset:
    image = pixels(array, "MONOCHROME2", 12)
    t1 = contrast == "T1"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    spacing = phantoms.MR_SPACING * phantoms.MR_MATRIX / image.Columns
    place(image, spacing * subject.scale, 0, z, 5.0)
    image.SpacingBetweenSlices = "5.5"
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "SK", ""
    image.MRAcquisitionType = "2D"
    image.RepetitionTime, image.EchoTime = ("500", "9") if t1 else ("4800", "102")
    image.EchoTrainLength = 1 if t1 else 15
    image.FlipAngle, image.MagneticFieldStrength, image.ImagedNucleus = "90", "3", "1H"
    image.AcquisitionNumber = 1
    image.PatientPosition = "HFS"
    window(image, (450, 900, "T1") if t1 else (560, 1150, "T2"))
    return image


def dx(count: int, subject: Subject) -> Iterator[Image]:
    """Chest PA on a flat panel (C.8.11), FOR PRESENTATION, bone bright."""
    for _ in range(count):
        array = phantoms.chest_radiograph(subject.rng, inverted=False)
        image = pixels(array, "MONOCHROME2", 12)
        image.ImageType = ["ORIGINAL", "PRIMARY", ""]
        image.PresentationIntentType = "FOR PRESENTATION"
        image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = "LOG", -1
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "0", "1", "US"
        image.PresentationLUTShape = "IDENTITY"
        image.LossyImageCompression, image.BurnedInAnnotation = "00", "NO"
        image.ImageLaterality = "U"
        image.AnatomicRegionSequence = [code("43799004", "SCT", "Thorax")]
        image.DetectorType, image.DetectorID = "SCINTILLATOR", "FPD-3543"
        image.ImagerPixelSpacing = ds(phantoms.DX_SPACING, phantoms.DX_SPACING)
        image.PositionerType = "COLUMN"
        image.ViewPosition, image.PatientOrientation = "PA", ["L", "F"]
        image.AcquisitionContextSequence = []
        image.KVP, image.Exposure = "120", 3
        window(image, (1750, 3100, "NORMAL"))
        yield Image(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, image)


def cr(count: int, subject: Subject) -> Iterator[Image]:
    """Chest PA from an older imaging plate: MONOCHROME1, which a viewer inverts (C.7.6.3.1.2)."""
    for _ in range(count):
        array = phantoms.chest_radiograph(subject.rng, inverted=True)
        image = pixels(array, "MONOCHROME1", 12)
        image.ImageType = ["ORIGINAL", "PRIMARY"]
        image.ViewPosition, image.PatientOrientation = "PA", ["L", "F"]
        image.ImagerPixelSpacing = ds(phantoms.DX_SPACING, phantoms.DX_SPACING)
        image.PlateType, image.KVP = "IP-ST", "110"
        image.PresentationLUTShape = "INVERSE"
        window(image, (2345, 3100, "NORMAL"))
        yield Image(ComputedRadiographyImageStorage, ExplicitVRLittleEndian, image)


def us_cine(frames: int, subject: Subject) -> Iterator[Image]:
    """One multi-frame RGB loop of `frames` frames with colour flow (C.8.5.6, C.7.6.5)."""
    phases = [frame / frames for frame in range(frames)]
    loop = [
        phantoms.colour_flow(phantoms.liver_ultrasound(phase, stone=subject.lesion), phase)
        for phase in phases
    ]
    image = pixels(np.stack(loop), "RGB", 8)
    _ultrasound(image, "0011", colour=True)
    image.NumberOfFrames = frames
    image.FrameTime = "100"
    image.FrameIncrementPointer = 0x00181063  # Frame Time
    image.CineRate = image.RecommendedDisplayFrameRate = 10
    yield Image(UltrasoundMultiFrameImageStorage, ExplicitVRLittleEndian, image)


def us_still(count: int, subject: Subject) -> Iterator[Image]:
    """Grey single frames: MONOCHROME2, 8 bits."""
    for moment in subject.rng.integers(0, 16, count):
        array = phantoms.liver_ultrasound(float(moment) / 16, stone=subject.lesion)
        image = pixels(array, "MONOCHROME2", 8)
        _ultrasound(image, "0001", colour=False)
        yield Image(UltrasoundImageStorage, ExplicitVRLittleEndian, image)


def _ultrasound(image: Dataset, mode: str, *, colour: bool) -> None:
    image.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", mode]
    image.UltrasoundColorDataPresent = int(colour)
    image.LossyImageCompression, image.BurnedInAnnotation = "00", "NO"
    image.PatientOrientation = ""
    image.TransducerType = "CURVED LINEAR"
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionFlags = 2
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 30, 18
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 608, 470
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = phantoms.US_SPACING / 10
    image.SequenceOfUltrasoundRegions = [region]


_KEPT = (
    *("ImageType", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows"),
    *("Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("NumberOfFrames", "FrameTime", "FrameIncrementPointer", "SequenceOfUltrasoundRegions"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "DerivationDescription", "PixelData"),
)


def borrowed(names: Sequence[str]) -> Iterator[Image]:
    """Really compressed ultrasound from the files inside pydicom's wheel, stripped to its pixels.

    Raises FileNotFoundError where a repackaged pydicom comes without them.
    """
    for name in names:
        path = get_testdata_file(name, download=False)
        if not isinstance(path, str):
            raise FileNotFoundError(f"pydicom's test file {name} is not installed")
        source = dcmread(path)
        image = Dataset()
        for keyword in _KEPT:
            if keyword in source:
                image[keyword] = source[keyword]
        image.PatientOrientation = ""
        if image.LossyImageCompression == "01":
            image.LossyImageCompressionMethod = "ISO_10918_1"
        yield Image(source.SOPClassUID, source.file_meta.TransferSyntaxUID, image)
