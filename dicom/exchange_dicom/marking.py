"""Graphics and text of presentation states, and captions, drawn on pictures (PS3.3 C.10.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from exchange_dicom.lettering import Lettering, drawn, toned
from exchange_dicom.presentation_state import Area, Line, Mark, Point, Text
from exchange_dicom.viewport import Placing

_SIZE = 24
"""The height of a picture in lines of its text, where nothing says how large that is."""


def mark(
    picture: Image.Image,
    marks: Iterable[Mark],
    placing: Placing,
    area: Area,
    lettering: Lettering,
) -> None:
    """Draw the marks; `placing` says where the image's points lie, `area` what is displayed."""

    def place(point: Point, of_area: bool) -> Point:
        # Parts of the displayed area are parts of what is seen, however the image lies in it.
        x, y = (shown if of_area else placing).of(*point)
        return max(-_FAR, min(_FAR, x)), max(-_FAR, min(_FAR, y))

    corners = [placing.of(x, y) for x in (area.left, area.right) for y in (area.top, area.bottom)]
    left, top = (min(one[axis] for one in corners) for axis in (0, 1))
    right, bottom = (max(one[axis] for one in corners) for axis in (0, 1))
    shown = Placing(a=right - left, c=left, e=bottom - top, f=top)
    brush = ImageDraw.Draw(picture)
    for one in marks:
        ink = toned(picture, one.tone)
        match one:
            case Line():
                points = [place(point, one.of_area) for point in one.points]
                if len(points) == 1:
                    ((x, y),) = points
                    brush.ellipse((x - 2, y - 2, x + 2, y + 2), fill=ink)
                elif one.filled:
                    brush.polygon(points, fill=ink)
                else:
                    brush.line(points, fill=ink, width=1 + picture.height // 800, joint="curve")
            case Text():
                at = place(one.at, one.of_area)
                if one.anchor is not None:
                    brush.line([at, place(one.anchor, one.anchor_of_area)], fill=ink)
                size = picture.height // _SIZE
                if one.height:
                    scale = bottom - top if one.of_area else abs(placing.e) + abs(placing.d)
                    size = int(one.height * scale / (1.25 * len(one.lines)))
                drawn(picture, lettering, one.lines, at, size=size, tone=one.tone)


def caption(
    picture: Image.Image, lettering: Lettering, above: Sequence[str], below: Sequence[str]
) -> None:
    """Write who was imaged above, and how below."""
    size = max(_LEGIBLE, picture.height // (_SIZE + 8))
    drawn(picture, lettering, above, (4, 2), size=size)
    drawn(picture, lettering, below, (4, picture.height - 4), size=size, upwards=True)


_LEGIBLE = 12
"""Pixels of the height of a caption's letters, at least."""

_FAR = 1e5
"""Pixels from the picture beyond which nothing is drawn: lines end there."""
