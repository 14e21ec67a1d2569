"""Presentation states: images as somebody wants them shown, to the last pixel."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from pictures import RAMP, alike, image_of, sent, shown, windowed
from PIL import Image
from presentation_states import (
    BRIGHT,
    SHOWN,
    STATE,
    Picture,
    area,
    graphic,
    image_reference,
    in_memory,
    item,
    state_of,
    through,
    window,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from web_door import Door, parts_of

from exchange_dicom.presentation_state import COLOR, PresentationState
from exchange_dicom.rendering import Presentation, Rendering
from exchange_dicom.viewport import Viewport

# Grey values: what the state says, and nothing of what the image says


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_the_window_is_that_of_the_presentation_state(door: Door, syntax: str) -> None:
    sent(door, image_of(WindowCenter="1", WindowWidth="2", PhotometricInterpretation="MONOCHROME1"))
    state = state_of(
        RescaleSlope="2", RescaleIntercept="-10", SoftcopyVOILUTSequence=[window(300, 900)]
    )
    sent(door, state, syntax=str(syntax))

    made = shown(door, f"{SHOWN}/rendered")

    assert alike(made, windowed(RAMP * 2.0 - 10, 300, 900))
    other = shown(door, f"{SHOWN}/rendered?window=0,100")
    assert alike(other, windowed(RAMP * 2.0 - 10, 0, 100))


def test_what_a_presentation_state_leaves_out_is_left_out() -> None:
    """Without window and rescale the values stand for themselves, over all that they can be."""

    made = through(
        image_of(RescaleSlope="3", RescaleIntercept="9", WindowCenter="1", WindowWidth="2"),
        PresentationLUTShape="INVERSE",
    )

    assert alike(made, 255 - np.rint((RAMP + 32768.0) / 65535 * 255).astype(int))


def test_all_three_tables_of_a_presentation_state_are_applied() -> None:
    def table(first: int, bits: int, entries: list[int]) -> Dataset:
        made = item(LUTDescriptor=[len(entries), first, bits], LUTData=entries)
        made["LUTDescriptor"].VR, made["LUTData"].VR = ("SS" if first < 0 else "US"), "US"
        return made

    modality = table(-500, 16, [3 * entry for entry in range(1000)])
    modality.ModalityLUTType = "US"
    voi = table(500, 12, [4095 - entry for entry in range(2000)])
    presented = table(0, 10, [1023 - entry for entry in range(1024)])

    made = through(
        image_of(),
        ModalityLUTSequence=[modality],
        SoftcopyVOILUTSequence=[item(VOILUTSequence=[voi])],
        PresentationLUTSequence=[presented],
        PresentationLUTShape=None,
    )

    def grey(value: int) -> int:
        entry = 3 * min(max(value + 500, 0), 999)
        out = (4095 - min(max(entry - 500, 0), 1999)) / 4095
        return round((1023 - round(out * 1023)) / 1023 * 255)

    assert alike(made, np.array([[grey(int(x)) for x in row] for row in RAMP]))


def test_images_and_frames_have_windows_of_their_own(door: Door) -> None:
    values = np.stack([RAMP, RAMP + 500, RAMP + 1000])
    sent(door, image_of(values, NumberOfFrames=3, FrameTime="40"))
    sent(
        door,
        state_of(
            image_reference(frames=[2, 3]),
            SoftcopyVOILUTSequence=[
                window(0, 100, image_reference("1.2.3")),
                window(700, 1500, image_reference(frames=[3])),
                window(100, 1000, image_reference(frames=[2])),
            ],
        ),
    )

    expected = [windowed(values[1], 100, 1000), windowed(values[2], 700, 1500)]
    assert alike(shown(door, f"{SHOWN}/rendered"), expected[0])
    answer = door.get(f"{SHOWN}/rendered", Accept='multipart/related; type="image/png"')
    parts = [np.asarray(Image.open(io.BytesIO(one))) for _, one in parts_of(answer)]
    assert [alike(*both) for both in zip(parts, expected, strict=True)] == [True, True]
    animation = Image.open(io.BytesIO(door.get(f"{SHOWN}/rendered", Accept="image/gif").content))
    assert (getattr(animation, "n_frames", 1), animation.info["duration"]) == (2, 40)
    assert shown(door, f"{SHOWN}/thumbnail").shape == (96, 128)


# Shutters, overlays, places


def test_shutters_hide_what_lies_outside_of_all_of_them() -> None:
    made = through(
        image_of(),
        **BRIGHT,
        ShutterShape=["RECTANGULAR", "CIRCULAR", "POLYGONAL"],
        ShutterLeftVerticalEdge="5",
        ShutterRightVerticalEdge="60",
        ShutterUpperHorizontalEdge="3",
        ShutterLowerHorizontalEdge="40",
        CenterOfCircularShutter=[24, 32],
        RadiusOfCircularShutter="25",
        VerticesOfThePolygonalShutter=[1, 1, 1, 50, 48, 50, 48, 1],
        ShutterPresentationValue=0x4040,
    )

    down, across = np.mgrid[1:49, 1:65]
    seen = (across >= 5) & (across <= 60) & (down >= 3) & (down <= 40)
    seen &= (down - 24) ** 2 + (across - 32) ** 2 <= 625
    seen &= across <= 50
    assert np.array_equal(made, np.where(seen, 255, 0x40))


def test_overlays_are_drawn_if_they_are_activated_and_in_the_tone_of_their_layer(
    door: Door,
) -> None:
    def plane(image: Dataset, group: int, top: int) -> None:
        for element, vr, value in (
            (0x10, "US", 2), (0x11, "US", 8), (0x40, "CS", "G"), (0x50, "SS", [top, 1]),
            (0x100, "US", 1), (0x102, "US", 0), (0x3000, "OW", b"\xff\xff"),
        ):  # fmt: skip
            image.add_new(group << 16 | element, vr, value)

    image = image_of()
    plane(image, 0x6000, 1)
    plane(image, 0x6002, 11)
    sent(door, image)
    state = state_of(
        SoftcopyVOILUTSequence=[window(9000, 1)],
        ShutterShape="BITMAP",
        ShutterOverlayGroup=0x6006,
        ShutterPresentationValue=0x2020,
        GraphicLayerSequence=[
            item(
                GraphicLayer="GREY",
                GraphicLayerOrder=1,
                GraphicLayerRecommendedDisplayGrayscaleValue=0x8080,
            )
        ],
    )
    plane(state, 0x6004, 21)
    plane(state, 0x6006, 31)
    state.add_new(0x60021001, "CS", "GREY")
    state.add_new(0x60041001, "CS", "OTHER")
    sent(door, state)

    expected = np.zeros((48, 64), int)
    for top, tone in ((11, 0x80), (21, 255), (31, 0x20)):
        expected[top - 1 : top + 1, :8] = tone

    assert np.array_equal(shown(door, f"{SHOWN}/rendered"), expected)


def test_the_displayed_area_is_cut_out_turned_and_flipped(door: Door) -> None:
    sent(door, image_of())
    plain = windowed(RAMP, 1000, 4000)

    def placed(displayed: Dataset, rotation: int, flip: str = "N") -> Picture:
        uid = f"{STATE}.{len(placements)}"
        placements.append(uid)
        sent(
            door,
            state_of(
                SOPInstanceUID=uid,
                SoftcopyVOILUTSequence=[window(1000, 4000)],
                DisplayedAreaSelectionSequence=[displayed],
                ImageRotation=rotation,
                ImageHorizontalFlip=flip,
            ),
        )
        return shown(door, SHOWN.replace(STATE, uid) + "/rendered")

    placements: list[str] = []
    cut = plain[4:24, 10:40]
    assert alike(placed(area(11, 5, 40, 24), 0), cut)
    # The corner that is at the top left when all is turned is named first.
    assert alike(placed(area(11, 24, 40, 5), 90), np.rot90(cut, -1))
    assert alike(placed(area(40, 24, 11, 5), 180), np.rot90(cut, 2))
    assert alike(placed(area(40, 5, 11, 24), 270), np.rot90(cut))
    assert alike(placed(area(11, 5, 40, 24), 90, "Y"), np.fliplr(np.rot90(cut, -1)))
    beyond = placed(area(-1, -3, 30, 20), 0)
    assert alike(beyond[4:, 2:], plain[:20, :30])
    assert not beyond[:4].any()
    assert not beyond[:, :2].any()
    tall = placed(area(1, 1, 64, 48, PresentationPixelSpacing=[2, 1]), 0)
    assert tall.shape == (96, 64)
    turned = placed(area(1, 1, 64, 48, PresentationPixelAspectRatio=[2, 1]), 90)
    assert turned.shape == (64, 96)


def test_graphics_are_drawn_where_the_image_has_come_to_lie() -> None:
    box = (10.5, 10.5, 20.5, 10.5, 20.5, 15.5, 10.5, 15.5, 10.5, 10.5)
    annotations = item(
        GraphicLayer="L",
        GraphicObjectSequence=[graphic("POLYLINE", *box, filled="Y")],
        ReferencedImageSequence=[image_reference()],
    )
    elsewhere = item(
        GraphicLayer="L",
        GraphicObjectSequence=[graphic("POLYLINE", 0, 0, 60, 40)],
        ReferencedImageSequence=[image_reference("1.2.3")],
    )
    state = state_of(
        SoftcopyVOILUTSequence=[window(9000, 1)],
        GraphicAnnotationSequence=[annotations, elsewhere],
        ImageRotation=90,
    )
    read, image = PresentationState(in_memory(state)), Rendering(in_memory(image_of()))
    made = np.asarray(image.picture(1, Presentation(), read))

    expected = np.zeros((48, 64), bool)
    expected[10:16, 10:21] = True
    drawn = np.rot90(expected, -1)
    assert made.shape == drawn.shape
    assert np.mean((made > 127) != drawn) < 0.01  # edges apart

    wanted = Presentation(viewport=Viewport(192, 256))
    larger = np.asarray(image.picture(1, wanted, read))
    again = np.asarray(Image.fromarray(drawn).resize((192, 256)))
    assert larger.shape == again.shape
    assert np.mean((larger > 127) != again) < 0.01


@pytest.mark.parametrize(
    ("kind", "points", "there"),
    [
        ("POINT", (32, 24), (24, 32)),
        ("POLYLINE", (10, 24, 50, 24), (24, 30)),
        ("INTERPOLATED", (10, 24, 30, 24, 50, 24), (24, 20)),
        ("CIRCLE", (32, 24, 42, 24), (24, 42)),
        ("ELLIPSE", (12, 24, 52, 24, 32, 14, 32, 34), (34, 32)),
    ],
)
def test_each_kind_of_graphics_is_drawn(
    kind: str, points: tuple[float, ...], there: tuple[int, int]
) -> None:
    marks = item(GraphicLayer="L", GraphicObjectSequence=[graphic(kind, *points)])

    made = through(
        image_of(), SoftcopyVOILUTSequence=[window(9000, 1)], GraphicAnnotationSequence=[marks]
    )

    down, across = there
    assert made[down - 1 : down + 2, across - 1 : across + 2].max() == 255
    assert not made[:5].any()


def test_text_is_written_in_its_box_and_points_to_what_it_means() -> None:
    text = item(
        BoundingBoxAnnotationUnits="DISPLAY",
        BoundingBoxTopLeftHandCorner=[0.5, 0.5],
        BoundingBoxBottomRightHandCorner=[0.9, 0.7],
        UnformattedTextValue="FINDING\r\n结节",
        AnchorPoint=[20.0, 20.0],
        AnchorPointAnnotationUnits="PIXEL",
        AnchorPointVisibility="Y",
    )
    marks = item(GraphicLayer="L", TextObjectSequence=[text])

    made = through(
        image_of(np.zeros((200, 200), "<i2")),
        SoftcopyVOILUTSequence=[window(9000, 1)],
        GraphicAnnotationSequence=[marks],
    )

    assert made[18:23, 18:23].max() == 255
    assert np.count_nonzero(made[100:120, 100:180] > 127) > 50
    assert np.count_nonzero(made[120:145, 100:180] > 127) > 10
    assert not made[150:].any()


def test_a_color_presentation_state_turns_a_color_image() -> None:
    colours = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    image = image_of(
        colours[..., 0],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=colours.tobytes(),
    )

    made = through(image, SOPClassUID=COLOR, ImageRotation=180, PresentationLUTShape=None)

    assert np.array_equal(made, colours[::-1, ::-1])


def test_what_lies_far_away_and_what_is_named_often_takes_no_time() -> None:
    """A line of a billion pixels, and thousands of shutters that are all the same."""
    far = item(
        GraphicLayer="L",
        GraphicObjectSequence=[
            graphic("POLYLINE", -2e9, -2e9, 2e9, 2e9, units=units) for units in ("PIXEL", "DISPLAY")
        ],
    )
    made = through(
        image_of(),
        **BRIGHT,
        GraphicAnnotationSequence=[far],
        ShutterShape=["CIRCULAR"] * 7000,
        CenterOfCircularShutter=[24, 32],
        RadiusOfCircularShutter="5",
    )

    assert made[24, 32] == 255
    assert made[2, 60] == 0


def palette(bits: int, *colours: Sequence[int], first: int = 0) -> dict[str, object]:
    """A palette of these colours, each red, green and blue."""
    told: dict[str, object] = {}
    for name, channel in zip(("Red", "Green", "Blue"), zip(*colours, strict=True), strict=True):
        told[f"{name}PaletteColorLookupTableDescriptor"] = [len(colours), first, bits]
        told[f"{name}PaletteColorLookupTableData"] = np.asarray(channel, f"<u{bits // 8}").tobytes()
    return told


@pytest.mark.parametrize(("bits", "first"), [(16, 0), (16, 100), (8, 0)])
def test_grey_values_are_shown_in_the_colours_of_a_pseudo_color_state(
    bits: int, first: int
) -> None:
    """The whole range of what the window gives is the whole palette (PS3.4 N.2.2)."""
    high = 2**bits - 1
    colours = ((0, 0, high), (0, high, 0), (high, 0, 0), (high, high, high))
    made = through(
        image_of(),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.11.3",
        SoftcopyVOILUTSequence=[window(300, 900)],
        **palette(bits, *colours, first=first),
    )

    grey = np.clip(windowed(RAMP, 300, 900) / 255.0, 0, 1)
    wanted = np.asarray(colours)[np.round(grey * 3).astype(int)] // (high // 255)
    assert made.shape == (*RAMP.shape, 3)
    assert np.mean(np.any(made != wanted, axis=-1)) < 0.02  # where the rounding differs
    assert len(np.unique(made.reshape(-1, 3), axis=0)) == 4
