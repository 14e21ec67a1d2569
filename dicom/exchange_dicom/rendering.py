"""Pictures of frames, as they would first be shown (PS3.3 C.7.6.3 and C.11, PS3.4 N.2).

Grey values go through the modality LUT, the window or VOI LUT, and the inversion of MONOCHROME1;
palettes become colours, YBR becomes RGB. Overlay graphics are drawn white. What a multi-frame image
says of one frame in its functional groups goes before what it says of all. Colours come as they are
stored, with the ICC profile by which they are meant, or converted to sRGB, where that is asked for.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.pixels.processing import apply_color_lut

from exchange.errors import TooLarge
from exchange.retrieval import Held
from exchange_dicom import data_set, frame_coding, kept, pixel_data
from exchange_dicom.pixel_data import INFLATED_LIMIT, Pixels

HEAD_LIMIT = 64 << 20
"""Bytes of the longest header of which a picture is made."""

PIXEL_LIMIT = 64 << 20
"""Pixels of the largest frame that is rendered, and of the largest picture."""

GIF_PIXELS = 32 << 20
"""Pixels of all pictures of one animation: they are in memory together."""

PROFILE_LIMIT = 4 << 20
"""Bytes of the largest ICC profile that is used."""

DURATION = 100
"""Milliseconds for which an animation shows a picture, where the image does not say."""

Grey = NDArray[Any]


class CannotRender(Exception):
    """No picture can be made of it."""


class Function(StrEnum):
    """How a window maps values to grey (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


FUNCTIONS = {one.value: one for one in Function}


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width of the values that are told apart, after the modality LUT."""

    center: float
    width: float
    function: Function = Function.LINEAR

    def grey(self, values: Grey) -> Grey:
        """Black is 0 and white 1; values outside the window are beyond them."""
        match self.function:
            case Function.LINEAR if self.width <= 1:  # a threshold
                return np.asarray(values > self.center - 0.5, np.float32)
            case Function.LINEAR:
                return (values - (self.center - 0.5)) / (self.width - 1) + 0.5
            case Function.LINEAR_EXACT:
                return (values - self.center) / self.width + 0.5
            case Function.SIGMOID:
                scaled = np.clip(-4 * (values - self.center) / self.width, -80, 80)
                return 1 / (1 + np.exp(scaled))


@dataclass(frozen=True, slots=True)
class Viewport:
    """The box into which a picture is fitted, and the region of the image that it shows.

    All in pixels (PS3.18 8.3.5.1.3), or the region in parts of the image's sides (9.4.1.2.5). A
    region of None reaches to the edge; one of negative width or height is flipped.
    """

    width: int
    height: int
    left: float = 0
    top: float = 0
    region_width: float | None = None
    region_height: float | None = None
    relative: bool = False
    enlarging: bool = True


class Profile(StrEnum):
    """What a picture says of its colours (PS3.18 8.3.5.1.5)."""

    NO = "no"
    YES = "yes"
    SRGB = "srgb"


@dataclass(frozen=True, slots=True)
class Presentation:
    """How pictures are wanted: by default as the image says, in its own size."""

    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = 90
    """Of a JPEG, 1 to 100."""
    profile: Profile = Profile.NO


class Rendering:
    """The pictures of one instance.

    Raises NotFound where it has no pixels, MalformedDataSet, TooLarge, Unavailable, CannotRender.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self.pixels = pixel_data.pixels(held)
        if self.pixels.rows * self.pixels.columns > PIXEL_LIMIT:
            raise TooLarge(f"a picture may have at most {PIXEL_LIMIT} pixels")
        if self.pixels.head > HEAD_LIMIT:
            raise TooLarge(f"a picture is made of at most {HEAD_LIMIT} bytes of header")
        self._head = _read_head(held, self.pixels)

    @property
    def duration(self) -> int:
        """Milliseconds of one frame."""
        with suppress(CannotRender), _as_senders_write():
            if time := self._head.get("FrameTime"):
                return max(20, min(10_000, round(float(time))))
            for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
                if rate := self._head.get(keyword):
                    return max(20, min(10_000, round(1000 / float(rate))))
        return DURATION

    @property
    def representative(self) -> int:
        """The frame that stands for all: the one that the image names, else the middle one."""
        with _as_senders_write():
            if (named := int(self._head.get("RepresentativeFrameNumber") or 0)) >= 1:
                return min(named, self.pixels.frames)
        return (self.pixels.frames + 1) // 2

    def picture(self, number: int, wanted: Presentation) -> Image.Image:
        """A frame, counted from 1, as a picture in grey or RGB. Also raises CannotTranscode."""
        with frame_coding.in_turn(self.pixels):
            return self._picture(number, wanted)

    def _picture(self, number: int, wanted: Presentation) -> Image.Image:
        stored = pixel_data.stored_frame(self._held, self.pixels, number)
        syntax = self._held.transfer_syntax_uid
        frame = frame_coding.decoded(self.pixels, syntax, stored, rgb=True)
        with _as_senders_write():
            shown = self._shown(frame, number, wanted.window)
            aspect = 1.0
            with suppress(CannotRender), _as_senders_write():
                aspect = self._aspect(number)
                _draw_overlays(shown, self._head, number)
            fitted = _fitted(Image.fromarray(shown), aspect, wanted.viewport)
            return (
                fitted if wanted.profile is Profile.NO else self._profiled(fitted, wanted.profile)
            )

    def _profiled(self, picture: Image.Image, wanted: Profile) -> Image.Image:
        """The picture with a profile; what is not in colour has none, and none means sRGB."""
        if wanted is Profile.NO or picture.mode != "RGB":
            return picture
        paths = self._head.get("OpticalPathSequence") or (Dataset(),)
        own = bytes(self._head.get("ICCProfile") or paths[0].get("ICCProfile") or b"")
        if len(own) > PROFILE_LIMIT:
            raise CannotRender(f"the ICC profile has more than {PROFILE_LIMIT} bytes")
        if own and wanted is Profile.SRGB:
            meant, shown = (ImageCms.ImageCmsProfile(io.BytesIO(one)) for one in (own, _SRGB))
            picture = ImageCms.profileToProfile(picture, meant, shown, outputMode="RGB") or picture
        picture.info["icc_profile"] = own if own and wanted is Profile.YES else _SRGB
        return picture

    def _shown(self, frame: Grey, number: int, window: Window | None) -> NDArray[np.uint8]:
        """Bytes of grey or RGB."""
        pixels = self.pixels
        if pixels.photometric == "PALETTE COLOR":
            return _bytes(apply_color_lut(frame, self._head), 8)[..., :3].copy()
        if pixels.samples == 3:
            return _bytes(frame, pixels.stored)
        if pixels.samples != 1:
            raise CannotRender(f"{pixels.samples} samples of a pixel are no colour that is known")
        grey = self._grey(frame, number, window)
        if pixels.photometric == "MONOCHROME1":
            grey = 1 - grey
        return np.asarray(np.clip(grey * 255 + 0.5, 0, 255), np.uint8)

    def _grey(self, frame: Grey, number: int, window: Window | None) -> Grey:
        """Black is 0, white 1."""
        exact = "f8" if self.pixels.allocated > 16 else "f4"
        padding = self._padding(frame)
        groups = self._groups(number)
        if table := self._head.get("ModalityLUTSequence"):
            values = _looked_up(frame, table[0], self._order)[0].astype(exact)
        else:
            values = frame.astype(exact)
            rescale = _group(groups, "PixelValueTransformationSequence")
            slope, intercept = rescale.get("RescaleSlope"), rescale.get("RescaleIntercept")
            if slope is not None and intercept is not None:
                values = values * float(slope) + float(intercept)
        if window is None:
            voi = _group(groups, "FrameVOILUTSequence")
            if table := voi.get("VOILUTSequence"):
                found, bits = _looked_up(values, table[0], self._order)
                return np.asarray(found / np.float32(2**bits - 1))
            window = _own_window(voi)
        if window is None:  # all that there is, from the lowest value to the highest
            inside = values if padding is None or padding.all() else values[~padding]
            low, high = float(inside.min()), float(inside.max())
            window = Window((low + high) / 2, max(high - low, 1), Function.LINEAR_EXACT)
        return window.grey(values)

    def _padding(self, frame: Grey) -> NDArray[np.bool_] | None:
        """Where the frame shows nothing (PS3.3 C.7.5.1.1.2)."""
        if (value := self._head.get("PixelPaddingValue")) is None:
            return None
        limit = self._head.get("PixelPaddingRangeLimit")
        low, high = sorted((int(value), int(value if limit is None else limit)))
        return np.asarray((frame >= low) & (frame <= high))

    def _aspect(self, number: int) -> float:
        """The height of a pixel, where its width is 1."""
        measured = _group(self._groups(number), "PixelMeasuresSequence")
        for found in (
            measured.get("PixelSpacing"),
            self._head.get("ImagerPixelSpacing"),
            self._head.get("PixelAspectRatio"),
        ):
            if found is not None and len(found) == 2 and float(found[0]) > 0 < float(found[1]):
                ratio = float(found[0]) / float(found[1])
                return ratio if 0.05 < ratio < 20 else 1
        return 1

    def _groups(self, number: int) -> tuple[Dataset, ...]:
        """Where attributes of a frame stand, the most particular first (PS3.3 C.7.6.16)."""
        each = self._head.get("PerFrameFunctionalGroupsSequence") or ()
        shared = self._head.get("SharedFunctionalGroupsSequence") or ()
        own = (each[number - 1],) if number <= len(each) else ()
        return (*own, *shared[:1], self._head)

    @property
    def _order(self) -> str:
        return "<" if kept.little_endian(self._held) else ">"


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(pictures: Iterable[Image.Image], media_type: str, quality: int, duration: int) -> bytes:
    """One picture as image/jpeg or image/png, or any number as image/gif, an animation of them.

    Raises TooLarge where an animation would be.
    """
    written = io.BytesIO()
    shown: Iterator[Image.Image] = iter(pictures)
    match media_type:
        case "image/gif":
            _animate(list(_bounded(shown)), written, duration)
        case "image/png":
            one = next(shown)
            one.save(written, "PNG", compress_level=3, icc_profile=one.info.get("icc_profile"))
        case _:
            one = next(shown)
            one.save(written, "JPEG", quality=quality, icc_profile=one.info.get("icc_profile"))
    return written.getvalue()


def _animate(pictures: Sequence[Image.Image], written: io.BytesIO, duration: int) -> None:
    first, *more = pictures
    more = [one if one.size == first.size else one.resize(first.size) for one in more]
    first.save(written, "GIF", save_all=True, append_images=more, duration=duration, loop=0)


def _bounded(pictures: Iterator[Image.Image]) -> Iterator[Image.Image]:
    size = 0
    for one in pictures:
        size += one.width * one.height
        if size > GIF_PIXELS:
            raise TooLarge(
                f"an animation may have at most {GIF_PIXELS} pixels: ask for fewer frames"
            )
        yield one


@contextmanager
def _as_senders_write() -> Iterator[None]:
    """Where values are read that may not be what the standard wants of them."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (CannotRender, TooLarge):
        raise
    except Exception as error:
        raise CannotRender(f"no picture can be made of it: {type(error).__name__}") from error


def _read_head(held: Held, pixels: Pixels) -> Dataset:
    read = kept.reading(held, INFLATED_LIMIT)
    head = read(0, pixels.head)
    implicit, little = data_set.is_implicit(head), kept.little_endian(held)
    with _as_senders_write():
        found = read_dataset(io.BytesIO(head), implicit, little)
        return correct_ambiguous_vr(found, little) if implicit else found


def _group(groups: Sequence[Dataset], sequence: str) -> Dataset:
    """The first functional group of that name, else the data set itself."""
    for one in groups[:-1]:
        if found := one.get(sequence):
            item: Dataset = found[0]
            return item
    return groups[-1]


def _own_window(voi: Dataset) -> Window | None:
    """The first of the image's own windows."""
    center, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    named = str(voi.get("VOILUTFunction") or "LINEAR").lower().replace("_", "-")
    return Window(center, width, FUNCTIONS.get(named, Function.LINEAR))


def _first(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    values = value if hasattr(value, "__len__") else [value]
    return float(values[0]) if len(values) else None


def _looked_up(values: Grey, table: Dataset, order: str) -> tuple[NDArray[np.uint16], int]:
    """Values through a modality or VOI LUT, and the bits of its entries (PS3.3 C.11.1.1)."""
    count, first, bits = (int(one) for one in table.LUTDescriptor)
    count = count or 1 << 16
    data = table.LUTData
    if isinstance(data, bytes):
        packed = len(data) < 2 * count  # entries of 8 bits, two in a word
        data = np.frombuffer(data, "u1" if packed else order + "u2")
    entries = np.atleast_1d(np.asarray(data))[:count].astype(np.uint16)
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    return entries[places], bits


def _bytes(colours: Grey, stored: int) -> NDArray[np.uint8]:
    """Samples of any depth as bytes."""
    if colours.dtype == np.uint8 and stored <= 8:
        return np.ascontiguousarray(colours)
    depth = stored if stored > 8 else 8 * colours.dtype.itemsize
    return np.asarray(colours >> max(0, depth - 8), np.uint8)


def _draw_overlays(shown: NDArray[np.uint8], head: Dataset, number: int) -> None:
    """Draw the overlay planes of a frame (PS3.3 C.9.2)."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x3000) not in head or (group, 0x0010) not in head:
            continue
        rows, columns = int(head[group, 0x0010].value), int(head[group, 0x0011].value)
        count = int(_of(head, group, 0x0015) or 1)
        first = int(_of(head, group, 0x0051) or 1)
        if (group, 0x0015) in head and not first <= number < first + count:
            continue
        if rows * columns > PIXEL_LIMIT:
            continue
        # Without a number of frames, one plane is for all of them.
        plane = 0 if (group, 0x0015) not in head else number - first
        top, left = (int(one) - 1 for one in (_of(head, group, 0x0050) or (1, 1)))
        begin = plane * rows * columns
        packed = np.frombuffer(
            head[group, 0x3000].value[begin // 8 : (begin + rows * columns + 7) // 8], np.uint8
        )
        bits = np.unpackbits(packed, bitorder="little")[begin % 8 :][: rows * columns]
        if len(bits) < rows * columns:
            continue
        drawn = bits.reshape(rows, columns).astype(bool)
        drawn = drawn[max(0, -top) : shown.shape[0] - top, max(0, -left) : shown.shape[1] - left]
        top, left = max(0, top), max(0, left)
        shown[top : top + drawn.shape[0], left : left + drawn.shape[1]][drawn] = 255


def _of(head: Dataset, group: int, element: int) -> Any:
    return head[group, element].value if (group, element) in head else None


def _fitted(picture: Image.Image, aspect: float, viewport: Viewport | None) -> Image.Image:
    """The picture with square pixels, the wanted region of it in the wanted size."""
    width, height = picture.size
    if viewport is None:
        if abs(aspect - 1) < 0.01:
            return picture
        taller, wider = max(1, aspect), max(1, 1 / aspect)
        return _resized(picture, (0, 0, width, height), (width * wider, height * taller))
    across, down = picture.size if viewport.relative else (1, 1)
    left, top = viewport.left * across, viewport.top * down
    wide = width - left if viewport.region_width is None else viewport.region_width * across
    high = height - top if viewport.region_height is None else viewport.region_height * down
    right, bottom = min(width, left + abs(wide)), min(height, top + abs(high))
    if right - left < 1 or bottom - top < 1:
        raise CannotRender("the region lies outside the image")
    scale = min(viewport.width / (right - left), viewport.height / ((bottom - top) * aspect))
    if not viewport.enlarging:
        scale = min(1, scale)
    size = ((right - left) * scale, (bottom - top) * aspect * scale)
    fitted = _resized(picture, (left, top, right, bottom), size)
    if wide < 0:
        fitted = fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return fitted.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if high < 0 else fitted


def _resized(
    picture: Image.Image, box: tuple[float, float, float, float], size: tuple[float, float]
) -> Image.Image:
    width, height = (max(1, round(one)) for one in size)
    if width * height > PIXEL_LIMIT:
        raise TooLarge(f"a picture may have at most {PIXEL_LIMIT} pixels")
    if (width, height) == picture.size and box == (0, 0, *picture.size):
        return picture
    return picture.resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=3.0)
