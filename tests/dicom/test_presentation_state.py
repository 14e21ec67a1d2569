"""Presentation states, captions and videos by DICOMweb: images as somebody wants them shown."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import ONE, RAMP, alike, image_of, sent, shown, windowed
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from region import ADMINISTRATOR, ID_CARD
from sqlalchemy import select
from web_door import IMAGE, SERIES, STUDY, Door, body_of, data_set, file, kept, parts_of

from exchange import consent
from exchange.errors import TooLarge
from exchange.retrieval import Held
from exchange_dicom import marking
from exchange_dicom.grey_values import CannotRender
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.lettering import PLACES, Lettering
from exchange_dicom.presentation_state import COLOR, GRAYSCALE, PresentationState
from exchange_dicom.rendering import Presentation, Rendering
from exchange_dicom.viewport import Viewport
from exchange_storage.records import AuditRecord

STATE = f"{STUDY}.9.1"
SHOWN = f"studies/{STUDY}/series/{STUDY}.9/instances/{STATE}"
Picture = NDArray[Any]


def item(**told: Any) -> Dataset:
    made = Dataset()
    for keyword, value in told.items():
        setattr(made, keyword, value)
    return made


def image_reference(uid: str = IMAGE, frames: Sequence[int] = ()) -> Dataset:
    made = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid)
    if frames:
        made.ReferencedFrameNumber = list(frames)
    return made


def state_of(*images: Dataset, **told: Any) -> Dataset:
    """A presentation state of these images, by default of the one."""
    series = item(
        SeriesInstanceUID=SERIES, ReferencedImageSequence=list(images) or [image_reference()]
    )
    return data_set(
        **{
            "SOPClassUID": GRAYSCALE,
            "SOPInstanceUID": STATE,
            "SeriesInstanceUID": f"{STUDY}.9",
            "Modality": "PR",
            "ReferencedSeriesSequence": [series],
            "PresentationLUTShape": "IDENTITY",
            **dict.fromkeys(("Rows", "Columns", "PixelData", "SmallestImagePixelValue")),
            **told,
        }
    )


def area(left: int, top: int, right: int, bottom: int, **told: Any) -> Dataset:
    return item(
        DisplayedAreaTopLeftHandCorner=[left, top],
        DisplayedAreaBottomRightHandCorner=[right, bottom],
        PresentationSizeMode="SCALE TO FIT",
        **told,
    )


def window(center: float, width: float, *of: Dataset) -> Dataset:
    voi = item(WindowCenter=str(center), WindowWidth=str(width))
    if of:
        voi.ReferencedImageSequence = list(of)
    return voi


def in_memory(made: Dataset) -> Held:
    """The data set as the exchange keeps it."""
    uids = str(made.SOPClassUID), str(made.SOPInstanceUID)
    return kept(body_of(file(made)), str(ExplicitVRLittleEndian), *uids)


def through(image: Dataset, **told: Any) -> Picture:
    """The image as a presentation state shows it that says this."""
    state = PresentationState(in_memory(state_of(**told)))
    return np.asarray(Rendering(in_memory(image)).picture(1, Presentation(), state))


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


BRIGHT: dict[str, Any] = {"SoftcopyVOILUTSequence": [window(-9000, 1)]}
"""All that is shown is white."""


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


def graphic(kind: str, *points: float, units: str = "PIXEL", filled: str = "N") -> Dataset:
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points) // 2,
        GraphicData=list(points),
        GraphicType=kind,
        GraphicFilled=filled,
    )


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


# What cannot be shown, and who may see


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.3"}, "no palette"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.4"}, "Blending Softcopy Presentation State"),
        ({"MaskSubtractionSequence": [Dataset()]}, "mask"),
        ({"DisplayedAreaSelectionSequence": [Dataset()]}, "picture"),
        ({"ShutterShape": "CIRCULAR"}, "picture"),
    ],
)
def test_a_presentation_state_that_cannot_be_applied_is_not_neglected(
    door: Door, told: dict[str, Any], words: str
) -> None:
    sent(door, image_of(), state_of(**told))

    answer = door.get(f"{SHOWN}/rendered")

    assert (answer.status_code, words in answer.json()["detail"]) == (406, True)


def test_a_presentation_state_of_nothing_that_is_here_shows_nothing(door: Door) -> None:
    sent(door, state_of())
    assert door.get(f"{SHOWN}/rendered").status_code == 404
    sent(door, image_of())
    assert door.get(f"{SHOWN}/rendered").status_code == 200
    assert door.get(f"{SHOWN}/frames/1/rendered").status_code == 404
    tag = door.get(f"{SHOWN}/rendered").headers["ETag"]
    assert door.get(f"{SHOWN}/rendered", If_None_Match=tag).status_code == 304


def test_state_and_image_are_both_decided_and_both_recorded(door: Door) -> None:
    sent(door, image_of(), state_of(**BRIGHT))

    assert door.get(f"{SHOWN}/rendered", "dr.nanhu").status_code == 200

    with door.city.exchange.database.reading() as session:
        read = [
            (told["detail"]["instance"], told["detail"]["what"])
            for one in session.scalars(select(AuditRecord).order_by(AuditRecord.sequence))
            if (one.action, one.requester) == ("retrieve", "dr.nanhu")
            and (told := json.loads(one.content))
        ]
    assert read == [(STATE, "rendered"), (IMAGE, "rendered")]
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    assert door.get(f"{SHOWN}/rendered", "dr.nanhu").status_code == 403
    assert door.get(f"{SHOWN}/rendered").status_code == 200


def test_the_uri_shows_an_image_by_a_presentation_state(door: Door) -> None:
    other = f"{SERIES}.2"
    sent(door, image_of(), image_of(SOPInstanceUID=other), state_of(PresentationLUTShape="INVERSE"))
    named = {
        "requestType": "WADO",
        "studyUID": STUDY,
        "seriesUID": SERIES,
        "objectUID": IMAGE,
        "contentType": "image/png",
        "presentationSeriesUID": f"{STUDY}.9",
        "presentationUID": STATE,
    }

    def asked(**changed: Any) -> Any:
        given = {name: value for name, value in (named | changed).items() if value is not None}
        return door.get(f"wado?{urlencode(given)}")

    made = np.asarray(Image.open(io.BytesIO(asked().content)))
    assert np.array_equal(made, shown(door, f"{SHOWN}/rendered"))
    assert asked(objectUID=other).status_code == 406
    assert asked(presentationSeriesUID=None).status_code == 400
    assert asked(presentationUID="1.2.3").status_code == 404
    for beside in ({"windowCenter": 1, "windowWidth": 9}, {"region": "0,0,1,1"}):
        assert asked(**beside).status_code == 400


@pytest.mark.parametrize(
    "limit",
    [
        *(f"presentation_state.{one}" for one in ("SIZE_LIMIT", "REFERENCES", "MARKS", "POINTS")),
        "web_rendered.STATE_IMAGES",
    ],
)
def test_presentation_states_have_limits(
    door: Door, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = item(GraphicLayer="L", GraphicObjectSequence=[graphic("POLYLINE", 1, 1, 9, 9)])
    sent(door, image_of(), state_of(GraphicAnnotationSequence=[marks]))
    monkeypatch.setattr(f"exchange_dicom.{limit}", 0)

    assert door.get(f"{SHOWN}/rendered").status_code == 413


EVERYTHING = body_of(
    file(
        state_of(
            RescaleSlope="2",
            RescaleIntercept="-10",
            SoftcopyVOILUTSequence=[window(300, 900)],
            ShutterShape=["RECTANGULAR", "CIRCULAR", "POLYGONAL"],
            ShutterLeftVerticalEdge="5",
            ShutterRightVerticalEdge="60",
            ShutterUpperHorizontalEdge="3",
            ShutterLowerHorizontalEdge="40",
            CenterOfCircularShutter=[24, 32],
            RadiusOfCircularShutter="25",
            VerticesOfThePolygonalShutter=[1, 1, 1, 50, 48, 50, 48, 1],
            ShutterPresentationValue=0x4040,
            DisplayedAreaSelectionSequence=[area(11, 5, 40, 24)],
            ImageRotation=90,
            ImageHorizontalFlip="Y",
            GraphicLayerSequence=[item(GraphicLayer="L", GraphicLayerOrder=1)],
            GraphicAnnotationSequence=[
                item(
                    GraphicLayer="L",
                    GraphicObjectSequence=[
                        graphic("ELLIPSE", 12, 24, 52, 24, 32, 14, 32, 34),
                        graphic("INTERPOLATED", 10, 24, 30, 24, 50, 24),
                    ],
                    TextObjectSequence=[
                        item(
                            AnchorPoint=[20.0, 20.0],
                            AnchorPointAnnotationUnits="PIXEL",
                            UnformattedTextValue="结节",
                        )
                    ],
                )
            ],
        )
    )
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_presentation_state_is_applied_or_said_to_be_damaged(data: st.DataObject) -> None:
    content = bytearray(EVERYTHING)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = Rendering(in_memory(image_of()))
    held = kept(bytes(content), str(ExplicitVRLittleEndian), GRAYSCALE, STATE)

    with suppress(CannotRender, MalformedDataSet, TooLarge):
        image.picture(1, Presentation(), PresentationState(held))


# Captions


def test_the_caption_names_the_patient_as_the_asker_knows_them(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nanhu knows the same person under a number of its own, which stands on the picture."""
    told: dict[str, Any] = {"WindowCenter": "9000", "WindowWidth": "1", "KVP": "120"}
    sent(door, image_of(np.zeros((256, 256), "<i2"), **told))
    door.city.send("beicheng", card=ID_CARD)
    door.city.send("nanhu", patient="N9", study="1.2.77", instance="1.2.77.1.1", card=ID_CARD)
    door.city.identify()
    written: list[tuple[str, ...]] = []
    real = marking.caption

    def caption(
        picture: Image.Image, lettering: Lettering, above: Sequence[str], below: Sequence[str]
    ) -> None:
        written.append((*above, "|", *below))
        real(picture, lettering, above, below)

    monkeypatch.setattr("exchange_dicom.marking.caption", caption)

    picture = shown(door, f"{ONE}/rendered?annotation=patient,technique")
    foreign = door.get(f"{ONE}/rendered?annotation=patient", "dr.nanhu", Accept="image/png")
    assert foreign.status_code == 200

    assert written[0][:4] == ("Wang XiaoDong", "P1 F 1949-12-31", "2026-11-01 北城医院", "|")
    assert any("120" in line for line in written[0][4:])
    assert written[1] == ("Wang XiaoDong", "N9 F 1949-12-31", "2026-11-01 北城医院", "|")
    assert np.count_nonzero(picture[:60] > 127) > 100
    assert np.count_nonzero(picture[200:] > 127) > 20
    assert not picture[80:190].any()
    assert not shown(door).any()
    assert foreign.headers["ETag"] != door.get(f"{ONE}/rendered").headers["ETag"]
    assert door.get(f"{ONE}/rendered?annotation=institution").status_code == 400


def test_hanzi_are_written_where_the_system_has_them() -> None:
    """fonts-noto-cjk is among the packages of the tests."""
    lettering = Lettering(PLACES[0])
    assert lettering.writes("王小东")
    one, other = (lettering.face(20).getmask(hanzi) for hanzi in "王东")
    assert bytes(one) != bytes(other)
    assert not Lettering().writes("王")
    assert Lettering.of_the_system().writes_hanzi
    assert Lettering().legible("王 A\n") == "? A "


# Videos


MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(256)) * 400
MPEG = b"\0\0\1\xba" + bytes(range(256)) * 10


@pytest.mark.parametrize(
    ("syntax", "stream", "media_type"),
    [
        ("1.2.840.10008.1.2.4.102", MP4, "video/mp4"),
        ("1.2.840.10008.1.2.4.107", MP4, "video/mp4"),
        ("1.2.840.10008.1.2.4.100", MPEG, "video/mpeg"),
        ("1.2.840.10008.1.2.4.102", b"\x47" + MPEG, ""),
    ],
)
def test_a_stored_video_is_had_as_the_file_that_it_is(
    door: Door, syntax: str, stream: bytes, media_type: str
) -> None:
    video = image_of(np.zeros((16, 16), "u1"), NumberOfFrames=90, FrameTime="40")
    video.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    video.PixelData = encapsulate([stream], has_bot=False)
    video["PixelData"].VR = "OB"
    video["PixelData"].is_undefined_length = True
    sent(door, video, syntax=syntax)

    answer = door.get(f"{ONE}/rendered", Accept="video/*, image/jpeg;q=0.1")

    if not media_type:
        assert answer.status_code == 406
        return
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.content.rstrip(b"\0") == stream.rstrip(b"\0")
    assert door.get(f"{ONE}/rendered", Accept="image/jpeg").status_code == 406
    tag = answer.headers["ETag"]
    assert door.get(f"{ONE}/rendered", If_None_Match=tag, Accept="*/*").status_code == 304


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


def test_a_typeface_with_hanzi_is_found_wherever_the_system_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("exchange_dicom.lettering.PLACES", ())  # such as another distribution
    assert Lettering.of_the_system().writes("王小东")
    nothing = tmp_path / "fonts.conf"  # a system without any typeface of that kind
    nothing.write_text("<fontconfig></fontconfig>")
    monkeypatch.setenv("FONTCONFIG_FILE", str(nothing))
    assert Lettering.of_the_system().legible("王 A") == "? A"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Lettering.of_the_system().writes_hanzi
