"""What questions by whose a resource is should find: a plain reading of all that an asker may see,
and the ways by which the exchange comes by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from crowding import crowded
from fhir_door import Asker, Door, entries, name, opened
from region import HOSPITALS, ID_CARD, Region

from exchange import ways

CODES = tuple(HOSPITALS)
NAMES = ("Wang^Min", "Li^Na", "Wang^Na")
EACH = len(NAMES)

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


class Seen:
    """All that an asker may see, read one by one."""

    def __init__(self, asker: Asker) -> None:
        kinds = ("Patient", "Observation", "DiagnosticReport", "Provenance", "ImagingStudy")
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

    def carded(self, one: Told, card: str, *elements: str) -> bool:
        """Whether an element leads to a patient who has this number."""
        led = [each for element in elements for each in self.led(one, element)]
        return any(
            each.get("resourceType") == "Patient"
            and any(number["value"] == card for number in each.get("identifier", []))
            for each in led
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
        f"Observation?code=c&subject:Patient.identifier={ID_CARD}": seen.found(
            "Observation", lambda one: seen.carded(one, ID_CARD, "subject")
        ),
        f"DiagnosticReport?status=final&result.performer:Patient.identifier={ID_CARD}": seen.found(
            "DiagnosticReport",
            lambda one: (
                final(one) and any(seen.carded(o, ID_CARD, "performer") for o in led(one, "result"))
            ),
        ),
        "Provenance?target:ImagingStudy.patient.name=wang": seen.found(
            "Provenance",
            lambda one: any(
                study.get("resourceType") == "ImagingStudy" and wang(study, "subject")
                for study in led(one, "target")
            ),
        ),
        "ImagingStudy?_has:Provenance:target:agent-type=author": {
            f"ImagingStudy/{study['id']}"
            for one in seen.of["Provenance"].values()
            for study in led(one, "target")
            if study.get("resourceType") == "ImagingStudy"
        },
    }


def included(seen: Seen) -> dict[str, set[str]]:
    """What comes with all Observations, and with all patients of a name."""
    observations, patients = seen.of["Observation"], seen.of["Patient"]
    wang = {key for key, one in patients.items() if any(n["family"] == "Wang" for n in one["name"])}
    return {
        "Observation?code=c&_include=Observation:subject&_include=Observation:performer": {
            f"Patient/{each['id']}"
            for one in observations.values()
            for element in ("subject", "performer")
            for each in seen.led(one, element)
            if each
        },
        "Patient?name=wang&_revinclude=Observation:performer": {
            key
            for key, one in observations.items()
            if any(f"Patient/{each.get('id')}" in wang for each in seen.led(one, "performer"))
        },
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


def each_is_found(door: Door) -> None:
    """Every clinician is answered by each way what is found by plain reading."""
    for code in CODES:
        asker = door.clinician(code)
        seen = Seen(asker)
        for question, found in expected(seen).items():
            for called in WAYS:
                with way(called):
                    told = asked(asker, question)
                assert (sorted(told), question, called) == (sorted(found), question, called)
        for question, found in included(seen).items():
            told = asker.ids(f"{question}&_count=1000", "include")
            assert (sorted(told), question) == (sorted(found), question)
