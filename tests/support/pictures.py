"""Grey images for the web door, the pictures that it makes of them, and what they should be."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from web_door import IMAGE, SERIES, STUDY, Door, data_set, file

ONE = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"
RAMP = np.linspace(-1000, 3000, 64 * 48).astype("<i2").reshape(48, 64)

Picture = NDArray[Any]


def image_of(values: Picture = RAMP, **told: Any) -> Dataset:
    """A grey image of these values."""
    made = data_set(
        Rows=values.shape[-2],
        Columns=values.shape[-1],
        PhotometricInterpretation="MONOCHROME2",
        PixelData=values.tobytes(),
        BitsAllocated=8 * values.dtype.itemsize,
        BitsStored=8 * values.dtype.itemsize,
        HighBit=8 * values.dtype.itemsize - 1,
        PixelRepresentation=int(values.dtype.kind == "i"),
        SmallestImagePixelValue=None,
        PixelSpacing=[1, 1],
    )
    made["PixelData"].VR = "OW"
    for keyword, value in told.items():
        setattr(made, keyword, value)
    return made


def sent(door: Door, *images: Dataset, syntax: str = str(ExplicitVRLittleEndian)) -> None:
    answer = door.send(*(file(one, syntax) for one in images))
    assert answer.status_code == 200, answer.text


def shown(door: Door, path: str = f"{ONE}/rendered", media_type: str = "image/png") -> Picture:
    """The bytes of a picture."""
    answer = door.get(path, Accept=media_type)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def alike(made: Picture, expected: Picture, within: int = 1) -> bool:
    """Whether two pictures are the same, but for how they round."""
    return made.shape == expected.shape and bool(
        np.max(np.abs(made.astype(int) - expected.astype(int))) <= within
    )


def windowed(values: Picture, center: float, width: float, function: str = "linear") -> Picture:
    """What PS3.3 C.11.2.1.2 and C.11.2.1.3 say, value by value, on a display of 0 to 255."""

    def grey(x: float) -> float:
        if function == "sigmoid":
            return 255 / (1 + math.exp(min(700, -4 * (x - center) / width)))
        c, w = (center - 0.5, width - 1) if function == "linear" else (center, width)
        if x <= c - w / 2:
            return 0
        return 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255

    return np.array([[round(grey(float(x))) for x in row] for row in values])
