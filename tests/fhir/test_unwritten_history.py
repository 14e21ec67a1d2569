"""Hospitals that were registered, and patients of images, are in history too (mCSD ITI-91)."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door
from region import ADMINISTRATOR

from exchange import membership, organizations
from exchange_fhir import reading

OWN = {"resourceType": "Organization", "name": "Radiology"}


@pytest.fixture
def region(door: Door) -> Door:
    """Patients 1 to 3 of beicheng came with images; of Patient/2 it wrote."""
    for at in (1, 2, 3):
        door.city.send("beicheng", patient=f"P{at}", study=f"1.2.{at}", instance=f"1.4.{at}")
    number = {"system": "urn:oid:2.25.101", "value": "P2"}
    written = {"resourceType": "Patient", "id": "2", "identifier": [number]}
    assert door.system("beicheng").send("PUT", "Patient/2", written).status_code == 200
    return door


def told(asker: Asker, path: str) -> list[str]:
    """The versions of all pages, as Type/id."""
    return [
        one["fullUrl"].partition("/fhir/")[2]
        for page in _pages(asker, path)
        for one in page.get("entry", ())
    ]


def _pages(asker: Asker, path: str) -> list[dict[str, Any]]:
    found, following = [], path
    while following:
        found.append(asker.bundle(following, mode_of="history"))
        links = {one["relation"]: one["url"] for one in found[-1]["link"]}
        following = links.get("next", "")
    return found


@pytest.mark.parametrize("count", [1, 2, 50])
def test_who_follows_the_directory_learns_of_every_hospital(region: Door, count: int) -> None:
    beicheng = region.system("beicheng")
    made = beicheng.made(OWN)
    codes = list(region.city.ids)

    found = told(beicheng, f"Organization/_history?_count={count}")

    assert found[0] == f"Organization/{made['id']}"
    assert found[1:] == [f"Organization/{code}" for code in reversed(codes)]
    endpoints = told(beicheng, f"Endpoint/_history?_count={count}")
    assert endpoints == [f"Endpoint/dicomweb-{code}" for code in reversed(codes)]
    since = made["meta"]["lastUpdated"]
    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.deactivate(access, "nanhu")
    assert told(beicheng, f"Organization/_history?_since={since}&_count={count}") == [
        "Organization/nanhu", found[0],
    ]  # fmt: skip
    (entry,) = beicheng.bundle(f"Organization/_history?_since={since}&_count=1", "history")["entry"]
    assert entry["resource"] == beicheng.read("Organization/nanhu")
    assert beicheng.bundle("Organization/_history?_count=0", "history")["total"] == len(found)
    assert told(beicheng, f"Organization/_history?_at={since[:4]}&_count={count}")
    assert told(beicheng, f"Organization/_history?_at=2020&_count={count}") == []


@pytest.mark.parametrize("count", [1, 2, 50])
def test_patients_of_images_are_told_once_with_those_that_were_written(
    region: Door, count: int
) -> None:
    beicheng = region.system("beicheng")
    assert told(beicheng, f"Patient/_history?_count={count}") == [
        "Patient/2", "Patient/3", "Patient/1",
    ]  # fmt: skip
    assert beicheng.bundle("Patient/_history?_count=0", "history")["total"] == 3
    everything = told(beicheng, f"_history?_count={count}")
    assert sorted(everything) == sorted(set(everything))
    assert {"Patient/1", "Patient/2", "Patient/3", "Organization/nanhu"} <= set(everything)
    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "beicheng")
    assert told(region.system("nanhu"), f"Patient/_history?_count={count}") == []


@pytest.mark.parametrize("path", ["_history", "Patient/_history"])
def test_pages_do_not_shift_by_what_comes_meanwhile(region: Door, path: str) -> None:
    beicheng = region.system("beicheng")
    if path == "_history":
        beicheng.made(WEIGHT)
    whole = told(beicheng, path)
    first = beicheng.bundle(f"{path}?_count=1", mode_of="history")
    following = next(one["url"] for one in first["link"] if one["relation"] == "next")

    region.city.send("beicheng", patient="P9", study="1.2.9", instance="1.4.9")
    beicheng.made(WEIGHT)

    assert told(beicheng, following) == whole[1:]
    assert "Patient/4" in told(beicheng, path)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_studies_stand_in_the_history_of_all_where_they_changed(region: Door, count: int) -> None:
    beicheng = region.system("beicheng")
    before = beicheng.made(WEIGHT)
    region.city.send("beicheng", patient="P1", study="1.2.1", instance="1.4.9")
    after = beicheng.made(WEIGHT)

    pages = _pages(beicheng, f"_history?_count={count}")

    entries = [one for page in pages for one in page.get("entry", ())]
    moments = [one["response"]["lastModified"] for one in entries]
    assert moments == sorted(moments, reverse=True)
    found = [f"{one['resource']['resourceType']}/{one['resource']['id']}" for one in entries]
    assert sorted(found) == sorted(set(found))
    weights = [f"Observation/{one['id']}" for one in (after, before)]
    places = [found.index(one) for one in (weights[0], "ImagingStudy/1.2.1", weights[1])]
    assert places == sorted(places)
    studies = told(beicheng, "ImagingStudy/_history")
    assert [one for one in found if one.startswith("ImagingStudy")] == studies
    (study,) = (one for one in entries if one["fullUrl"].endswith("ImagingStudy/1.2.1"))
    assert study["resource"] == beicheng.read("ImagingStudy/1.2.1")
    assert study["request"] == {"method": "PUT", "url": "ImagingStudy/1.2.1"}
    assert beicheng.bundle("_history?_count=0", "history")["total"] == len(found)
    since = before["meta"]["lastUpdated"]
    assert told(beicheng, f"_history?_since={since}&_count={count}")[-2:] == [
        "ImagingStudy/1.2.1", weights[1],
    ]  # fmt: skip


def test_a_page_of_studies_has_as_many_as_there_is_room_for(
    region: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    beicheng = region.system("beicheng")
    beicheng.made(WEIGHT)
    whole = told(beicheng, "_history")
    monkeypatch.setattr(reading, "PAGE_BYTES", 1)

    assert told(beicheng, "_history") == whole


def test_history_tells_no_hospital_of_studies_that_are_withheld_from_it(region: Door) -> None:
    region.city.send("nanhu", patient="P1", study="1.2.9", instance="1.4.9")
    nanhu = region.system("nanhu")
    assert "ImagingStudy/1.2.1" in told(nanhu, "_history")
    with region.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "beicheng")

    found = [one for one in told(nanhu, "_history?_count=2") if one.startswith("ImagingStudy")]

    assert found == ["ImagingStudy/1.2.9"]
