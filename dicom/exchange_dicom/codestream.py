"""What a compressed frame says of its size, read before a decoder believes it.

JPEG (ISO/IEC 10918-1), JPEG-LS (14495-1), JPEG 2000 and HTJ2K (15444-1, -15). Decoders allocate
what the codestream asks for, and not what the image says: libjpeg goes on for gigabytes where the
data end early. pydicom 3.0.2 stays for ever at a JP2 box whose length is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct

_JP2 = b"\0\0\0\x0cjP  "
_BOX = Struct(">L4s")
_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_SEGMENT = Struct(">H")
_FRAME_HEADER = Struct(">BHHB")
_SIZ = Struct(">HHLLLLLLLLH")
_PALETTE = Struct(">HB")

Size = tuple[int, int, int]
"""Lines, samples per line, components."""

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_END_OF_IMAGE, _START_OF_SCAN, _JPEG_LS_PARAMETERS = 0xD9, 0xDA, 0xF8
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_OVERSIZE = 4
"""JPEG-LS preset parameters that say the size of the image anew."""


UNREADABLE = "damaged, or in a form that no decoder here reads"
"""Why a frame is not decoded, where its decoder raises something of its own."""


def objection(frame: bytes, rows: int, columns: int, samples: int) -> str:
    """Why a frame of an image of this size and Samples per Pixel is not given to a decoder, or "".

    What is neither JPEG nor JPEG 2000 is left to its decoder.
    """
    if frame.startswith(_JPEG):
        size = _of_jpeg(frame)
    elif frame.startswith((_JP2, _JPEG_2000)):
        size = _of_jpeg_2000(frame)
    else:
        return ""
    if size is None:
        return "the codestream does not say how large it is"
    if size[0] > rows or size[1] > columns:
        return "the codestream is larger than the image"
    if size[2] > samples:
        return "the codestream has more components than the image has samples"
    return ""


class Panicked(Exception):
    """A coder written in Rust gave up in the middle."""


@contextmanager
def coding() -> Iterator[None]:
    """Within it a panic of a coder is `Panicked`; of itself it is no Exception, and would end the
    thread of whoever wanted to see the image."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise Panicked from None
        raise


def _of_jpeg(frame: bytes) -> Size | None:
    """The largest of each that a frame header before the first scan says."""
    largest: Size | None = None
    at = len(_JPEG)
    while at + 2 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # filled up
            at += 1
            continue
        at += 2
        if marker in _STANDALONE:
            continue
        if marker in (_START_OF_SCAN, _END_OF_IMAGE) or at + 2 > len(frame):
            break
        (length,) = _SEGMENT.unpack_from(frame, at)
        if marker in _START_OF_FRAME:
            if at + 2 + _FRAME_HEADER.size > len(frame):
                return None
            _, lines, samples, components = _FRAME_HEADER.unpack_from(frame, at + 2)
            if not (lines and samples):
                return None  # told behind the scan, or anew by JPEG-LS
            before = largest or (0, 0, 0)
            largest = (
                max(lines, before[0]),
                max(samples, before[1]),
                max(components, before[2]),
            )
        elif marker == _JPEG_LS_PARAMETERS and frame[at + 2 : at + 3] == bytes((_OVERSIZE,)):
            return None
        at += max(length, 2)
    return largest


def _of_jpeg_2000(frame: bytes) -> Size | None:
    """The part of the reference grid that the image covers; components, those of a palette too."""
    at = colours = 0
    if frame.startswith(_JP2):
        at, header_end = len(_JP2) + 4, 0
        while True:
            if at + _BOX.size > len(frame):
                return None
            length, kind = _BOX.unpack_from(frame, at)
            if kind == b"jp2c" and not header_end:
                at += _BOX.size
                break
            # Decoders pass over the header as a whole: it must end where the boxes in it do.
            if length < _BOX.size or (header_end and at + length > header_end):
                return None
            if kind == b"jp2h":
                header_end = at + length
                length = _BOX.size
            elif kind == b"pclr" and at + _BOX.size + _PALETTE.size <= len(frame):
                colours = max(colours, _PALETTE.unpack_from(frame, at + _BOX.size)[1])
            at += length
            if at == header_end:
                header_end = 0
    if frame[at : at + 4] != _JPEG_2000 or at + 4 + _SIZ.size > len(frame):
        return None
    _, _, width, height, left, top, *_, components = _SIZ.unpack_from(frame, at + 4)
    return height - top, width - left, max(components, colours)
