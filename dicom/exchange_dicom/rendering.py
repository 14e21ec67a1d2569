"""Pictures of frames, as they would first be shown (PS3.3 C.7.6.3 and C.11, PS3.4 N.2).

Grey values go through the modality LUT, the window or VOI LUT, and the inversion of MONOCHROME1;
palettes become colours, YBR becomes RGB. Overlay graphics are drawn white. What a multi-frame image
says of one frame in its functional groups goes before what it says of all; a presentation state
goes before all that an image says. Colours come as they are stored, with the ICC profile by which
they are meant, or converted to sRGB, where that is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from exchange.errors import TooLarge
from exchange.retrieval import Held
from exchange_dicom import frame_coding, kept, marking, pixel_data
from exchange_dicom.grey_values import (
    CannotRender,
    Function,
    Grey,
    Window,
    as_senders_write,
    looked_up,
    own_window,
    read_data_set,
)
from exchange_dicom.lettering import LATIN, Lettering
from exchange_dicom.presentation_state import PresentationState
from exchange_dicom.viewport import PIXEL_LIMIT, Placing, Viewport, fitted, turned

HEAD_LIMIT = 64 << 20
"""Bytes of the longest header of which a picture is made."""

GIF_PIXELS = 32 << 20
"""Pixels of all pictures of one animation: they are in memory together."""

PROFILE_LIMIT = 4 << 20
"""Bytes of the largest ICC profile that is used."""

DURATION = 100
"""Milliseconds for which an animation shows a picture, where the image does not say."""


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
    patient: tuple[str, ...] = ()
    """Lines that say who was imaged, as the asker knows them."""
    technique: bool = False
    """Whether the picture says how it was taken."""


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
        self._head = read_data_set(held, self.pixels.head)

    @property
    def duration(self) -> int:
        """Milliseconds of one frame."""
        with suppress(CannotRender), as_senders_write():
            if time := self._head.get("FrameTime"):
                return max(20, min(10_000, round(float(time))))
            for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
                if rate := self._head.get(keyword):
                    return max(20, min(10_000, round(1000 / float(rate))))
        return DURATION

    @property
    def representative(self) -> int:
        """The frame that stands for all: the one that the image names, else the middle one."""
        with as_senders_write():
            if (named := int(self._head.get("RepresentativeFrameNumber") or 0)) >= 1:
                return min(named, self.pixels.frames)
        return (self.pixels.frames + 1) // 2

    def picture(
        self,
        number: int,
        wanted: Presentation,
        state: PresentationState | None = None,
        lettering: Lettering = LATIN,
    ) -> Image.Image:
        """A frame, counted from 1, as a picture in grey or RGB, shown as `state` wants it.

        Also raises CannotTranscode.
        """
        with frame_coding.in_turn(self.pixels):
            made = self._picture(number, wanted, state, lettering)
        with as_senders_write():
            if wanted.patient or wanted.technique:
                below = _technique(self._head) if wanted.technique else ()
                marking.caption(made, lettering, wanted.patient, below)
            return made if wanted.profile is Profile.NO else self._profiled(made, wanted.profile)

    def _picture(
        self,
        number: int,
        wanted: Presentation,
        state: PresentationState | None,
        lettering: Lettering,
    ) -> Image.Image:
        stored = pixel_data.stored_frame(self._held, self.pixels, number)
        syntax = self._held.transfer_syntax_uid
        frame = frame_coding.decoded(self.pixels, syntax, stored, rgb=True)
        with as_senders_write():
            if state is not None:
                return self._by(state, frame, number, wanted, lettering)
            shown = self._shown(frame, number, wanted.window)
            aspect = 1.0
            with suppress(CannotRender), as_senders_write():
                aspect = self._aspect(number)
                for group in range(0x6000, 0x6020, 2):
                    _draw_overlay(shown, self._head, group, number)
            return fitted(Image.fromarray(shown), aspect, wanted.viewport)[0]

    def _by(
        self,
        state: PresentationState,
        frame: Grey,
        number: int,
        wanted: Presentation,
        lettering: Lettering,
    ) -> Image.Image:
        """The frame by a presentation state, in the sequence of PS3.4 N.2."""
        of = (self._held.sop_instance_uid, number)
        if self.pixels.samples == 1 and self.pixels.photometric != "PALETTE COLOR":
            grey = state.grey(frame, self._full, of, wanted.window)
            shown = state.coloured(grey) if state.of_colours else _of_bytes(grey)
        else:
            shown = self._shown(frame, number, None)
        rows, columns = shown.shape[:2]
        plane = None
        if (group := state.shutter_overlay) is not None:
            plane = np.zeros((rows, columns), np.uint8)
            _draw_overlay(plane, state.overlay_of_shutter(self._head), group, number)
        hidden = state.covered(rows, columns, None if plane is None else plane > 0)
        if hidden is not None:
            shown[hidden] = state.cover
        for group, told, tone in state.overlays(self._head):
            _draw_overlay(shown, told, group, number, tone)
        area = state.area(rows, columns, of)
        wide, high = area.right - area.left, area.bottom - area.top
        if wide * high > PIXEL_LIMIT:
            raise TooLarge(f"a picture may have at most {PIXEL_LIMIT} pixels")
        cut = Image.fromarray(shown).crop((area.left, area.top, area.right, area.bottom))
        made, turn = turned(cut, state.rotation, flipped=state.flipped)
        aspect = self._aspect(number) if area.aspect is None else area.aspect
        if state.rotation in (90, 270):
            aspect = 1 / aspect
        made, fit = fitted(made, aspect, wanted.viewport)
        placing = Placing(c=-area.left, f=-area.top).then(turn).then(fit)
        marking.mark(made, state.marks(of), placing, area, lettering)
        return made

    @property
    def _full(self) -> tuple[int, int]:
        """The lowest and the highest value that a pixel can have."""
        values = 1 << min(self.pixels.stored, 32)
        return (-values // 2, values // 2 - 1) if self.pixels.representation else (0, values - 1)

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
        return _of_bytes(grey)

    def _grey(self, frame: Grey, number: int, window: Window | None) -> Grey:
        """Black is 0, white 1."""
        exact = "f8" if self.pixels.allocated > 16 else "f4"
        padding = self._padding(frame)
        groups = self._groups(number)
        if table := self._head.get("ModalityLUTSequence"):
            values = looked_up(frame, table[0], self._order)[0].astype(exact)
        else:
            values = frame.astype(exact)
            rescale = _group(groups, "PixelValueTransformationSequence")
            slope, intercept = rescale.get("RescaleSlope"), rescale.get("RescaleIntercept")
            if slope is not None and intercept is not None:
                values = values * float(slope) + float(intercept)
        if window is None:
            voi = _group(groups, "FrameVOILUTSequence")
            if table := voi.get("VOILUTSequence"):
                found, bits = looked_up(values, table[0], self._order)
                return np.asarray(found / np.float32(2**bits - 1))
            window = own_window(voi)
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


def _group(groups: Sequence[Dataset], sequence: str) -> Dataset:
    """The first functional group of that name, else the data set itself."""
    for one in groups[:-1]:
        if found := one.get(sequence):
            item: Dataset = found[0]
            return item
    return groups[-1]


def _of_bytes(grey: Grey) -> NDArray[np.uint8]:
    return np.asarray(np.clip(grey * 255 + 0.5, 0, 255), np.uint8)


def _bytes(colours: Grey, stored: int) -> NDArray[np.uint8]:
    """Samples of any depth as bytes."""
    if colours.dtype == np.uint8 and stored <= 8:
        return np.ascontiguousarray(colours)
    depth = stored if stored > 8 else 8 * colours.dtype.itemsize
    return np.asarray(colours >> max(0, depth - 8), np.uint8)


def _technique(head: Dataset) -> tuple[str, ...]:
    """How an image was taken, in the words of the field; what it does not say is left out."""

    def said(keyword: str, form: str = "{}") -> str:
        value = head.get(keyword)
        text = "" if value is None else str(value).strip()
        return form.format(text[:32]) if text else ""

    place = (said(one) for one in ("Modality", "BodyPartExamined", "ViewPosition", "Laterality"))
    number = (said("SeriesNumber", "Se {}"), said("InstanceNumber", "Im {}"))
    beam = (said("KVP", "{} kV"), said("XRayTubeCurrent", "{} mA"), said("Exposure", "{} mAs"))
    field = (said("MagneticFieldStrength", "{} T"), said("RepetitionTime", "TR {}"))
    echo = (said("EchoTime", "TE {}"), said("SliceThickness", "{} mm"))
    lines = (" ".join(filter(None, one)) for one in (place, number, (*beam, *field, *echo)))
    return tuple(filter(None, lines))


def _draw_overlay(
    shown: NDArray[np.uint8], head: Dataset, group: int, number: int, tone: int = 255
) -> None:
    """Draw the overlay plane of a frame, if there is one in this group (PS3.3 C.9.2)."""
    if (group, 0x3000) not in head or (group, 0x0010) not in head:
        return
    rows, columns = int(head[group, 0x0010].value), int(head[group, 0x0011].value)
    count = int(_of(head, group, 0x0015) or 1)
    first = int(_of(head, group, 0x0051) or 1)
    if (group, 0x0015) in head and not first <= number < first + count:
        return
    if rows * columns > PIXEL_LIMIT:
        return
    # Without a number of frames, one plane is for all of them.
    plane = 0 if (group, 0x0015) not in head else number - first
    top, left = (int(one) - 1 for one in (_of(head, group, 0x0050) or (1, 1)))
    begin = plane * rows * columns
    packed = np.frombuffer(
        head[group, 0x3000].value[begin // 8 : (begin + rows * columns + 7) // 8], np.uint8
    )
    bits = np.unpackbits(packed, bitorder="little")[begin % 8 :][: rows * columns]
    if len(bits) < rows * columns:
        return
    drawn = bits.reshape(rows, columns).astype(bool)
    drawn = drawn[max(0, -top) : shown.shape[0] - top, max(0, -left) : shown.shape[1] - left]
    top, left = max(0, top), max(0, left)
    shown[top : top + drawn.shape[0], left : left + drawn.shape[1]][drawn] = tone


def _of(head: Dataset, group: int, element: int) -> Any:
    return head[group, element].value if (group, element) in head else None
