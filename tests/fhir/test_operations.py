"""$validate and $meta: what would be wrong with a resource, and what is said of one."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT, newest
from fhir_door import Asker, Door, is_fhir, outcome

TAG = {"system": "http://beicheng.example/tags", "code": "teaching"}


def issues(asker: Asker, path: str, resource: Any = None) -> list[tuple[str, str, str]]:
    response = asker.send("GET" if resource is None else "POST", path, resource)
    assert response.status_code == 200, response.text
    told = response.json()
    is_fhir(told)
    return [(one["severity"], one["code"], one.get("expression", [""])[0]) for one in told["issue"]]


def parameters(**given: Any) -> dict[str, Any]:
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": name} | value for name, value in given.items()],
    }


def test_a_resource_is_validated_and_not_kept(hospital: Door) -> None:
    system = hospital.system("beicheng")
    before = newest(system)
    good = [("information", "informational", "")]
    wrong = WEIGHT | {"status": "done", "colour": "green"}

    assert issues(system, "Observation/$validate", WEIGHT) == good
    assert issues(system, "Observation/$validate?mode=create", WEIGHT) == good
    assert issues(system, "Observation/$validate", parameters(resource={"resource": wrong})) == [
        ("error", "code-invalid", "Observation.status"),
        ("error", "structure", "Observation.colour"),
    ]
    assert issues(system, "Location/$validate", WEIGHT) == [("error", "structure", "resourceType")]
    profiled = WEIGHT | {"meta": {"profile": ["http://beicheng.example/weight"]}}
    assert issues(system, "Observation/$validate", profiled) == [
        ("warning", "not-supported", "Observation.meta.profile")
    ]
    profile = "http://beicheng.example/weight"
    refused = system.send("POST", f"Observation/$validate?profile={profile}", WEIGHT)
    assert "is not known here" in outcome(refused, 400, "not-supported")
    asked = parameters(resource={"resource": WEIGHT}, profile={"valueUri": profile})
    assert outcome(system.send("POST", "Observation/$validate", asked), 400, "not-supported")
    assert newest(system) == before


def test_a_patient_who_came_with_images_can_be_validated_before_it_is_written(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    held = system.read("Patient/1")

    assert issues(system, "Patient/1/$validate", held) == [("information", "informational", "")]
    assert issues(system, "Patient/1/$validate", held | {"gender": "x"}) == [
        ("error", "code-invalid", "Patient.gender")
    ]
    assert issues(system, "Patient/999/$validate", held) == [("error", "not-found", "")]


def test_a_bound_code_that_is_an_object_is_told_as_what_it_is(hospital: Door) -> None:
    allergy = {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": {"coding": [{"system": "http://a.example/codes", "code": {}}]},
        "patient": {"reference": "Patient/1"},
    }
    assert issues(hospital.system("beicheng"), "AllergyIntolerance/$validate", allergy) == [
        ("error", "structure", "AllergyIntolerance.clinicalStatus.coding[0].code")
    ]


def test_it_is_told_whether_an_interaction_would_do(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT)
    named = f"Observation/{made['id']}"
    good = [("information", "informational", "")]

    assert issues(system, f"{named}/$validate") == good
    assert issues(system, f"{named}/$validate?mode=delete") == good
    assert issues(system, f"{named}/$validate?mode=update", made) == good
    update = parameters(mode={"valueCode": "update"}, resource={"resource": WEIGHT | {"id": "x"}})
    assert issues(system, "Observation/$validate", update) == [("error", "not-found", "")]
    study: dict[str, Any] = {"resourceType": "ImagingStudy", "status": "available"}
    study |= {"subject": {"reference": "Patient/1"}}
    assert issues(system, "ImagingStudy/$validate?mode=create", study) == [
        ("error", "not-supported", "")
    ]
    for path in ("Observation/$validate?mode=burn", "Observation/$validate"):
        assert system.send("POST", path, parameters(other={"valueCode": "x"})).status_code == 400


def test_tags_are_told_added_and_taken_away(hospital: Door) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"
    tagged = parameters(meta={"valueMeta": {"tag": [TAG], "profile": ["http://a.example/p"]}})

    def meta(response: Any) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        is_fhir(response.json())
        told: dict[str, Any] = response.json()["parameter"][0]["valueMeta"]
        return told

    added = meta(system.send("POST", f"{named}/$meta-add", tagged))
    again = meta(system.send("POST", f"{named}/$meta-add", tagged))

    assert added["tag"] == again["tag"] == [TAG]
    assert meta(system.get(f"{named}/$meta")) == again == system.read(named)["meta"]
    less = parameters(meta={"valueMeta": {"tag": [TAG]}})
    left = meta(system.send("POST", f"{named}/$meta-delete", less))
    assert "tag" not in left
    assert left["profile"] == ["http://a.example/p"]
    foreign = hospital.system("nanhu").send("POST", f"{named}/$meta-add", tagged)
    assert outcome(foreign, 403, "forbidden")


@pytest.mark.parametrize("name", ["$meta-add", "$meta-delete"])
def test_what_is_no_meta_changes_nothing(hospital: Door, name: str) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"

    for sent in (WEIGHT, parameters(meta={"valueCode": "x"}), parameters(other={"valueCode": "x"})):
        assert system.send("POST", f"{named}/{name}", sent).status_code == 400
    assert system.get(named).headers["etag"] == 'W/"1"'


def test_what_is_no_resource_of_its_own_here_is_validated_too(hospital: Door) -> None:
    system = hospital.system("beicheng")
    entry = {"resource": {"resourceType": "Observation", "status": "quite final"}}
    bundle = {"resourceType": "Bundle", "type": "collection"}

    right = system.send("POST", "Bundle/$validate", bundle).json()["issue"]
    wrong = system.send("POST", "Bundle/$validate", bundle | {"entry": [entry]}).json()["issue"]

    assert [one["severity"] for one in right] == ["information"]
    assert "Bundle.entry[0].resource.status" in [one["expression"][0] for one in wrong]
    assert system.send("POST", "Nothing/$validate", bundle).status_code == 404


def test_the_standards_own_definition_is_what_is_validated_against(hospital: Door) -> None:
    system = hospital.system("beicheng")
    base = "http://hl7.org/fhir/StructureDefinition/Observation"

    def severities(query: str, resource: dict[str, Any]) -> list[str]:
        answer = system.send("POST", f"Observation/$validate{query}", resource)
        return [one["severity"] for one in answer.json()["issue"]]

    assert severities(f"?profile={base}", WEIGHT) == ["information"]
    assert severities(f"?profile={base}|4.0.1", WEIGHT) == ["information"]
    assert severities("", WEIGHT | {"meta": {"profile": [base]}}) == ["information"]
    for other in (f"{base}|5.0.0", "http://hl7.org/fhir/StructureDefinition/vitalsigns"):
        assert severities(f"?profile={other}", WEIGHT) == ["error"]
        assert severities("", WEIGHT | {"meta": {"profile": [other]}}) == ["warning"]


def test_what_a_version_bore_is_told_of_that_version(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT | {"meta": {"tag": [TAG]}})
    named = f"Observation/{made['id']}"
    added = parameters(meta={"valueMeta": {"tag": [{"code": "later"}]}})
    assert system.send("POST", f"{named}/$meta-add", added).status_code == 200

    def tags(path: str) -> list[str]:
        (told,) = system.read(path)["parameter"]
        return [one["code"] for one in told["valueMeta"]["tag"]]

    assert tags(f"{named}/_history/1/$meta") == ["teaching"]
    assert tags(f"{named}/_history/2/$meta") == tags(f"{named}/$meta") == ["teaching", "later"]
    system.refused(f"{named}/_history/3/$meta", 404, "not-found")
    withheld = hospital.system("nanhu").made(WEIGHT | {"subject": {"reference": "Patient/2"}})
    hospital.system("nanhu").send("DELETE", f"Observation/{withheld['id']}")
    system.refused(f"Observation/{withheld['id']}/_history/2/$meta", 410, "deleted")


def test_all_of_a_patient_is_searched_at_once(door: Door) -> None:
    """[base]/Patient/[id]/*?… (R4 3.1.1.2)."""
    door.city.send("beicheng", patient="W1")
    door.city.send("beicheng", patient="W9", study="1.2.9", instance="1.4.9", PatientName="Li^Na")
    system, patient = door.system("beicheng"), {"reference": "Patient/1"}
    weight = f"Observation/{system.made(WEIGHT)['id']}"
    other = WEIGHT | {"subject": {"reference": "Patient/2"}, "performer": [patient]}
    performed = f"Observation/{system.made(other)['id']}"
    system.made(WEIGHT | {"subject": {"reference": "Patient/2"}})
    system.made({"resourceType": "Location", "name": "CT"})

    everything = {"Patient/1", "ImagingStudy/1.2.1", weight, performed}
    assert {*everything} <= set(system.ids("Patient/1/*"))
    assert {one for one in system.ids("Patient/1/*") if "Task" not in one} == everything
    assert set(system.ids("Patient/1/*?_type=Observation")) == {weight, performed}
    assert system.ids(f"Patient/1/*?_id={weight.partition('/')[2]}") == [weight]
    paged = [
        f"{one['resource']['resourceType']}/{one['resource']['id']}"
        for page in system.pages("Patient/1/*?_count=1")
        for one in page.get("entry", [])
    ]
    assert sorted(paged) == sorted(system.ids("Patient/1/*"))
    form = system.post("Patient/1/*/_search", "_type=Patient", "application/x-www-form-urlencoded")
    assert [one["resource"]["id"] for one in form.json()["entry"]] == ["1"]
    assert system.ids("Patient/987/*") == []
    system.refused("Patient/1/*?_type=Location", 400, "invalid")
    entry = [{"request": {"method": "GET", "url": "Patient/1/*?_type=Patient"}}]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entry}
    (told,) = system.send("POST", "", bundle).json()["entry"]
    assert told["resource"]["entry"][0]["resource"]["id"] == "1"


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(("Patient", one) for one in ("identifier", "organization", "phone", "-telecom")),
        *(("ImagingStudy", one) for one in ("identifier", "-patient", "subject,-started")),
    ],
)
def test_patients_and_studies_are_put_in_order_by_what_a_record_has_one_of(
    door: Door, kind: str, key: str
) -> None:
    for number in ("3", "1", "2"):
        door.city.send(
            "beicheng", patient=f"W{number}", study=f"1.2.{number}", instance=f"1.4.{number}"
        )
    system = door.system("beicheng")

    told = system.ids(f"{kind}?_sort={key}")
    paged = [
        f"{kind}/{one['resource']['id']}"
        for page in system.pages(f"{kind}?_sort={key}&_count=1")
        for one in page["entry"]
    ]

    assert len(told) == 3
    assert paged == told
    if key == "identifier":
        order = ["2", "3", "1"] if kind == "Patient" else ["1.2.1", "1.2.2", "1.2.3"]
        assert told == [f"{kind}/{one}" for one in order]
    if kind == "ImagingStudy" and key == "-patient":
        assert told == ["ImagingStudy/1.2.2", "ImagingStudy/1.2.1", "ImagingStudy/1.2.3"]


@pytest.mark.parametrize("kind", ["Patient", "ImagingStudy", "Observation", "Location"])
def test_an_order_that_is_not_there_is_refused_with_those_that_are(
    hospital: Door, kind: str
) -> None:
    asker = hospital.clinician("nanhu")
    told = asker.refused(f"{kind}?_sort=near,colour", 400, "invalid")
    known = told.partition("in order of ")[2].split(", ")
    assert {"_id", "_lastUpdated", "identifier"} <= set(known)
    for one in known:
        asker.bundle(f"{kind}?_sort=-{one}", Prefer="handling=strict")


def test_what_is_contained_is_no_match_of_its_own(hospital: Door) -> None:
    asker = hospital.clinician("nanhu")
    asker.bundle("Observation?_contained=false", Prefer="handling=strict")
    for asked in ("_contained=true", "_contained=both", "_containedType=container"):
        told = asker.bundle(f"Observation?{asked}")["entry"][-1]
        assert told["search"]["mode"] == "outcome"
        assert told["resource"]["issue"][0]["severity"] == "warning"
        asker.refused(f"Observation?{asked}", 400, "invalid", Prefer="handling=strict")


def test_a_submission_set_is_validated_before_it_is_provided(hospital: Door) -> None:
    """By the rules that are the server's own of a profile, whether it is stated or asked for."""
    system = hospital.system("beicheng")
    mhd = "https://profiles.ihe.net/ITI/MHD/StructureDefinition"
    profile = f"{mhd}/IHE.MHD.Comprehensive.SubmissionSet"
    submission_set: dict[str, Any] = {"resourceType": "List", "status": "current"}
    submission_set |= {"mode": "working"}
    path = f"List/$validate?profile={profile}"

    assert issues(system, path, submission_set) == [
        ("error", "business-rule", "List.extension"),
        ("error", "business-rule", "List.extension"),
    ]
    submission_set["extension"] = [
        {"url": f"{mhd}/ihe-sourceId", "valueIdentifier": {"value": "urn:oid:2.25.101.1"}},
        {"url": f"{mhd}/ihe-designationType", "valueCodeableConcept": {"text": "出院小结"}},
    ]
    good = [("information", "informational", "")]
    assert issues(system, path, submission_set) == good
    stated = submission_set | {"meta": {"profile": [profile]}}
    assert issues(system, "List/$validate", stated) == good
    refused = system.send("POST", f"Observation/$validate?profile={profile}", WEIGHT)
    assert outcome(refused, 400, "not-supported")
