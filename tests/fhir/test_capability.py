"""The CapabilityStatement says what the door does, and the door does what it says."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from fhir_door import BASE, Asker, Door, entries, name, outcome

from exchange_fhir import asking, capability, conformance, described, question

GOLDEN = Path(__file__).parents[1] / "golden" / "fhir_capability_statement.json"


def who_asks(door: Door, kind: str) -> Asker:
    """Someone who may ask for resources of a type: only administrators read the trail."""
    return door.administrator() if kind == "AuditEvent" else door.clinician("nanhu")


def statement(door: Door) -> dict[str, object]:
    told: dict[str, object] = door.asker(None).read("metadata")
    return told


def test_the_statement_is_the_one_that_was_reviewed(door: Door) -> None:
    told = statement(door)
    told["software"] = {"name": "imaging-exchange"}
    assert told == orjson.loads(GOLDEN.read_bytes())


def test_the_statement_for_people_is_the_one_that_is_kept() -> None:
    kept = (Path(__file__).parents[2] / "fhir" / "CONFORMANCE.md").read_text("utf-8")
    assert conformance.statement() == kept


def test_what_is_stated_of_a_type_is_what_its_routes_do(hospital: Door) -> None:
    system = hospital.system("beicheng")
    (rest_,) = system.read("metadata")["rest"]
    for one in rest_["resource"]:
        kind, done = one["type"], {told["code"] for told in one["interaction"]}
        assert system.get(f"{kind}/unknown").status_code in {404, 410}, kind
        assert (system.get(f"{kind}/_history").status_code == 200) == ("history-type" in done), kind
        created = system.send("POST", kind, {"resourceType": "Basic"})
        assert (created.status_code == 400) == ("create" in done), kind
        deleted = system.send("DELETE", f"{kind}/999999")
        assert (deleted.status_code == 204) == ("delete" in done), kind


def test_what_the_server_works_by_can_be_read_as_resources(hospital: Door) -> None:
    asker = hospital.clinician("nanhu")

    for kind, found in described.every().items():
        bundle = asker.bundle(kind)
        assert bundle["total"] == len(found) == len(bundle["entry"])
    structure = asker.read("StructureDefinition/Observation")
    status = next(
        one for one in structure["snapshot"]["element"] if one["path"] == "Observation.status"
    )
    assert (status["min"], status["binding"]["strength"]) == (1, "required")
    url = "http://hl7.org/fhir/SearchParameter/clinical-code"
    assert asker.read("SearchParameter/clinical-code")["url"] == url
    assert asker.ids(f"SearchParameter?url={url}") == ["SearchParameter/clinical-code"]
    assert asker.ids("OperationDefinition?code=meta") == ["OperationDefinition/Resource-meta"]
    asker.refused(
        "OperationDefinition?code=meta&x=1", 400, "not-supported", Prefer="handling=strict"
    )
    asker.refused("StructureDefinition/Nothing", 404, "not-found")
    (rest_,) = asker.read("metadata")["rest"]
    stated = {one["definition"] for kind in rest_["resource"] for one in kind.get("operation", ())}
    stated |= {one["definition"] for one in rest_["operation"]}
    assert {one.canonical(BASE) for one in described.OPERATIONS} == stated


def test_definitions_are_searched_by_a_form_too(hospital: Door) -> None:
    asker = hospital.system("beicheng")
    form = "application/x-www-form-urlencoded"

    for kind, asked in (("SearchParameter", "code=gender"), ("OperationDefinition", "code=meta")):
        found = asker.post(f"{kind}/_search", asked, form)
        assert found.status_code == 200, found.text
        assert found.json()["entry"] == asker.bundle(f"{kind}?{asked}")["entry"]
    wrong = asker.post("SearchParameter/_search", "{}", "application/json")
    outcome(wrong, 415, "not-supported")


def test_what_is_stated_of_the_system_is_done_there(hospital: Door) -> None:
    asker = hospital.system("beicheng")
    (rest_,) = asker.read("metadata")["rest"]

    assert {"code": "search-system"} in rest_["interaction"]
    asker.bundle("?_type=Patient,Observation")
    stated = {one["name"]: one["definition"] for one in rest_["operation"]}
    assert stated["import"] == f"{BASE}/OperationDefinition/import"
    assert asker.read("OperationDefinition/import")["system"]
    for definition in stated.values():
        (one,) = asker.bundle(f"OperationDefinition?url={definition}")["entry"]
        assert one["resource"]["url"] == definition


def test_every_resource_of_the_statement_is_searched(hospital: Door) -> None:
    for kind in asking.SEARCHED:
        asker = who_asks(hospital, kind)
        asker.bundle(f"{kind}?_count=1", Prefer="handling=strict")


VALUES = {
    "special": "39.9|116.4|5|km",
    "token": "x", "string": "x", "date": "2026", "reference": "x", "uri": "urn:x", "quantity": "1",
}  # fmt: skip


@pytest.mark.parametrize("kind", asking.SEARCHED)
def test_every_parameter_that_is_stated_can_be_asked(hospital: Door, kind: str) -> None:
    asker = who_asks(hospital, kind)
    for parameter in capability.searched(kind):
        if parameter["type"] == "composite":
            continue
        asked = f"{kind}?{parameter['name']}={VALUES[parameter['type']]}&_count=1"
        asker.bundle(asked, Prefer="handling=strict")
    includes = [f"_include={one}" for one in question.includes(kind)]
    revincludes = [f"_revinclude={one}" for one in question.revincludes(kind)]
    for listed in (includes, revincludes):
        for at in range(0, len(listed), 40):
            asker.bundle(f"{kind}?{'&'.join(listed[at : at + 40])}", Prefer="handling=strict")
    if kind in asking.TABLES:
        for key in asking.TABLES[kind].sorts:
            asker.bundle(f"{kind}?_sort=-{key}", Prefer="handling=strict")


def test_the_definitions_come_as_many_as_are_asked_for(door: Door) -> None:
    asker = door.clinician("nanhu")
    whole = asker.ids("SearchParameter")

    first = asker.bundle("SearchParameter?_count=3")
    pages = [
        name(one) for page in asker.pages("SearchParameter?_count=400") for one in entries(page)
    ]

    assert [name(one) for one in entries(first)] == whole[:3]
    assert first["total"] == len(whole) == len(pages)
    assert pages == whole
    assert "entry" not in asker.bundle("SearchParameter?_count=0")
    asker.refused("SearchParameter?_count=many", 400, "invalid")


def test_the_capabilities_are_told_in_the_modes_that_there_are(door: Door) -> None:
    anyone = door.asker(None)
    assert anyone.read("metadata?mode=full") == anyone.read("metadata?mode=normative")
    for mode in ("terminology", "other"):
        assert "terminology" in anyone.refused(f"metadata?mode={mode}", 400, "not-supported")
