"""Presentation states, and images as they are shown by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from web_door import IMAGE, SERIES, STUDY, body_of, data_set, file, kept

from exchange.retrieval import Held
from exchange_dicom.presentation_state import GRAYSCALE, PresentationState
from exchange_dicom.rendering import Presentation, Rendering

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


def graphic(kind: str, *points: float, units: str = "PIXEL", filled: str = "N") -> Dataset:
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points) // 2,
        GraphicData=list(points),
        GraphicType=kind,
        GraphicFilled=filled,
    )


BRIGHT: dict[str, Any] = {"SoftcopyVOILUTSequence": [window(-9000, 1)]}
"""All that is shown is white."""
