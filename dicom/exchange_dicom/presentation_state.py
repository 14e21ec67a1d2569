"""Presentation states: how somebody wants images to be shown (PS3.3 A.33, PS3.4 annex N).

Of grayscale, colour and pseudo-colour softcopy presentation states: modality, VOI and presentation
LUT, which all go in the place of the image's own; the palette of a pseudo-colour one; shutters,
overlays that are activated, the displayed area, rotation and flip; graphics and text. What they
leave out is left out: an image has no window of its own any more, and is not inverted because it is
MONOCHROME1 (PS3.4 N.2.1). Subtraction of a mask is not served, nor are presentation states that
blend images or cut volumes: they are refused by name rather than neglected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID

from exchange.errors import TooLarge
from exchange.retrieval import Held
from exchange_dicom import kept
from exchange_dicom.grey_values import (
    CannotRender,
    Grey,
    Window,
    as_senders_write,
    looked_up,
    own_window,
    read_data_set,
)

GRAYSCALE = "1.2.840.10008.5.1.4.1.1.11.1"
COLOR = "1.2.840.10008.5.1.4.1.1.11.2"
PSEUDO_COLOR = "1.2.840.10008.5.1.4.1.1.11.3"
APPLIED = frozenset({GRAYSCALE, COLOR, PSEUDO_COLOR})
"""SOP classes of the presentation states that can be applied."""

STATES = frozenset(f"1.2.840.10008.5.1.4.1.1.11.{last}" for last in range(1, 13))
"""SOP classes of all presentation states."""

SIZE_LIMIT = 8 << 20
"""Bytes of the largest presentation state that is read."""

REFERENCES = 2000
"""Images of one presentation state."""

MARKS = 10_000
"""Graphic and text objects that are drawn."""

POINTS = 200_000
"""Points and characters of all of them; each takes its time."""

LETTERS = 4096
"""Characters of a text object that are drawn."""

_ROUND = 72
"""Corners of a drawn ellipse."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Reference:
    """An image to which a presentation state applies; to all its frames where none are named."""

    series_instance_uid: str
    sop_instance_uid: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """The part of an image that is displayed, in its pixels; it may reach beyond its edges."""

    left: int
    top: int
    right: int
    bottom: int
    aspect: float | None
    """The height of a pixel where its width is 1, if it is told."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or an area where it is `filled`."""

    points: tuple[Point, ...]
    of_area: bool
    """Whether the points are in parts of the displayed area, else in pixels of the image."""
    filled: bool
    tone: int

    @property
    def size(self) -> int:
        """Its points."""
        return len(self.points)


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of text, where they are written and to what they point."""

    lines: tuple[str, ...]
    at: Point
    of_area: bool
    height: float | None
    """Of the box into which they are fitted, in the unit of the place."""
    tone: int
    anchor: Point | None = None
    anchor_of_area: bool = False

    @property
    def size(self) -> int:
        """Its characters."""
        return sum(map(len, self.lines))


Mark = Line | Text


class PresentationState:
    """A presentation state that the asker may have.

    Raises CannotRender where it is not one that can be applied, MalformedDataSet, TooLarge,
    Unavailable; so do its methods.
    """

    def __init__(self, held: Held) -> None:
        if held.sop_class_uid not in APPLIED:
            raise CannotRender(
                f"{UID(held.sop_class_uid).name} cannot be applied: of presentation states, "
                "grayscale, color and pseudo-color ones are"
            )
        if held.size > SIZE_LIMIT:
            raise TooLarge(f"a presentation state may have at most {SIZE_LIMIT} bytes")
        self.digest, self.sop_instance_uid = held.digest, held.sop_instance_uid
        self.of_colours = held.sop_class_uid == PSEUDO_COLOR
        """Whether grey values become colours by `coloured`."""
        self._told = read_data_set(held, SIZE_LIMIT)
        self._characters = kept.character_set(held)
        self._order = "<" if kept.little_endian(held) else ">"
        with as_senders_write():
            if self._told.get("MaskSubtractionSequence"):
                raise CannotRender("a presentation state that subtracts a mask is not applied")
            self.references = tuple(_references(self._told))
            self._layers = dict(_layers(self._told))
        if len(self.references) > REFERENCES:
            raise TooLarge(f"a presentation state may refer to at most {REFERENCES} images")

    def applies_to(self, sop_instance_uid: str, frame: int) -> bool:
        """Whether it says how this frame of this image is shown."""
        return any(
            one.sop_instance_uid == sop_instance_uid and (not one.frames or frame in one.frames)
            for one in self.references
        )

    def grey(
        self, frame: Grey, full: tuple[int, int], of: tuple[str, int], window: Window | None
    ) -> Grey:
        """Stored values as grey: black is 0, white 1. `full` are the lowest and highest they can
        be, `of` names image and frame, a `window` goes before that of the presentation state.
        """
        exact = "f8" if frame.dtype.itemsize > 2 else "f4"
        values, ends = frame.astype(exact), np.asarray(full, "f8")
        if table := self._told.get("ModalityLUTSequence"):
            values, bits = looked_up(frame, table[0], self._order)
            values, ends = values.astype(exact), np.asarray((0, 2**bits - 1), "f8")
        elif (slope := self._told.get("RescaleSlope")) is not None:
            intercept = float(self._told.get("RescaleIntercept") or 0)
            values, ends = (one * float(slope) + intercept for one in (values, ends))
        grey = self._voi(values, ends, of, window)
        if table := self._told.get("PresentationLUTSequence"):
            entries = int(table[0].LUTDescriptor[0]) or 1 << 16
            first = int(table[0].LUTDescriptor[1])
            places = np.clip(grey, 0, 1) * (entries - 1) + first
            found, bits = looked_up(places, table[0], self._order)
            return np.asarray(found / np.float32(2**bits - 1))
        return 1 - grey if self._told.get("PresentationLUTShape") == "INVERSE" else grey

    def _voi(
        self, values: Grey, ends: NDArray[Any], of: tuple[str, int], window: Window | None
    ) -> Grey:
        voi = next(self._items("SoftcopyVOILUTSequence", of), Dataset())
        if window is None and (table := voi.get("VOILUTSequence")):
            found, bits = looked_up(values, table[0], self._order)
            return np.asarray(found / np.float32(2**bits - 1))
        if (window := window or own_window(voi)) is not None:
            return window.grey(values)
        low, high = sorted(float(one) for one in ends)
        return np.asarray((values - low) / max(high - low, 1e-9))

    def coloured(self, grey: Grey) -> NDArray[np.uint8]:
        """Grey, from 0 to 1, as RGB, by the palette (PS3.4 N.2.2): its whole range is all of it."""
        descriptor = self._told.get("RedPaletteColorLookupTableDescriptor")
        if descriptor is None:
            raise CannotRender("the presentation state has no palette")
        entries, first, bits = (int(one) for one in descriptor)
        entries = entries or 1 << 16
        places = np.round(np.clip(grey, 0, 1) * (entries - 1)).astype("i4") + first
        found = apply_color_lut(places, self._told)[..., :3]
        return np.ascontiguousarray(found >> max(0, bits - 8), np.uint8)

    def covered(self, rows: int, columns: int, plane: NDArray[np.bool_] | None) -> Grey | None:
        """Where a shutter hides the image; `plane` is the overlay of one that is a bitmap."""
        shapes = _several(self._told.get("ShutterShape"))
        hidden = np.zeros((rows, columns), bool)
        for shape in dict.fromkeys(shapes):  # once, however often one is named
            match shape:
                case "RECTANGULAR":
                    left, right, top, bottom = (
                        int(self._told.get(f"Shutter{edge}Edge"))
                        for edge in (
                            "LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal",
                        )
                    )  # fmt: skip
                    seen = np.zeros_like(hidden)
                    seen[max(0, top - 1) : max(0, bottom), max(0, left - 1) : max(0, right)] = True
                    hidden |= ~seen
                case "CIRCULAR":
                    row, column = (int(one) for one in self._told.CenterOfCircularShutter)
                    radius = int(self._told.RadiusOfCircularShutter)
                    down, across = np.ogrid[1 : rows + 1, 1 : columns + 1]
                    hidden |= (down - row) ** 2.0 + (across - column) ** 2.0 > radius**2
                case "POLYGONAL":
                    numbers = [int(one) for one in self._told.VerticesOfThePolygonalShutter]
                    corners = list(zip(numbers[1::2], numbers[::2], strict=False))
                    mask = Image.new("1", (columns, rows))
                    ImageDraw.Draw(mask).polygon(
                        [(across - 1, down - 1) for across, down in corners], fill=1
                    )
                    hidden |= ~np.asarray(mask)
                case "BITMAP" if plane is not None:
                    hidden |= plane
        return hidden if shapes else None

    @property
    def cover(self) -> int:
        """The tone of what a shutter hides."""
        return _tone(self._told.get("ShutterPresentationValue"), 0)

    @property
    def shutter_overlay(self) -> int | None:
        """The group of the overlay that is a shutter."""
        group = self._told.get("ShutterOverlayGroup")
        return None if group is None else int(group)

    def overlays(self, image: Dataset) -> Iterator[tuple[int, Dataset, int]]:
        """Group, data set and tone of the overlays that are activated."""
        for group in range(0x6000, 0x6020, 2):
            if (layer := self._told.get((group, 0x1001))) is not None and layer.value:
                own = (group, 0x3000) in self._told
                tone = self._layers.get(str(layer.value), (0, 255))[1]
                yield group, self._told if own else image, tone

    def overlay_of_shutter(self, image: Dataset) -> Dataset:
        """Where the overlay of the shutter lies: here, else in the image."""
        group = self.shutter_overlay
        own = group is not None and (group, 0x3000) in self._told
        return self._told if own else image

    def area(self, rows: int, columns: int, of: tuple[str, int]) -> Area:
        """What is displayed of an image: all of it where nothing is said."""
        told = next(self._items("DisplayedAreaSelectionSequence", of), None)
        if told is None:
            return Area(0, 0, columns, rows, None)
        corners = (
            told.DisplayedAreaTopLeftHandCorner,
            told.DisplayedAreaBottomRightHandCorner,
        )
        across, down = (sorted(int(one[axis]) for one in corners) for axis in (0, 1))
        aspect = None
        for keyword in ("PresentationPixelSpacing", "PresentationPixelAspectRatio"):
            if (found := told.get(keyword)) is not None and len(found) == 2:
                ratio = float(found[0]) / float(found[1])
                aspect = ratio if 0.05 < ratio < 20 else None
                break
        return Area(across[0] - 1, down[0] - 1, across[1], down[1], aspect)

    @property
    def rotation(self) -> int:
        """Degrees clockwise: 0, 90, 180 or 270."""
        degrees = int(self._told.get("ImageRotation") or 0)
        return degrees if degrees in (90, 180, 270) else 0

    @property
    def flipped(self) -> bool:
        """Whether left and right are exchanged, after the rotation."""
        return str(self._told.get("ImageHorizontalFlip") or "") == "Y"

    def marks(self, of: tuple[str, int]) -> list[Mark]:
        """Graphics and text, in the order in which they are drawn."""
        found: list[tuple[int, Mark]] = []
        size = 0
        for item in self._items("GraphicAnnotationSequence", of):
            order, tone = self._layers.get(str(item.get("GraphicLayer") or ""), (0, 255))
            lines = (
                line
                for one in item.get("GraphicObjectSequence") or ()
                for line in _lines(one, tone)
            )
            texts = (self._text(one, tone) for one in item.get("TextObjectSequence") or ())
            every: Iterator[Mark] = chain(lines, filter(None, texts))
            for mark in every:
                found.append((order, mark))
                size += mark.size
                if len(found) > MARKS or size > POINTS:
                    raise TooLarge(
                        f"a presentation state may draw at most {MARKS} objects of {POINTS} points"
                    )
        return [mark for _, mark in sorted(found, key=lambda one: one[0])]

    def _text(self, told: Dataset, tone: int) -> Text | None:
        raw = told.get_item(0x00700006)
        value = raw.value if isinstance(raw, RawDataElement) else None
        written = self._characters.decode(value or b"")[:LETTERS]
        lines = tuple(line.rstrip(" \0") for line in written.splitlines()) or ("",)
        anchor = told.get("AnchorPoint")
        pointed = None if anchor is None else (float(anchor[0]), float(anchor[1]))
        anchored = str(told.get("AnchorPointAnnotationUnits") or "") == "DISPLAY"
        corner, other = (
            told.get(f"BoundingBox{one}HandCorner") for one in ("TopLeft", "BottomRight")
        )
        if corner is None or other is None:
            return Text(lines, pointed, anchored, None, tone) if pointed else None
        shows = told.get("AnchorPointVisibility") == "Y"
        return Text(
            lines,
            (float(corner[0]), float(corner[1])),
            str(told.get("BoundingBoxAnnotationUnits") or "") == "DISPLAY",
            abs(float(other[1]) - float(corner[1])),
            tone,
            pointed if shows else None,
            anchored,
        )

    def _items(self, keyword: str, of: tuple[str, int]) -> Iterator[Dataset]:
        """The items of a sequence that are about this image and frame."""
        uid, frame = of
        for item in self._told.get(keyword) or ():
            named = item.get("ReferencedImageSequence")
            if not named or any(
                str(one.get("ReferencedSOPInstanceUID")) == uid
                and (not (frames := _frames(one)) or frame in frames)
                for one in named
            ):
                yield item


def _references(told: Dataset) -> Iterator[Reference]:
    for series in told.get("ReferencedSeriesSequence") or ():
        for image in series.get("ReferencedImageSequence") or ():
            yield Reference(
                str(series.SeriesInstanceUID), str(image.ReferencedSOPInstanceUID), _frames(image)
            )


def _frames(image: Dataset) -> tuple[int, ...]:
    return tuple(int(one) for one in _several(image.get("ReferencedFrameNumber")))


def _layers(told: Dataset) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, order and tone of the graphic layers."""
    for one in told.get("GraphicLayerSequence") or ():
        tone = 255
        if (grey := one.get("GraphicLayerRecommendedDisplayGrayscaleValue")) is not None:
            tone = _tone(grey, 255)
        elif colour := one.get("GraphicLayerRecommendedDisplayCIELabValue"):
            tone = _tone(colour[0], 255)
        yield str(one.get("GraphicLayer") or ""), (int(one.get("GraphicLayerOrder") or 0), tone)


def _tone(value: Any, absent: int) -> int:
    """A P-Value of 16 bits as one of 8."""
    return absent if value is None else max(0, min(255, round(int(value) / 257)))


def _several(value: Any) -> Sequence[Any]:
    if value is None or value == "":
        return ()
    return [value] if isinstance(value, str | int | float) else list(value)


def _lines(told: Dataset, tone: int) -> Iterator[Line]:
    """A graphic object as straight lines (PS3.3 C.10.5.1.2)."""
    numbers = [float(one) for one in _several(told.get("GraphicData"))]
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    if len(points) > MARKS:
        raise TooLarge(f"a graphic object may have at most {MARKS} points")
    of_area = str(told.get("GraphicAnnotationUnits") or "") == "DISPLAY"
    filled = str(told.get("GraphicFilled") or "") == "Y"
    match str(told.get("GraphicType") or ""), points:
        case "POINT", [point, *_]:
            shape = [point]
        case "POLYLINE", [_, _, *_]:
            shape = points
        case "INTERPOLATED", [_, _, *_]:
            shape = list(_smooth(points))
        case "CIRCLE", [(x, y), (at_x, at_y), *_]:
            radius = float(np.hypot(at_x - x, at_y - y))
            shape = list(_ellipse((x, y), (radius, 0), (0, radius)))
        case "ELLIPSE", [left, right, top, bottom, *_]:
            middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
            long, short = (
                ((b[0] - a[0]) / 2, (b[1] - a[1]) / 2) for a, b in ((left, right), (top, bottom))
            )
            shape = list(_ellipse(middle, long, short))
        case _:
            return
    closed = shape[0] == shape[-1] and len(shape) > 2
    yield Line(tuple(shape), of_area, filled and closed, tone)


def _ellipse(middle: Point, long: Point, short: Point) -> Iterator[Point]:
    for step in range(_ROUND + 1):
        turn = 2 * np.pi * (step % _ROUND) / _ROUND
        along, aside = float(np.cos(turn)), float(np.sin(turn))
        yield (
            middle[0] + along * long[0] + aside * short[0],
            middle[1] + along * long[1] + aside * short[1],
        )


def _smooth(points: Sequence[Point], steps: int = 8) -> Iterator[Point]:
    """A curve through the points, by Catmull and Rom."""
    whole = [points[0], *points, points[-1]]
    for before, begin, end, after in zip(whole, whole[1:], whole[2:], whole[3:], strict=False):
        for step in range(steps):
            t = step / steps
            x, y = (
                0.5
                * (
                    2 * begin[axis]
                    + (end[axis] - before[axis]) * t
                    + (2 * before[axis] - 5 * begin[axis] + 4 * end[axis] - after[axis]) * t**2
                    + (3 * begin[axis] - before[axis] - 3 * end[axis] + after[axis]) * t**3
                )
                for axis in (0, 1)
            )
            yield x, y
    yield points[-1]
