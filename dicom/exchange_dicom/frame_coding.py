"""One frame from one transfer syntax into another, without loss (PS3.5 section 8 and annex A).

Decoding and encoding are pydicom's and its plug-ins'; what is compressed is decoded in processes of
their own (`decoding`). Only lossless syntaxes are made, and what was
made is decoded again: pixels that a sender compressed with loss come out just as they were.
"""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from exchange_dicom import codestream
from exchange_dicom.decoding import DECODERS, Undecodable, decoded_here
from exchange_dicom.pixel_data import FRAME_LIMIT, GE_PRIVATE, Pixels
from exchange_dicom.transcoding import NATIVE, CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression: each frame is a deflate stream."""

UNCOMPRESSED_FRAMES = "1.2.840.10008.1.2.1.98"
"""Encapsulated Uncompressed Explicit VR Little Endian."""

PLAIN = NATIVE | {UNCOMPRESSED_FRAMES, GE_PRIVATE}
"""Transfer syntaxes whose stored frames are native."""

ENCODED = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")
"""RLE, JPEG-LS and JPEG 2000, all lossless: what frames can be compressed to."""

LARGE = 16 << 20
"""Bytes of a frame from which on few are decoded at a time, so that memory stays bounded."""

_few = threading.BoundedSemaphore(2)

_AS_DECODED = {
    "YBR_RCT": "RGB",
    "YBR_ICT": "RGB",
    "YBR_FULL_422": "YBR_FULL",
    "YBR_PARTIAL_422": "YBR_FULL",
}
"""What the samples are once the transform of a codec is undone."""

Frame = NDArray[Any]


@cache
def decodes(transfer_syntax_uid: str) -> bool:
    """Whether frames stored in this transfer syntax can be had uncompressed."""
    if transfer_syntax_uid in PLAIN or transfer_syntax_uid == DEFLATED_FRAMES:
        return True
    try:
        return bool(get_decoder(UID(transfer_syntax_uid)).is_available)
    except NotImplementedError:
        return False


@contextmanager
def in_turn(pixels: Pixels) -> Iterator[None]:
    """Where a frame is decoded and used: large ones wait for each other."""
    size = pixels.rows * pixels.columns * pixels.samples * pixels.allocated // 8
    with _few if size > LARGE else nullcontext():
        yield


def native(pixels: Pixels, transfer_syntax_uid: str, stored: bytes) -> bytes:
    """A stored frame as it would be in Explicit VR Little Endian. Raises CannotTranscode."""
    if transfer_syntax_uid in PLAIN:
        return stored
    if transfer_syntax_uid == DEFLATED_FRAMES:
        return _inflated(stored)
    frame = decoded(pixels, transfer_syntax_uid, stored)
    if frame.ndim == 3 and pixels.planar:
        frame = frame.transpose(2, 0, 1)
    return np.ascontiguousarray(frame).tobytes()


def decoded(pixels: Pixels, transfer_syntax_uid: str, stored: bytes, *, rgb: bool = False) -> Frame:
    """A stored frame as rows, columns and, of colour, samples; of YBR as RGB where asked.

    What is compressed is decoded in a process of its own. Raises CannotTranscode.
    """
    if pixels.rows * pixels.columns * pixels.samples * pixels.allocated > 8 * FRAME_LIMIT:
        raise CannotTranscode("the decoded frame would be too large")
    plain = transfer_syntax_uid in PLAIN
    if transfer_syntax_uid == DEFLATED_FRAMES:
        plain, stored = True, _inflated(stored)
    if not plain:
        size = pixels.rows, pixels.columns, pixels.samples
        if why := codestream.objection(stored, *size):
            raise CannotTranscode(why)
    options = _options(pixels, stored if plain else None)
    try:
        if not plain:
            return DECODERS.decoded(transfer_syntax_uid, stored, options, rgb=rgb)
        with warnings.catch_warnings(action="ignore"), codestream.coding():
            found, _ = get_decoder(UID(EXPLICIT_VR_LITTLE_ENDIAN)).as_array(
                stored, index=0, raw=not rgb, **options
            )
    except Undecodable as error:
        raise CannotTranscode(f"a frame cannot be decoded: {error}") from error
    except Exception as error:  # a decoder may raise anything about bytes that it cannot read
        raise CannotTranscode(f"a frame cannot be decoded: {codestream.UNREADABLE}") from error
    return found


def encoded(pixels: Pixels, frame: Frame, transfer_syntax_uid: str) -> bytes:
    """A decoded frame in one of `ENCODED`. Raises CannotTranscode."""
    options = _options(pixels, None)
    if pixels.photometric in _AS_DECODED:
        options["photometric_interpretation"] = _AS_DECODED[pixels.photometric]
    try:
        with warnings.catch_warnings(action="ignore"), codestream.coding():
            made = get_encoder(UID(transfer_syntax_uid)).encode(
                np.ascontiguousarray(frame), **options
            )
        again = decoded_here(transfer_syntax_uid, bytes(made), _options(pixels, None), rgb=False)
    except Exception as error:  # the same for an encoder
        raise CannotTranscode("a frame cannot be encoded in what was asked for") from error
    if not np.array_equal(again, frame):  # what we have made harms nobody
        raise CannotTranscode("a frame cannot be encoded without loss")
    return bytes(made)


def _options(pixels: Pixels, plain: bytes | None) -> dict[str, Any]:
    """What pydicom's coders want to know of one frame."""
    photometric = pixels.photometric
    if plain is not None and "422" in photometric:
        # Some say so of samples that are all there.
        whole = pixels.rows * pixels.columns * pixels.samples * pixels.allocated // 8
        photometric = "YBR_FULL" if len(plain) >= whole else "YBR_FULL_422"
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": 1,
        "samples_per_pixel": pixels.samples,
        "bits_allocated": pixels.allocated,
        "bits_stored": pixels.stored,
        "photometric_interpretation": photometric,
        "pixel_keyword": pixels.keyword,
        "pixel_representation": pixels.representation,
    }
    if pixels.samples > 1:  # of compressed frames the decoder tells it
        options["planar_configuration"] = 0 if plain is None else pixels.planar
    return options


def _inflated(stored: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(stored, FRAME_LIMIT)
    except zlib.error as error:
        raise CannotTranscode("a frame's deflate stream is damaged") from error
    if stream.unconsumed_tail:
        raise CannotTranscode("the inflated frame would be too large")
    return inflated
