"""Images of frames that are compressed, or look so, and how their frames are asked for."""

from __future__ import annotations

import random

from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    JPEG2000Lossless,
)
from web_door import data_set, file

AS_STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
UNCOMPRESSED = 'multipart/related; type="application/octet-stream"'


def cine(frames: list[bytes], table: str, fragments: int = 1) -> bytes:
    """An object of many compressed frames, which nobody needs to decode."""
    image = data_set(NumberOfFrames=len(frames), Rows=64, Columns=64)
    if table == "extended":
        image.PixelData, image.ExtendedOffsetTable, image.ExtendedOffsetTableLengths = (
            encapsulate_extended(frames)
        )
    else:
        image.PixelData = encapsulate(frames, fragments, has_bot=table == "basic")
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return file(image, str(JPEG2000Lossless))


def frames_of(count: int, size: int) -> list[bytes]:
    noise = random.Random(count)
    return [b"\xff\x4f\xff\x51" + noise.randbytes(size - 4) for _ in range(count)]
