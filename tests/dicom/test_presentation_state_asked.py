"""Presentation states, captions and videos by DICOMweb: who sees them, and what nobody can."""

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
from pictures import ONE, image_of, sent, shown
from PIL import Image
from presentation_states import (
    BRIGHT,
    SHOWN,
    STATE,
    area,
    graphic,
    in_memory,
    item,
    state_of,
    window,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian
from region import ADMINISTRATOR, ID_CARD
from sqlalchemy import select
from web_door import IMAGE, SERIES, STUDY, Door, body_of, file, kept

from exchange import consent
from exchange.errors import TooLarge
from exchange_dicom import marking
from exchange_dicom.grey_values import CannotRender
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.lettering import PLACES, Lettering
from exchange_dicom.presentation_state import GRAYSCALE, PresentationState
from exchange_dicom.rendering import Presentation, Rendering
from exchange_storage.records import AuditRecord

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
    assert door.get(f"{SHOWN}/rendered", "dr.nanhu").status_code == 404
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
