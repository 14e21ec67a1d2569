"""The pictures: pixel arrays of CT, MR, radiography and ultrasound (PS3.3 C.7.6.3), with noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .anatomy import (
    CHEST_HU,
    CONTRAST_HU,
    HEAD_HU,
    T1_SIGNAL,
    T2_SIGNAL,
    Field,
    Real,
    chest_slice,
    head_slice,
    soft,
)

Stored16 = NDArray[np.uint16]
Stored8 = NDArray[np.uint8]

CT_MATRIX, CT_INTERCEPT = 512, -1024
CHEST_SPACING, HEAD_SPACING = 0.74, 0.46
MR_MATRIX, MR_SPACING = 256, 0.9
DX_ROWS, DX_COLUMNS, DX_SPACING = 2140, 1760, 0.19
_RAY_STEPS = (1.25, 4.0, 2.5)
"""How finely (mm in x, y, z) the chest is sampled for its projection."""
US_ROWS, US_COLUMNS, US_SPACING = 480, 640, 0.36
US_APEX, US_DEPTH = (-30.0, 320.0), 165.0
_CONTRASTS: Mapping[str, Mapping[str, float]] = {
    "chest": CHEST_HU,
    "chest contrast": CONTRAST_HU,
    "head": HEAD_HU,
    "T1": T1_SIGNAL,
    "T2": T2_SIGNAL,
}


@dataclass(frozen=True, slots=True)
class Lesion:
    """A ball of other tissue: centre and radius in millimetres of the patient's axes."""

    centre: tuple[float, float, float]
    radius: float
    value: float


def axis(size: int, spacing: float, middle: float = 0.0) -> Field:
    """Pixel centres (mm) along one side of a matrix around `middle`."""
    return (((np.arange(size) - (size - 1) / 2) * spacing) + middle).astype(np.float32)


@cache
def plane(contrast: str, z: float) -> Field:
    """One slice without noise, kept because many patients are built from the same anatomy."""
    tissue = _CONTRASTS[contrast]
    if contrast.startswith("chest"):
        x = axis(CT_MATRIX, CHEST_SPACING)
        return chest_slice(x, x + 8, z, tissue)
    matrix, spacing = (CT_MATRIX, HEAD_SPACING) if contrast == "head" else (MR_MATRIX, MR_SPACING)
    x = axis(matrix, spacing)
    return head_slice(x, x, z, tissue)


@cache
def _grain(size: int) -> Field:
    """A field of unit noise with the short correlation of a reconstruction kernel."""
    white = np.random.default_rng(size).normal(size=(size + 96, size + 96)).astype(np.float32)
    smooth = (white[:-1, :-1] + white[1:, :-1] + white[:-1, 1:] + white[1:, 1:]) / 2
    return smooth.astype(np.float32)


def grain(size: int, rng: np.random.Generator) -> Field:
    """Another window of that field for every picture: as good as new noise, and much cheaper."""
    top, left = rng.integers(0, 94, 2)
    return _grain(size)[top : top + size, left : left + size]


@cache
def _scan_circle() -> NDArray[np.bool_]:
    x = axis(CT_MATRIX, 1.0)
    return (x[None, :] ** 2 + x[:, None] ** 2) > (CT_MATRIX / 2) ** 2


def _with_lesion(values: Field, x: Field, y: Field, z: float, lesion: Lesion | None) -> Field:
    if lesion is None or abs(z - lesion.centre[2]) >= lesion.radius:
        return values
    cut = np.sqrt(lesion.radius**2 - (z - lesion.centre[2]) ** 2)
    distance = cut - np.hypot(x[None, :] - lesion.centre[0], y[:, None] - lesion.centre[1])
    mask = np.clip(distance / 1.2 + 0.5, 0, 1)
    return np.asarray(values + (lesion.value - values) * mask, np.float32)


def ct_slice(contrast: str, z: float, rng: np.random.Generator, lesion: Lesion | None) -> Stored16:
    """512 x 512 stored values of 12 bits; with the intercept of -1024 they are Hounsfield units."""
    head = contrast == "head"
    x = axis(CT_MATRIX, HEAD_SPACING if head else CHEST_SPACING)
    values = _with_lesion(plane(contrast, z), x, x if head else x + 8, z, lesion)
    stored = values + grain(CT_MATRIX, rng) * (4.0 if head else 13.0) - CT_INTERCEPT
    stored[_scan_circle()] = 0
    return np.asarray(np.clip(stored, 0, 4095), np.uint16)


def mr_slice(contrast: str, z: float, rng: np.random.Generator, lesion: Lesion | None) -> Stored16:
    """256 x 256 signal values with the coil's shading and Rician noise."""
    x = axis(MR_MATRIX, MR_SPACING)
    values = _with_lesion(plane(contrast, z), x, x, z, lesion)
    shading = 1.1 - 0.25 * ((x[None, :] / 120) ** 2 + ((x[:, None] - 20) / 130) ** 2)
    real = values * np.clip(shading, 0.5, 2) + grain(MR_MATRIX, rng) * 16
    noisy = np.hypot(real, grain(MR_MATRIX, rng) * 16)
    return np.asarray(np.clip(noisy, 0, 4095), np.uint16)


@cache
def _chest_projection() -> Field:
    """Water-equivalent path (mm) of frontal rays: rows down from z = 210, columns from x = -175."""
    x = axis(round(350 / _RAY_STEPS[0]), _RAY_STEPS[0])
    y = axis(round(264 / _RAY_STEPS[1]), _RAY_STEPS[1])
    heights = np.arange(210.0, -200.0, -_RAY_STEPS[2])
    paths = np.empty((heights.size, x.size), np.float32)
    for row, z in enumerate(heights):
        density = np.clip((chest_slice(x, y, float(z)) + 1000) / 1000, 0, None)
        # Calcium absorbs more than its density says.
        paths[row] = (density + np.clip(density - 1.12, 0, None) * 0.9).sum(axis=0) * _RAY_STEPS[1]
    fine = np.pad(paths, 12, mode="edge")
    running = fine.cumsum(0).cumsum(1)
    mean = (running[24:, 24:] - running[:-24, 24:] - running[24:, :-24] + running[:-24, :-24]) / 576
    return np.asarray(paths + 0.7 * (paths - mean), np.float32)


def chest_radiograph(rng: np.random.Generator, *, inverted: bool) -> Stored16:
    """2140 x 1760 stored values of 12 bits; `inverted` makes bone dark, as MONOCHROME1 wants it."""
    paths = _chest_projection()
    magnified = rng.uniform(0.94, 1.0)
    x = (axis(DX_COLUMNS, DX_SPACING) * magnified + rng.uniform(-4, 4) + 175) / _RAY_STEPS[0]
    rows = (np.arange(DX_ROWS) * DX_SPACING * magnified + rng.uniform(0, 8)) / _RAY_STEPS[2]
    large = _stretch(_stretch(paths, rows).T, x).T
    stored: Real = 250 + large * 11.5
    noise = np.tile(_grain(512)[:600, :600], (4, 3))[:DX_ROWS, :DX_COLUMNS]
    shift = tuple(int(step) for step in rng.integers(0, 600, 2))
    spread = 4 + 0.05 * np.sqrt(np.clip(stored, 0, None))
    stored = np.clip(stored + np.roll(noise, shift, (0, 1)) * spread, 0, 4095)
    return np.asarray(4095 - stored if inverted else stored, np.uint16)


def _stretch(values: Field, at: Real) -> Field:
    """Rows of `values` at fractional positions, by Catmull-Rom splines so that no facets show."""
    low = at.astype(int)
    t = (at - low).astype(np.float32)[:, None]
    last = values.shape[0] - 1
    p0, p1, p2, p3 = (values[np.clip(low + step, 0, last)] for step in (-1, 0, 1, 2))
    return np.asarray(
        p1
        + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))),
        np.float32,
    )


@cache
def _sector() -> tuple[Field, Field, NDArray[np.bool_]]:
    """Depth below the probe (mm), angle (rad) and the fan itself of a curved abdominal probe."""
    rows, columns = np.mgrid[0:US_ROWS, 0:US_COLUMNS].astype(np.float32)
    down, across = rows - US_APEX[0], columns - US_APEX[1]
    depth = np.hypot(down, across) * US_SPACING - 22
    angle = np.arctan2(across, down)
    fan = (depth > 0) & (depth < US_DEPTH - 8) & (np.abs(angle) < 0.62)
    return depth.astype(np.float32), angle.astype(np.float32), fan


@cache
def _speckle() -> Field:
    """Rayleigh speckle in probe geometry, finer along the beam than across it."""
    rng = np.random.default_rng(88)
    waves: Real = rng.normal(size=(2, 460, 330)).astype(np.float32)
    waves = (waves[:, 1:] + waves[:, :-1]) / 2
    waves = (waves[:, :, 2:] + 1.6 * waves[:, :, 1:-1] + waves[:, :, :-2]) / 2
    return np.asarray(np.hypot(*waves), np.float32)


@cache
def liver_ultrasound(phase: float, *, stone: bool) -> Stored8:
    """480 x 640 grey levels: liver, gallbladder, portal vein, kidney; `phase` (0 to 1) breathes."""
    depth, angle, fan = _sector()
    sway = 5.0 * np.sin(2 * np.pi * phase)
    x: Real = np.sin(angle) * (depth + 22) + 0.4 * sway
    y: Real = np.cos(angle) * (depth + 22) - 22 + sway

    def inside(cx: float, cy: float, a: float, b: float, turn: float = 0.0) -> Field:
        cos, sin = np.cos(turn), np.sin(turn)
        dx, dy = x - cx, y - cy
        radius = np.hypot((dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b)
        return soft((1 - radius) * min(a, b), 1.5)

    echo: Real = np.full_like(depth, 0.34)
    echo += 0.05 * np.sin(x / 9 + 1.3 * np.sin(y / 14)) * np.cos(y / 11)
    echo = np.where(y < 9, 0.55 + 0.25 * np.sin(y * 1.9), echo)
    for cx, cy, a, b, turn in (
        (-38, 62, 26, 3.2, 0.35),
        (-20, 84, 18, 2.4, -0.3),
        (-58, 84, 15, 2.2, 0.9),
        (30, 44, 14, 2.0, -0.6),
    ):
        wall = inside(cx, cy, a + 1.8, b + 1.6, turn)
        echo = echo * (1 - wall) + 0.62 * wall
        lumen = inside(cx, cy, a, b, turn)
        echo = echo * (1 - lumen) + 0.04 * lumen
    kidney = inside(52, 96, 38, 19, 0.3)
    echo = echo * (1 - kidney) + 0.24 * kidney
    sinus = inside(52, 96, 22, 7, 0.3)
    echo = echo * (1 - sinus) + 0.72 * sinus
    wall = inside(4, 58, 25, 13.5, 0.7)
    echo = echo * (1 - wall) + 0.66 * wall
    bile = inside(4, 58, 23, 11.5, 0.7)
    behind = np.clip((y - 66) / 20, 0, 1) * np.exp(-(((angle - 0.02) / 0.16) ** 2))
    echo = echo * (1 + 0.55 * behind * (1 - bile)) * (1 - bile) + 0.02 * bile
    if stone:
        echo += 0.9 * inside(9, 66, 6, 3.4)
        shadow = ((y > 69) & (np.abs(x - 9 * (y + 22) / 88) < 5.5)).astype(np.float32)
        echo *= 1 - 0.85 * shadow
    dome = np.abs(y - 128 + 0.006 * (x + 12) ** 2)
    echo = np.where(y > 128 - 0.006 * (x + 12) ** 2, 0.18, echo) + 0.8 * np.exp(
        -((dome / 2.0) ** 2)
    )
    grains = _speckle()
    i = np.clip((depth * 2.7).astype(int), 0, grains.shape[0] - 1)
    j = np.clip(((angle + 0.64) * 255).astype(int), 0, grains.shape[1] - 1)
    signal = np.clip(echo, 0.004, 2) * (0.12 + grains[i, j]) * np.exp(-(((depth - 75) / 120) ** 2))
    picture = np.clip(150 + 62 * np.log(signal + 0.02), 0, 235) * fan
    picture[60:316, 610:622] = np.linspace(235, 0, 256)[:, None]
    for tick in range(16):
        row = round(US_APEX[0] + (22 + 10 * tick) / US_SPACING)
        picture[row : row + 1, 596 : (606 if tick % 5 == 0 else 601)] = 200
    return np.asarray(picture, np.uint8)


def colour_flow(grey: Stored8, phase: float) -> Stored8:
    """480 x 640 x 3: the grey picture with red flow in the portal vein, brightest in mid-beat."""
    colour = np.repeat(grey[..., None], 3, axis=2)
    depth, angle, fan = _sector()
    x = np.sin(angle) * (depth + 22) + 2.0 * np.sin(2 * np.pi * phase)
    y = np.cos(angle) * (depth + 22) - 22 + 5.0 * np.sin(2 * np.pi * phase)
    along = (x + 38) * np.cos(0.35) + (y - 62) * np.sin(0.35)
    across = (y - 62) * np.cos(0.35) - (x + 38) * np.sin(0.35)
    flow = fan & (np.hypot(along / 24, across / 2.8) < 1)
    speed = np.clip(1 - (across / 3.0) ** 2, 0, 1) * (0.7 + 0.3 * np.sin(2 * np.pi * phase))
    colour[flow, 0] = (120 + 130 * speed[flow]).astype(np.uint8)
    colour[flow, 1] = (110 * speed[flow] ** 2).astype(np.uint8)
    colour[flow, 2] = 10
    return colour
