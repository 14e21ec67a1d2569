"""Departments near a patient's home: Location?near (FHIR R4 8.7)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir_door import Door, opened
from region import region

PLACES = {
    "square": (39.9055, 116.3976),
    "temple": (39.8822, 116.4066),  # 2.7 km from the square
    "airport": (40.0799, 116.6031),  # 26 km from it
    "port": (38.9860, 117.7890),
    "fiji-west": (-17.8, 179.9),
    "fiji-east": (-17.8, -179.9),
    "pole": (89.9, 100.0),
}


@pytest.fixture(scope="module")
def places(lasting_database_url: str) -> Iterator[Door]:
    with region(lasting_database_url) as city:
        door = opened(city)
        system = door.system("beicheng")
        for name, (latitude, longitude) in PLACES.items():
            position = {"latitude": latitude, "longitude": longitude}
            place = {"resourceType": "Location", "id": name, "name": name, "position": position}
            assert system.send("PUT", f"Location/{name}", place).status_code == 201
        system.made({"resourceType": "Location", "name": "somewhere"})
        role = {"resourceType": "PractitionerRole", "location": [{"reference": "Location/temple"}]}
        system.made(role)
        yield door


@pytest.mark.parametrize(
    ("near", "found"),
    [
        ("39.9055|116.3976", {"square", "temple"}),
        ("39.9055|116.3976|2.6|km", {"square"}),
        ("39.9055|116.3976|2.8", {"square", "temple"}),
        ("39.9055|116.3976|2800|m", {"square", "temple"}),
        ("39.9055|116.3976|1.6|mi_us", {"square"}),
        ("39.9055|116.3976|1.8|[mi_us]", {"square", "temple"}),
        ("39.9055|116.3976|30||", set()),
        ("39.9055|116.3976|30|", {"square", "temple", "airport"}),
        ("39.9055|116.3976|0|km", {"square"}),
        # In the corner of the box, and not in the circle.
        ("40.06|116.60|2|km", set()),
        ("-17.8|180|50|km", {"fiji-west", "fiji-east"}),
        ("-17.8|-180|50|km", {"fiji-west", "fiji-east"}),
        ("90|0|50|km", {"pole"}),
        ("89.9|-80|23|km", {"pole"}),
        ("0|0|30000|km", set(PLACES)),
        ("39.9055|116.3976|1|km,40.08|116.6|5|km", {"square", "airport"}),
    ],
)
def test_a_clinic_near_home_is_found(places: Door, near: str, found: set[str]) -> None:
    asker = places.clinician("nanhu")
    if near.count("|") > 3 and "," not in near:
        asker.refused(f"Location?near={near}", 400, "invalid")
        return
    assert set(asker.ids(f"Location?near={near}")) == {f"Location/{one}" for one in found}


def test_who_works_near_home_is_found_and_the_closed_place_is_not(places: Door) -> None:
    asker = places.clinician("nanhu")

    home = "39.9055|116.3976|5|km"
    assert len(asker.ids(f"PractitionerRole?location.near={home}")) == 1
    assert asker.ids(f"Location?near={home}&name=temple") == ["Location/temple"]
    assert asker.bundle(f"Location?near={home}&_summary=count")["total"] == 2
