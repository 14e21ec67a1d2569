"""Charts as pictures in the page (SVG 2), drawn here: no script, and no style within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 720, 200
WIDEST = 36
"""Of one bar, in units of the picture."""

_LEFT, _TOP, _BOTTOM = 56, 14, 26


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars over the same labels: one row of values, or several beside each other."""

    title: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]
    """The name of each row, and its values; the first colour is the first row's."""
    every: int = 1
    """Each how manieth label is written."""


def bars(chart: Bars) -> Markup:
    """The chart; its title is what it is for who cannot see it, and a table stands beside it."""
    top = _rounded(max((value for _, values in chart.rows for value in values), default=0))
    inner, count = WIDTH - _LEFT - 4, max(len(chart.labels), 1)
    depth = HEIGHT - _TOP - _BOTTOM
    step = inner / count
    wide = min(step * 0.8 / max(len(chart.rows), 1), WIDEST)
    margin = (step - wide * len(chart.rows)) / 2
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>'
        f"{escape(chart.title)}</title>"
    ]
    for part in (0.0, 0.5, 1.0):
        y = _TOP + depth * (1 - part)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short(top * part)}</text>"
        )
    for number, (name, values) in enumerate(chart.rows):
        for place, value in enumerate(values):
            tall = depth * value / top if top else 0
            x = _LEFT + place * step + margin + number * wide
            label = f"{chart.labels[place]} {name} {short(value)}".strip()
            parts.append(
                f'<rect class="bar-{number + 1}" x="{x:.1f}" y="{_TOP + depth - tall:.1f}" '
                f'width="{wide:.1f}" height="{tall:.1f}"><title>{escape(label)}</title></rect>'
            )
    for place, label in enumerate(chart.labels):
        if place % chart.every == 0:
            x = _LEFT + (place + 0.5) * step
            less = " less" if place // chart.every % 2 else ""  # on a phone every other one
            parts.append(
                f'<text class="axis{less}" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - what came in is escaped above


def short(value: float) -> str:
    """A number in at most four characters and a prefix."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000 or prefix == "P":
            return f"{value:.0f}{prefix}" if value == int(value) else f"{value:.1f}{prefix}"
        value /= 1000
    raise AssertionError("unreachable")


def _rounded(most: float) -> float:
    """The end of the axis: a round number that is not less."""
    if most <= 0:
        return 1
    size = 1
    while size * 10 < most:
        size *= 10
    return next(size * factor for factor in (1, 2, 4, 5, 10) if size * factor >= most)
