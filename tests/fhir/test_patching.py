"""JSON Patch and FHIRPath Patch: what each operation makes of a resource."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from exchange_fhir import patching, validation
from exchange_fhir.outcome import Problem

PATIENT = {
    "resourceType": "Patient",
    "id": "1",
    "identifier": [{"system": "urn:oid:2.25.101", "value": "P1"}],
    "name": [{"use": "official", "family": "Wang", "given": ["Xiao", "Dong"]}, {"text": "Wang"}],
    "birthDate": "1949-12-31",
    "deceasedBoolean": False,
    "contact": [{"name": {"family": "Li"}}],
}


def operation(**parts: Any) -> dict[str, Any]:
    """One operation of a FHIRPath Patch; a part is a value, or (datatype, value)."""
    types = {"index": "Integer", "source": "Integer", "destination": "Integer", "type": "Code"}
    told = []
    for name, value in parts.items():
        kind, given = value if isinstance(value, tuple) else (types.get(name, "String"), value)
        told.append(
            {"name": name, f"value{kind}": given} if kind else {"name": name, "part": given}
        )
    return {"name": "operation", "part": told}


def patched(*operations: dict[str, Any]) -> dict[str, Any]:
    parameters = {"resourceType": "Parameters", "parameter": list(operations)}
    assert validation.issues(parameters) == []
    made = patching.fhirpath_patch(parameters)(PATIENT)
    assert validation.issues(made) == []
    return made


def json_patched(*operations: dict[str, Any]) -> dict[str, Any]:
    return patching.json_patch(orjson.dumps(operations))(PATIENT)


def test_json_patch_changes_what_it_names_and_not_the_resource_it_was_given() -> None:
    made = json_patched(
        {"op": "test", "path": "/birthDate", "value": "1949-12-31"},
        {"op": "replace", "path": "/birthDate", "value": "1949-12-30"},
        {"op": "add", "path": "/name/0/given/-", "value": "X"},
        {"op": "remove", "path": "/contact"},
        {"op": "copy", "from": "/name/0/family", "path": "/name/1/family"},
        {"op": "move", "from": "/name/0", "path": "/name/1"},
    )

    assert made["birthDate"] == "1949-12-30"
    assert [name["family"] for name in made["name"]] == ["Wang", "Wang"]
    assert made["name"][1]["given"] == ["Xiao", "Dong", "X"]
    assert "contact" not in made
    assert PATIENT["birthDate"] == "1949-12-31"


@pytest.mark.parametrize(
    "sent",
    [
        *(
            b"{}",
            b"",
            b"[1]",
            b'[{"op":"add"}]',
            b'[{"path":"/a"}]',
            b'[{"op":"steal","path":"/a"}]',
        ),
        *(b'[{"op":"add","path":"a","value":1}]', b"[" + b'{"op":"remove","path":"/a"},' * 2000),
    ],
)
def test_what_is_no_json_patch_is_refused(sent: bytes) -> None:
    with pytest.raises(Problem):
        patching.json_patch(sent)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/birthDate", "value": "2000"},
        {"op": "replace", "path": "/gender", "value": "male"},
        {"op": "remove", "path": "/name/7"},
        {"op": "add", "path": "/photo/0/url", "value": "a"},
        {"op": "replace", "path": "", "value": []},
    ],
)
def test_a_json_patch_that_does_not_fit_changes_nothing(operation: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        json_patched(operation)


def test_copies_cannot_double_a_resource_for_ever() -> None:
    grow = {"op": "copy", "from": "/name", "path": "/name/-"}

    with pytest.raises(Problem, match="200000 values"):
        json_patched(*[grow] * 100)


def test_fhirpath_patch_adds_inserts_replaces_moves_and_deletes() -> None:
    made = patched(
        operation(type="add", path="Patient", name="gender", value=("Code", "female")),
        operation(type="add", path="Patient.name[1]", name="given", value="Dong"),
        operation(type="insert", path="Patient.name.first().given", index=0, value="A"),
        operation(type="replace", path="Patient.birthDate", value=("Date", "1950-01-01")),
        operation(type="replace", path="Patient.deceased", value=("DateTime", "2026-11-26")),
        operation(type="move", path="Patient.name", source=0, destination=1),
        operation(type="delete", path="Patient.contact[0]"),
        operation(type="delete", path="Patient.maritalStatus"),
        operation(
            type="replace",
            path="Patient.identifier.where(system = 'urn:oid:2.25.101').value",
            value="P2",
        ),
        operation(
            type="add",
            path="Patient",
            name="contact",
            value=("", [{"name": "organization", "valueReference": {"display": "学校"}}]),
        ),
    )

    assert made["gender"] == "female"
    assert [name.get("given") for name in made["name"]] == [["Dong"], ["A", "Xiao", "Dong"]]
    assert made["birthDate"] == "1950-01-01"
    assert made["deceasedDateTime"] == "2026-11-26"
    assert "deceasedBoolean" not in made
    assert made["contact"] == [{"organization": {"display": "学校"}}]
    assert made["identifier"][0]["value"] == "P2"


@pytest.mark.parametrize(
    "wrong",
    [
        operation(type="add", path="Patient", name="birthDate", value=("Date", "1950-01-01")),
        operation(type="add", path="Patient", name="colour", value="green"),
        operation(type="add", path="Observation", name="status", value="final"),
        operation(type="delete", path="Patient.name"),
        operation(type="replace", path="Patient.photo", value="a"),
        operation(type="replace", path="Patient.birthDate.day", value="a"),
        operation(type="insert", path="Patient.name.given", index=9, value="a"),
        operation(type="move", path="Patient.name", source=0, destination=2),
        operation(type="replace", path="Patient.name.single().family", value="a"),
    ],
)
def test_a_fhirpath_patch_that_does_not_fit_changes_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        patched(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        operation(type="steal", path="Patient.name"),
        operation(type="delete"),
        operation(type="delete", path="Patient.name", index=1),
        operation(type="delete", path="Patient.name.all(given.exists())"),
        operation(type="delete", path="Patient.name[" + "1" * 2000 + "]"),
        operation(type="insert", path="Patient.name", index=("String", "a"), value="b"),
        operation(type="add", path="Patient", name=("Integer", 1), value="b"),
        {"name": "else", "valueString": "a"},
    ],
)
def test_what_is_no_fhirpath_patch_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        patched(wrong)


def test_a_merge_patch_replaces_what_it_names_and_leaves_out_what_is_null() -> None:
    made = patching.merge_patch({"birthDate": "1950", "contact": None, "name": [{"text": "A"}]})(
        PATIENT
    )

    assert (made["birthDate"], made["name"], "contact" in made) == ("1950", [{"text": "A"}], False)
    assert made["identifier"] == PATIENT["identifier"]


def test_a_patch_whose_paths_lead_through_too_much_is_refused() -> None:
    many = PATIENT | {"name": [{"use": "official", "text": str(one)} for one in range(1000)]}
    one = operation(type="replace", path="Patient.name.where(text = '999').use", value="old")
    patch = patching.fhirpath_patch({"resourceType": "Parameters", "parameter": [one] * 1000})
    with pytest.raises(Problem, match="lead through more than") as told:
        patch(many)
    assert (told.value.answer.http, told.value.answer.code) == (422, "too-costly")


def test_copies_of_copies_end_before_they_fill_the_memory() -> None:
    copies = [{"op": "copy", "from": "/name", "path": "/name/0/given/0"}] * 1000
    with pytest.raises(Problem, match="makes more than"):
        json_patched(*copies)
