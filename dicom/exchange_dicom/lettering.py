"""Text on pictures: which typeface writes it, what that cannot write, and how it is drawn.

Hanzi need a typeface that has them, which the operator names or the system has; without one, text
is in Latin letters, by the typeface that Pillow brings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PLACES = (
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
    Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"),
)
"""Where systems have a typeface with hanzi: Debian, Fedora. All others fontconfig knows of."""

PATIENCE = 20.0
"""Seconds in which fontconfig answers, also when it first makes its cache."""

SMALLEST, LARGEST = 8, 96
"""Pixels of the height of letters."""

FACES = 100
"""Faces of a collection that are looked at for the one of simplified Chinese."""

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont
Tone = int | tuple[int, int, int]


class Lettering:
    """A typeface in all sizes."""

    def __init__(self, font: Path | None = None) -> None:
        """`font` is a file of TrueType or OpenType. Raises OSError where it is none."""
        self._font = font
        self._index = _simplified(font) if font else 0
        self.face = lru_cache(32)(self._face)

    @classmethod
    def of_the_system(cls) -> Lettering:
        """With hanzi if the system has them."""
        usual = next((one for one in PLACES if os.access(one, os.R_OK)), None)
        try:
            return cls(usual or _by_fontconfig())
        except OSError:  # such as a kind of typeface that FreeType does not read
            return cls()

    @property
    def writes_hanzi(self) -> bool:
        """Whether it is more than Latin letters."""
        return self._font is not None

    def writes(self, text: str) -> bool:
        """Whether the typeface has these characters."""
        return self._font is not None or all(" " <= one <= "~" for one in text)

    def legible(self, text: str) -> str:
        """The text with a question mark for each character that cannot be written."""
        shown = "".join(one if one.isprintable() else " " for one in text)
        return "".join(one if self.writes(one) else "?" for one in shown)

    def _face(self, size: int) -> Face:
        """The typeface in this height, in pixels."""
        size = max(SMALLEST, min(LARGEST, size))
        if self._font is None:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self._font, size, self._index)


def drawn(
    picture: Image.Image,
    lettering: Lettering,
    lines: Sequence[str],
    at: tuple[float, float],
    *,
    size: int,
    tone: int = 255,
    upwards: bool = False,
) -> None:
    """Write lines from this place down, or `upwards`, outlined so that they show on any ground."""
    face = lettering.face(size)
    step = round(1.25 * max(SMALLEST, min(LARGEST, size)))
    left, top = at[0], at[1] - step * len(lines) if upwards else at[1]
    brush = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        brush.text(
            (left, top + step * number),
            lettering.legible(line),
            fill=toned(picture, tone),
            font=face,
            stroke_width=1,
            stroke_fill=toned(picture, 0 if tone > 127 else 255),
        )


def toned(picture: Image.Image, tone: int) -> Tone:
    """A grey, from 0 to 255, in the picture's own mode."""
    return (tone, tone, tone) if picture.mode == "RGB" else tone


def _by_fontconfig() -> Path | None:
    """The file that fontconfig has for Chinese, where that has simplified Chinese (fc-match)."""
    program = shutil.which("fc-match")
    if program is None:
        return None
    told = [program, "--format=%{file}\n%{lang}", "sans-serif:lang=zh-cn"]
    try:
        answer = subprocess.run(  # noqa: S603 - all words of it are ours
            told, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    file, _, languages = answer.stdout.partition("\n")
    # It always has one; what languages that is for, it says, too.
    return Path(file) if "zh-cn" in languages.split("|") else None


def _simplified(font: Path) -> int:
    """Which face of a collection has the forms of simplified Chinese."""
    for index in range(FACES):
        try:
            family = ImageFont.truetype(font, SMALLEST, index).getname()[0] or ""
        except OSError:
            break
        if family.endswith(" SC"):
            return index
    ImageFont.truetype(font, SMALLEST)
    return 0


LATIN = Lettering()
"""Latin letters alone."""
