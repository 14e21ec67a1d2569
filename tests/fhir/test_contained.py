"""A chained condition is evaluated inside contained resources (FHIR R4 3.1.1.5.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bundles import WEIGHT
from crowding import crowded
from fhir_door import Door, opened
from region import region

WU = {
    "resourceType": "Practitioner", "id": "author", "active": True, "gender": "male",
    "name": [{"family": "吴", "given": ["强"]}],
    "identifier": [{"system": "urn:staff", "value": "Q7", "type": {
        "coding": [{"system": "urn:types", "code": "EN"}]}}],
    "telecom": [{"system": "email", "value": "wu@example.org"}],
}  # fmt: skip
WARD = {"resourceType": "Organization", "id": "ward", "name": "Radiology", "active": False}
SCAN = {
    "resourceType": "Observation", "id": "part", "status": "preliminary",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]},
    "valueQuantity": {"value": 1.7, "system": "http://unitsofmeasure.org", "code": "m"},
}  # fmt: skip


def document(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference", "status": "current",
        "subject": {"reference": "Patient/1"},
        "content": [{"attachment": {"contentType": "text/plain", "data": "5L2g"}}],
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def told(lasting_database_url: str) -> Iterator[Door]:
    """Documents whose authors stand inside them, or beside them; and an observation in another."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1")
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2")
        door = opened(city)
        system = door.system("beicheng")

        def put(called: str, resource: dict[str, Any]) -> None:
            path = f"{resource['resourceType']}/{called}"
            assert system.send("PUT", path, resource | {"id": called}).status_code == 201

        put("dr-zhang", {"resourceType": "Practitioner", "name": [{"family": "张"}]})
        put("inside", document(contained=[WU, WARD], author=[
            {"reference": "#author"}, {"reference": "#ward"}]))  # fmt: skip
        put("beside", document(author=[{"reference": "Practitioner/dr-zhang"}]))
        put("custodian", document(contained=[WARD], custodian={"reference": "#ward"}))
        system.made({
            "resourceType": "Patient", "contained": [WU],
            "identifier": [{"system": "urn:oid:2.25.101", "value": "P3"}],
            "generalPractitioner": [{"reference": "#author"}]})  # fmt: skip
        put("weight", WEIGHT | {"subject": {"reference": "Patient/1"}})
        put("sum", WEIGHT | {
            "subject": {"reference": "Patient/1"}, "contained": [SCAN],
            "hasMember": [{"reference": "#part"}]})  # fmt: skip
        yield door


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("DocumentReference?author.family=wu", ["inside"]),
        ("DocumentReference?author.given=强", ["inside"]),
        ("DocumentReference?author:Practitioner.family:exact=吴", ["inside"]),
        ("DocumentReference?author.family=wu,zhang", ["beside", "inside"]),
        ("DocumentReference?author.family=wu&author.name=radiology", ["inside"]),
        ("DocumentReference?author:Organization.name=radiology", ["inside"]),
        ("DocumentReference?custodian.name=radiology", ["custodian"]),
        ("DocumentReference?author:Organization.active=false", ["inside"]),
        ("DocumentReference?author:Practitioner.active=false", []),
        ("DocumentReference?author:Practitioner.gender:not=female", ["beside", "inside"]),
        ("DocumentReference?author:Practitioner.email:missing=true", ["beside"]),
        ("DocumentReference?author.identifier=urn:staff|Q7", ["inside"]),
        ("DocumentReference?author.identifier:of-type=urn:types|EN|Q7", ["inside"]),
        ("DocumentReference?author:Practitioner._id=author", []),
        ("DocumentReference?author.name=nobody", []),
        ("Observation?has-member.code=8302-2", ["sum"]),
        ("Observation?has-member.value-quantity=170|http://unitsofmeasure.org|cm", ["sum"]),
        ("Observation?has-member.code-value-quantity=8302-2$1.7", ["sum"]),
        ("Observation?has-member.code-value-quantity=8302-2$1.8", []),
        ("Observation?code=8302-2", []),
        ("Practitioner?family=wu", []),
        ("Patient?general-practitioner.family=wu", ["3"]),
        ("Patient?general-practitioner:Practitioner.identifier=Q7", ["3"]),
        ("Patient?general-practitioner.name=zhang", []),
        ("Patient?_has:DocumentReference:patient:author.family=wu", ["1"]),
    ],
)
def test_a_chain_goes_into_what_is_contained(told: Door, asked: str, found: list[str]) -> None:
    for asker in (told.clinician("beicheng"), told.clinician("dongshan")):
        ids = [one.partition("/")[2] for one in asker.ids(asked)]
        assert sorted(ids) == found
    with crowded():
        ids = [one.partition("/")[2] for one in told.clinician("nanhu").ids(asked)]
        assert sorted(ids) == found


def test_what_is_contained_is_not_found_once_it_is_not_inside_any_more(told: Door) -> None:
    system = told.system("beicheng")
    made = system.made(document(contained=[WU], author=[{"reference": "#author"}]))
    named = f"DocumentReference/{made['id']}"
    assert named in system.ids("DocumentReference?author.family=wu")

    system.send("PUT", named, document(id=made["id"], author=[{"display": "吴强"}]))

    assert named not in system.ids("DocumentReference?author.family=wu")
