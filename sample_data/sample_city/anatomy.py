"""A chest and a head as geometry: the tissue at a point of the patient's axes (PS3.3 C.7.6.2.1.1).

Millimetres throughout: x grows to the patient's left, y to the back, z to the head. Everything is
defined in three dimensions, so that a viewer's reformats show ribs, vessels and vertebrae that
continue from slice to slice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Real = NDArray[np.floating[Any]]

CHEST_HU = {
    "air": -1000.0,
    "lung": -850.0,
    "fat": -95.0,
    "water": 5.0,
    "muscle": 52.0,
    "liver": 62.0,
    "spleen": 55.0,
    "cord": 35.0,
    "blood": 45.0,
    "cartilage": 120.0,
    "disc": 85.0,
    "marrow": 210.0,
    "cortex": 620.0,
    "table": -150.0,
}
CONTRAST_HU = CHEST_HU | {"blood": 190.0, "liver": 105.0, "spleen": 120.0}

HEAD_HU = {
    "air": -1000.0,
    "fat": -90.0,
    "muscle": 50.0,
    "cortex": 1350.0,
    "marrow": 650.0,
    "csf": 6.0,
    "grey": 39.0,
    "white": 27.0,
    "lens": 15.0,
    "falx": 55.0,
}
T1_SIGNAL = {
    "air": 8.0,
    "fat": 1050.0,
    "muscle": 400.0,
    "cortex": 40.0,
    "marrow": 520.0,
    "csf": 140.0,
    "grey": 460.0,
    "white": 680.0,
    "lens": 170.0,
    "falx": 300.0,
}
T2_SIGNAL = {
    "air": 8.0,
    "fat": 620.0,
    "muscle": 200.0,
    "cortex": 35.0,
    "marrow": 300.0,
    "csf": 1080.0,
    "grey": 560.0,
    "white": 400.0,
    "lens": 1020.0,
    "falx": 150.0,
}


@dataclass(slots=True)
class Canvas:
    """An axial plane being painted: values[row, column] at y[row], x[column], edges soft (mm)."""

    x: Field
    y: Field
    values: Field
    edge: float = 0.9

    @classmethod
    def blank(cls, x: Field, y: Field, value: float) -> "Canvas":
        """An empty plane of one value, its edges as soft as its pixels are wide."""
        edge = max(0.9, float(x[1] - x[0]), float(y[1] - y[0]))
        return cls(x, y, np.full((y.size, x.size), value, np.float32), edge)

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        value: float,
        *,
        angle: float = 0.0,
        power: float = 2.0,
        within: Field | None = None,
    ) -> None:
        """Paint a (super)ellipse, turned by `angle` degrees, where `within` (0 to 1) allows it."""
        (cx, cy), (a, b) = centre, radii
        if a <= 0 or b <= 0:
            return
        reach = (max(a, b) if angle else a) + 2, (max(a, b) if angle else b) + 2
        left, right = np.searchsorted(self.x, [cx - reach[0], cx + reach[0]])
        top, bottom = np.searchsorted(self.y, [cy - reach[1], cy + reach[1]])
        if left == right or top == bottom:
            return
        box = np.s_[top:bottom, left:right]
        dx, dy = self.x[None, left:right] - cx, self.y[top:bottom, None] - cy
        if angle:
            cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
        if power == 2.0:
            radius = np.sqrt((dx / a) ** 2 + (dy / b) ** 2)
        else:
            radius = (np.abs(dx / a) ** power + np.abs(dy / b) ** power) ** (1 / power)
        mask = soft((1 - radius) * min(a, b), self.edge)
        if within is not None:
            mask *= within[box]
        self.values[box] += (value - self.values[box]) * mask

    def paint(self, mask: Field, value: float) -> None:
        """Blend `value` in by a mask of 0 to 1 over the whole plane."""
        self.values += (np.float32(value) - self.values) * mask


def soft(distance: Real, edge: float) -> Field:
    """1 inside, 0 outside, a ramp of `edge` mm between: `distance` is positive inside."""
    return np.asarray(np.minimum(np.maximum(distance / edge + 0.5, 0), 1), np.float32)


def sphere_cut(centre_z: float, radius: float, z: float) -> float:
    """The share of its width that an ellipsoid still has at height z: 0 outside."""
    return float(np.sqrt(max(0.0, 1 - ((z - centre_z) / radius) ** 2)))


def ramp(z: float, *points: tuple[float, float]) -> float:
    """Piecewise linear: the value at z between (z, value) points that rise in z."""
    heights, values = zip(*points, strict=True)
    return float(np.interp(z, heights, values))


@cache
def lung_vessels() -> NDArray[np.float32]:
    """Both lungs' vessels as spheres along branching lines: rows of x, y, z, radius (mm)."""
    rng = np.random.default_rng(58)
    spheres: list[tuple[float, float, float, float]] = []
    for side in (-1.0, 1.0):
        tips = []
        for _ in range(16):
            way = rng.normal(size=3) * (0.7, 0.8, 1.0) + (side * 0.75, 0.1, 0)
            start = np.array([side * 34, 4, 12]) + rng.normal(size=3) * 6
            tips.append((start, way / np.linalg.norm(way), rng.uniform(3.2, 5.0), 0))
        while tips:
            point, way, radius, depth = tips.pop()
            for _ in range(int(rng.uniform(7, 13))):
                point = point + way * 2.0
                way = way + rng.normal(size=3) * 0.07
                way /= np.linalg.norm(way)
                wide, deep = chest_cavity(float(point[2]))
                if wide < 1 or (point[0] / wide) ** 2 + (point[1] / deep) ** 2 > 0.92:
                    break
                spheres.append((*point.tolist(), radius))
            else:
                if depth < 6 and radius > 0.7:
                    for _ in range(2):
                        turn = way + rng.normal(size=3) * 0.5
                        turn /= np.linalg.norm(turn)
                        tips.append((point, turn, radius * rng.uniform(0.66, 0.85), depth + 1))
    return np.array(spheres, np.float32)


def chest_cavity(z: float) -> tuple[float, float]:
    """Half width and half depth (mm) of the rib cage's inside: a dome that closes at the apex."""
    narrowing = sphere_cut(-40, 172, max(z, -40))
    return 134 * narrowing, 94 * narrowing**0.8


def chest_slice(x: Field, y: Field, z: float, hu: Mapping[str, float] = CHEST_HU) -> Field:
    """One axial plane of the chest at height z, in Hounsfield units: shape (y.size, x.size).

    Sensible from z = -200 (upper abdomen) to 210 (neck); the lungs fill about -110 to 130.
    """
    canvas = Canvas.blank(x, y, hu["air"])
    for depth, value in ((-1.5, 120.0), (1.5, hu["table"])):
        canvas.ellipse((0, -400), (520, 540 - depth), value, within=lying(x, y, depth))
    outline(canvas, z, hu)
    wide, deep = chest_cavity(z)
    if wide < 8:
        neck(canvas, z, hu)
        spine(canvas, z, hu)
        clavicles(canvas, z)
        return canvas.values
    for side in (-1, 1):
        shoulder_blade(canvas, side, z, hu)
    ring = np.sqrt((x[None, :] / wide) ** 2 + (y[:, None] / deep) ** 2)
    rib_cage(canvas, ring, wide, deep, z, hu)
    cavity = soft((1 - ring) * min(wide, deep), canvas.edge)
    lungs(canvas, cavity, z, hu)
    abdomen(canvas, cavity, z, hu)
    mediastinum(canvas, cavity, z, hu)
    spine(canvas, z, hu)
    clavicles(canvas, z)
    return canvas.values


def lying(x: Field, y: Field, depth: float) -> Field:
    """The mask that keeps only the part of the table's great circle under the patient's back."""
    below = soft(y - (136 + depth), 1.0)[:, None]
    return np.asarray(below * soft(185 - np.abs(x), 2.0)[None, :], np.float32)


def outline(canvas: Canvas, z: float, hu: Mapping[str, float]) -> None:
    """Skin, subcutaneous fat and the muscles around the rib cage."""
    width = ramp(
        z, (-200, 152), (-60, 163), (60, 168), (110, 172), (140, 160), (165, 78), (210, 62)
    )
    depth = ramp(z, (-200, 112), (0, 118), (60, 112), (120, 92), (165, 66), (210, 62))
    back = ramp(z, (100, 8), (165, 22))
    canvas.ellipse((0, back), (width, depth), 25.0, power=2.35)
    canvas.ellipse((0, back), (width - 2, depth - 2), hu["fat"], power=2.35)
    fat = ramp(z, (-200, 18), (60, 13), (120, 9))
    canvas.ellipse((0, back + 1), (width - fat, depth - fat + 3), hu["muscle"], power=2.35)
    wide, deep = chest_cavity(z)
    if wide > 40:
        # The fat planes between the muscles of the wall, and the breast or pectoral layer in front.
        canvas.ellipse((0, 3), (wide + 17, deep + 12), hu["fat"])
        canvas.ellipse((0, 3), (wide + 15, deep + 10), hu["muscle"])
    for side in (-1, 1):
        canvas.ellipse((side * 31, back + 86), (30, 17), hu["fat"], angle=side * 8)
        canvas.ellipse((side * 31, back + 86), (28, 15), hu["muscle"], angle=side * 8)


def shoulder_blade(canvas: Canvas, side: int, z: float, hu: Mapping[str, float]) -> None:
    """The scapula between its muscles, and the head of the humerus above it."""
    size = ramp(z, (-5, 0), (30, 0.6), (80, 1), (120, 0.9), (150, 0))
    wide, deep = chest_cavity(z)
    at = (side * (wide * 0.72 + 24), deep * 0.62 + 22)
    canvas.ellipse(at, (46 * size, 17 * size), hu["fat"], angle=-side * 42)
    canvas.ellipse(at, (44 * size, 15 * size), hu["muscle"], angle=-side * 42)
    canvas.ellipse(at, (37 * size, 3.6 * size), hu["cortex"], angle=-side * 42)
    canvas.ellipse(at, (33 * size, 1.6 * size), hu["marrow"], angle=-side * 42)
    ball = 24 * sphere_cut(128, 26, z)
    canvas.ellipse((side * 142, 14), (ball, ball), hu["cortex"])
    canvas.ellipse((side * 142, 14), (ball - 2.5, ball - 2.5), hu["marrow"])


def rib_cage(
    canvas: Canvas, ring: Field, wide: float, deep: float, z: float, hu: Mapping[str, float]
) -> None:
    """Twelve ribs a side, each sloping down from the spine to the front, and the sternum."""
    x, y = canvas.x, canvas.y
    around = np.arctan2(np.abs(x)[None, :] / wide, y[:, None] / deep) / np.pi  # 0 back, 1 front
    outward = (ring - 1) * (wide + deep) / 2 - 6.5
    step = 26.0
    along = (z + 96 * around + 4) / step
    upward = (along - np.floor(along) - 0.5) * step
    distance = 1 - np.hypot(outward / 4.6, upward / 6.6)
    present = soft((around - 0.06) * 90, 1.0) * soft((0.95 - around) * 90, 1.0)
    bone = soft((0.80 - around) * 90, 2.0)
    shape = soft(distance * 4.6, canvas.edge) * present
    canvas.paint(shape, hu["cartilage"])
    canvas.paint(shape * bone, hu["cortex"])
    canvas.paint(soft((distance - 0.38) * 4.6, canvas.edge) * present * bone, hu["marrow"])
    if -70 < z < 95:
        canvas.ellipse((0, -deep - 7), (20, 6.5), hu["cortex"])
        canvas.ellipse((0, -deep - 7), (17.5, 4), hu["marrow"])


def lungs(canvas: Canvas, cavity: Field, z: float, hu: Mapping[str, float]) -> None:
    """Aerated lung, denser towards the back, with its vessels and its oblique fissures."""
    canvas.paint(cavity, hu["lung"])
    canvas.values += cavity * (canvas.y * 0.45)[:, None]
    fissure = canvas.y[:, None] - (z * 0.8 - 12) + 0.0006 * canvas.x[None, :] ** 2
    canvas.values += cavity * np.clip(1 - np.abs(fissure) / 1.1, 0, 1) * 70
    tissue = hu["blood"] - hu["lung"]
    vessels = lung_vessels()
    # What is much finer than the sampling would only cost time.
    vessels = vessels[vessels[:, 3] > 0.35 * canvas.edge]
    vessels = vessels[np.abs(vessels[:, 2] - z) < vessels[:, 3] + 1.2]
    cx, cy, cz, radius = vessels.T
    reach = np.sqrt(np.maximum(radius**2 - (z - cz) ** 2, 0.35))
    # A vessel narrower than the slice is thick fills only a part of it.
    tissue = (hu["blood"] - hu["lung"]) * np.minimum(1, (radius + 0.6) / 2.2)
    bounds = zip(
        np.searchsorted(canvas.x, cx - reach - 1.5),
        np.searchsorted(canvas.x, cx + reach + 1.5),
        np.searchsorted(canvas.y, cy - reach - 1.5),
        np.searchsorted(canvas.y, cy + reach + 1.5),
        strict=True,
    )
    for i, (left, right, top, bottom) in enumerate(bounds):
        dx, dy = canvas.x[left:right] - cx[i], canvas.y[top:bottom] - cy[i]
        inward = reach[i] - np.sqrt(dx[None, :] ** 2 + dy[:, None] ** 2)
        disc = np.minimum(np.maximum(inward / 1.2 + 0.5, 0), 1)
        patch = canvas.values[top:bottom, left:right]
        np.maximum(patch, hu["lung"] + disc * tissue[i], out=patch)


def abdomen(canvas: Canvas, cavity: Field, z: float, hu: Mapping[str, float]) -> None:
    """What bulges up under the two domes of the diaphragm: liver, spleen and stomach."""
    right = sphere_cut(-160, 92, max(z, -160))
    left = sphere_cut(-166, 82, max(z, -166))
    canvas.ellipse((56, 2), (84 * left, 90 * left), hu["fat"], within=cavity)
    canvas.ellipse((-52, -2), (96 * right, 100 * right), hu["liver"], within=cavity)
    canvas.ellipse((40, -22), (44 * left, 44 * left), hu["muscle"], within=cavity)
    canvas.ellipse((40, -22), (40 * left, 40 * left), hu["water"] + 20, within=cavity)
    canvas.ellipse((36, -44), (26 * left, 16 * left), hu["air"], within=cavity)
    canvas.ellipse((92, 44), (26 * left, 40 * left), hu["spleen"], angle=-30, within=cavity)
    if z < -150:
        canvas.ellipse((-20, 10), (100, 72), hu["liver"], within=cavity * 0.6)


def mediastinum(canvas: Canvas, cavity: Field, z: float, hu: Mapping[str, float]) -> None:
    """Great vessels, airways, oesophagus and heart in their fat."""
    wide, deep = chest_cavity(z)
    fat, blood = hu["fat"], hu["blood"]
    half = min(ramp(z, (-110, 24), (0, 30), (70, 30), (110, 26)), wide * 0.8)
    canvas.ellipse((2, -6), (half, deep * 0.94), fat, power=2.6, within=cavity)
    canvas.ellipse((0, 52), (26, 32), fat, within=cavity)
    if z < 15:
        heart(canvas, cavity, z, hu)
    aorta = 12.0
    if z < 62:
        canvas.ellipse((22, 44), (aorta, aorta), hu["muscle"])
        canvas.ellipse((22, 44), (aorta - 1.5, aorta - 1.5), blood)
    if -5 < z < 60:
        canvas.ellipse((-9, -24), (16, 16), blood)
    if 54 < z < 76:
        for step in np.linspace(0, 1, 9):
            canvas.ellipse((-9 + 29 * step, -24 + 66 * step), (aorta, aorta), blood)
    if 8 < z < 44:
        canvas.ellipse((17, -32), (14, 14), blood)
        for step in np.linspace(0, 1, 8):
            size = 9 * sphere_cut(22, 12, z)
            canvas.ellipse((12 - 52 * step, -18 + 18 * step), (size, size), blood)
            size = 9 * sphere_cut(32, 11, z)
            canvas.ellipse((18 + 28 * step, -28 + 36 * step), (size, size), blood)
    if -5 < z < 92:
        canvas.ellipse((-27, -18), (9, 10), blood)
    if z > 74:
        for cx, cy, size in (
            (-15, -14, 6.5),
            (2, -18, 5),
            (17, 2, 5.5),
            (-26, -22, 7),
            (20, -22, 7),
        ):
            canvas.ellipse((cx, cy), (size, size), blood)
    canvas.ellipse((6, 33), (8, 6), hu["muscle"])
    airways(canvas, z, hu)


def airways(canvas: Canvas, z: float, hu: Mapping[str, float]) -> None:
    """The trachea, its bifurcation at z = 44, and the main bronchi."""
    if z > 44:
        canvas.ellipse((0, 14), (10.5, 10), hu["muscle"])
        canvas.ellipse((0, 14), (9, 8.5), hu["air"])
    elif z > -2:
        for side, slope in ((-1, 0.75), (1, 1.0)):
            at = (side * (7 + (44 - z) * slope), 15 + (44 - z) * 0.05)
            canvas.ellipse(at, (9, 8), hu["muscle"])
            canvas.ellipse(at, (7, 6.2), hu["air"])


def heart(canvas: Canvas, cavity: Field, z: float, hu: Mapping[str, float]) -> None:
    """Pericardium, myocardium and four chambers, the apex to the left and front."""
    size = sphere_cut(-44, 58, z)
    canvas.ellipse((20, -26), (64 * size, 50 * size), hu["fat"], angle=28, within=cavity)
    canvas.ellipse((20, -26), (60 * size, 46 * size), hu["muscle"] + 18, angle=28, within=cavity)
    for centre, radii, height, reach in (
        ((46, -20), (25, 17), -52, 40),
        ((12, -50), (30, 14), -50, 38),
        ((-20, -30), (17, 24), -42, 40),
        ((8, 8), (30, 14), -30, 34),
    ):
        cut = sphere_cut(height, reach, z)
        canvas.ellipse(centre, (radii[0] * cut, radii[1] * cut), hu["blood"], angle=28)


def spine(canvas: Canvas, z: float, hu: Mapping[str, float]) -> None:
    """Vertebral bodies and discs of 24 mm, the canal with its cord, arches and processes."""
    shift = ramp(z, (100, 0), (180, -18))
    width = ramp(z, (-200, 22), (0, 18), (120, 14), (200, 11))
    level = (z / 24) % 1
    body = (0.0, 60 + shift)
    if level < 0.2:
        canvas.ellipse(body, (width, width * 0.8), hu["disc"])
    else:
        canvas.ellipse(body, (width, width * 0.82), hu["cortex"])
        core = width - (3.5 if level < 0.28 or level > 0.92 else 1.8)
        canvas.ellipse(body, (core, core * 0.8), hu["marrow"])
    centre = (0.0, 60 + shift + width * 0.8 + 9)
    if 0.3 < level < 0.95:
        canvas.ellipse(centre, (14, 13), hu["cortex"])
        for side in (-1, 1):
            canvas.ellipse((side * 23, centre[1] + 3), (15, 4.5), hu["cortex"], angle=-side * 12)
            canvas.ellipse((side * 23, centre[1] + 3), (12, 2.2), hu["marrow"], angle=-side * 12)
    canvas.ellipse((0, centre[1] + 20), (3, 15), hu["cortex"])
    canvas.ellipse((0, centre[1] + 20), (1.2, 12), hu["marrow"])
    canvas.ellipse(centre, (9.5, 8.5), hu["water"])
    canvas.ellipse(centre, (5.5, 4.5), hu["cord"])


def clavicles(canvas: Canvas, z: float) -> None:
    """The collar bones, rising outwards from the sternum."""
    for step in np.linspace(0, 1, 40):
        height = 102 + 30 * step + 6 * np.sin(step * np.pi * 2)
        size = 6.5 * sphere_cut(float(height), 6.5, z)
        if size > 0:
            for side in (-1, 1):
                at = (float(side * (14 + 122 * step)), float(-52 + 44 * step))
                canvas.ellipse(at, (size, size), 420.0)


def neck(canvas: Canvas, z: float, hu: Mapping[str, float]) -> None:
    """Above the apex: airway, thyroid and the great vessels of the neck."""
    for side in (-1, 1):
        canvas.ellipse((side * 18, 12), (9, 13 if z < 165 else 5), 95.0)
        canvas.ellipse((side * 30, 16), (6, 6), hu["blood"])
    canvas.ellipse((0, 8), (10.5, 10), hu["muscle"])
    canvas.ellipse((0, 8), (8.5, 8), hu["air"])


def head_slice(x: Field, y: Field, z: float, tissue: Mapping[str, float] = HEAD_HU) -> Field:
    """One axial plane of the head at height z, in the values of `tissue`: shape (y.size, x.size).

    z = -60 lies at the skull base, 0 at the basal ganglia, 84 at the vertex.
    """
    canvas = Canvas.blank(x, y, tissue["air"])
    size = sphere_cut(-6, 94, max(z, -6)) * ramp(z, (-75, 0.88), (-30, 1.0))
    a, b = 77 * size, 96 * size
    canvas.ellipse((0, 0), (a, b), tissue["fat"], power=2.15)
    canvas.ellipse((0, 0), (a - 4, b - 4), tissue["muscle"], power=2.15)
    # The wall is cut more obliquely, and so looks thicker, towards the vertex.
    bone = 7 / max(size, 0.45)
    canvas.ellipse((0, 0), (a - 6, b - 6), tissue["cortex"], power=2.15)
    canvas.ellipse((0, 0), (a - 8, b - 8), tissue["marrow"], power=2.15)
    canvas.ellipse((0, 0), (a - 3.5 - bone, b - 3.5 - bone), tissue["cortex"], power=2.15)
    inner = (a - 6 - bone, b - 6 - bone)
    if min(inner) <= 4:
        return canvas.values
    canvas.ellipse((0, 0), inner, tissue["csf"], power=2.15)
    cerebrum(canvas, inner, z, tissue)
    if z > -28:
        deep_brain(canvas, z, tissue)
    else:
        radius = (np.abs(x[None, :] / a) ** 2.15 + np.abs(y[:, None] / b) ** 2.15) ** (1 / 2.15)
        skull_base(canvas, soft((1 - radius) * a - 3, canvas.edge), z, tissue)
    return canvas.values


def cerebrum(
    canvas: Canvas, inner: tuple[float, float], z: float, tissue: Mapping[str, float]
) -> None:
    """Cortex folded into gyri around white matter, halved by the longitudinal fissure."""
    x, y = canvas.x[None, :], canvas.y[:, None]
    radius = (np.abs(x / inner[0]) ** 2.15 + np.abs(y / inner[1]) ** 2.15) ** (1 / 2.15)
    depth = ((1 - radius) * min(inner)).astype(np.float32)
    around = np.arctan2(x, y)
    wave = (
        around * 15
        + 1.5 * np.sin(3 * around + z / 13)
        + 1.1 * np.sin(7 * around - z / 9)
        + 0.9 * np.sin(depth / 5 + 4 * around)
    )
    other = around * 9 + 1.8 * np.sin(4 * around + z / 17) - depth / 9 + z / 15
    fold = np.maximum(np.cos(wave), 0.8 * np.cos(other) * soft(depth - 4, 4.0))
    canvas.paint(soft(depth - 1.2, canvas.edge), tissue["grey"])
    reach = 15 + 5 * np.cos(5 * around + z / 8)
    core = soft(depth - 5.5 - reach * np.clip(fold - 0.25, 0, 1), 1.2)
    canvas.paint(core * soft(np.abs(x) - 5 + 0 * y, 1.2), tissue["white"])
    sulcus = soft((fold - 0.93) * 16, 1.0) * soft(reach - 5 - depth, 2.0) * soft(depth, 1.0)
    canvas.paint(sulcus * 0.85, tissue["csf"])
    if z > -20:
        front, back = (-26.0, 30.0) if -12 < z < 34 else (0.0, 0.0)
        length = soft(front - y, 1.0) + soft(y - back, 1.0)
        cleft = soft(1.6 - np.abs(x), 0.9) * np.clip(length, 0, 1) * soft(depth - 0.5, 1.0)
        canvas.paint(np.asarray(cleft, np.float32), tissue["csf"])
        falx = soft(0.7 - np.abs(x), 0.7) * np.clip(length, 0, 1) * soft(depth - 0.5, 1.0)
        canvas.paint(np.asarray(falx, np.float32), tissue["falx"])


def deep_brain(canvas: Canvas, z: float, tissue: Mapping[str, float]) -> None:
    """Ventricles, basal ganglia, thalamus and the Sylvian fissures."""
    csf, grey, white = tissue["csf"], tissue["grey"], tissue["white"]
    if -12 < z < 34:
        canvas.ellipse((0, 0), (16, 34), white)
    for side in (-1, 1):
        cut = sphere_cut(-2, 20, z)
        canvas.ellipse((side * 27, -3), (9 * cut, 19 * cut), grey, angle=side * 14)
        canvas.ellipse((side * 11, 12), (9 * cut, 14 * cut), grey, angle=-side * 18)
        canvas.ellipse((side * 15, -24), (5.5 * cut, 10 * cut), grey, angle=side * 20)
        fissure = sphere_cut(-8, 24, z)
        canvas.ellipse((side * 44, -8), (7 * fissure, 20 * fissure), grey, angle=side * 8)
        canvas.ellipse((side * 46, -8), (2.4 * fissure, 17 * fissure), csf, angle=side * 8)
        canvas.ellipse((side * 54, -14), (10 * fissure, 1.8 * fissure), csf, angle=side * 18)
        frontal = sphere_cut(8, 20, z)
        canvas.ellipse((side * 9, -27), (4.2 * frontal, 13 * frontal), csf, angle=-side * 24)
        body = sphere_cut(24, 15, z)
        canvas.ellipse((side * 12, -2), (6.5 * body, 36 * body), csf, angle=-side * 8)
        occipital = sphere_cut(6, 18, z)
        canvas.ellipse((side * 23, 42), (5.5 * occipital, 17 * occipital), csf, angle=side * 14)
        canvas.ellipse((side * 24, 33), (2.5 * occipital, 4 * occipital), tissue["marrow"])
    third = sphere_cut(-4, 13, z)
    canvas.ellipse((0, 6), (2.6 * third, 15 * third), csf)
    cistern = sphere_cut(-22, 10, z)
    canvas.ellipse((0, -2), (17 * cistern, 12 * cistern), csf)
    canvas.ellipse((0, 13), (15 * cistern, 12 * cistern), white)


def skull_base(canvas: Canvas, head: Field, z: float, tissue: Mapping[str, float]) -> None:
    """Posterior fossa, petrous bones, orbits and air-filled sinuses, all inside the head's mask."""
    csf, grey, white = tissue["csf"], tissue["grey"], tissue["white"]
    cortex, air = tissue["cortex"], tissue["air"]
    canvas.ellipse((0, 34), (57, 44), csf, within=head)
    for side in (-1, 1):
        canvas.ellipse((side * 25, 48), (27, 29), grey, angle=side * 12, within=head)
        for ring in range(4):
            size = 24 - 5.5 * ring
            canvas.ellipse(
                (side * 23, 46), (size, size * 1.05), white, angle=side * 12, within=head
            )
            canvas.ellipse(
                (side * 22, 45),
                (size - 2.6, (size - 2.6) * 1.05),
                grey,
                angle=side * 12,
                within=head,
            )
        canvas.ellipse((side * 20, 43), (8, 11), white, angle=side * 12, within=head)
    canvas.ellipse((0, 48), (6, 22), grey, within=head)
    canvas.ellipse((0, 30), (8, 5), csf, within=head)
    canvas.ellipse((0, 15), (16, 13), white, within=head)
    canvas.ellipse((0, -60), (42, 36), tissue["fat"], within=head)
    for side in (-1, 1):
        canvas.ellipse((side * 39, 6), (31, 7.5), cortex, angle=-side * 30, within=head)
        canvas.ellipse((side * 50, 14), (12, 4.5), air, angle=-side * 30, within=head)
        canvas.ellipse((side * 36, -34), (24, 4), cortex, angle=side * 34, within=head)
        cone = sphere_cut(-48, 24, z)
        canvas.ellipse((side * 32, -62), (21 * cone, 26 * cone), cortex, within=head)
        canvas.ellipse((side * 32, -62), (19 * cone, 24 * cone), tissue["fat"], within=head)
        eye = sphere_cut(-48, 13, z) * 12.5
        canvas.ellipse((side * 33, -74), (eye, eye), tissue["muscle"], within=head)
        canvas.ellipse((side * 33, -74), (eye - 1.3, eye - 1.3), tissue["lens"], within=head)
        canvas.ellipse(
            (side * 33, -84), (4 * cone, 1.8 * cone), tissue["muscle"] * 1.6, within=head
        )
        canvas.ellipse((side * 26, -50), (1.9, 17), tissue["muscle"], angle=side * 12, within=head)
    canvas.ellipse((0, -62), (11, 26), cortex, within=head)
    canvas.ellipse((0, -62), (9.5, 24.5), air, within=head)
    canvas.ellipse((0, -62), (0.8, 24), cortex, within=head)
    canvas.ellipse((0, -24), (17, 12), cortex, within=head)
    canvas.ellipse((0, -24), (14, 9.5), air, within=head)
