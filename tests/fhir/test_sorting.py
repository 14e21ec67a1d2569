"""In whose order matches come where a parameter has several values: by the least of them, and
descending by the greatest (FHIR R4 3.1.1.5.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from fhir_door import Door, entries, name, opened
from region import ID_CARD, region

Values = Callable[[dict[str, Any]], list[str]]


@pytest.fixture(scope="module")
def hospital(lasting_database_url: str) -> Iterator[Door]:
    """Studies of several series and images; patients with several numbers, and with none."""
    random = Random(1)
    with region(lasting_database_url) as city:
        for study in range(8):
            sender = random.choice(["beicheng", "nanhu"])
            sent: dict[str, Any] = {
                "patient": "" if study == 3 else f"P{random.randrange(20)}",
                "AccessionNumber": random.choice(["", f"A{study % 3}", f"z{study}"]),
            }
            for at in range(random.choice([1, 2, 3])):
                city.send(
                    sender,
                    study=f"1.2.{study}",
                    series=f"1.3.{random.randrange(90)}.{study}.{at}",
                    instance=f"1.4.{random.randrange(90)}.{study}.{at}",
                    card=ID_CARD if study % 3 == 1 else None,
                    Modality=random.choice(["CT", "MR", "SR", "US", ""]),
                    SOPClassUID=f"1.2.840.{random.randrange(3)}",
                    **sent,
                )
        door = opened(city)
        for payloads in (["b", "d"], ["a", "e"], ["c"]):
            endpoint = {
                "resourceType": "Endpoint",
                "status": "active",
                "connectionType": {"code": "dicom-wado-rs"},
                "payloadType": [{"coding": [{"code": one}]} for one in payloads],
                "address": "https://pacs.example/",
            }
            door.system("beicheng").made(endpoint)
        yield door


def identifiers(resource: dict[str, Any]) -> list[str]:
    return [one["value"] for one in resource.get("identifier", [])]


def modalities(study: dict[str, Any]) -> list[str]:
    return [one["modality"]["code"] for one in study["series"]]


def series(study: dict[str, Any]) -> list[str]:
    return [one["uid"] for one in study["series"]]


def instances(study: dict[str, Any]) -> list[str]:
    return [image["uid"] for one in study["series"] for image in one["instance"]]


def classes(study: dict[str, Any]) -> list[str]:
    return [image["sopClass"]["code"] for one in study["series"] for image in one["instance"]]


def payloads(endpoint: dict[str, Any]) -> list[str]:
    """What is told in words only has a value, which is no code."""
    told = [one.get("coding", [{"code": ""}]) for one in endpoint["payloadType"]]
    return [coding["code"] for codings in told for coding in codings]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("kind", "key", "values"),
    [
        ("Patient", "identifier", identifiers),
        ("ImagingStudy", "identifier", identifiers),
        ("ImagingStudy", "modality", modalities),
        ("ImagingStudy", "series", series),
        ("ImagingStudy", "instance", instances),
        ("ImagingStudy", "dicom-class", classes),
        ("Endpoint", "payload-type", payloads),
    ],
)
def test_matches_come_by_the_least_or_the_greatest_of_their_values(
    hospital: Door, kind: str, key: str, values: Values, descending: bool
) -> None:
    asker = hospital.clinician("nanhu")
    seen = {name(one): values(one["resource"]) for one in entries(asker.bundle(kind))}
    assert len(seen) >= 6
    assert any(len(set(held)) > 1 for held in seen.values())

    order = f"{kind}?_sort={'-' if descending else ''}{key},_id"
    whole = asker.ids(order)
    paged = [name(one) for page in asker.pages(f"{order}&_count=1") for one in entries(page)]

    assert paged == whole
    assert set(whole) == seen.keys()
    having = [one for one in whole if seen[one]]
    assert whole == having + [one for one in whole if not seen[one]]
    chosen = [(max if descending else min)(seen[one]) for one in having]
    assert chosen == sorted(chosen, reverse=descending)
