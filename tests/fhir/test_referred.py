"""What refers to patients and studies, by whatever parameter, is asked for by two conditions."""

from __future__ import annotations

import pytest
from fhir_door import Door

from exchange_fhir import asking, capability
from exchange_fhir.definitions import search_parameters

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
