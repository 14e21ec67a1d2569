"""The size and the part in which a picture is shown (PS3.18 8.3.5.1.3 and 9.4.1.2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from exchange.errors import TooLarge
from exchange_dicom.grey_values import CannotRender

PIXEL_LIMIT = 64 << 20
"""Pixels of the largest frame that is rendered, and of the largest picture."""


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


@dataclass(frozen=True, slots=True)
class Placing:
    """Where in a picture the points of an image lie: x' = a x + b y + c, y' = d x + e y + f."""

    a: float = 1
    b: float = 0
    c: float = 0
    d: float = 0
    e: float = 1
    f: float = 0

    def of(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        return self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f

    def then(self, next_one: Placing) -> Placing:
        """This one, and behind it the next."""
        n = next_one
        return Placing(
            n.a * self.a + n.b * self.d,
            n.a * self.b + n.b * self.e,
            n.a * self.c + n.b * self.f + n.c,
            n.d * self.a + n.e * self.d,
            n.d * self.b + n.e * self.e,
            n.d * self.c + n.e * self.f + n.f,
        )


def turned(picture: Image.Image, degrees: int, *, flipped: bool) -> tuple[Image.Image, Placing]:
    """The picture turned clockwise, then left and right exchanged (PS3.3 C.10.6)."""
    width, height = picture.size
    placing = Placing()
    match degrees:
        case 90:
            picture = picture.transpose(Image.Transpose.ROTATE_270)
            placing = Placing(0, -1, height, 1, 0, 0)
        case 180:
            picture = picture.transpose(Image.Transpose.ROTATE_180)
            placing = Placing(-1, 0, width, 0, -1, height)
        case 270:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
            placing = Placing(0, 1, 0, -1, 0, width)
    if flipped:
        placing = placing.then(Placing(a=-1, c=picture.width))
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture, placing


def fitted(
    picture: Image.Image, aspect: float, viewport: Viewport | None
) -> tuple[Image.Image, Placing]:
    """The picture with square pixels, the wanted region of it in the wanted size.

    `aspect` is the height of a pixel where its width is 1. Raises TooLarge, CannotRender.
    """
    width, height = picture.size
    if viewport is None:
        if abs(aspect - 1) < 0.01:
            return picture, Placing()
        taller, wider = max(1, aspect), max(1, 1 / aspect)
        made = _resized(picture, (0, 0, width, height), (width * wider, height * taller))
        return made, Placing(a=made.width / width, e=made.height / height)
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
    made = _resized(picture, (left, top, right, bottom), size)
    x, y = made.width / (right - left), made.height / (bottom - top)
    placing = Placing(a=x, c=-left * x, e=y, f=-top * y)
    if wide < 0:
        made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        placing = placing.then(Placing(a=-1, c=made.width))
    if high < 0:
        made = made.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        placing = placing.then(Placing(e=-1, f=made.height))
    return made, placing


def _resized(
    picture: Image.Image, box: tuple[float, float, float, float], size: tuple[float, float]
) -> Image.Image:
    width, height = (max(1, round(one)) for one in size)
    if width * height > PIXEL_LIMIT:
        raise TooLarge(f"a picture may have at most {PIXEL_LIMIT} pixels")
    if (width, height) == picture.size and box == (0, 0, *picture.size):
        return picture
    return picture.resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=3.0)
