"""Whose a resource is, its index rows say after whatever was written: questions find the same by
them, by other ways, and by reading what the asker may see."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from random import Random

import pytest
from fhir_door import Door, entries, link, name
from region import ADMINISTRATOR, Region, region
from sqlalchemy import select
from whose import CODES, EACH, WAYS, asked, each_is_found, owns, peopled, way, written

from exchange import consent
from exchange_storage import resource_index
from exchange_storage.records import Resource

JSON_PATCH = "application/json-patch+json"


def act(random: Random, door: Door, at: int) -> None:
    """Something that a hospital does; what is refused changes nothing."""
    system = door.system(CODES[at])
    one = written(random, at)
    place = f"Observation/{one['id']}"
    acts = ["put", "patch", "condition", "together", "delete", "report", "provenance"]
    match random.choice(acts):
        case "put":
            system.send("PUT", place, one)
        case "patch":
            change = [{"op": "replace", "path": "/subject", "value": one["subject"]}]
            headers = {**system.headers, "Content-Type": JSON_PATCH}
            system.client.patch(f"/fhir/{place}", json=change, headers=headers)
        case "condition":
            number = one["identifier"][0]["value"]
            del one["id"]
            system.send("PUT", f"Observation?identifier=urn:o|{number}", one)
        case "together":
            both = [one, written(random, at)]
            request = [
                {"resource": each, "request": {"method": "PUT", "url": f"Observation/{each['id']}"}}
                for each in both
            ]
            told = {"resourceType": "Bundle", "type": "transaction", "entry": request}
            system.send("POST", "", told)
        case "delete":
            system.send("DELETE", place)
        case "report":
            report = {**one, "resourceType": "DiagnosticReport", "result": [{"reference": place}]}
            system.send("PUT", f"DiagnosticReport/{one['id']}", report)
        case "provenance":
            targets = [place, f"DiagnosticReport/{one['id']}", random.choice(owns(at))]
            told = {
                "resourceType": "Provenance",
                "id": one["id"],
                "recorded": "2026-11-28T08:00:00Z",
                "target": [{"reference": each} for each in random.sample(targets, 2)],
                "agent": [{"who": {"display": "x"}, "type": {"coding": [{"code": "author"}]}}],
            }
            system.send("PUT", f"Provenance/{one['id']}", told)


@pytest.mark.parametrize("seed", range(2))
def test_questions_by_whose_a_resource_is_find_what_the_asker_may_see(
    city: Region, seed: int
) -> None:
    random = Random(seed)
    door = peopled(city)
    for step in range(90):
        act(random, door, random.randrange(len(CODES)))
        if step % 40 == 20:
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                consent.opt_out(access, CODES[step % 3], f"P{step % 3}.{random.randrange(EACH)}")
    with city.exchange.database.reading() as session:
        everything = session.scalars(select(Resource.id)).all()
        assert len(everything) > 10
        assert resource_index.misplaced(session, everything) == set()
    each_is_found(door)


@pytest.mark.parametrize("turn", range(len(WAYS)))
@pytest.mark.parametrize("order", ["", "&_sort=_id", "&_sort=-_lastUpdated"])
@pytest.mark.parametrize(
    "question",
    [
        "Observation?code=c&status=final",
        "Observation?code=c&patient.name=wang",
        "Patient?_has:Observation:patient:code=c",
    ],
)
def test_pages_neither_repeat_nor_lose_anything_when_another_way_is_taken_meanwhile(
    peopled_city: Door, question: str, order: str, turn: int
) -> None:
    door = peopled_city
    clinician, system = door.clinician(CODES[0]), door.system(CODES[0])
    before = asked(clinician, question + order)
    assert len(before) > 3
    found: list[str] = []
    following: str | None = f"{question}{order}&_count=1"
    for step, called in enumerate(islice(cycle(WAYS), turn, 60)):
        if following is None:
            break
        with way(called):
            page = clinician.bundle(following)
        found += [name(one) for one in entries(page)]
        following = link(page, "next")
        if step < 3:
            one = written(Random(step), 0)
            del one["id"]
            assert system.send("POST", "Observation", one).status_code == 201
    assert following is None
    assert len(found) == len(set(found))
    assert set(before) <= set(found)
    assert [one for one in found if one in set(before)] == before


@pytest.fixture(scope="module")
def peopled_city(lasting_database_url: str) -> Iterator[Door]:
    """What six Observations tell of the patients of a hospital."""
    with region(lasting_database_url) as city:
        door = peopled(city)
        for number in range(EACH * 2):
            one = written(Random(number), 0) | {"id": f"first{number}", "status": "final"}
            one["subject"] = {"reference": owns(0)[number % EACH]}
            assert door.system(CODES[0]).send("PUT", f"Observation/{one['id']}", one).is_success
        other = written(Random(9), 1) | {"status": "final", "subject": {"reference": owns(1)[0]}}
        assert door.system(CODES[1]).send("PUT", f"Observation/{other['id']}", other).is_success
        yield door
