"""Pictures by DICOMweb, compared with the standard's formulas and with what others make of them."""

from __future__ import annotations

import io
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import ONE, RAMP, Picture, alike, image_of, sent, shown, windowed
from PIL import Image, ImageCms
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
)
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from region import ADMINISTRATOR
from web_door import STUDY, Door, body_of, data_set, empty, file, kept

from exchange import consent
from exchange.errors import NotFound, TooLarge
from exchange_dicom.grey_values import CannotRender
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.rendering import Presentation, Rendering
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.viewport import PIXEL_LIMIT

# Grey values


@pytest.mark.parametrize("function", ["linear", "linear-exact", "sigmoid"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (1000, 1), (-500.5, 2500.5)])
def test_a_window_shows_what_the_standard_says(
    door: Door, function: str, center: float, width: float
) -> None:
    sent(door, image_of(RescaleSlope="0.5", RescaleIntercept="-24"))

    made = shown(door, f"{ONE}/rendered?window={center},{width},{function}")

    assert alike(made, windowed(RAMP * 0.5 - 24, center, width, function))


@pytest.mark.parametrize("name", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_the_window_is_the_image_s_own_unless_another_is_asked_for(
    door: Door, name: str | None
) -> None:
    own: dict[str, Any] = {"WindowCenter": [300, 50], "WindowWidth": [900, 350]}
    image = image_of(**own, RescaleSlope="1", RescaleIntercept="-1024")
    if name:
        image.VOILUTFunction = name
    sent(door, image)

    function = (name or "LINEAR").lower().replace("_", "-")

    assert alike(shown(door), windowed(RAMP - 1024.0, 300, 900, function))
    assert alike(shown(door, f"{ONE}/rendered?window=0,10"), windowed(RAMP - 1024.0, 0, 10))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_monochrome_1_is_shown_inverted_and_padding_does_not_count(door: Door, syntax: str) -> None:
    values = RAMP.copy()
    values[:10] = -2000
    image = image_of(values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000)
    if syntax == ExplicitVRBigEndian:
        image.PixelData = values.astype(">i2").tobytes()
    sent(door, image, syntax=str(syntax))

    low, high = int(values[10:].min()), int(values.max())

    expected = 255 - windowed(values, (low + high) / 2, high - low, "linear-exact")
    assert alike(shown(door), expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_lookup_tables_are_applied(door: Door, syntax: str) -> None:
    modality, voi = Dataset(), Dataset()
    image = image_of(RAMP, ModalityLUTSequence=[modality], VOILUTSequence=[voi])
    modality.LUTDescriptor, modality.ModalityLUTType = [1000, -500, 16], "US"
    modality.LUTData = [3 * entry for entry in range(1000)]
    voi.LUTDescriptor = [2000, 500, 12]
    voi.LUTData = [4095 - entry for entry in range(2000)]
    for table in (modality, voi):
        table["LUTDescriptor"].VR, table["LUTData"].VR = "SS", "US"
    sent(door, image, syntax=str(syntax))

    def through(value: int) -> int:
        entry = 3 * min(max(value + 500, 0), 999)
        return round((4095 - min(max(entry - 500, 0), 1999)) / 4095 * 255)

    assert alike(shown(door), np.array([[through(int(x)) for x in row] for row in RAMP]))


def test_each_frame_has_its_own_window(door: Door) -> None:
    values = np.stack([RAMP, RAMP + 500, RAMP + 1000])
    image = image_of(values, NumberOfFrames=3)
    shared, rescale = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "2", "-10", "US"
    shared.PixelValueTransformationSequence = [rescale]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [Dataset() for _ in values]
    for number, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        voi = Dataset()
        voi.WindowCenter, voi.WindowWidth = str(1000 * number), "1500"
        group.FrameVOILUTSequence = [voi]
    sent(door, image)

    for number in range(3):
        made = shown(door, f"{ONE}/frames/{number + 1}/rendered")
        assert alike(made, windowed(values[number] * 2.0 - 10, 1000 * number, 1500))
    assert alike(shown(door), windowed(values[0] * 2.0 - 10, 0, 1500))


# As others show it


SAMPLES = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm", "693_J2KI.dcm", "JPEG2000.dcm", "JPGExtended.dcm",
    "JPEGLSNearLossless_16.dcm", "examples_overlay.dcm", "examples_palette.dcm",
    "examples_rgb_color.dcm", "examples_ybr_color.dcm", "examples_jpeg2k.dcm",
    "SC_rgb_rle_16bit.dcm", "SC_rgb_small_odd.dcm", "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_jpeg_dcmtk.dcm", "image_dfl.dcm", "liver_1frame.dcm", "rtdose.dcm",
]  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Images by many makers."""
    with empty(tmp_path_factory.mktemp("samples")) as door:
        for number, name in enumerate(SAMPLES, 1):
            image = pydicom.dcmread(str(get_testdata_file(name)))
            image.StudyInstanceUID = f"1.2.3.{number}"
            image.SeriesInstanceUID = f"1.2.3.{number}.1"
            uid = UID(f"1.2.3.{number}.1.1")
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
            written = io.BytesIO()
            with warnings.catch_warnings(action="ignore"):
                image.save_as(written, enforce_file_format=True)
            assert door.send(written.getvalue()).status_code == 200
        yield door


def expected_of(name: str) -> Picture:
    """The first frame as pydicom shows it."""
    image = pydicom.dcmread(str(get_testdata_file(name)))
    frame = pixel_array(image, index=0)
    if image.PhotometricInterpretation == "PALETTE COLOR":
        return np.asarray(apply_color_lut(frame, image)) >> 8
    if image.SamplesPerPixel == 3:
        return np.asarray(frame) >> int(image.BitsAllocated - 8)
    values = apply_voi_lut(apply_modality_lut(frame, image), image).astype(float)
    if "WindowCenter" in image:
        whole = np.array([0, 2**image.BitsStored - 1.0])
        if image.PixelRepresentation:
            whole -= 2 ** (image.BitsStored - 1)
        low, high = apply_modality_lut(whole, image)
    else:
        low, high = values.min(), max(values.max(), values.min() + 1)
    grey = np.clip((values - low) / (high - low) * 255, 0, 255).round()
    if (0x6000, 0x3000) in image:
        grey[image.overlay_array(0x6000) == 1] = 255
    return np.asarray(grey)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_is_shown_as_another_reader_shows_it(samples: Door, name: str) -> None:
    number = SAMPLES.index(name) + 1
    path = f"studies/1.2.3.{number}/series/1.2.3.{number}.1/instances/1.2.3.{number}.1.1/rendered"
    answer = samples.get(path, Accept="image/png")
    assert answer.status_code == 200, answer.text
    made = np.asarray(Image.open(io.BytesIO(answer.content)))

    with warnings.catch_warnings(action="ignore"):
        expected = expected_of(name)

    if name == "liver_1frame.dcm":
        assert set(np.unique(made)) == {0, 255}
    assert alike(made, expected, 2)
    lossy = samples.get(path, Accept="image/jpeg")
    again = np.asarray(Image.open(io.BytesIO(lossy.content)))
    assert again.shape == made.shape
    if made.shape[0] > 20:
        assert np.mean(np.abs(again.astype(int) - made.astype(int))) < 6


def test_overlays_are_drawn_where_they_lie(door: Door) -> None:
    image = image_of(np.zeros((8, 8), "<u2"), WindowCenter="100", WindowWidth="200")
    block = np.array([[1, 0], [1, 1], [0, 1]], np.uint8)
    image.add_new(0x60020010, "US", 3)
    image.add_new(0x60020011, "US", 2)
    image.add_new(0x60020040, "CS", "G")
    image.add_new(0x60020050, "SS", [0, 7])
    image.add_new(0x60020100, "US", 1)
    image.add_new(0x60020102, "US", 0)
    image.add_new(0x60023000, "OW", np.packbits(block, bitorder="little").tobytes() + b"\0")
    sent(door, image)

    expected = np.zeros((8, 8), int)
    expected[0:2, 6:8] = block[1:] * 255  # its first row lies above the image

    assert alike(shown(door), expected, 0)


def test_of_overlays_only_the_plane_that_is_drawn_is_unpacked(door: Door) -> None:
    """Planes follow each other without padding; what else lies behind them is left alone."""
    image = image_of(np.zeros((2, 8, 8), "<u2"), WindowCenter="100", WindowWidth="200")
    image.NumberOfFrames = 2
    planes = np.random.default_rng(1).integers(0, 2, (2, 3, 3), np.uint8)
    packed = np.packbits(planes, bitorder="little").tobytes()
    image.add_new(0x60020010, "US", 3)
    image.add_new(0x60020011, "US", 3)
    image.add_new(0x60020015, "IS", "2")
    image.add_new(0x60020040, "CS", "G")
    image.add_new(0x60020050, "SS", [1, 1])
    image.add_new(0x60020051, "US", 1)
    image.add_new(0x60020100, "US", 1)
    image.add_new(0x60020102, "US", 0)
    image.add_new(0x60023000, "OW", packed.ljust(4 << 20, b"\0"))
    rendering = Rendering(kept(body_of(file(image)), str(ExplicitVRLittleEndian)))

    tracemalloc.start()
    try:
        made = np.asarray(rendering.picture(2, Presentation()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert np.array_equal(made[:3, :3], planes[1] * 255)
    assert peak < 8 << 20


# Sizes


def test_a_picture_is_fitted_into_the_viewport(door: Door) -> None:
    sent(door, image_of())

    assert shown(door, f"{ONE}/rendered?viewport=32,32").shape == (24, 32)
    assert shown(door, f"{ONE}/rendered?viewport=512,96").shape == (96, 128)
    region = shown(door, f"{ONE}/rendered?viewport=20,10&window=0,4000,linear")
    assert region.shape == (10, 13)


def test_a_region_is_shown_alone_and_flipped_where_its_sides_are_negative(door: Door) -> None:
    sent(door, image_of())
    whole = shown(door, f"{ONE}/rendered?window=1000,4000")

    part = shown(door, f"{ONE}/rendered?window=1000,4000&viewport=20,10,8,4,20,10")
    flipped = shown(door, f"{ONE}/rendered?window=1000,4000&viewport=20,10,8,4,-20,-10")
    rest = shown(door, f"{ONE}/rendered?window=1000,4000&viewport=56,40,8,8,,")

    assert np.array_equal(part, whole[4:14, 8:28])
    assert np.array_equal(flipped, part[::-1, ::-1])
    assert np.array_equal(rest, whole[8:, 8:])
    outside = door.get(f"{ONE}/rendered?viewport=20,10,64,0,20,10")
    assert outside.status_code == 406


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ({"PixelSpacing": [2, 1]}, (96, 64)),
        ({"PixelSpacing": [1, 2]}, (48, 128)),
        ({"PixelSpacing": None, "PixelAspectRatio": [3, 1]}, (144, 64)),
        ({"PixelSpacing": [0, 1]}, (48, 64)),
    ],
)
def test_pixels_that_are_not_square_are_shown_as_they_were_taken(
    door: Door, told: dict[str, Any], shape: tuple[int, int]
) -> None:
    sent(door, image_of(**told))

    assert shown(door).shape == shape


def test_the_quality_of_a_jpeg_is_what_was_asked(door: Door) -> None:
    sent(door, image_of(np.random.default_rng(1).integers(0, 4000, (64, 64)).astype("<u2")))

    sizes = [len(door.get(f"{ONE}/rendered?quality={quality}").content) for quality in (5, 50, 100)]

    assert sizes[0] < sizes[1] < sizes[2]


# Answers


@pytest.mark.parametrize(
    "query",
    [
        "window=1", "window=1,0.5", "window=1,0,sigmoid", "window=1,2,cubic", "window=nan,3",
        "window=1,inf", "window=a,b", "window=,5", "viewport=0,5", "viewport=5", "viewport=1,2,3",
        "viewport=99999,5", "viewport=5,5,-1,0,5,5", "viewport=5,5,0,0,0,5", "quality=0",
        "quality=101", "quality=high", "quality=1e1",
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_words(samples: Door, query: str) -> None:
    path = "studies/1.2.3.1/series/1.2.3.1.1/instances/1.2.3.1.1.1"

    answer = samples.get(f"{path}/rendered?{query}")

    assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request")


def test_parameters_that_take_no_part_are_announced(samples: Door) -> None:
    path = "studies/1.2.3.1/series/1.2.3.1.1/instances/1.2.3.1.1.1/rendered"

    answer = samples.get(f"{path}?charset=utf-8&colour=blue&quality=50")

    assert answer.status_code == 200
    assert "parameters not used: charset, one that is not known" in answer.headers["Warning"]
    assert "Warning" not in samples.get(f"{path}?window=1,2&accept=image/png").headers
    assert samples.get(path, Accept="image/webp").status_code == 406


def test_colours_are_shown_as_their_profile_means_them(door: Door) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The same with the names of two primaries exchanged: what it calls red is green.
    own = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    told: dict[str, Any] = {
        "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
        "Rows": 4, "Columns": 4, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
        "PixelRepresentation": 0, "SmallestImagePixelValue": None, "PixelData": red.tobytes(),
    }  # fmt: skip
    sent(door, data_set(**told, ICCProfile=own))

    def colour(asked: str, kind: str = "image/png") -> tuple[int, ...]:
        answer = door.get(f"{ONE}/rendered{asked}", Accept=kind)
        assert answer.status_code == 200, answer.text
        with Image.open(io.BytesIO(answer.content)) as opened:
            profiles.append(opened.info.get("icc_profile"))
            return tuple(np.asarray(opened.convert("RGB"))[1, 1].tolist())

    profiles: list[bytes | None] = []
    assert colour("") == colour("?iccprofile=no") == colour("?iccprofile=yes") == (255, 0, 0)
    assert colour("?iccprofile=SRGB") == (0, 255, 0)
    colour("?iccprofile=yes", "image/jpeg")
    assert profiles[:3] + profiles[4:] == [None, None, own, own]
    made = slice(24, 36)  # the moment at which a profile was made
    assert (profiles[3] or b"").replace((profiles[3] or b"")[made], srgb[made]) == srgb
    assert door.get(f"{ONE}/rendered?iccprofile=adobergb").status_code == 400


def test_an_image_without_a_profile_is_srgb_and_gray_has_none(door: Door) -> None:
    sent(door, image_of())
    answer = door.get(f"{ONE}/rendered?iccprofile=yes", Accept="image/png")
    with Image.open(io.BytesIO(answer.content)) as opened:
        assert "icc_profile" not in opened.info


@pytest.mark.parametrize("profile", [b"no profile", bytes(128), b""])
def test_a_profile_that_is_none_is_said_to_be_so(door: Door, profile: bytes) -> None:
    colours = {
        "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "SmallestImagePixelValue": None, "PixelData": bytes(12),
    }  # fmt: skip
    sent(door, data_set(**colours, ICCProfile=profile))

    status = door.get(f"{ONE}/rendered?iccprofile=srgb", Accept="image/png").status_code

    assert status == (406 if profile else 200)


def test_what_is_no_image_is_not_shown(door: Door) -> None:
    sent(door, data_set(Rows=None, PixelData=None))

    assert door.get(f"{ONE}/rendered").status_code == 404
    assert door.get(f"studies/{STUDY}/thumbnail").status_code == 404


def test_an_encapsulated_report_is_shown_as_the_document_that_it_is(door: Door) -> None:
    document = b"%PDF-1.4\n" + bytes(range(256)) * 300 + b"%%EOF\n"
    report = data_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", Rows=None, PixelData=None)
    report.EncapsulatedDocument = document
    report.MIMETypeOfEncapsulatedDocument = "application/pdf"
    sent(door, report)

    for accept in ("application/pdf", "text/html, */*;q=0.1"):
        answer = door.get(f"{ONE}/rendered", Accept=accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
        assert answer.content == document
    assert door.get(f"{ONE}/rendered", Accept="image/jpeg").status_code == 406
    tag = answer.headers["ETag"]
    assert door.get(f"{ONE}/rendered", If_None_Match=tag).status_code == 304
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    assert door.get(f"{ONE}/rendered", "dr.nanhu").status_code == 404


def test_what_cannot_be_decoded_is_not_acceptable(door: Door) -> None:
    image = image_of()
    image.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
    image["PixelData"].is_undefined_length = True
    sent(door, image, syntax=str(JPEG2000Lossless))

    answer = door.get(f"{ONE}/rendered")

    assert (answer.status_code, "decoded" in answer.json()["detail"]) == (406, True)


def everything() -> bytes:
    """An image with all that a picture is made of."""
    modality, voi, shared, group = Dataset(), Dataset(), Dataset(), Dataset()
    image = image_of(
        np.stack([RAMP[:8, :8]] * 2),
        NumberOfFrames=2,
        RescaleSlope="2",
        RescaleIntercept="-10",
        PixelPaddingValue=-5,
        WindowCenter=["40", "50"],
        WindowWidth=["400", "350"],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[group, group],
    )
    for table in (modality, voi):
        table.LUTDescriptor, table.LUTData = [4, 0, 8], [1, 2, 3, 4]
        table["LUTDescriptor"].VR, table["LUTData"].VR = "SS", "US"
    group.FrameVOILUTSequence = [voi]
    image.add_new(0x60000010, "US", 8)
    image.add_new(0x60000011, "US", 8)
    image.add_new(0x60000050, "SS", [1, 1])
    image.add_new(0x60003000, "OW", bytes(8))
    return body_of(file(image))


EVERYTHING = everything()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_image_is_shown_or_said_to_be_damaged(data: st.DataObject) -> None:
    content = bytearray(EVERYTHING)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 129))
        content[at] = data.draw(st.integers(0, 255))

    with suppress(CannotRender, CannotTranscode, MalformedDataSet, NotFound, TooLarge):
        picture = Rendering(kept(bytes(content), str(ExplicitVRLittleEndian))).picture(
            2, Presentation()
        )
        assert picture.width * picture.height <= PIXEL_LIMIT


@pytest.mark.parametrize("limit", ["PIXEL_LIMIT", "HEAD_LIMIT", "GIF_PIXELS"])
def test_pictures_have_limits(door: Door, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(door, image_of())
    monkeypatch.setattr(f"exchange_dicom.rendering.{limit}", 100)

    assert door.get(f"{ONE}/rendered", Accept="image/gif").status_code == 413


def test_large_frames_wait_for_each_other_and_all_are_shown(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(door, image_of())
    monkeypatch.setattr("exchange_dicom.frame_coding.LARGE", 0)

    def asked(number: int) -> int:
        frame = door.get(f"{ONE}/frames/1", Accept="image/jls")
        return max(frame.status_code, door.get(f"{ONE}/rendered?window={number},9").status_code)

    with ThreadPoolExecutor(6) as askers:
        assert set(askers.map(asked, range(12))) == {200}


def test_pictures_have_an_entity_tag_of_all_that_was_asked(door: Door) -> None:
    sent(door, image_of())
    path = f"{ONE}/rendered?window=1000,2000"
    tag = door.get(path).headers["ETag"]

    assert door.get(path, If_None_Match=tag).status_code == 304
    assert door.get(path, If_None_Match=tag, Accept="image/png").status_code == 200
    assert door.get(f"{ONE}/rendered?window=1000,2001", If_None_Match=tag).status_code == 200


@pytest.mark.parametrize("resource", ["rendered", "thumbnail", "frames/1/rendered"])
def test_pictures_pass_the_gate_however_often_they_were_shown(door: Door, resource: str) -> None:
    sent(door, image_of())
    assert door.get(f"{ONE}/{resource}", "dr.nanhu").status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    refused = door.get(f"{ONE}/{resource}", "dr.nanhu")

    assert refused.status_code == 404
    assert door.get(f"{ONE}/{resource}").status_code == 200
    assert door.get(f"{ONE}/{resource}", "stranger").status_code == 401
