"""Whose a resource is, its index rows say after whatever was written: questions find the same by
them, by other ways, and by reading what the asker may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from random import Random
from typing import Any

import pytest
from crowding import crowded
from fhir_door import Asker, Door, entries, link, name, opened
from region import ADMINISTRATOR, HOSPITALS, Region, region
from sqlalchemy import select

from exchange import consent, ways
from exchange_storage import resource_index
from exchange_storage.records import Resource

CODES = tuple(HOSPITALS)
NAMES = ("Wang^Min", "Li^Na", "Wang^Na")
EACH = len(NAMES)
JSON_PATCH = "application/json-patch+json"

Told = dict[str, Any]


def owns(at: int) -> list[str]:
    """The patients of a hospital."""
    return [f"Patient/{EACH * at + number + 1}" for number in range(EACH)]


def written(random: Random, at: int) -> Told:
    """An Observation of a hospital's patient, or of several."""
    subject, *others = random.choices(owns(at), k=random.choice([1, 1, 2, 3]))
    return {
        "resourceType": "Observation",
        "id": f"o{at}-{random.randrange(4)}",
        "identifier": [{"system": "urn:o", "value": f"{at}-{random.randrange(3)}"}],
        "status": random.choice(["final", "preliminary"]),
        "code": {"coding": [{"code": random.choice("ab")}, {"code": "c"}]},
        "subject": {"reference": subject},
        **({"performer": [{"reference": one} for one in others]} if others else {}),
    }


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


class Seen:
    """All that an asker may see, read one by one."""

    def __init__(self, asker: Asker) -> None:
        kinds = ("Patient", "Observation", "DiagnosticReport", "Provenance")
        self.of = {
            kind: {
                f"{kind}/{one['resource']['id']}": one["resource"]
                for one in entries(asker.bundle(f"{kind}?_count=1000"))
            }
            for kind in kinds
        }

    def found(self, kind: str, fits: Callable[[Told], bool]) -> set[str]:
        return {named for named, one in self.of[kind].items() if fits(one)}

    def led(self, one: Told, element: str) -> list[Told]:
        """What may be seen of what an element refers to."""
        held = one.get(element, [])
        references = [each["reference"] for each in (held if isinstance(held, list) else [held])]
        return [self.of[each.split("/")[0]].get(each, {}) for each in references]

    def wang(self, one: Told, *elements: str) -> bool:
        led = [each for element in elements for each in self.led(one, element)]
        return any(
            written["family"] == "Wang"
            for each in led
            if each.get("resourceType") == "Patient"
            for written in each.get("name", [])
        )

    def pointed(self, fits: Callable[[Told], bool], *elements: str) -> set[str]:
        return {
            f"Patient/{led['id']}"
            for one in self.of["Observation"].values()
            if fits(one)
            for element in elements
            for led in self.led(one, element)
            if led
        }


def coded(code: str) -> Callable[[Told], bool]:
    return lambda one: any(each["code"] == code for each in one["code"]["coding"])


def final(one: Told) -> bool:
    return bool(one["status"] == "final")


def expected(seen: Seen) -> dict[str, set[str]]:
    """What questions find, by what they mean."""
    a, c = coded("a"), coded("c")
    wang, led = seen.wang, seen.led
    of_wang = seen.found("Patient", lambda one: any(n["family"] == "Wang" for n in one["name"]))
    pointed = seen.pointed
    return {
        "Observation?code=a&patient.name=wang": seen.found(
            "Observation", lambda one: a(one) and wang(one, "subject")
        ),
        "Observation?code=c&status=final&subject:Patient.name=wang": seen.found(
            "Observation", lambda one: final(one) and wang(one, "subject")
        ),
        "Observation?code=c&performer:Patient.name=wang": seen.found(
            "Observation", lambda one: wang(one, "performer")
        ),
        "DiagnosticReport?status=final&result.code=a": seen.found(
            "DiagnosticReport",
            lambda one: final(one) and any(o and a(o) for o in led(one, "result")),
        ),
        "DiagnosticReport?code=c&result.performer:Patient.name=wang": seen.found(
            "DiagnosticReport",
            lambda one: any(o and wang(o, "performer") for o in led(one, "result")),
        ),
        "Provenance?agent-type=author&patient.name=wang": seen.found(
            "Provenance", lambda one: wang(one, "target")
        ),
        "Provenance?target:Observation.patient.name=wang": seen.found(
            "Provenance",
            lambda one: any(
                o.get("resourceType") == "Observation" and wang(o, "subject")
                for o in led(one, "target")
            ),
        ),
        "Patient?_has:Observation:patient:code=a": pointed(a, "subject"),
        "Patient?_has:Observation:performer:code=c": pointed(c, "performer"),
        "Patient?name=wang&_has:Observation:performer:code=a": of_wang & pointed(a, "performer"),
        "Patient?_has:Observation:patient:code=a&_has:Observation:performer:status=final": pointed(
            a, "subject"
        )
        & pointed(final, "performer"),
        "Patient?_has:Observation:patient:_has:DiagnosticReport:result:status=final": pointed(
            lambda one: any(
                final(report)
                for report in seen.of["DiagnosticReport"].values()
                if one in led(report, "result")
            ),
            "subject",
        ),
    }


@contextmanager
def way(called: str) -> Iterator[None]:
    """One of the ways by which matches are come by."""
    with pytest.MonkeyPatch.context() as patch:
        if called == "usual":
            yield
            return
        patch.setattr(ways, "NAMED", 1000 if called == "named" else 0)
        patch.setattr(ways, "LISTED", 1000 if called == "listed" else 1)
        with crowded():
            yield


def asked(asker: Asker, question: str) -> list[str]:
    """The names on all pages; their number is the total, on each page and alone."""
    found: list[str] = []
    totals = {asker.bundle(f"{question}&_summary=count")["total"]}
    for page in asker.pages(f"{question}&_count=2&_total=accurate"):
        found += [name(one) for one in entries(page)]
        totals.add(page["total"])
    assert totals == {len(found)}, question
    return found


WAYS = ("usual", "named", "listed", "none")


def peopled(city: Region) -> Door:
    """Three patients at each hospital."""
    for at, code in enumerate(CODES):
        for number, written_name in enumerate(NAMES):
            sent = f"{at}.{number}"
            city.send(code, patient=f"P{sent}", study=f"1.2.{sent}", instance=f"1.4.{sent}",
                      PatientName=written_name)  # fmt: skip
    city.identify()
    return opened(city)


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
    for code in CODES:
        asker = door.clinician(code)
        for question, found in expected(Seen(asker)).items():
            for called in WAYS:
                with way(called):
                    told = asked(asker, question)
                assert (sorted(told), question, called) == (sorted(found), question, called)


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
