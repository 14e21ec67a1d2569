"""What leads to a patient by a parameter of the patient's compartment is one of the patient's
resources: chains and `_has` are answered by that."""

from __future__ import annotations

from typing import Any

import pytest
from fhir_door import Door

from exchange_fhir import asking, capability, indexing
from exchange_fhir.definitions import search_parameters
from exchange_storage.resource_index import Reference

BASE = "https://exchange.example/fhir"
IN_COMPARTMENT = [
    (one.kind, one.code, path)
    for kind in search_parameters.kinds()
    for one in search_parameters.of(kind).values()
    if search_parameters.is_in_compartment(one)
    for path in one.paths
]


@pytest.mark.parametrize(
    ("kind", "code", "path"),
    IN_COMPARTMENT,
    ids=[f"{kind}-{code}-{'.'.join(path.properties)}" for kind, code, path in IN_COMPARTMENT],
)
@pytest.mark.parametrize("written", ["Patient/7", "Patient/7/_history/2", f"{BASE}/Patient/7"])
def test_whoever_is_led_to_by_a_parameter_of_the_compartment_is_a_patient_of_the_resource(
    kind: str, code: str, path: search_parameters.Path, written: str
) -> None:
    element: Any = {"reference": written}
    for name in reversed(path.properties):
        element = {name: [element]}
    resource = {"resourceType": kind, "id": "a", **element}
    parameter = search_parameters.of(kind)[code]
    led_by = {f"{kind}.{each}" for each, _ in parameter.kept_as}
    values = indexing.values(resource, indexing._UTC, BASE)
    led = {
        one.target
        for one in values
        if isinstance(one, Reference) and one.parameter in led_by and one.target_kind == "Patient"
    }
    assert led == set(indexing.patients(resource, BASE)) == {"7"}


REFERRING = [
    (native, one.kind, one.code, inner.code)
    for native in ("Patient", "ImagingStudy")
    for kind in capability.served()
    for one in search_parameters.of(kind).values()
    if one.type == "reference" and native in one.target and kind not in {*asking.ALONE, "Patient"}
    for inner in [
        each
        for each in search_parameters.of(kind).values()
        if each.type == "token" and not each.code.startswith("_")
    ][:1]
]


@pytest.mark.parametrize("native", ["Patient", "ImagingStudy"])
def test_what_refers_to_a_patient_or_study_by_whatever_parameter_can_be_asked_for_twice(
    hospital: Door, native: str
) -> None:
    doctor = hospital.clinician("beicheng")
    name = "patient.name" if native == "ImagingStudy" else "name"
    forms = [(kind, code, inner) for of, kind, code, inner in REFERRING if of == native]
    assert len(forms) > 5
    for kind, code, inner in forms:
        has = f"_has:{kind}:{code}:{inner}=x"
        assert doctor.ids(f"{native}?{has}&{has}") == []
        assert doctor.ids(f"{kind}?{code}:{native}.{name}=nobody&{inner}=x") == []


def test_studies_to_which_a_patients_task_leads_are_found_by_the_task(door: Door) -> None:
    door.city.send("beicheng", patient="W1", study="1.2.1", instance="1.4.1")
    door.city.send("beicheng", patient="L1", study="1.2.2", instance="1.4.2")
    system = door.system("beicheng")
    task = {
        "resourceType": "Task",
        "status": "completed",
        "intent": "order",
        "for": {"reference": "Patient/1"},
        "focus": {"reference": "ImagingStudy/1.2.1"},
    }
    made = system.made(task)
    assert system.ids("ImagingStudy?_has:Task:focus:status=completed") == ["ImagingStudy/1.2.1"]
    two = "_has:Task:focus:status=completed&_has:Task:focus:intent=order"
    assert system.ids(f"ImagingStudy?{two}") == ["ImagingStudy/1.2.1"]
    assert system.ids(f"ImagingStudy?modality=CT&{two}") == ["ImagingStudy/1.2.1"]
    assert system.ids("ImagingStudy?_has:Task:focus:patient=Patient/1") == ["ImagingStudy/1.2.1"]
    assert system.ids("Task?focus:ImagingStudy.patient.name=wang") == [f"Task/{made['id']}"]
    assert system.ids("Task?focus:ImagingStudy.modality=CT") == [f"Task/{made['id']}"]
