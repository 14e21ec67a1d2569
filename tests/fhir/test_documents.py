"""Composition/$document: a discharge summary and all that it is made of, as one document."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door, is_fhir, outcome

DOCTOR = {"resourceType": "Practitioner", "name": [{"text": "赵医生"}]}


def named(resource: dict[str, Any]) -> dict[str, str]:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def summary(*entries: dict[str, str], author: dict[str, str], **more: Any) -> dict[str, Any]:
    """A discharge summary of Wang, with the entries in sections one below the other."""
    section: dict[str, Any] = {"title": "检查", "entry": list(entries)}
    return {
        "resourceType": "Composition",
        "status": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": "18842-5"}]},
        "subject": {"reference": "Patient/1"},
        "date": "2026-11-20",
        "author": [author],
        "title": "出院小结",
        "section": [{"title": "住院经过", "section": [section]}],
    } | more


def document(asker: Asker, path: str) -> dict[str, Any]:
    response = asker.get(path)
    assert response.status_code == 200, response.text
    bundle: dict[str, Any] = response.json()
    is_fhir(bundle)
    return bundle


def held(bundle: dict[str, Any]) -> list[str]:
    return [f"{one['resource']['resourceType']}/{one['resource']['id']}" for one in bundle["entry"]]


@pytest.fixture(scope="module")
def written(hospital: Door) -> dict[str, str]:
    """Addresses of a Composition of beicheng and of what belongs to it."""
    system = hospital.system("beicheng")
    doctor = system.made(DOCTOR)
    weight = system.made(WEIGHT | {"performer": [named(doctor)]})
    result = system.made(WEIGHT)
    report = system.made(
        {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"text": "体检"},
            "subject": {"reference": "Patient/1"},
            "result": [named(result)],
        }
    )
    study = {"reference": "ImagingStudy/1.2.1"}
    below = {"title": "检查", "entry": [named(report), named(weight)]}
    section = {"title": "住院经过", "entry": [named(weight), study], "section": [below]}
    made = system.made(summary(author=named(doctor)) | {"section": [section]})
    told = {"doctor": doctor, "weight": weight, "result": result, "report": report}
    return {name: named(one)["reference"] for name, one in (told | {"composition": made}).items()}


def test_a_document_begins_with_its_composition_and_holds_what_that_names(
    hospital: Door, written: dict[str, str]
) -> None:
    for asker in (hospital.system("beicheng"), hospital.clinician("nanhu")):
        bundle = document(asker, f"{written['composition']}/$document?persist=false")

        assert bundle["type"] == "document"
        assert bundle["identifier"]["value"] == f"urn:uuid:{bundle['id']}"
        assert bundle["timestamp"]
        assert held(bundle)[0] == written["composition"]
        assert set(held(bundle)) >= {
            "Patient/1", written["doctor"], written["weight"], written["report"],
            "ImagingStudy/1.2.1",
        }  # fmt: skip
        assert written["result"] in held(bundle)  # of the report: it came along
        assert len(held(bundle)) == len(set(held(bundle)))
        for one in bundle["entry"]:
            kind, identity = one["resource"]["resourceType"], one["resource"]["id"]
            assert one["fullUrl"].endswith(f"/{kind}/{identity}")


def test_it_is_asked_for_by_id_and_by_post_and_as_xml(
    hospital: Door, written: dict[str, str]
) -> None:
    system = hospital.system("beicheng")
    identity = written["composition"].partition("/")[2]

    by_id = document(system, f"Composition/$document?id={identity}")
    posted = system.send("POST", f"{written['composition']}/$document")
    xml = system.get(f"{written['composition']}/$document", Accept="application/fhir+xml")

    assert held(by_id) == held(posted.json())
    assert xml.text.count("<fullUrl ") == len(by_id["entry"])


def test_what_may_not_be_seen_leaves_no_document(hospital: Door) -> None:
    """The refusal beside its permit: a part that is only its hospital's."""
    system, stranger = hospital.system("beicheng"), hospital.clinician("nanhu")
    doctor = system.made(DOCTOR)
    own = system.made({"resourceType": "List", "status": "current", "mode": "working"})
    made = system.made(summary(named(own), author=named(doctor)))
    path = f"{named(made)['reference']}/$document"

    assert named(own)["reference"] in held(document(system, path))
    response = stranger.get(path)
    assert response.status_code == 422
    (issue,) = response.json()["issue"]
    assert issue["code"] in {"forbidden", "not-found"}
    assert issue["expression"] == ["Composition.section[0].section[0].entry[0]"]


def test_what_is_not_here_is_told_by_its_place(hospital: Door) -> None:
    system = hospital.system("beicheng")
    doctor = system.made(DOCTOR)
    gone = system.made(WEIGHT)
    assert system.send("DELETE", named(gone)["reference"]).status_code == 204
    made = system.made(
        summary(
            named(gone), {"reference": "Observation/none"},
            {"reference": "http://other.example/fhir/Observation/1"},
            author=named(doctor),
        )
    )  # fmt: skip

    response = system.get(f"{named(made)['reference']}/$document")

    assert response.status_code == 422
    assert [one["code"] for one in response.json()["issue"]] == [
        "deleted", "not-found", "not-supported",
    ]  # fmt: skip


def test_the_version_that_is_named_is_in_the_document(hospital: Door) -> None:
    system = hospital.system("beicheng")
    doctor = system.made(DOCTOR)
    weight = system.made(WEIGHT)
    first = {"reference": f"{named(weight)['reference']}/_history/1"}
    later = weight | {"valueQuantity": {"value": 80.5, "unit": "kg"}}
    assert system.send("PUT", named(weight)["reference"], later).status_code == 200
    made = system.made(summary(first, author=named(doctor)))

    bundle = document(system, f"{named(made)['reference']}/$document")

    (told,) = [one["resource"] for one in bundle["entry"] if one["resource"]["id"] == weight["id"]]
    assert (told["meta"]["versionId"], told["valueQuantity"]["value"]) == ("1", 72.5)


def test_compositions_are_found_by_what_they_say(hospital: Door, written: dict[str, str]) -> None:
    asker = hospital.clinician("nanhu")
    composition, doctor = written["composition"], written["doctor"]

    for query in (
        "type=http://loinc.org|18842-5",
        "title=出院",
        "status=final",
        "date=2026-11",
        "subject=Patient/1",
        "patient.identifier=urn:oid:2.25.101|W1",
        f"author={doctor}",
        f"entry={written['weight']}",
        "entry:ImagingStudy.modality=CT",
        "author:Practitioner.name=赵",
    ):
        assert composition in asker.ids(f"Composition?{query}"), query
    along = asker.ids(f"Composition?_id={composition[12:]}&_include=Composition:author", "include")
    assert along == [doctor]


def test_what_cannot_be_done_is_said(hospital: Door, written: dict[str, str]) -> None:
    system = hospital.system("beicheng")

    for query in ("persist=true", "graph=http://a.example", "colour=red"):
        system.refused(f"{written['composition']}/$document?{query}", 400, "not-supported")
    system.refused("Composition/$document", 400, "required")
    system.refused("Composition/none/$document", 404, "not-found")
    outcome(system.send("POST", "Composition/none/$document"), 404, "not-found")
