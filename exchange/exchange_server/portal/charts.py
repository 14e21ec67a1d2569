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


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a moment."""

    at: float
    """Seconds since 1970."""
    value: float
    label: str
    """What it is for who points at it or hears it."""


@dataclass(frozen=True, slots=True)
class Course:
    """How something went over time, and between which values it should be."""

    title: str
    points: Sequence[Point]
    """In the order of their moments."""
    low: float | None = None
    high: float | None = None
    ends: tuple[str, str] = ("", "")
    """The first and the last moment, as they are written below."""


def course(chart: Course) -> Markup:
    """The chart; a table of the same values stands beside it."""
    values = [one.value for one in chart.points]
    bounds = [bound for bound in (chart.low, chart.high) if bound is not None]
    least, most = min(values + bounds), max(values + bounds)
    margin = (most - least) * 0.1 or abs(most) * 0.1 or 1.0
    least, most = least - margin, most + margin
    first, last = chart.points[0].at, chart.points[-1].at
    inner, depth = WIDTH - _LEFT - 16, HEIGHT - _TOP - _BOTTOM

    def across(at: float) -> float:
        return _LEFT + 8 + (inner * (at - first) / (last - first) if last > first else inner / 2)

    def down(value: float) -> float:
        return _TOP + depth * (most - value) / (most - least)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>'
        f"{escape(chart.title)}</title>"
    ]
    if bounds:
        top = down(chart.high) if chart.high is not None else float(_TOP)
        bottom = down(chart.low) if chart.low is not None else float(_TOP + depth)
        parts.append(
            f'<rect class="normal" x="{_LEFT}" y="{top:.1f}" width="{WIDTH - _LEFT - 4}" '
            f'height="{max(bottom - top, 0):.1f}"/>'
        )
    parts += [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{down(value):.1f}" '
        f'y2="{down(value):.1f}"/><text class="axis" x="{_LEFT - 6}" '
        f'y="{down(value) + 4:.1f}" text-anchor="end">{_told(value)}</text>'
        for value in dict.fromkeys((*bounds, min(values), max(values)))
    ]
    drawn = [(across(one.at), down(one.value), one) for one in chart.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in drawn)
    parts.append(f'<polyline class="course" points="{line}"/>')
    for x, y, one in drawn:
        parts.append(
            f'<circle class="bar-1" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(one.label)}'
            "</title></circle>"
        )
    for x, anchor, text in ((_LEFT, "start", chart.ends[0]), (WIDTH - 4, "end", chart.ends[1])):
        parts.append(
            f'<text class="axis" x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - what came in is escaped above


def _told(value: float) -> str:
    return short(value) if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"


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
