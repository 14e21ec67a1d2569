"""Places near a point, `Location?near=latitude|longitude|distance|units` (FHIR R4 8.7, WGS84).

The index knows a box round the circle, by latitude and longitude; which of the places in it are
near is computed of their positions, since databases do not all know the sine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal

from exchange import clinical_search
from exchange.errors import Invalid
from exchange_fhir import json_format, units
from exchange_fhir.datatypes import Json
from exchange_fhir.search import Scope, split, unescaped
from exchange_storage.resource_criteria import Asked, Ids, Indexed, Together, Within
from exchange_storage.resource_index import Quantity, Value

NAME = "Location.near"
LATITUDE, LONGITUDE = f"{NAME}$0", f"{NAME}$1"

EARTH = 6_371_008.8
"""Metres: the mean radius."""

DISTANCE = 10_000.0
"""Metres, where no distance is given."""

PLACES = 500
"""Places in the box round one circle, at most."""

DOCUMENTATION = (
    f"latitude|longitude|distance|units: within {DISTANCE / 1000:g} km where no distance is given; "
    "units are UCUM's of length, km where none is given. As the crow flies, in no particular order."
)

_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{1,18})?", re.ASCII)
_WRITTEN = "it is written latitude|longitude|distance|units, with a unit of length of UCUM"


def values(resource: Json) -> Iterator[Value]:
    """Where a Location is, for the index."""
    if point := _point(resource):
        for name, number in zip((LATITUDE, LONGITUDE), point, strict=True):
            yield Quantity(name, number, number)


def asked(scope: Scope, value: str) -> Asked:
    """The places near one point. Raises Invalid, TooBroad for a box with too many of them."""
    latitude, longitude, distance = _circle(value)
    box = _box(latitude, longitude, distance)
    wanted = clinical_search.Question(kind="Location", criterion=box, limit=PLACES)
    found = clinical_search.all_of(scope.access, wanted)
    near = [
        one.logical_id
        for one in found
        if (point := _point(json_format.parse(one.content)))
        and _between((latitude, longitude), point) <= distance
    ]
    return Ids(tuple(near))


def _circle(value: str) -> tuple[float, float, float]:
    """Latitude and longitude in degrees, and a distance in metres. Raises Invalid."""
    parts = [unescaped(one) for one in split(value, "|")]
    latitude, longitude, distance, unit = (*parts, "", "")[:4] if len(parts) > 1 else ("",) * 4
    numbers = [latitude, longitude, *([distance] if distance else [])]
    if len(parts) > 4 or not all(_NUMBER.fullmatch(one) for one in numbers):
        raise Invalid(_WRITTEN)
    if abs(float(latitude)) > 90 or abs(float(longitude)) > 180:
        raise Invalid("a latitude is from -90 to 90, a longitude from -180 to 180")
    metres = DISTANCE
    if distance:
        code = unit or "km"
        # The standard's own words leave out the brackets of UCUM: mi_us.
        measured = units.unit(code) or units.unit(f"[{code}]")
        if measured is None or measured.base != "meter" or distance.startswith("-"):
            raise Invalid(_WRITTEN)
        metres = measured.converted(Decimal(distance))
    return float(latitude), float(longitude), metres


def _box(latitude: float, longitude: float, distance: float) -> Asked:
    """The meridians and parallels between which a circle lies, a millionth of a degree wider."""
    angle = min(distance / EARTH, math.pi)
    high, edge = math.degrees(angle) + 1e-6, 180.0
    if abs(latitude) + high < 90:  # else it holds a pole, and all meridians meet there
        ratio = math.sin(angle) / math.cos(math.radians(latitude))
        edge = math.degrees(math.asin(min(ratio, 1.0))) + 1e-6
    west, east = longitude - edge, longitude + edge
    spans = [Within(low_from=max(west, -180.0), high_by=min(east, 180.0))]
    if west < -180:
        spans.append(Within(low_from=west + 360))
    if east > 180:
        spans.append(Within(high_by=east - 360))
    parallels = Within(low_from=latitude - high, high_by=latitude + high)
    return Together(
        (
            Indexed("quantity", (LATITUDE,), (parallels,)),
            Indexed("quantity", (LONGITUDE,), tuple(spans)),
        )
    )


def _between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Metres on a great circle between two points (haversine)."""
    here, there = math.radians(one[0]), math.radians(other[0])
    half = math.sin((there - here) / 2) ** 2
    turn = math.sin(math.radians(other[1] - one[1]) / 2) ** 2
    return 2 * EARTH * math.asin(math.sqrt(min(half + math.cos(here) * math.cos(there) * turn, 1)))


def _point(resource: Json) -> tuple[float, float] | None:
    """Latitude and longitude of a Location that says where on earth it is."""
    position = resource.get("position")
    if resource.get("resourceType") != "Location" or not isinstance(position, dict):
        return None
    try:
        point = float(position["latitude"]), float(position["longitude"])
    except (KeyError, TypeError, ValueError):
        return None
    return point if abs(point[0]) <= 90 and abs(point[1]) <= 180 else None
